"""Staging: whole units written as Parquet next to the ledger, and the commit entry that makes them count."""

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from schemas.exceptions import DamagedFileError, ReconcileError
from schemas.ledger import PARTS, Commit, part_name, shard_folder
from schemas.plan import Pass
from schemas.ranges import from_ranges, to_ranges
from workers.ledger.directory import RunDirectory
from workers.tables.parquet import count_codes, write_file
from workers.tables.results import split_results


def commit_results(run: RunDirectory, attempt: int, results: pa.Table) -> list[Commit]:
    """Stages results and commits them, one part for each shard that they touch.

    The staged files are put first, under names made of the attempt, the units and the content; the commit
    entry is put last and conditionally. Done twice, it adds nothing.

    Args:
        run: where to.
        attempt: this attempt's number.
        results: rows under `schemas.tables.RunTables.results`, of whole units.

    Returns:
        The entries that count, whether this call made them or found them there.

    Raises:
        ReconcileError: the rows are not exactly those of whole units; nothing was committed.
        StorageError: a file could not be written; nothing of that part was committed.
    """
    units = sorted(set(results["unit"].to_pylist()))
    _assert_whole(run.current, units, results)
    commits = []
    for shard in sorted({run.plan.shard_of(unit) for unit in units}):
        own = [unit for unit in units if run.plan.shard_of(unit) == shard]
        rows = results.filter(pc.is_in(results["unit"], pa.array(own, pa.int64())))
        tables = split_results(rows, run.tables, run.record.id)
        commits.append(_commit_part(run, attempt, shard, own, tables))
    return commits


def _commit_part(
    run: RunDirectory, attempt: int, shard: int, units: list[int], tables: dict[str, pa.Table]
) -> Commit:
    """Stages the tables of some units of one shard, and puts the entry that makes them count."""
    ranges = to_ranges(units)
    stem = f"{shard_folder(PARTS, run.retry, shard)}/{part_name(attempt, ranges)}"
    commit = Commit(
        attempt=attempt,
        retry=run.retry,
        shard=shard,
        units=ranges,
        files={
            name: [write_file(run.ledger, stem, table, name, staged=True)] for name, table in tables.items()
        },
        failed=count_codes(tables["errors"]),
    )
    if run.create(commit):
        return commit
    # a task before this one committed the same units; its entry may have been merged with others since
    try:
        return next(run.read(Commit, [commit.key]), commit)
    except DamagedFileError:
        run.put(commit)
        return commit


def _assert_whole(current: Pass, units: list[int], results: pa.Table) -> None:
    expected = [index for unit in units for index in current.rows_of_unit(unit)]
    indexes = sorted(results["manifest_index"].to_pylist())
    if indexes != expected:
        counts = Counter(indexes)
        wrong = sorted(set(indexes) ^ set(expected)) or [index for index, n in counts.items() if n > 1]
        raise ReconcileError(
            f"units {units} must have {len(expected)} rows once each; found {len(indexes)}, "
            f"wrong among others: {wrong[:5]}"
        )


def merge_commits(run: RunDirectory, commits: list[Commit]) -> Commit:
    """Puts one entry in the place of many of the same shard and pass, and deletes those.

    The new entry is there before the old ones go: a process killed in between leaves units that are in two
    entries, which count once, and no unit in none.

    Args:
        run: whose they are.
        commits: no unit in two of them.
    """
    last = commits[-1]
    merged = Commit(
        attempt=last.attempt,
        retry=last.retry,
        shard=last.shard,
        units=to_ranges(unit for commit in commits for unit in from_ranges(commit.units)),
        files={name: [file for commit in commits for file in commit.files[name]] for name in last.files},
        failed=dict(sum((Counter(commit.failed) for commit in commits), Counter())),
    )
    run.create(merged)
    run.ledger.delete(commit.key for commit in commits if commit.key != merged.key)
    return merged
