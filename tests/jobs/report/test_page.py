import re
from html.parser import HTMLParser
from pathlib import Path

from jobs.report.page import render_html, write_report
from jobs.results.summary import (
    ClassCount,
    ErrorCount,
    LabelCount,
    Summary,
    TagCount,
    summarize,
)
from tests.jobs.results.test_terminal import put_run, shown

VOID = {"meta"}
EMPTY = Summary("runs/none", 0, 0, None, (), (), 0, (), 0, (), (), ())
FULL = Summary(
    output="s3://bucket/runs/today",
    labelled=12_345,
    failed=3,
    objects=20_000,
    images=(shown(7, "a.jpg", (("cat", 0.75), ("fox", 0.125)), (("dog", 2),)),),
    labels=(LabelCount("cat", 200), LabelCount("fox", 50)),
    distinct_labels=2,
    classes=(ClassCount("dog", 1_500, 4_000),),
    distinct_classes=60,
    errors=(ErrorCount("fetch", "NOT_FOUND", 3, "b.jpg", "no such object"),),
    scores=(*(0,) * 15, 10, 20, 30, 40, 5),
    objects_per_image=(5, 10, *(0,) * 8, 1),
)


class Page(HTMLParser):
    """What a browser would see: tags in balance, attributes, visible text, the cells of each table row."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text.append(data)
        if self.open and self.open[-1] in {"td", "th"}:
            self.rows[-1][-1] += data


def test_the_page_says_what_was_found() -> None:
    page = Page(render_html(FULL, {"manifest": "photos.parquet", "took": "3 s"}))
    assert page.open == []
    for text in (
        "s3://bucket/runs/today",
        "12,348",
        "12,345",
        "20,000",
        "Objects: 1 of 60",
        "Images: 1 of 12,345",
    ):
        assert text in page.text
    assert page.rows == [
        ["label", "", "images"],
        ["cat", "", "200"],
        ["fox", "", "50"],
        ["class", "", "objects in images"],
        ["dog", "", "4,000 in 1,500"],
        ["stage", "code", "images", "for example"],
        ["fetch", "NOT_FOUND", "3", "b.jpg: no such object"],
        ["row", "image", "size", "label", "runners-up", "objects"],
        ["7", "a.jpg", "640x480", "cat 0.75", "fox 0.12", "dog x2"],
        [],
        ["manifest", "photos.parquet"],
        ["took", "3 s"],
    ]


def test_bars_are_as_long_as_their_counts() -> None:
    page = Page(render_html(FULL, {}))
    styles = [value for name, value in page.attributes if name == "style"]
    label_bars, class_bars, scores, objects = styles[:2], styles[2:3], styles[3:23], styles[23:]
    assert label_bars == ["width:100.0%", "width:25.0%"]
    assert class_bars == ["width:100.0%"]
    assert scores == ["height:0.0%"] * 15 + [f"height:{n}%" for n in (25.0, 50.0, 75.0, 100.0, 12.5)]
    assert objects == ["height:50.0%", "height:100.0%", *["height:0.0%"] * 8, "height:10.0%"]


def test_everything_is_escaped() -> None:
    evil = "<script>alert('\"&')</script>"
    hostile = Summary(
        output=evil,
        labelled=1,
        failed=1,
        objects=1,
        images=(
            shown(0, evil, ((evil, 1.0), (evil, 0.0)), ((evil, 1),)),
            shown(1, "b.jpg", (), ()),
        ),
        tags=(TagCount(evil, evil, 1),),
        distinct_tags=1,
        labels=(LabelCount(evil, 1),),
        distinct_labels=1,
        classes=(ClassCount(evil, 1, 1),),
        distinct_classes=1,
        errors=(ErrorCount(evil, evil, 1, evil, evil),),
        scores=(1,) * 20,
        objects_per_image=(1,) * 11,
    )
    html = render_html(hostile, {evil: evil})
    page = Page(html)
    assert "script" not in page.tags
    assert "<script" not in html
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert [evil, evil] in page.rows
    assert "".join(page.text).count(evil) == 16  # each place above, the output twice


def test_the_page_needs_nothing_from_outside() -> None:
    html = render_html(FULL, {"manifest": "photos.parquet"})
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not {"src", "href", "srcset"} & {name for name, _ in page.attributes}
    assert not re.search(r"@import|url\(", html)
    assert "prefers-color-scheme: dark" in html


def test_an_empty_run_has_a_page_without_empty_boxes() -> None:
    page = Page(render_html(EMPTY, {}))
    assert page.open == []
    assert "section" not in page.tags
    assert [text for text in page.text if text.strip()] == [
        "raylabel: runs/none",
        "Results",
        "runs/none",
        *("0", "images", "0", "labelled", "0", "failed"),
    ]


def test_the_report_is_written_into_the_run_and_is_the_same_every_time(tmp_path: Path) -> None:
    output = str(tmp_path / "run")
    put_run(output)
    where = Path(write_report(summarize(output), {"took": "3 s"}))
    first = where.read_text(encoding="utf-8")
    write_report(summarize(output), {"took": "3 s"})
    assert where == tmp_path / "run" / "report.html"
    assert first == where.read_text(encoding="utf-8") == render_html(summarize(output), {"took": "3 s"})
