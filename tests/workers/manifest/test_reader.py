import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.exceptions import ManifestError
from tests.s3 import S3Server
from workers.manifest.reader import BATCH_ROWS, KEPT_ROWS, RowReader

ROWS, GROUP = 3 * KEPT_ROWS, KEPT_ROWS + 500


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three row groups, larger than what is kept of them."""
    path = tmp_path_factory.mktemp("reader") / "m.parquet"
    pq.write_table(pa.table({"n": range(ROWS), "other": ["x"] * ROWS}), path, row_group_size=GROUP)
    return path


@given(
    wanted=st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, GROUP - 1), st.integers(1, 3 * BATCH_ROWS)), max_size=8
    )
)
def test_any_rows_are_read_in_any_order(file: Path, wanted: list[tuple[int, int, int]]) -> None:
    reader = RowReader(str(file), ["n"], exactly=False)
    for group, start, count in wanted:
        stop = min(start + count, GROUP)
        table = reader.read(group, start, stop)
        assert table.column_names == ["n"]
        assert table["n"].to_pylist() == list(range(group * GROUP + start, group * GROUP + stop))


def test_rows_in_a_store_are_read_as_those_on_a_disk(file: Path, s3: S3Server) -> None:
    bucket = s3.new_bucket()
    s3.files().put(str(file), f"{bucket}/m.parquet")
    for exactly in (True, False):
        reader = RowReader(f"s3://{bucket}/m.parquet", ["n"], exactly=exactly)
        for start in (0, 100, GROUP - 100, 50):
            assert reader.read(1, start, start + 100)["n"].to_pylist() == list(
                range(GROUP + start, GROUP + start + 100)
            )


def test_units_of_one_huge_row_group_take_the_memory_of_a_few_units(tmp_path: Path) -> None:
    captions = pa.DictionaryArray.from_arrays(pa.array([0] * 300_000, pa.int8()), ["c" * 2000])
    pq.write_table(pa.table({"uri": captions}), tmp_path / "m.parquet")
    script = f"""
import resource
from workers.manifest.reader import RowReader
reader = RowReader({str(tmp_path / "m.parquet")!r}, ["uri"], exactly=False)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for start in range(0, 300_000, 30_000):
    assert len(reader.read(0, start, start + 128)) == 128
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 150  # MB; all of its captions are 600


def test_damage_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"n": range(4000)}), path, row_group_size=2000, compression="gzip")
    meta = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = meta.dictionary_page_offset or meta.data_page_offset
    data[start + 40 : start + meta.total_compressed_size] = bytes(meta.total_compressed_size - 40)
    path.write_bytes(data)
    reader = RowReader(str(path), ["n"], exactly=False)
    assert len(reader.read(0, 0, 2000)) == 2000
    for _ in range(2):
        with pytest.raises(ManifestError, match=r"cannot read .*m\.parquet as Parquet: "):
            reader.read(1, 0, 10)
    assert len(reader.read(0, 0, 2000)) == 2000
