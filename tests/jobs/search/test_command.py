import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.search.build import index_run
from jobs.search.command import SearchOptions, search_run
from schemas.exceptions import QueryError, SpecError, StorageError
from tests.jobs.exports import made_run
from tests.jobs.exports.made_run import PHOTOS, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    output = write_run(tmp_path_factory.mktemp("run"))
    index_run(output)
    return output


def test_what_is_in_an_index_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = write_run(tmp_path, complete=False)
    capfd.readouterr()  # what publishing logs, where another test has switched that on
    index_run(output)
    said = capfd.readouterr()
    assert said.out.startswith("8 images and 1 failed in ")
    assert said.out.endswith(f" s: {output}/search.duckdb\n")
    note = f"raylabel: note: {output} is not complete: all shards are published, and what is left is to "
    note += "verify them\n"
    assert said.err == note
    search_run(output, "person", SearchOptions(limit=1))
    assert capfd.readouterr().err == note


def test_a_person_sees_what_each_image_has_of_the_words(
    run: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    search_run(run, 'person indoors OR "v1.5 cup"', SearchOptions())
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["row", "person", "indoors", "v1.5", "cup", "uri"]
    assert lines[2][:4] == ["2", "1", "·", "0.75"]
    assert lines[3][:4] == ["0", "1", "·", "0.62"]
    assert lines[-1] == ["2", "images", "of", "8"]


def test_without_words_the_best_label_is_shown_and_failed_images_have_their_code(
    run: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    search_run(run, "error:* OR width>=120", SearchOptions(sort="row", facets=True))
    out = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == "row label object_count error width uri"
    assert lines[2] == f"0 palace 0.75 3 200 {PHOTOS[0]}"
    assert lines[4] == f"5 TRUNCATED {PHOTOS[5]}"
    assert "label: cat 2, palace 2" in out
    assert lines[-1] == "3 images of 9"


@pytest.mark.parametrize(
    ("query", "sort", "first", "row"),
    [
        ("", "-at", ["row", "label", "object_count", "at", "uri"], ["8", "palace", "0.75", "2026-01-09"]),
        (
            "person at>=2026-01-04",
            None,
            ["row", "person", "at", "uri"],
            ["6", "1", "·", "0.81", "2026-01-07"],
        ),
        ("", "person", ["row", "label", "object_count", "person", "uri"], ["2", "palace", "0.75", "1", "1"]),
        ("person", "person.score", ["row", "person", "uri"], ["6", "1", "·", "0.81"]),
        ("person", "person.area", ["row", "person", "person.area", "uri"], ["2", "1", "·", "0.75", "24%"]),
        ("person", "indoors", ["row", "person", "indoors", "uri"], ["2", "1", "·", "0.75", "0.90"]),
        (
            "score>0.5 row<2 uri~photo",
            None,
            ["row", "label", "object_count", "uri"],
            ["0", "palace", "0.75", "3"],
        ),
        ("person score>0.5", None, ["row", "person", "score", "uri"], ["6", "1", "·", "0.81", "0.75"]),
        (
            "person -split=x width>1 height>1 format=JPEG",
            None,
            ["row", "person", "split", "width", "height", "uri"],
            ["2", "1", "·", "0.75", "train,", "'2'", "100", "50"],
        ),
    ],
)
def test_what_is_asked_about_and_sorted_by_is_shown(
    run: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    query: str,
    sort: str | None,
    first: list[str],
    row: list[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    search_run(run, query, SearchOptions(sort=sort))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == first
    assert lines[2].split()[: len(row)] == row
    assert max(map(len, lines)) <= 80


def test_what_does_not_fit_beside_a_uri_is_left_out(
    run: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    search_run(run, "person split!=x width>1", SearchOptions())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["row", "person", "uri"]
    assert max(map(len, lines)) <= 40


@pytest.mark.parametrize("options", [SearchOptions(), SearchOptions(as_json=True), SearchOptions(uris=True)])
def test_where_nothing_is_found_it_is_said_what_may_be_meant(
    run: str, capfd: pytest.CaptureFixture[str], options: SearchOptions
) -> None:
    search_run(run, "person objects=mine9", options)
    assert capfd.readouterr().err == (
        'raylabel: note: no image has objects \'mine9\'; did you mean "mine 6", "mine 7" or "mine 8"?\n'
    )
    search_run(run, 'person objects="mine 3"', options)
    assert capfd.readouterr().err == ""


def test_more_than_is_shown_is_said(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    search_run(run, "", SearchOptions(limit=3))
    assert capsys.readouterr().out.splitlines()[-1] == (
        "8 images of 8; the first 3 are shown, --limit shows more"
    )


def test_a_program_gets_an_object(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    search_run(run, "person", SearchOptions(as_json=True, facets=True, limit=1))
    found = json.loads(capsys.readouterr().out)
    assert (found["query"], found["images"], found["failed"], found["total"]) == ("person", 8, 1, 3)
    (hit,) = found["hits"]
    assert (hit["manifest_index"], hit["error"], hit["label"]) == (6, None, "palace")
    assert hit["matches"] == {"person": {"score": 0.8125, "count": 1, "area": 0.22222222}}
    assert found["facets"]["class"][0] == {"value": "person", "images": 3, "query": "class:person"}


def test_uris_are_all_and_alone(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    search_run(run, "person OR indoors", SearchOptions(uris=True, sort="row"))
    uris = capsys.readouterr().out.splitlines()
    assert [uri.rpartition("photos/")[2] for uri in uris] == [
        *(PHOTOS[row] for row in (1, 2, 3, 4, 6)),
        *("shard.tar", PHOTOS[8]),
    ]


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_file_has_all_hits_in_their_order(run: str, tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"hits.{ending}"
    search_run(run, "person", SearchOptions(file=file, sort="person.score"))
    rows = (
        pq.read_table(file).to_pylist()
        if ending == "parquet"
        else list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
    )
    assert [int(row["manifest_index"]) for row in rows] == [6, 2, 3]
    assert [row["label"] for row in rows] == ["palace"] * 3
    assert list(rows[0])[-4:] == ["split", "manifest_label", "objects", "at"]


def test_what_cannot_be_answered_writes_nothing(run: str, tmp_path: Path) -> None:
    file = tmp_path / "hits.csv"
    for query, options, error in (
        ("persn", SearchOptions(file=file), QueryError),
        ("person", SearchOptions(file=file, sort="persn"), QueryError),
        ("person", SearchOptions(file=tmp_path / "hits.txt"), SpecError),
        ("person", SearchOptions(file=tmp_path / "no" / "hits.csv"), StorageError),
    ):
        with pytest.raises(error):
            search_run(run, query, options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        SearchOptions(as_json=True, uris=True),
        SearchOptions(uris=True, file=Path("hits.csv")),
        SearchOptions(uris=True, facets=True),
        SearchOptions(file=Path("hits.csv"), facets=True),
    ],
)
def test_options_of_which_one_would_be_lost_are_refused(run: str, options: SearchOptions) -> None:
    with pytest.raises(SpecError, match=r"allowed is one of them|--facets counts for a person"):
        search_run(run, "person", options)


def test_a_uri_is_one_line_whatever_is_in_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(made_run, "PHOTOS", ("a\nb.jpg", "c\x1b[31m.jpg", *PHOTOS[2:]))
    output = write_run(tmp_path)
    index_run(output)
    capfd.readouterr()
    search_run(output, "", SearchOptions(uris=True, sort="row"))
    printed = capfd.readouterr()
    lines = printed.out.splitlines()
    assert len(lines) == 8
    assert [line.rpartition("photos/")[2] for line in lines[:2]] == ["a\\nb.jpg", "c\\x1b[31m.jpg"]
    assert "2 URIs have characters that are escaped here; --json and -o give them" in printed.err
