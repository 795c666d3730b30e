import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from schemas.exceptions import ManifestError
from schemas.spec import ManifestSpec
from workers.manifest import convert as converting
from workers.manifest.convert import convert, kept_conversions, write_parquet
from workers.manifest.files import ManifestFile
from workers.manifest.find import find_sources
from workers.manifest.reader import RowReader
from workers.manifest.sources import Source
from workers.storage.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Where it is converted to."""
    return Store(f"{tmp_path}/out")


def source_of(path: Path, text: str) -> Source:
    path.write_text(text)
    (source,) = find_sources(ManifestSpec(uri=str(path)))
    return source


def uris(file: ManifestFile) -> list[str]:
    return pq.read_table(file.uri)["uri"].to_pylist()  # type: ignore[no-any-return]


def test_other_formats_become_parquet_with_the_columns_of_their_rows(tmp_path: Path, store: Store) -> None:
    text = '{"uri": "a.jpg"}\n{"uri": "b.jpg", "split": "train"}\n'
    (file,) = convert(store, source_of(tmp_path / "m.jsonl", text))
    assert file == ManifestFile(file.uri, (2,), ("uri", "split"), str(tmp_path), "jsonl")
    assert re.fullmatch(rf"{store.url}/\w{{32}}-\w{{16}}-00000\.parquet", file.uri)
    assert pq.read_table(file.uri).to_pylist() == [
        {"uri": "a.jpg", "split": None},
        {"uri": "b.jpg", "split": "train"},
    ]


def test_what_was_converted_once_stays_whatever_becomes_of_its_source(tmp_path: Path, store: Store) -> None:
    before = source_of(tmp_path / "m.csv", "uri\n/a/0.jpg\n")
    (first,) = convert(store, before)
    after = source_of(tmp_path / "m.csv", "uri\n/b/0.jpg\n")
    (second,) = convert(store, after)
    assert (uris(first), uris(second)) == (["/a/0.jpg"], ["/b/0.jpg"])
    assert kept_conversions(store, [before, after]) == {0: [first], 1: [second]}


def test_of_two_conversions_of_one_source_the_first_counts_and_no_other_is_left(
    tmp_path: Path, store: Store
) -> None:
    source = source_of(tmp_path / "m.csv", "uri\na.jpg\n")
    first = convert(store, source)
    there = store.list("")
    assert convert(store, source) == first
    assert store.list("") == there


def test_another_format_or_other_folders_make_another_conversion(tmp_path: Path, store: Store) -> None:
    (tmp_path / "in" / "kind=a").mkdir(parents=True)
    source_of(tmp_path / "in" / "kind=a" / "m.csv", "uri\na.jpg\n")
    specs = [
        ManifestSpec(uri=f"{tmp_path}/in/kind=a/m.csv"),
        ManifestSpec(uri=f"{tmp_path}/in/kind=a/m.csv", format="text"),
        ManifestSpec(uri=f"{tmp_path}/in"),
    ]
    files = [convert(store, source) for spec in specs for source in find_sources(spec)]
    assert [(file.rows, file.partitions) for (file,) in files] == [(1, ()), (2, ()), (1, (("kind", "a"),))]


def test_a_source_that_is_malformed_leaves_nothing(tmp_path: Path, store: Store) -> None:
    rows = "".join(f"s3://b/{n}.jpg,x\n" for n in range(40_000))
    with pytest.raises(ManifestError, match="line 40002: found 1 values"):
        convert(store, source_of(tmp_path / "m.csv", f"uri,label\n{rows}s3://b/last.jpg\n"))
    assert store.list("") == []


def test_no_flipped_bit_of_what_was_converted_is_taken_for_whole_or_changes_a_value(
    tmp_path: Path, store: Store
) -> None:
    source = source_of(tmp_path / "m.csv", "uri\n" + "".join(f"/photos/{n}.jpg\n" for n in range(20)))
    (file,) = convert(store, source)
    whole = Path(file.uri).read_bytes()
    values = RowReader(file.uri, ["uri"], exactly=False, checked=True).read(0, 0, 20)
    data = pq.ParquetFile(file.uri).metadata.row_group(0).column(0)
    start = data.dictionary_page_offset or data.data_page_offset
    for position in range(0, len(whole), 5):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        Path(file.uri).write_bytes(damaged)
        assert kept_conversions(store, [source]) == {}
        if start <= position < start + data.total_compressed_size:
            try:
                read = RowReader(file.uri, ["uri"], exactly=False, checked=True).read(0, 0, 20)
            except ManifestError as error:
                assert "converted here, and the same command converts it again" in str(error)  # noqa: PT017
            else:
                assert read == values
    Path(file.uri).write_bytes(whole)
    assert kept_conversions(store, [source]) == {0: [file]}


def test_row_groups_and_files_end_where_their_values_are_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"uri": f"{n}.jpg", "embedding" if n < 2000 else "other": "x" * 20_000} for n in range(3000)]
    (file,) = write_parquet(rows, f"{tmp_path}/m", "")
    assert file.row_groups == (835, 835, 835, 495)  # of 16 MiB of text
    assert file.columns == ("uri", "embedding", "other")
    monkeypatch.setattr(converting, "FILE_BYTES", 2**25)
    files = write_parquet(rows, f"{tmp_path}/m", "")
    assert [file.columns for file in files] == [("uri", "embedding", "other"), ("uri", "other")]
    assert [uri for file in files for uri in uris(file)] == [row["uri"] for row in rows]
    assert (
        sum(len(list(tmp_path.glob(pattern))) for pattern in ("m-*-00000.parquet", "m-*-00001.parquet")) == 3
    )


def test_a_csv_file_is_never_in_memory_as_a_whole(tmp_path: Path, store: Store) -> None:
    source = source_of(tmp_path / "m.csv", "uri,label\n" + "a.jpg,b\n" * 20_000)
    (file,) = convert(store, source)
    assert file.row_groups == (16_384, 3616)
