"""Staging: whole units written as Parquet under `_work`, and the commit entry that makes them count."""

import hashlib

import pyarrow as pa

from schemas.exceptions import ReconcileError
from schemas.ledger import PARTS, Commit, StagedFile, part_name, shard_name
from schemas.plan import Plan
from workers.results import split_results
from workers.storage import Store, parquet_bytes


def commit_results(
    store: Store, epoch: int, plan: Plan, results: pa.Table, carried: pa.Schema
) -> list[Commit]:
    """Stages results and commits them, one part for each shard that they touch.

    The staged files are put first, under names made of the epoch, the units and the content; the commit
    entry is put last and conditionally. Done twice, it adds nothing.

    Args:
        store: the run directory.
        epoch: this attempt's number.
        plan: how the manifest is cut.
        results: rows under `schemas.tables.results_schema`, of whole units.
        carried: the manifest's own columns.

    Returns:
        The entries, whether this call made them or found them.

    Raises:
        ReconcileError: the rows are not exactly those of whole units; nothing was committed.
        StorageError: a file could not be written; nothing of that part was committed.
    """
    units = sorted(set(results["unit"].to_pylist()))
    _assert_whole(plan, units, results)
    shards = sorted({plan.shard_of(unit) for unit in units})
    commits = []
    for shard in shards:
        own = [unit for unit in units if plan.shard_of(unit) == shard]
        rows = results.filter(pa.compute.is_in(results["unit"], pa.array(own, pa.int64())))
        commits.append(_commit_part(store, epoch, shard, own, rows, carried))
    return commits


def _assert_whole(plan: Plan, units: list[int], results: pa.Table) -> None:
    expected = [index for unit in units for index in plan.rows_of_unit(unit)]
    found = sorted(results["manifest_index"].to_pylist())
    if found != expected:
        wrong = sorted(set(found) ^ set(expected)) or sorted({i for i in found if found.count(i) > 1})
        raise ReconcileError(
            f"units {units} must have {len(expected)} rows once each; found {len(found)}, "
            f"wrong among others: {wrong[:5]}"
        )


def _commit_part(
    store: Store, epoch: int, shard: int, units: list[int], rows: pa.Table, carried: pa.Schema
) -> Commit:
    folder, name = f"{PARTS}/{shard_name(shard)}", part_name(epoch, units)
    tables = split_results(rows, carried)
    commit = Commit(
        epoch=epoch,
        shard=shard,
        units=units,
        files={
            table: write_file(store, f"{folder}/{name}.{table}", rows_, table, by_content=True)
            for table, rows_ in tables.items()
        },
        failed=count_codes(tables["errors"]),
    )
    store.create(commit.key, commit.to_json())
    return commit


def write_file(
    store: Store, stem: str, rows: pa.Table, table: str, *, by_content: bool = False
) -> StagedFile:
    """Writes one Parquet file; `by_content` puts its hash into its name, so that none replaces another."""
    data = parquet_bytes(rows, table)
    digest = hashlib.sha256(data).hexdigest()
    key = f"{stem}-{digest[:12]}.parquet" if by_content else f"{stem}.parquet"
    store.write(key, data)
    return StagedFile(key=key, rows=rows.num_rows, size=len(data), sha256=digest)


def count_codes(errors: pa.Table) -> dict[str, int]:
    """Failed images by code."""
    counted = errors["code"].value_counts().to_pylist()
    return {entry["values"]: entry["counts"] for entry in sorted(counted, key=lambda e: str(e["values"]))}
