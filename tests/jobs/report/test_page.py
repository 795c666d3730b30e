import inspect
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import runs
from jobs.report.page import REPORT, make_report, write_report
from jobs.report.pictures import PATIENCE_S
from jobs.report.views import format_pixels
from schemas.exceptions import SpecError, StorageError
from schemas.ledger import SUCCESS, SourceFile
from schemas.models import ModelInfo
from tests.jobs.report.made_runs import MODELS, at, box, failure, labelled, write_photo, write_run
from tests.jobs.results.test_datasets import begun, publish
from tests.workers.tables.made_results import CLASSIFIER, DETECTOR
from workers.storage.store import Store

VOID = {"meta", "img", "input", "br"}
EVIL = "<script>alert('\"&')</script>"
TURNED = "abc\u202egnp.exe\x1b[31m"
"""A name that reads otherwise than it is written, where its marks act."""


class Page(HTMLParser):
    """What a browser would see: tags in balance, attributes, headings, the text of each, all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.headings: list[tuple[int, str]] = []
        self.text: list[str] = []
        self.feed(html.replace("<wbr>", ""))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch(r"h\d", tag):
            self.headings.append((int(tag[1]), ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text.append(data)
        if self.open and re.fullmatch(r"h\d", self.open[-1]):
            level, text = self.headings[-1]
            self.headings[-1] = level, text + data

    def values(self, name: str) -> list[str | None]:
        """The values of an attribute, whatever tag has it."""
        return [value for _, attribute, value in self.attributes if attribute == name]

    @property
    def sections(self) -> list[str]:
        """The headings of the second level."""
        return [text for level, text in self.headings if level == 2]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def page_of(output: Path | str, patience_s: float = 0) -> Page:
    """The page that is written, once it was seen to be well-formed; without time it reads no photos."""
    report = write_report(str(output), patience_s=patience_s)
    page = Page(Store(str(output)).read(REPORT).decode())
    assert (page.open, report.size) == ([], len(Store(str(output)).read(REPORT)))
    levels = [level for level, _ in page.headings]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert levels.count(1) == 1
    return page


def put_full_run(folder: Path) -> str:
    """A run with all kinds of rows, and with photos."""
    photos = [write_photo(folder / f"{n}.jpg", 640, 480) for n in range(14)]
    rows = [
        labelled(
            n, [("cat", 0.9 - n / 20), ("fox", 0.05)], {"dog": 2, "cup": 1}, photo, processed_at=at(10 * n)
        )
        for n, photo in enumerate(photos)
    ]
    corners = [(10, 20, 300, 400), (320, 40, 600, 200), (100, 100, 120, 130)]
    boxes = [
        box(n, k, name, corners[k], width=640, height=480, class_id=k // 2, uri=str(photo))
        for n, photo in enumerate(photos)
        for k, name in enumerate(("dog", "dog", "cup"))
    ]
    tags = [
        {"manifest_index": n, "uri": str(photo), "tagger": "scene", "label": "indoors"}
        for n, photo in enumerate(photos)
    ]
    errors = [
        failure(14, "fetch", "TIMEOUT", "no answer in 30 s"),
        failure(15, "decode", "TRUNCATED", "half of it"),
    ]
    write_run(folder / "run", {"labels": rows, "boxes": boxes, "tags": tags, "errors": errors})
    return str(folder / "run")


def test_the_page_says_what_was_found_and_by_which_models(tmp_path: Path) -> None:
    page = page_of(put_full_run(tmp_path))
    assert page.sections == [
        *("What was found", "Images", "What failed", "The run", "Models and settings"),
    ]
    for text in (
        "16 images 14 labelled 2 failed 42 objects 14 tags",
        "cat 14 · 100%",
        "dog 28 in 14 images",
        "scene",
        "decode TRUNCATED 1",
        "fetch TIMEOUT may succeed if retried 1",
        "s3://bucket/15.jpg: half of it",
        f"raylabel retry {tmp_path}/run --code TIMEOUT --code TRUNCATED",
        f"fingerprint {CLASSIFIER.fingerprint}",
        "licence none",
        "score_threshold 0.4",
        "decode.max_pixels 100000000",
        "first image done 2025-06-15",
    ):
        assert text in page.words, text
    assert "Not finished" not in page.words


def test_photos_are_shown_with_words_for_who_does_not_see_them_and_boxes_that_can_be_hidden(
    tmp_path: Path,
) -> None:
    page = page_of(put_full_run(tmp_path), 30)
    sources = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    alts = [value for tag, name, value in page.attributes if (tag, name) == ("img", "alt")]
    assert len(sources) == len(alts) > 20
    assert all(source and source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "0.jpg: cat 0.90; 2 dog, 1 cup" in alts
    assert "boxes" in page.values("class")
    assert ("input", "id", "boxes") in page.attributes
    assert not any(text.startswith("0 of") or "not shown" in text for text in page.text)


def test_the_page_needs_nothing_from_outside(tmp_path: Path) -> None:
    output = put_full_run(tmp_path)
    page = page_of(output, 30)
    html = Path(output, REPORT).read_text(encoding="utf-8")
    assert not {"script", "link", "iframe", "object", "base", "form", "image", "use"} & set(page.tags)
    assert not {"srcset", "action", "xlink:href"} & {name for _, name, _ in page.attributes}
    assert all(value and value.startswith("data:image/jpeg;base64,") for value in page.values("src"))
    assert all(value and value.startswith("#") for value in page.values("href"))
    assert not re.search(r"@import|url\(", html)
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in html
    assert "prefers-color-scheme: dark" in html


def test_nothing_that_a_file_says_injects_anything(tmp_path: Path) -> None:
    evil_info = ModelInfo(
        name=EVIL,
        task="classifier",
        source="factory",
        input_size=EVIL,
        categories=1,
        licence=EVIL,
        quality=EVIL,
    )
    changes: dict[str, Any] = {
        "info": evil_info,
        "weights": EVIL,
        "preprocessing": EVIL,
        "code": EVIL,
        "notes": (EVIL,),
    }
    settings = {"options": {EVIL: EVIL}, "class_thresholds": {EVIL: 0.5}, EVIL: EVIL}
    evil = CLASSIFIER.model_copy(update={**changes, "settings": settings, "parts": {EVIL: EVIL}})
    folder = tmp_path / "<blink>\"'&"
    folder.mkdir()
    photo = write_photo(folder / f"{EVIL.replace('/', '')}.jpg", 640, 480)
    row = labelled(0, [(EVIL, 0.9), (TURNED, 0.1)], {EVIL: 1, TURNED: 1}, photo)
    bare: dict[str, Any] = {"uri": EVIL, "format": EVIL, "processed_at": at(9)}
    rows = [row, *(labelled(n, [(TURNED, 0.9)], {EVIL: 2}, **bare) for n in range(1, 20))]
    boxes = [box(0, k, name, (10, 20, 30, 40), uri=str(photo)) for k, name in enumerate((EVIL, TURNED))]
    boxes += [box(1, k, EVIL, (10, 20, 30, 40), uri=EVIL) for k in range(2)]
    tags = [{"manifest_index": 0, "uri": str(photo), "tagger": EVIL, "label": EVIL}]
    errors = [failure(20, EVIL, EVIL, EVIL, uri=EVIL), failure(21, TURNED, TURNED, TURNED, uri=TURNED)]
    manifest = [SourceFile(uri=EVIL, size=3, version=EVIL)]
    tables = {"labels": rows, "boxes": boxes, "tags": tags, "errors": errors}
    models = {**MODELS, "classifier": evil, f"taggers.{EVIL}": MODELS["taggers.scene"]}
    output = folder / "run"
    write_run(output, tables, models, command=EVIL, manifest=manifest, raylabel=EVIL)
    report = write_report(str(output), {EVIL: EVIL})
    html = (output / REPORT).read_text(encoding="utf-8")
    page = Page(html)
    assert (page.open, report.pictures > 0, report.not_shown != {}) == ([], True, True)
    assert "script" not in page.tags
    assert "<blink>" not in html
    assert "<script" not in html
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert set(page.values("style")) <= {
        f"background:{colour}" for colour in re.findall(r"#[0-9a-f]{6}", html)
    }
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", html)
    assert page.words.count(EVIL) > 40


@pytest.mark.parametrize("name", ["classifier", "detector"])
def test_a_run_of_one_model_has_a_page_of_what_it_found(tmp_path: Path, name: str) -> None:
    numbers = range(20)
    rows = {
        "classifier": [labelled(n, [("cat", 0.5)]) for n in numbers],
        "detector": [labelled(n, (), {"dog": 1}) for n in numbers],
    }
    models = {"classifier": CLASSIFIER.model_copy(update={"tables": ()}), "detector": DETECTOR}
    boxes = [box(n, 0, "dog", (0, 0, 50, 50)) for n in numbers] if name == "detector" else []
    write_run(tmp_path, {"labels": rows[name], "boxes": boxes}, {name: models[name]})
    page = page_of(tmp_path)
    assert page.sections == ["What was found", "Images", "The run", "Models and settings"]
    titles = [text for level, text in page.headings if level == 3]
    found = {
        "classifier": ["Labels", "Scores of labels", "Any images", "Frequent labels", "Least certain labels"],
        "detector": [
            *("Classes of objects", "Scores of boxes", "Objects per image", "Sizes of boxes", "Any images"),
            *("Frequent classes", "Most objects", "Largest objects", "Smallest objects"),
        ],
    }
    assert titles == [*found[name], "Times", name, "Further settings that decide rows"]


def test_a_run_of_which_nothing_is_published_says_so(tmp_path: Path) -> None:
    begun(str(tmp_path))
    page = page_of(tmp_path)
    assert page.sections == ["The run", "Models and settings"]
    assert f"Not finished. {tmp_path} is not complete: 0 of 3 shards are published" in page.words
    assert "0 images 0 labelled 0 failed" in page.words


def test_a_run_that_only_has_to_be_verified_says_so(tmp_path: Path) -> None:
    publish(begun(str(tmp_path)), 0, 1, 2)
    words = page_of(tmp_path).words
    assert "is not complete: all shards are published, and what is left is to verify them." in words
    assert "The numbers are of what is published, as of 20" in words


def test_photos_that_may_be_read_another_time_are_worth_another_try(tmp_path: Path) -> None:
    output = put_full_run(tmp_path)
    write_report(output, patience_s=1e-9)
    page = Page(Path(output, REPORT).read_text(encoding="utf-8"))
    assert "not read in time" in page.words
    assert f"raylabel report {output} tries again." in page.words


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (256, "256 pixels"),
        (10_000, "0.01 megapixels"),
        (307_200, "0.31 megapixels"),
        (9_940_000, "9.9 megapixels"),
        (9_960_000, "10 megapixels"),
        (1_234_567_890, "1,235 megapixels"),
    ],
)
def test_megapixels_have_two_digits_at_least(pixels: int, words: str) -> None:
    assert format_pixels(pixels) == words


def test_a_run_that_is_under_way_shows_what_is_published(output: str) -> None:
    run = begun(output)
    publish(run, 0)
    page = page_of(output)
    assert page.sections[0] == "What was found"
    assert "is not complete: 1 of 3 shards are published" in page.words
    assert "18 labelled" in page.words
    assert "Once the cause is removed" not in page.words


def test_a_run_of_which_every_image_failed_shows_what_failed(tmp_path: Path) -> None:
    errors = [failure(n, "fetch", "NOT_FOUND", "no such object") for n in range(30)]
    write_run(tmp_path, {"errors": errors})
    page = page_of(tmp_path)
    assert page.sections == ["What failed", "The run", "Models and settings"]
    assert "The first 20 of 30 failed images" in [text for _, text in page.headings]
    assert page.words.count("s3://bucket/0.jpg") == 2


def test_photos_that_are_gone_leave_a_page_that_says_so(tmp_path: Path) -> None:
    output = put_full_run(tmp_path)
    for photo in tmp_path.glob("*.jpg"):
        photo.unlink()
    report = write_report(output)
    page = Page(Path(output, REPORT).read_text(encoding="utf-8"))
    assert "img" not in page.tags
    number = sum(report.not_shown.values())
    reason = "it is not there any more"
    assert report.not_shown == {reason: number}
    assert f"{number} of {number} pictures not shown ({number}: {reason})" in page.words
    assert "tries again" not in page.words
    assert page.words.count(reason) == page.tags.count("figure") + 1


def test_a_record_that_does_not_say_how_photos_are_read_costs_the_pictures_alone(tmp_path: Path) -> None:
    output = put_full_run(tmp_path)
    record = json.loads(Path(output, "run.json").read_text())
    record["spec"]["fetch"]["from_a_later_version"] = 1
    Path(output, "run.json").write_text(json.dumps(record))
    report = write_report(output)
    assert report.pictures == 0
    assert "its spec is not one of this version" in next(iter(report.not_shown))


def test_the_report_is_written_into_the_run_and_is_the_same_every_time(tmp_path: Path) -> None:
    output = put_full_run(tmp_path)
    report = write_report(output, {"predicted": "well"})
    first = Path(report.where).read_bytes()
    write_report(output, {"predicted": "well"})
    assert report.where == f"{output}/{REPORT}"
    assert Path(report.where).read_bytes() == first
    assert b"predicted" in first


def test_the_report_is_written_elsewhere_and_nothing_into_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = put_full_run(tmp_path)
    before = sorted(Path(output).rglob("*"))
    make_report(output, tmp_path / "a.html", 30, as_json=False)
    make_report(output, tmp_path / "b.html", 30, as_json=True)
    make_report(output, tmp_path / "c.html", 0, as_json=True)
    assert sorted(Path(output).rglob("*")) == before
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert b"<img" not in (tmp_path / "c.html").read_bytes()
    line, *printed = capsys.readouterr().out.splitlines()
    with_pictures, without = map(json.loads, printed)
    number = with_pictures["pictures"]
    size = (tmp_path / "b.html").stat().st_size
    assert re.fullmatch(rf"report: {tmp_path}/a.html \([\d.]+ kB, {number} pictures\)", line)
    assert with_pictures == {
        "report": f"{tmp_path}/b.html",
        "bytes": size,
        "pictures": number,
        "not_shown": {},
    }
    assert without["pictures"] == 0
    assert without["not_shown"] == {}


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    output = put_full_run(tmp_path)
    with pytest.raises(StorageError, match="is a folder; name a file in it"):
        write_report(output, into=tmp_path)
    with pytest.raises(StorageError, match="cannot write"):
        write_report(output, into=tmp_path / "no" / "report.html")
    with pytest.raises(SpecError, match=r"write .*page.pdf: allowed are files that end in .html or .htm"):
        write_report(output, into=tmp_path / "page.pdf")
    with pytest.raises(StorageError, match="labels is a part of the run at"):
        write_report(output, into=Path(output, "labels", "page.html"))
    with pytest.raises(StorageError, match="found no run at"):
        write_report(str(tmp_path / "no"))
    assert not Path(output, REPORT).exists()


def test_a_run_that_is_complete_says_nothing_of_shards(tmp_path: Path) -> None:
    run = begun(str(tmp_path))
    publish(run, 0, 1, 2)
    run.store.write(SUCCESS, b'{"labels": 38, "boxes": 0, "tags": 0, "embeddings": 0, "errors": 12}')
    assert "Not finished" not in page_of(tmp_path).words


def test_the_command_reads_photos_for_as_long_as_a_run_does() -> None:
    assert inspect.signature(runs.report).parameters["patience"].default == PATIENCE_S
