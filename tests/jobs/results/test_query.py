import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.results.query import run_sql
from schemas.exceptions import DamagedFileError, SpecError, StorageError
from tests.jobs.results.test_datasets import begun, publish
from workers.storage.store import Store

QUERY = "SELECT manifest_index, label, score, class_counts, uri FROM labels LIMIT 2"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("COLUMNS", "80")
    publish(begun(str(tmp_path / "run")), 0, 1, 2)
    Store(str(tmp_path / "run")).write("_SUCCESS", b'{"labels": 38, "boxes": 36, "errors": 12}')
    return {"": str(tmp_path / "run")}


def test_a_table_fits_the_terminal(run: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    run_sql(run, QUERY)
    out, err = capsys.readouterr()
    assert [line.rstrip() for line in out.splitlines()] == [
        "manifest_index   label    score   class_counts    uri",
        "───────────────────────────────────────────────────────────────────",
        "             0   palace    0.75   {}              s3://bucket/0.jpg",
        '             1   palace    0.75   {"person": 1}   s3://bucket/1.jpg',
    ]
    assert all(len(line) <= 80 for line in out.splitlines())
    assert err == ""
    run_sql(run, "FROM objects")
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines[:-1])
    assert lines[-1].startswith("(not shown, as they do not fit: ")
    assert lines[-1].endswith("y2_norm, cx_norm, cy_norm, area)")


def test_a_pipe_gets_a_table_whole(
    run: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS")
    run_sql(run, "SELECT *, repeat('x', 300) AS long FROM objects LIMIT 1")
    head, _, row = capsys.readouterr().out.splitlines()
    assert head.split()[-8:] == [
        "x1_norm",
        "y1_norm",
        "x2_norm",
        "y2_norm",
        "cx_norm",
        "cy_norm",
        "area",
        "long",
    ]
    assert row.rstrip().endswith("x" * 300)


def test_a_table_has_the_first_rows_and_says_so(
    run: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    run_sql(run, "SELECT range AS n FROM range(41)")
    lines = capsys.readouterr().out.splitlines()
    assert (len(lines), lines[-1]) == (43, "(the first 40 rows; --csv, --json or -o FILE give all)")
    run_sql(run, "SELECT 1 AS n WHERE false")
    assert capsys.readouterr().out.splitlines()[-1] == "(no rows)"


def test_what_acts_on_a_terminal_is_shown_as_text(
    run: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    run_sql(run, "SELECT chr(27) || '[31mred' AS \"a\x1b[2J\", '[b]bold' AS b, chr(10) || 'next' AS c")
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "[b]bold" in out
    assert len(out.splitlines()) == 3


def test_csv_and_json_have_every_row_and_digits_of_their_own(
    run: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    query = "SELECT 0.1::FLOAT AS f, 0.1 + 0.2::DOUBLE AS d, 'nan'::FLOAT AS n, '\\xAB'::BLOB AS b, "
    query += "[1, NULL] AS l, TIMESTAMPTZ '2024-01-02 03:04:05Z' AS t, true AS y, 'a,\"b' AS s, 1 AS s "
    query += "FROM range(2)"
    run_sql(run, query, "json")
    rows = json.loads(capsys.readouterr().out)
    row = {"f": 0.1, "d": 0.30000000000000004, "n": None, "b": "ab", "l": [1, None]}
    assert rows == [row | {"t": "2024-01-02T03:04:05+00:00", "y": True, "s": 'a,"b', "s_1": 1}] * 2
    run_sql(run, query, "csv")
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == "f,d,n,b,l,t,y,s,s_1"
    assert lines == ['0.1,0.30000000000000004,,ab,"[1, null]",2024-01-02T03:04:05+00:00,true,"a,""b",1'] * 2
    run_sql(run, "SELECT 1 WHERE false", "json")
    assert json.loads(capsys.readouterr().out) == []


def test_values_that_python_would_cut_are_whole(
    run: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    query = """SELECT TIMESTAMP_NS '2024-01-02 03:04:05.123456789' AS "a b", INTERVAL '1 month 2 days' AS i,
        [INTERVAL '3 months'] AS l, {'t': TIMESTAMP_NS '2024-01-02 03:04:05.123456789'} AS s, 1 AS n"""
    exact, struct = "2024-01-02 03:04:05.123456789", '{"t": "2024-01-02 03:04:05.123456789"}'
    run_sql(run, query, "json")
    (row,) = json.loads(capsys.readouterr().out)
    assert row == {"a b": exact, "i": "1 month 2 days", "l": ["3 months"], "s": json.loads(struct), "n": 1}
    run_sql(run, f"{query}; -- the end", "csv")
    (csv_row,) = csv.reader(capsys.readouterr().out.splitlines()[1:])
    assert csv_row == [exact, "1 month 2 days", '["3 months"]', struct, "1"]


def test_a_result_becomes_a_file_that_is_whole_or_not_there(run: dict[str, str], tmp_path: Path) -> None:
    for name in ("out.parquet", "out.csv"):
        run_sql(run, f"{QUERY}; -- the first two", file=tmp_path / name)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["manifest_index", "label", "score", "class_counts", "uri"]
    assert table["uri"].to_pylist() == ["s3://bucket/0.jpg", "s3://bucket/1.jpg"]
    assert (tmp_path / "out.csv").read_text().splitlines()[1] == "0,palace,0.75,{},s3://bucket/0.jpg"
    run_sql(run, "SELECT 1 AS one", file=tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "one\n1\n"
    for query in ("SELECT", "SELECT image_id::INT FROM labels"):
        for name in ("new.parquet", "new.csv"):
            with pytest.raises(SpecError):
                run_sql(run, query, file=tmp_path / name)
    with pytest.raises(SpecError, match=r"write .*x.json: allowed are files that end in .parquet or .csv"):
        run_sql(run, QUERY, file=tmp_path / "x.json")
    with pytest.raises(StorageError, match=r"cannot write .*/no/out.csv: there is no folder .*/no"):
        run_sql(run, QUERY, file=tmp_path / "no" / "out.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "out.parquet", "run"]


def test_of_a_query_that_is_wrong_its_own_lines_are_shown(run: dict[str, str], tmp_path: Path) -> None:
    wrong = "SELECT uri,\n\tfoo\tFROM labels"
    late = "SELECT uri, INTERVAL '1 month' AS i, 1::HUGEINT AS n,\n\timage_id::INT FROM labels"
    for file in (None, tmp_path / "x.csv", tmp_path / "x.parquet"):
        with pytest.raises(SpecError, match=r"\n\nLINE 2:  foo FROM labels\n         \^\^\^$"):
            run_sql(run, wrong, file=file)
        with pytest.raises(SpecError, match=r"\n\nLINE 2:  image_id::INT FROM labels\n +\^+$"):
            run_sql(run, late, file=file)


def test_of_an_unfinished_run_what_is_published_is_read_and_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    publish(begun(str(tmp_path)), 0, 2)
    capfd.readouterr()  # what publishing logs, where another test has switched that on
    run_sql({"": str(tmp_path)}, "SELECT count(*) AS n FROM labels", "csv")
    out, err = capfd.readouterr()
    assert out == "n\n20\n"
    assert err == f"raylabel: note: {tmp_path} is not complete: 2 of 3 shards are published\n"


def test_damage_is_named(run: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    Store(run[""]).write("labels/shard-00001.parquet", b"PAR1")
    with pytest.raises(DamagedFileError, match=r"labels/shard-00001.parquet is damaged"):
        run_sql(run, "SELECT uri FROM labels", "csv")
    assert "s3://bucket/49.jpg" not in capsys.readouterr().out
