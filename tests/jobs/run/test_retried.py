from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.prepare.resolve import ResolvedJob
from jobs.run.retried import assert_retriable, retried_manifest, with_carried
from schemas.errors import ErrorCode
from schemas.exceptions import DamagedFileError, ManifestError, OutputConflictError
from schemas.ledger import MANIFEST, SUCCESS, Retry, SourceFile
from schemas.locations import MissingImage
from schemas.models import tables_of
from schemas.plan import Pass, Plan
from schemas.spec import JobSpec, ManifestSpec
from tests.workers.tables.made_results import AT, CARRIED, MODELS, outcome, record, rows_of
from workers.ledger.commit import commit_results
from workers.ledger.directory import RunDirectory
from workers.ledger.publish import publish_shard
from workers.manifest.files import ManifestFile
from workers.manifest.find import find_sources
from workers.manifest.manifest import Manifest
from workers.manifest.sources import Source
from workers.storage.store import Store
from workers.tables.results import results_table

FAILED = [3, 7, 11]

DONE = b'{"labels": 3, "boxes": 3, "tags": 3, "embeddings": 3, "errors": 1}'


def run_with(tmp_path: Path, rows: pa.Table, carried: pa.Schema = CARRIED) -> RunDirectory:
    """A run of rows in units of four, of which every fourth failed, in a retry of those."""
    plan = Plan(rows=len(rows), unit_rows=4, shard_units=3)
    files = [SourceFile(uri=str(tmp_path / "m.parquet"), size=1, version="1")]
    columns = {field.name: str(field.type) for field in carried}
    kept = record(plan=plan, manifest_columns=columns, manifest=files)
    run = RunDirectory(Store(str(tmp_path / "out")), kept, Pass(plan), carried)
    units = [results_of_rows(unit, rows.slice(4 * unit, 4), carried) for unit in range(len(rows) // 4)]
    commit_results(run, 1, pa.concat_tables(units))
    publish_shard(run, 0)
    failed = [(n, n + 1) for n in range(3, len(rows), 4)]
    run.create(Retry(number=1, codes=["TRUNCATED"], rows=failed))
    run.store.write("run.json", kept.to_json())
    return run.newest()


def results_of_rows(unit: int, rows: pa.Table, carried: pa.Schema) -> pa.Table:
    outcomes = [outcome(n) for n in rows["manifest_index"].to_pylist()]
    return results_table(unit, rows, outcomes, tables_of(MODELS, carried))


def job_of(run: RunDirectory, manifest: Manifest | None) -> ResolvedJob:
    began_with = run.record.manifest
    spec = JobSpec(manifest=ManifestSpec(uri=began_with[0].uri), output=run.store.url)
    there = [] if manifest is None else [Source(began_with[0], began_with[0].uri, "parquet", "/")]
    return ResolvedJob(spec, there, {}, began_with, "" if there else "found no manifest at m.parquet")


def manifest_of(path: Path, rows: pa.Table) -> Manifest:
    table = rows.select(["image_id", "uri", "split"])
    pq.write_table(table, path)
    file = ManifestFile(str(path), (len(rows),), tuple(table.column_names), "/")
    return Manifest([file], "uri", "image_id", pa.schema([("split", pa.string())]))


def retried(run: RunDirectory, manifest: Manifest | None) -> Manifest:
    def opened() -> Manifest:
        assert manifest
        return manifest

    return retried_manifest(job_of(run, manifest), run, opened)


def with_uris(
    rows: pa.Table, uris: list[str], cut: list[bool], written: list[str | None] | None = None
) -> pa.Table:
    """Rows with other URIs; `written`: as in the manifest, where that differs."""
    columns = {
        "uri": pa.array(uris),
        "manifest_uri": pa.array(written or [None] * len(uris), pa.string()),
        "uri_is_cut": pa.array(cut),
    }
    for name, values in columns.items():
        rows = rows.set_column(rows.column_names.index(name), name, values)
    return rows


def test_rows_are_those_that_the_run_holds_with_all_their_columns_whatever_became_of_the_manifest(
    tmp_path: Path,
) -> None:
    rows = rows_of(range(12))
    run = run_with(tmp_path, rows)
    other = manifest_of(tmp_path / "m.parquet", rows_of(range(1, 20)))
    for manifest in (None, other):
        held = retried(with_carried(run), manifest)
        for unit in range(3):
            read = held.read(run.current.rows_of_unit(unit))
            assert read.for_results().to_pylist() == rows.slice(FAILED[unit], 1).to_pylist()
            assert read.locations == [f"s3://bucket/{FAILED[unit]}.jpg"]
        assert held.read(FAILED).table["manifest_index"].to_pylist() == FAILED
        assert held.read([]).locations == []
        with pytest.raises(ManifestError, match="not all rows from 3 to 4 are among those that failed"):
            held.read([3, 4])
    kept = run.store.list(MANIFEST)  # of each attempt a file of its own
    assert [name.startswith(f"{MANIFEST}/001/held-") for name in kept] == [True, True]


def test_columns_keep_their_types_and_names_that_errors_has_itself(tmp_path: Path) -> None:
    carried = pa.schema(
        [
            ("stage", pa.string()),
            ("tags", pa.list_(pa.field("element", pa.string()))),
            ("label", pa.decimal128(9, 2)),
            ("taken", pa.timestamp("us", "UTC")),
        ]
    )
    values: dict[str, list[Any]] = {
        "stage": [f"s{n}" for n in range(4)],
        "tags": [["a", "b"], None, [], ["c", None]],
        "manifest_label": [Decimal("1.50")] * 4,
        "taken": [AT, None, AT, AT],
    }
    rows = rows_of(range(4)).drop_columns(["split", "manifest_label"])
    for field, (name, column) in zip(carried, values.items(), strict=True):
        rows = rows.append_column(name, pa.array(column, field.type))
    run = run_with(tmp_path, rows, carried)
    again = with_carried(run)
    assert again.carried == carried
    read = retried(again, None).read([3]).for_results()
    assert read.to_pylist() == rows.slice(3).select(read.column_names).to_pylist()
    results_of_rows(0, read, carried)  # the types are those of the tables


def test_what_the_tables_do_not_show_comes_from_a_manifest_with_the_same_rows(tmp_path: Path) -> None:
    rows, signed = rows_of(range(8)), [f"https://h/{n}.jpg?key=new" for n in range(8)]
    cut = with_uris(rows, [f"https://h/{n}.jpg" for n in range(8)], [True] * 8)
    run = run_with(tmp_path, cut)
    grown = with_uris(rows_of(range(20)), [*signed, *(["s3://b/x"] * 12)], [True] * 20)
    held = retried(run, manifest_of(tmp_path / "m.parquet", grown))
    assert held.read([3, 7]).locations == [signed[3], signed[7]]
    assert held.read([3]).for_results().to_pylist() == cut.slice(3, 1).to_pylist()
    for gone in (None, manifest_of(tmp_path / "other.parquet", grown.slice(1))):
        with pytest.raises(
            OutputConflictError,
            match=r"the URIs of 2 images that failed \(row 3, https://h/3\.jpg\) have a password, a query.*"
            r"As it is now: (found no manifest at m|the manifest has changed).*\. Put it back, or name",
        ):
            retried(run, gone)


def test_only_images_that_the_run_cannot_find_are_looked_for_in_the_manifest_as_it_is(tmp_path: Path) -> None:
    shown, cut = ["/one/a.jpg"] * 4 + ["https://h/b.jpg"] * 4, [False] * 4 + [True] * 4
    run = run_with(tmp_path, with_uris(rows_of(range(8)), shown, cut, ["a.jpg"] * 4 + [None] * 4))
    now = with_uris(rows_of(range(8)), ["a.jpg"] * 4 + ["https://h/b.jpg?key=new"] * 4, [True] * 8)
    held = retried(run, manifest_of(tmp_path / "m.parquet", now))
    assert held.read([3, 7]).locations == ["/one/a.jpg", "https://h/b.jpg?key=new"]


def test_carried_values_that_python_has_not_are_kept(tmp_path: Path) -> None:
    carried = pa.schema([("at", pa.timestamp("us", "Asia/Tokyo")), ("day", pa.date32())])
    late, day = (
        pa.array([253_402_300_799_000_000] * 4, carried.field("at").type),
        pa.array([9**8] * 4, pa.int32()),
    )
    rows = rows_of(range(4)).drop_columns(["split", "manifest_label"])
    rows = rows.append_column("at", late).append_column("day", day.cast(pa.date32()))
    run = run_with(tmp_path, rows, carried)
    read = retried(with_carried(run), None).read([3]).for_results()
    assert read.select(["at", "day"]).equals(rows.slice(3).select(["at", "day"]))


def test_an_errors_table_with_a_wrong_byte_is_refused_with_its_name(tmp_path: Path) -> None:
    run = run_with(tmp_path, rows_of(range(4)))
    path = tmp_path / "out/errors/shard-00000.parquet"
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 255]) + whole[position + 1 :])
        with suppress(DamagedFileError, ManifestError):  # it may be read, as other rows
            retried(with_carried(run), None).read([3])
    run.ledger.clear(Retry.folder)
    run.store.write(SUCCESS, DONE)
    with pytest.raises(DamagedFileError, match=r"errors/shard-00000\.parquet is damaged: its content is not"):
        assert_retriable(job_of(run, None), run.store.url, ["TRUNCATED"])


def test_a_retry_that_lacks_something_is_refused_before_it_begins(tmp_path: Path) -> None:
    cut = with_uris(rows_of(range(4)), [f"https://h/{n}.jpg" for n in range(4)], [True] * 4)
    run = run_with(tmp_path, cut)
    run.ledger.clear(Retry.folder)
    run.store.write(SUCCESS, DONE)
    pq.write_table(pa.table({"uri": ["a.jpg"]}), tmp_path / "m.parquet")
    (source,) = find_sources(ManifestSpec(uri=str(tmp_path / "m.parquet")))
    for job in (job_of(run, None), replace(job_of(run, None), sources=[source])):
        with pytest.raises(OutputConflictError, match="the URIs of 1 image that failed"):
            assert_retriable(job, run.store.url, ["TRUNCATED"])
        assert_retriable(job, run.store.url, ["DENIED"])
        assert_retriable(replace(job, began_with=None), run.store.url, ["TRUNCATED"])
    assert (run.store.exists(SUCCESS), run.store.list(MANIFEST)) == (True, [])


def test_images_in_a_file_of_the_manifest_that_is_gone_or_another_are_refused_with_its_name(
    tmp_path: Path,
) -> None:
    path = tmp_path / "m.parquet"
    cells = [f"parquet://image/{n}::{path}" for n in range(4)]
    run = run_with(tmp_path, with_uris(rows_of(range(4)), cells, [False] * 4))
    manifest = manifest_of(path, rows_of(range(4)))  # without the rows that failed
    gone = job_of(run, None)
    (there,) = job_of(run, manifest).sources
    changed = replace(gone, sources=[replace(there, file=there.file.model_copy(update={"version": "2"}))])
    for job in (gone, changed):
        with pytest.raises(
            OutputConflictError, match=f"images that failed are in {path}, which is gone or has changed"
        ):
            retried_manifest(job, run, lambda: manifest)
    same = retried_manifest(job_of(run, manifest), run, lambda: manifest)
    assert same.read([3]).table["uri"].to_pylist() == cells[3:]


def test_a_row_without_an_image_in_a_file_that_is_gone_does_not_refuse_the_others(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    uris = [f"tar://sample{n}::{path}" if n == 3 else f"s3://bucket/{n}.jpg" for n in range(8)]
    run = run_with(tmp_path, with_uris(rows_of(range(8)), uris, [n == 3 for n in range(8)]))
    errors = tmp_path / "out/errors/shard-00000.parquet"
    table = pq.read_table(errors)
    pq.write_table(
        table.set_column(table.column_names.index("stage"), "stage", pa.array(["list", "decode"])), errors
    )
    held = retried(run, None)
    assert held.read([3, 7]).locations == [
        MissingImage(ErrorCode.TRUNCATED, "image 3 ends early"),
        "s3://bucket/7.jpg",
    ]


def test_a_row_that_has_no_image_fails_again_as_it_did(tmp_path: Path) -> None:
    run = run_with(tmp_path, rows_of(range(4)))
    tables = pq.read_table(tmp_path / "out/errors/shard-00000.parquet")
    listed = tables.set_column(tables.column_names.index("stage"), "stage", pa.array(["list"]))
    pq.write_table(listed, tmp_path / "out/errors/shard-00000.parquet")
    assert retried(run, None).read([3]).locations == ["s3://bucket/3.jpg"]  # a cell that was empty, say
    listed = listed.set_column(listed.column_names.index("uri_is_cut"), "uri_is_cut", pa.array([True]))
    pq.write_table(listed, tmp_path / "out/errors/shard-00000.parquet")
    assert retried(run, None).read([3]).locations == [MissingImage(ErrorCode.TRUNCATED, "image 3 ends early")]
