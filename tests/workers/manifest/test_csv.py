from pathlib import Path
from typing import Any

import pytest

from schemas.exceptions import ManifestError
from schemas.ledger import SourceFile
from workers.manifest.formats import FORMATS
from workers.manifest.formats.csv import Csv
from workers.manifest.sources import Source


def source(path: Path, text: str) -> Source:
    path.write_text(text, encoding="utf-8", newline="")
    return Source(SourceFile(uri=str(path), size=0, version=""), str(path), "csv", "/base")


def rows(path: Path, text: str) -> list[dict[str, Any]]:
    return [dict(row) for row in Csv().rows(source(path, text))]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.csv", "uri,n\na.jpg,1;2\t3|4\n"),
        ("m.csv", 'uri;n\na.jpg;"1;2\t3|4"\n'),
        ("m.csv", 'uri\tn\na.jpg\t"1;2\t3|4"\n'),
        ("m.csv", 'uri|n\na.jpg|"1;2\t3|4"\n'),
        ("m.tsv", 'uri\tn\na.jpg\t"1;2\t3|4"\n'),
        ("m.TSV", "uri,n\na.jpg,1;2\t3|4\n"),
        ("m.csv", '"uri","n"\n"a.jpg","1;2\t3|4"\n'),
        ("m.csv", 'sep=;\r\nuri;n\r\na.jpg;"1;2\t3|4"\r\n'),
        ("m.csv", "\n\nuri,n\n\na.jpg,1;2\t3|4"),
        ("m.csv", "uri, n\na.jpg, 1;2\t3|4\n"),
        ("m.csv", 'uri, n\na.jpg, "1;2\t3|4"\n'),
        ("m.csv", " uri ,n \na.jpg,1;2\t3|4\n"),
        ("m.csv", "uri,n\ra.jpg,1;2\t3|4\r"),
    ],
)
def test_what_separates_values_is_told_by_the_header(tmp_path: Path, name: str, text: str) -> None:
    assert rows(tmp_path / name, text) == [{"uri": "a.jpg", "n": "1;2\t3|4"}]


def test_a_comma_in_a_header_separates_whatever_else_is_in_it(tmp_path: Path) -> None:
    assert rows(tmp_path / "m.csv", "uri,a;b|c\nx.jpg,1\n") == [{"uri": "x.jpg", "a;b|c": "1"}]
    assert rows(tmp_path / "m.tsv", "uri\ta, b\nx.jpg\t1\n") == [{"uri": "x.jpg", "a, b": "1"}]
    assert rows(tmp_path / "m.csv", 'uri;"a, b"\nx.jpg;1\n') == [{"uri": "x.jpg", "a, b": "1"}]


def test_values_keep_their_spaces_where_the_header_has_none(tmp_path: Path) -> None:
    assert rows(tmp_path / "m.csv", "uri,n\n a.jpg , 1\n") == [{"uri": " a.jpg ", "n": " 1"}]


def test_a_column_without_a_name_is_called_by_its_number(tmp_path: Path) -> None:
    found = rows(tmp_path / "m.csv", ",,uri\n0,1,a.jpg\n")
    assert found == [{"column_1": "0", "column_2": "1", "uri": "a.jpg"}]


def test_a_value_may_be_long(tmp_path: Path) -> None:
    (row,) = rows(tmp_path / "m.csv", f'uri,v\na.jpg,"{"0.125," * 1_000_000}"\n')
    assert (row["uri"], len(row["v"])) == ("a.jpg", 6_000_000)


def test_a_quote_that_is_never_closed_does_not_take_the_whole_file_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.records.VALUE_CHARACTERS", 1000)
    with pytest.raises(ManifestError, match="line 3 is not CSV: field larger than field limit"):
        rows(tmp_path / "m.csv", 'uri,v\na.jpg,1\nb.jpg,"open\n' + "c.jpg,1\n" * 1000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'uri,t\na.jpg,"said \\"hi\\", twice"\n',
            r'line 2 is not CSV: .*written twice: "" \(Spark does with',
        ),
        ("cats/a.jpg,cat\ncats/b.jpg,cat\n", r"begins with 'cats/a\.jpg' where its columns should be named"),
        ("https://h/x?n=1,cat\n", "begins with 'https://h/x' where its columns should be named"),
        ("uri,t\na.jpg,x,\n", r"line 2: found 3 values, but the header has 2 columns \(uri, t\)"),
        ("uri,t, t\n", "names a column twice: uri, t, t"),
    ],
)
def test_what_is_no_table_is_refused_with_what_to_change(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        rows(tmp_path / "m.csv", text)


def test_a_header_alone_has_columns_and_no_rows(tmp_path: Path) -> None:
    header = source(tmp_path / "m.csv", "uri;label\n")
    assert FORMATS["csv"].columns(header).names == ["uri", "label"]
    assert not FORMATS["csv"].has_rows(header)
    assert FORMATS["csv"].has_rows(source(tmp_path / "m.csv", "uri\na.jpg\n"))
    assert FORMATS["csv"].columns(source(tmp_path / "m.csv", "")).names == []
