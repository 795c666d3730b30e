import datetime
import io
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from rich.console import Console

from jobs.results import terminal
from jobs.results.images import ImageRow, Selection, read_images
from jobs.results.sql import Database
from jobs.results.summary import (
    MAX_LABELS,
    ClassCount,
    ErrorCount,
    FailedImage,
    LabelCount,
    Summary,
    summarize,
)
from jobs.results.text import short_uris, shorten
from schemas.tables import RunTables
from tests.s3 import S3Server
from tests.workers.tables.made_results import record
from workers.ledger.runs import begin_run
from workers.storage.store import Store
from workers.tables.parquet import parquet_bytes

EMPTY = {
    "int": 0,
    "float": 0.0,
    "string": "",
    "timestamp": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
}


def put(output: str, table: str, rows: list[dict[str, Any]], shard: int = 0) -> None:
    """Writes a shard of a run; columns that a row leaves out are null, or empty where they may not be."""
    begin_run(Store(output), record())
    schema = RunTables().schema(table)
    filled = [{field.name: row.get(field.name, _empty(field)) for field in schema} for row in rows]
    fs, root = fsspec.core.url_to_fs(output)
    data = parquet_bytes(pa.Table.from_pylist(filled, schema=schema), table)
    fs.makedirs(f"{root}/{table}", exist_ok=True)
    fs.pipe_file(f"{root}/{table}/shard-{shard:05d}.parquet", data)


def _empty(field: pa.Field) -> Any:
    if field.nullable:
        return None
    if field.name == "sha256":
        return bytes(32)
    return next((value for name, value in EMPTY.items() if name in str(field.type)), False)


def image(
    index: int, uri: str, topk: list[tuple[str, float]], objects: dict[str, int] | None
) -> dict[str, Any]:
    return {
        "manifest_index": index,
        "uri": uri,
        "width": 640,
        "height": 480,
        "label": topk[0][0] if topk else None,
        "score": topk[0][1] if topk else None,
        "topk": [{"label_id": 0, "label": label, "score": score} for label, score in topk] or None,
        "object_count": None if objects is None else sum(objects.values()),
        "class_counts": None if objects is None else list(objects.items()),
    }


def shown(
    index: int,
    uri: str,
    topk: tuple[tuple[str, float], ...],
    objects: tuple[tuple[str, int], ...] | None,
    size: tuple[int, int] = (640, 480),
) -> ImageRow:
    """An image of a summary whose file nobody asks about."""
    return ImageRow(index, None, uri, "", *size, "", 0, bytes(32), 0, topk, objects, carried={})


def failure(index: int, stage: str, code: str, message: str) -> dict[str, Any]:
    return {"manifest_index": index, "uri": f"{index}.jpg", "stage": stage, "code": code, "message": message}


def put_run(output: str) -> None:
    put(output, "labels", [image(2, "c.jpg", [("cat", 1.0)], {})], shard=1)
    put(
        output,
        "labels",
        [
            image(0, "a.jpg", [("dog", 0.5), ("wolf", 0.25)], {"dog": 1, "person": 2}),
            image(1, "b.jpg", [("cat", 0.75)], {"person": 12}),
        ],
    )
    put(
        output,
        "errors",
        [
            failure(3, "decode", "TRUNCATED", "half of it"),
            failure(4, "fetch", "NOT_FOUND", "no such object"),
            failure(5, "fetch", "NOT_FOUND", "nor this one"),
        ],
    )


def rendered(summary: Summary, width: int = 80) -> str:
    text = io.StringIO()
    terminal.render(summary, Console(file=text, width=width))
    return text.getvalue()


@pytest.fixture(params=["disk", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A run directory on a disk, and one in an object store."""
    if request.param == "disk":
        return str(tmp_path / "run")
    server: S3Server = request.getfixturevalue("s3")
    return f"s3://{server.new_bucket()}/runs/today"


def test_summary_adds_up_the_tables_of_every_shard(output: str) -> None:
    put_run(output)
    assert summarize(output, limit=2) == Summary(
        output=output,
        labelled=3,
        failed=3,
        objects=15,
        images=(
            shown(0, "a.jpg", (("dog", 0.5), ("wolf", 0.25)), (("person", 2), ("dog", 1))),
            shown(1, "b.jpg", (("cat", 0.75),), (("person", 12),)),
        ),
        labels=(LabelCount("cat", 2), LabelCount("dog", 1)),
        distinct_labels=2,
        classes=(ClassCount("person", 2, 14), ClassCount("dog", 1, 1)),
        distinct_classes=2,
        errors=(
            ErrorCount("fetch", "NOT_FOUND", 2, "4.jpg", "no such object"),
            ErrorCount("decode", "TRUNCATED", 1, "3.jpg", "half of it"),
        ),
        scores=(0,) * 10 + (1,) + (0,) * 4 + (1,) + (0,) * 3 + (1,),
        objects_per_image=(1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1),
        failures=(
            FailedImage(3, "3.jpg", "TRUNCATED", "half of it"),
            FailedImage(4, "4.jpg", "NOT_FOUND", "no such object"),
        ),
        complete=False,
    )


def test_a_run_that_published_nothing_yet_has_an_empty_summary(tmp_path: Path) -> None:
    begin_run(Store(str(tmp_path)), record())
    (tmp_path / "labels").mkdir()
    empty: Any = ()
    expected = Summary(
        *(str(tmp_path), 0, 0, None, empty, empty, 0, empty, 0, empty, empty, empty), complete=False
    )
    assert summarize(str(tmp_path)) == expected
    assert rendered(expected, width=200).splitlines() == [str(tmp_path), "0 images labelled, 0 failed"]


def test_no_detector_is_not_the_same_as_no_objects(tmp_path: Path) -> None:
    put(str(tmp_path / "without"), "labels", [image(0, "a.jpg", [("cat", 0.5)], None)])
    put(str(tmp_path / "with"), "labels", [image(0, "a.jpg", [("cat", 0.5)], {})])
    without, found_none = (summarize(str(tmp_path / name)) for name in ("without", "with"))
    assert (without.objects, without.images[0].objects, without.objects_per_image) == (None, None, ())
    assert (found_none.objects, found_none.images[0].objects) == (0, ())
    assert "objects" not in rendered(without)
    assert "no objects" in rendered(found_none)


def test_a_run_without_a_classifier_shows_its_objects(tmp_path: Path) -> None:
    put(str(tmp_path), "labels", [image(0, "a.jpg", [], {"dog": 3})])
    summary = summarize(str(tmp_path))
    assert (summary.labels, summary.scores, summary.images[0].topk) == ((), (), ())
    assert "dog x3" in rendered(summary)


def test_only_the_most_frequent_labels_are_kept_and_the_rest_is_counted(tmp_path: Path) -> None:
    rows = [image(i, "a.jpg", [(f"label {i % 40:02d}", 0.5)], None) for i in range(41)]
    put(str(tmp_path), "labels", rows)
    summary = summarize(str(tmp_path), limit=0)
    expected = [
        LabelCount("label 00", 2),
        *(LabelCount(f"label {i:02d}", 1) for i in range(1, MAX_LABELS)),
    ]
    assert list(summary.labels) == expected
    assert (summary.distinct_labels, summary.images) == (40, ())
    assert "Labels, the 15 most frequent of 40" in rendered(summary)


def test_images_are_read_in_manifest_order_and_no_further_than_asked(tmp_path: Path) -> None:
    put(str(tmp_path), "labels", [image(i, f"{i}.jpg", [], None) for i in range(3)])
    put(str(tmp_path), "labels", [image(i, f"{i}.jpg", [], None) for i in range(3, 6)], shard=1)
    with Database({"": str(tmp_path)}) as database:
        assert [found.manifest_index for found in read_images(database, Selection(limit=4))] == [0, 1, 2, 3]
        assert [found.manifest_index for found in read_images(database)] == [0, 1, 2, 3, 4, 5]


def test_the_printed_tables_say_what_was_found() -> None:
    put_run("memory://shown")
    assert [line.rstrip() for line in rendered(summarize("memory://shown", limit=2)).splitlines()] == [
        "memory://shown",
        "3 images labelled, 15 objects, 3 failed",
        "",
        "Images, the first 2 of 3",
        "row   image      size   found",
        "───────────────────────────────────────────",
        "  0   a.jpg   640x480   dog 0.50  wolf 0.25",
        "                        person x2, dog x1",
        "  1   b.jpg   640x480   cat 0.75",
        "                        person x12",
        "",
        "Labels",
        "label   images   share",
        "──────────────────────",
        "cat          2   66.7%",
        "dog          1   33.3%",
        "",
        "Objects",
        "class    objects   images",
        "─────────────────────────",
        "person        14        2",
        "dog            1        1",
        "",
        "Failed",
        "stage    code        images   for example",
        "────────────────────────────────────────────",
        "fetch    NOT_FOUND        2   no such object",
        "decode   TRUNCATED        1   half of it",
        "",
        "Images that failed, the first 2 of 3",
        "row   image   code        message",
        "────────────────────────────────────────",
        "  3   3.jpg   TRUNCATED   half of it",
        "  4   4.jpg   NOT_FOUND   no such object",
    ]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_long_names_are_shortened_instead_of_wrapped(width: int, tmp_path: Path) -> None:
    names = [f"s3://bucket/{'very/' * 20}long/{i}/{'photo' * 30}{i}.jpg" for i in range(3)]
    topk = [("a label that goes on and on " * 6, 0.5), ("another one that goes on " * 6, 0.25)]
    objects = {f"a class with a long name {i}": 1 for i in range(9)}
    put(str(tmp_path), "labels", [image(i, name, topk, objects) for i, name in enumerate(names)])
    put(str(tmp_path), "errors", [failure(3, "fetch", "TIMEOUT", "x" * 400)])
    lines = rendered(summarize(str(tmp_path)), width).splitlines()
    assert max(map(len, lines)) <= width
    assert [line[:3] for line in lines[5:11]] == ["───", "  0", "   ", "  1", "   ", "  2"]  # two lines each
    assert all(f"{i}.jpg" in lines[6 + 2 * i] for i in range(3))
    assert all("0.50" in lines[6 + 2 * i] for i in range(3))
    assert all("more" in lines[7 + 2 * i] for i in range(3))


def test_markup_and_control_characters_of_a_uri_are_printed_as_text(tmp_path: Path) -> None:
    put(str(tmp_path), "labels", [image(0, "[red]a\x1b[2J\n.jpg", [("[b]cat[/b]", 0.5)], {"[i]dog": 1})])
    text = rendered(summarize(str(tmp_path)))
    assert "\x1b" not in text
    for name in ("[red]a [2J .jpg", "[b]cat[/b] 0.50", "[i]dog x1"):
        assert name in text


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (40, ["2024/in/a.jpg", "2025/in/b.jpg"]),
        (12, ["…/in/a.jpg", "…/in/b.jpg"]),
        (9, ["a.jpg", "b.jpg"]),
        (4, ["a.…g", "b.…g"]),
    ],
)
def test_uris_lose_their_common_folder_and_keep_their_ends_all_cut_at_the_same_depth(
    width: int, expected: list[str]
) -> None:
    assert short_uris(["s3://bucket/2024/in/a.jpg", "s3://bucket/2025/in/b.jpg"], width) == expected


def test_a_tagger_of_any_name_and_a_tag_of_any_length_fit(tmp_path: Path) -> None:
    tags = [
        {"manifest_index": n, "tagger": tagger, "label": label}
        for n, (tagger, label) in enumerate((("scene", "beach"), ("s" * 300, "b" * 300)))
    ]
    put(str(tmp_path), "tags", tags)
    lines = rendered(summarize(str(tmp_path)), 40).splitlines()
    assert max(map(len, lines)) <= 40
    assert any("scene" in line and "beach" in line for line in lines)
    assert shorten("beach", 0) == shorten("beach", -5) == "…"


def test_the_headline_counts_what_the_run_has(tmp_path: Path) -> None:
    put(str(tmp_path), "labels", [image(n, "a.jpg", [], {"dog": 2}) for n in range(2)])
    put(str(tmp_path), "tags", [{"manifest_index": n, "tagger": "scene", "label": "beach"} for n in range(2)])
    summary = summarize(str(tmp_path))
    assert summary.tag_rows == 2
    assert rendered(summary, 200).splitlines()[1] == "2 images labelled, 4 objects, 2 tags, 0 failed"


def test_runners_up_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    topk = [("a label as long as its column", 0.5), ("second", 0.25), ("third", 0.125)]
    put(str(tmp_path), "labels", [image(0, f"{'photo' * 9}.jpg", topk, None)])
    for width in (50, 60, 80, 90):
        (line,) = (line for line in rendered(summarize(str(tmp_path)), width).splitlines() if "0.50" in line)
        assert line.rstrip().endswith("0.50  +2 more")


def test_wide_characters_count_as_two_cells() -> None:
    assert shorten("写真写真写真", 7) == "写…写真"[0:2] + "真"


@pytest.mark.parametrize(
    ("width", "expected"),
    [(30, "person x2, dog x1, tie x1"), (20, "person x2, +2 more"), (9, "+3 more"), (6, "")],
)
def test_lists_keep_whole_items_and_count_the_rest(width: int, expected: str) -> None:
    assert terminal.fitting(["person x2", "dog x1", "tie x1"], width) == expected


def test_a_list_that_cannot_fit_starts_with_a_shortened_item() -> None:
    assert terminal.fitting(["traffic light x12", "dog x1"], 20) == "traff…t x12, +1 more"


def test_an_image_within_a_file_is_shown_as_if_the_file_were_a_folder() -> None:
    uris = ["tar://set/1.jpg::s3://bucket/00000.tar", "parquet://image/7::/data/t.parquet", "/a::b.jpg"]
    expected = ["s3://bucket/00000.tar/set/1.jpg", "/data/t.parquet/image/7", "/a::b.jpg"]
    assert short_uris(uris, 80) == expected
