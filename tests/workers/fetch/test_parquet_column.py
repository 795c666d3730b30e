import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.errors import ErrorCode, Stage
from schemas.exceptions import ImageError
from schemas.locations import ParquetCell
from schemas.spec import FetchSpec
from tests.s3 import S3Server
from tests.s3_proxy import Exchange
from tests.workers.archives import sizes, watched
from workers.fetch import parquet_column
from workers.fetch.parquet_column import ColumnReader, read_value

SPEC = FetchSpec(attempts=2, throttle_timeout_s=0)
ROWS = 100


def image(row: int) -> bytes:
    """A value like no other, of some KB, that does not compress."""
    return random.Random(row).randbytes(1000 + row * 10)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same images as structs and as plain values, 30 rows a group; row 7 has none, row 8 is empty."""
    folder = tmp_path_factory.mktemp("values")
    images = [None if n == 7 else b"" if n == 8 else image(n) for n in range(ROWS)]
    structs = [{"bytes": data, "path": f"{n}.jpg"} for n, data in enumerate(images)]
    structs[7] = None  # type: ignore[call-overload]
    paths: dict[str, Path] = {}
    for name, array in (
        ("image", pa.array(structs, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
        ("jpg", pa.array(images, pa.binary())),
        ("a/b c", pa.array(images, pa.large_binary())),
    ):
        paths[name] = folder / f"{len(paths)}.parquet"
        pq.write_table(pa.table({"n": range(ROWS), name: array}), paths[name], row_group_size=30)
    return paths


@pytest.mark.parametrize("column", ["image", "jpg", "a/b c"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(rows=st.lists(st.sampled_from([n for n in range(ROWS) if n not in (7, 8)]), max_size=30))
def test_a_value_is_read_by_its_row_in_whatever_order(
    files: dict[str, Path], column: str, rows: list[int]
) -> None:
    for row in rows:
        assert read_value(ParquetCell(str(files[column]), column, row), SPEC) == image(row)


def failure(file: Path | str, column: str, row: int, spec: FetchSpec = SPEC) -> tuple[Stage, ErrorCode, str]:
    with pytest.raises(ImageError) as failed:
        read_value(ParquetCell(str(file), column, row), spec)
    return failed.value.stage, failed.value.code, failed.value.message


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pa.array([1]), "int64"),
        (pa.array(["a"]), "string"),
        (pa.array([[b"a"]]), "list<element: binary>"),
        (pa.array([{"path": "a.jpg"}]), "struct<path: string>"),
        (pa.array([{"bytes": "a"}]), "struct<bytes: string>"),
        (pa.array([{"bytes": {"bytes": b"a"}}]), "struct<bytes: struct<bytes: binary>>"),
    ],
)
def test_a_column_that_holds_no_images_is_refused_with_its_type(
    tmp_path: Path, values: pa.Array, kind: str
) -> None:
    pq.write_table(pa.table({"id": values}), tmp_path / "x.parquet")
    assert failure(tmp_path / "x.parquet", "id", 0) == (
        Stage.FETCH,
        ErrorCode.UNSUPPORTED,
        f"{tmp_path}/x.parquet: the column 'id' is of the type {kind}; allowed: binary, or a struct with a "
        "binary field 'bytes'",
    )


@pytest.mark.parametrize(
    "kind",
    [pa.binary(), pa.large_binary(), pa.binary(3), pa.binary_view(), pa.dictionary(pa.int8(), pa.binary())],
)
def test_any_kind_of_bytes_is_read(tmp_path: Path, kind: pa.DataType) -> None:
    pq.write_table(pa.table({"jpg": pa.array([b"abc"]).cast(kind)}), tmp_path / "x.parquet")
    assert read_value(ParquetCell(f"{tmp_path}/x.parquet", "jpg", 0), SPEC) == b"abc"


def test_a_row_group_with_fewer_rows_than_the_file_says_fails_their_rows_alone(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    pq.write_table(pa.table({"jpg": [b"%d" % n for n in range(5_000)]}), file, use_dictionary=False)
    data = file.read_bytes()
    before, _, after = data.rpartition(b"\x90\x4e")  # Thrift's 5,000: of the last place, the row group's
    assert len(after) < 300
    file.write_bytes(before + b"\x92\x4e" + after)
    assert read_value(ParquetCell(str(file), "jpg", 4_999), SPEC) == b"4999"
    assert failure(file, "jpg", 5_000) == (
        Stage.FETCH,
        ErrorCode.UNSUPPORTED,
        f"{file} cannot be read as Parquet: a row group has fewer rows than the file says",
    )


@pytest.mark.parametrize("column", ["image", "jpg"])
def test_a_row_without_an_image_is_told_from_one_whose_image_is_empty(
    files: dict[str, Path], column: str
) -> None:
    assert failure(files[column], column, 7)[:2] == (Stage.LIST, ErrorCode.NOT_FOUND)
    assert failure(files[column], column, 7)[2].endswith(f"column '{column}', row 7 has no image")
    assert failure(files[column], column, 8)[:2] == (Stage.FETCH, ErrorCode.EMPTY)


def test_what_is_not_there_is_not_found_and_what_is_too_large_is_said(
    files: dict[str, Path], tmp_path: Path
) -> None:
    assert failure(files["jpg"], "png", 1)[1] is ErrorCode.NOT_FOUND
    assert failure(files["jpg"], "jpg", ROWS)[1] is ErrorCode.NOT_FOUND
    assert failure(tmp_path / "gone.parquet", "jpg", 1)[1] is ErrorCode.NOT_FOUND
    small = SPEC.model_copy(update={"max_bytes": 1500})
    assert read_value(ParquetCell(str(files["jpg"]), "jpg", 50), small) == image(50)
    assert failure(files["jpg"], "jpg", 51, small)[1] is ErrorCode.TOO_LARGE


def test_a_file_that_is_no_parquet_is_unsupported(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"x" * 1000)
    assert failure(tmp_path / "a.parquet", "image", 0)[1] is ErrorCode.UNSUPPORTED


def test_damage_costs_the_rest_of_its_row_group_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    images = pa.array([image(n) for n in range(ROWS)], pa.binary())
    table = pa.table({"image": images})
    pq.write_table(
        table, path, row_group_size=50, data_page_size=10_000, write_batch_size=4, use_dictionary=False
    )
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    data = bytearray(path.read_bytes())
    middle = column.data_page_offset + column.total_compressed_size // 2
    data[middle : middle + 20_000] = bytes(20_000)
    path.write_bytes(data)
    codes = []
    for row in range(ROWS):
        try:
            good = read_value(ParquetCell(str(path), "image", row), SPEC) == image(row)
            codes.append("good" if good else "other")
        except ImageError as error:
            codes.append(error.code.value)
    first_bad = next(row for row, code in enumerate(codes) if code != "good")
    assert 0 < first_bad < 50
    assert set(codes[50:]) == {"good"}
    assert "UNSUPPORTED" in codes[first_bad:50]


def test_a_row_group_is_read_a_part_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_column, "BUFFER", 64 * 2**10)
    path, rows = tmp_path / "a.parquet", 400
    images = pa.array([random.Random(n).randbytes(20_000) for n in range(rows)], pa.binary())
    pq.write_table(pa.table({"image": images}), path, data_page_size=50_000, write_batch_size=1)
    before = pa.total_allocated_bytes()
    reader, most = ColumnReader(str(path), "image", SPEC), 0
    for row in range(rows):
        assert len(reader(row) or b"") == 20_000
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 3_000_000  # of 8 MB


@pytest.fixture
def in_bucket(s3: S3Server, files: dict[str, Path]) -> str:
    bucket = s3.new_bucket()
    s3.files().put(str(files["image"]), f"{bucket}/a.parquet")
    return f"s3://{bucket}/a.parquet"


def test_a_column_in_a_bucket_is_read_once_in_few_requests(
    s3: S3Server, in_bucket: str, files: dict[str, Path]
) -> None:
    with watched(s3) as gets:
        reader = ColumnReader(in_bucket, "image", SPEC)
        assert [reader(row) for row in range(9, ROWS)] == [image(row) for row in range(9, ROWS)]
    assert len(gets) <= 2 + 4  # the footer, and one for each row group
    assert sum(sizes(gets)) <= files["image"].stat().st_size + 70_000


@pytest.mark.parametrize(
    ("status", "s3_code", "code"),
    [(503, "SlowDown", ErrorCode.THROTTLED), (403, "AccessDenied", ErrorCode.DENIED)],
)
def test_a_refusal_within_a_file_keeps_its_code_and_passes(
    s3: S3Server, in_bucket: str, status: int, s3_code: str, code: ErrorCode
) -> None:
    state: dict[str, Any] = {"refuse": False}

    def spoil(exchange: Exchange) -> None:
        if state["refuse"]:
            exchange.refuse(status, s3_code)

    with watched(s3, spoil):
        assert read_value(ParquetCell(in_bucket, "image", 1), SPEC) == image(1)
        state["refuse"] = True
        assert failure(in_bucket, "image", 40)[1] is code
        state["refuse"] = False
        assert read_value(ParquetCell(in_bucket, "image", 40), SPEC) == image(40)
