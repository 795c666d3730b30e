"""Staging: whole units written as Parquet under `_work`, and the commit entry that makes them count."""

import hashlib
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from schemas.exceptions import ReconcileError
from schemas.ledger import PARTS, Commit, StagedFile, part_name, shard_name
from schemas.plan import Plan
from workers.results import split_results
from workers.storage import Store, parquet_bytes


@dataclass(frozen=True)
class RunFolder:
    """Where a run's tables are made.

    Attributes:
        store: the run directory.
        plan: how the manifest is cut.
        carried: the manifest's own columns.
    """

    store: Store
    plan: Plan
    carried: pa.Schema


def commit_results(run: RunFolder, epoch: int, results: pa.Table) -> list[Commit]:
    """Stages results and commits them, one part for each shard that they touch.

    The staged files are put first, under names made of the epoch, the units and the content; the commit
    entry is put last and conditionally. Done twice, it adds nothing.

    Args:
        run: where to.
        epoch: this attempt's number.
        results: rows under `schemas.tables.results_schema`, of whole units.

    Returns:
        The entries that count, whether this call made them or found them there.

    Raises:
        ReconcileError: the rows are not exactly those of whole units; nothing was committed.
        StorageError: a file could not be written; nothing of that part was committed.
    """
    units = sorted(set(results["unit"].to_pylist()))
    _assert_whole(run.plan, units, results)
    commits = []
    for shard in sorted({run.plan.shard_of(unit) for unit in units}):
        own = [unit for unit in units if run.plan.shard_of(unit) == shard]
        rows = results.filter(pc.is_in(results["unit"], pa.array(own, pa.int64())))
        tables = split_results(rows, run.carried)
        stem = f"{PARTS}/{shard_name(shard)}/{part_name(epoch, own)}"
        files = {
            name: write_file(run.store, stem, table, name, staged=True) for name, table in tables.items()
        }
        failed = count_codes(tables["errors"])
        commits.append(
            _put(run.store, Commit(epoch=epoch, shard=shard, units=own, files=files, failed=failed))
        )
    return commits


def _put(store: Store, commit: Commit) -> Commit:
    """Puts a commit entry, or gives the one that a task before this one put for the same units."""
    if store.create(commit.key, commit.to_json()):
        return commit
    return Commit.model_validate_json(store.read(commit.key))


def _assert_whole(plan: Plan, units: list[int], results: pa.Table) -> None:
    expected = [index for unit in units for index in plan.rows_of_unit(unit)]
    found = sorted(results["manifest_index"].to_pylist())
    if found != expected:
        wrong = sorted(set(found) ^ set(expected)) or sorted({i for i in found if found.count(i) > 1})
        raise ReconcileError(
            f"units {units} must have {len(expected)} rows once each; found {len(found)}, "
            f"wrong among others: {wrong[:5]}"
        )


def write_file(store: Store, stem: str, rows: pa.Table, table: str, *, staged: bool = False) -> StagedFile:
    """Writes rows of a table as one Parquet file.

    Args:
        store: the run directory.
        stem: the key without its ending.
        rows: under the table's schema.
        table: "labels", "boxes" or "errors".
        staged: put the table and the content's hash into the name, so that no staged file replaces another.
    """
    data = parquet_bytes(rows, table)
    digest = hashlib.sha256(data).hexdigest()
    key = f"{stem}.{table}-{digest[:12]}.parquet" if staged else f"{stem}.parquet"
    store.write(key, data)
    return StagedFile(key=key, rows=rows.num_rows, size=len(data), sha256=digest)


def count_codes(errors: pa.Table) -> dict[str, int]:
    """Failed images by code."""
    counted = errors["code"].value_counts().to_pylist()
    return {entry["values"]: entry["counts"] for entry in sorted(counted, key=lambda e: str(e["values"]))}
