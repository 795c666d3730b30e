"""One shard of a run, checked by its files: published, committed, or in between."""

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.verify.checks import Issue, RowNumbers, check_codes, check_file, check_rows, declared
from schemas.exceptions import DamagedFileError, ReconcileError
from schemas.ledger import (
    COMMITS,
    SUCCESS,
    Commit,
    Publication,
    Retry,
    Shard,
    StagedFile,
    ledger_folder,
    shard_folder,
    table_key,
)
from schemas.plan import Pass, Plan
from schemas.ranges import from_ranges
from schemas.tables import LABELS, fact_fields
from schemas.words import counted
from workers.ledger.directory import RunDirectory
from workers.ledger.publish import make_tables
from workers.ledger.runs import find_run
from workers.tables.parquet import parquet_bytes

MAX_RETRIES = 5
"""How often a snapshot is taken again where the shard, or the run, changed meanwhile."""

Record = TypeVar("Record", Shard, Commit, Publication)


@dataclass(frozen=True)
class RunSnapshot:
    """A run as it was at one moment; its shards are checked against it.

    Attributes:
        run: in its newest pass.
        passes: every pass, by number.
        shards: by pass, the shards that have rows to do in it.
        success: what `_SUCCESS` holds; None while it is not there.
    """

    run: RunDirectory
    passes: Mapping[int, Pass]
    shards: Mapping[int, frozenset[int]]
    success: bytes | None

    @classmethod
    def take(cls, output: str) -> "RunSnapshot":
        """The run in a directory, as it is now.

        Raises:
            StorageError: there is none.
        """
        run = find_run(output)
        passes = run.passes()
        run = dataclasses.replace(run, current=passes[max(passes)])
        shards = {number: frozenset(one.shards) for number, one in passes.items()}
        (success,) = run.store.read_all([SUCCESS])
        return cls(run, passes, shards, success)

    @property
    def complete(self) -> bool:
        """Whether it is marked complete."""
        return self.success is not None

    @property
    def state(self) -> tuple[str, int, bytes | None]:
        """What changes when the run is restarted, retried or completed."""
        return self.run.record.id, self.run.retry, self.success

    @property
    def plan(self) -> Plan:
        """How the manifest is cut."""
        return self.run.record.plan

    def is_open(self, shard: int, record: Shard | None) -> bool:
        """Whether the newest pass has yet to publish a shard."""
        return (
            not self.complete
            and shard in self.shards[self.run.retry]
            and (record is None or record.retry < self.run.retry)
        )

    def passes_of(self, shard: int) -> list[int]:
        """The passes that have rows to do in a shard, any of which may have published it last.

        A retry that was killed as soon as it was started may never have been done.
        """
        return [number for number, shards in self.shards.items() if shard in shards]

    def rows_of_units(self, shard: int, units: RowNumbers) -> RowNumbers:
        """The manifest rows that the newest pass has of some units of a shard."""
        rows = np.asarray(self.run.current.rows_of_shard(shard), np.int64)
        return rows[np.isin(rows // self.plan.unit_rows, units)]

    def full_key(self, key: str) -> str:
        """The key of a file of the ledger, below the run directory, as issues name it."""
        return f"{ledger_folder(self.run.record.id)}/{key}"

    def schema(self, name: str) -> tuple[str, ...]:
        """A table's schema in lines."""
        return self._schemas[name]

    @cached_property
    def _schemas(self) -> dict[str, tuple[str, ...]]:
        tables, carried = self.run.tables, self.run.record.manifest_columns
        return {name: declared(name, tables, carried) for name in tables.names}


@dataclass(frozen=True)
class ShardSnapshot:
    """A shard as it was at one moment.

    Attributes:
        shard: its number.
        record: of its publication; an issue where it cannot be read.
        pinned: the choice of commits that the newest pass will publish, or is publishing.
        commits: by key, those of the newest pass.
        files: tables that have a file where readers look, where there is no record that would say so.
    """

    shard: int
    record: Shard | Issue | None
    pinned: Publication | Issue | None
    commits: dict[str, Commit | Issue]
    files: tuple[str, ...]


@dataclass(frozen=True)
class ShardReport:
    """What the check of a shard gave.

    Attributes:
        record: of its publication; None where there is none to go by.
        published: whether the newest pass has no more to do in it.
        committed: rows that the newest pass committed and did not publish yet.
        issues: everything that is not as it must be.
    """

    record: Shard | None
    published: bool
    committed: int
    issues: list[Issue]


def check_shard(whole: RunSnapshot, shard: int) -> ShardReport:
    """Checks a shard. Where there is an issue, again if the shard changed meanwhile."""
    snapshot = take_snapshot(whole, shard)
    for _ in range(MAX_RETRIES):
        report = check_snapshot(whole, snapshot)
        if not report.issues:
            break
        again = take_snapshot(whole, shard)
        if again == snapshot:
            break
        snapshot = again
    return report


def take_snapshot(whole: RunSnapshot, shard: int) -> ShardSnapshot:
    """A shard as it is now."""
    store, retry = whole.run.store, whole.run.retry
    record = _read(whole, Shard.key_of(shard), Shard)
    if isinstance(record, Issue) or not whole.is_open(shard, record):
        return ShardSnapshot(shard, record, None, {}, ())
    pinned = _read(whole, Publication.key_of(retry, shard), Publication)
    files = (
        ()
        if record
        else tuple(name for name in whole.run.tables.names if store.exists(table_key(name, shard)))
    )
    return ShardSnapshot(shard, record, pinned, _read_commits(whole, shard), files)


def _read_commits(whole: RunSnapshot, shard: int) -> dict[str, Commit | Issue]:
    """A shard's commits by key; listed again where one is gone by now, as many may have become one."""
    for _ in range(MAX_RETRIES):
        keys = whole.run.ledger.list(shard_folder(COMMITS, whole.run.retry, shard))
        files = zip(keys, whole.run.ledger.read_all(keys), strict=True)
        commits = {key: _parsed(whole, key, data, Commit) for key, data in files if data is not None}
        if len(commits) == len(keys):
            break
    return commits


def _read(whole: RunSnapshot, key: str, kind: type[Record]) -> Record | Issue | None:
    """A record of the ledger; None where there is none."""
    (data,) = whole.run.ledger.read_all([key])
    return None if data is None else _parsed(whole, key, data, kind)


def _parsed(whole: RunSnapshot, key: str, data: bytes, kind: type[Record]) -> Record | Issue:
    try:
        return whole.run.parse(kind, key, data)
    except DamagedFileError as error:
        return Issue(whole.full_key(key), error.reason, f"the record of a {error.kind}")


def check_snapshot(whole: RunSnapshot, snapshot: ShardSnapshot) -> ShardReport:
    """Checks a shard as it was at one moment."""
    if isinstance(snapshot.record, Issue):
        return ShardReport(None, False, 0, [snapshot.record])
    open_ = whole.is_open(snapshot.shard, snapshot.record)
    issues = _check_commits(whole, snapshot)
    if isinstance(snapshot.pinned, Issue):
        issues.append(snapshot.pinned)
    elif snapshot.pinned:
        issues = issues or _check_unfinished(whole, snapshot, snapshot.pinned)
    elif snapshot.record:
        wrong = _check_published(whole, snapshot.shard, snapshot.record)
        issues += [*wrong, _no_choice(whole, snapshot)] if wrong and open_ else wrong
    else:
        issues += _check_unpublished(whole, snapshot)
    published = snapshot.record is not None and not open_
    return ShardReport(snapshot.record, published, _committed(whole, snapshot) if open_ else 0, issues)


def _committed(whole: RunSnapshot, snapshot: ShardSnapshot) -> int:
    """Rows that a shard's commits have, each counted once."""
    ranges = [c.units for c in snapshot.commits.values() if isinstance(c, Commit)]
    units = np.unique(np.concatenate([np.empty(0, np.int64), *map(from_ranges, ranges)]))
    return len(whole.rows_of_units(snapshot.shard, units))


def _check_unpublished(whole: RunSnapshot, snapshot: ShardSnapshot) -> list[Issue]:
    """A shard without a record has no file that readers would see; after the first pass all have records."""
    expected = "none, as no record says that the shard is published"
    issues = [Issue(table_key(name, snapshot.shard), "a file", expected) for name in snapshot.files]
    if issues:
        issues.append(_no_choice(whole, snapshot))
    if whole.complete or whole.run.retry:
        record = whole.full_key(Shard.key_of(snapshot.shard))
        issues.append(Issue(record, "no such file", "the record of a shard that was published"))
    return issues


def _no_choice(whole: RunSnapshot, snapshot: ShardSnapshot) -> Issue:
    """That nothing says that the publishing of a shard began, whose files are not as they were before."""
    key = whole.full_key(Publication.key_of(whole.run.retry, snapshot.shard))
    return Issue(key, "no such file", "the choice of parts, if the shard's publishing had begun")


def _check_published(whole: RunSnapshot, shard: int, record: Shard) -> list[Issue]:
    """The files of a published shard are the ones that its record names, and hold its rows."""
    if issues := _check_record(whole, shard, record):
        return issues
    files = {name: file.key for name, file in record.files.items()}
    tables, issues = _read_files(whole, {name: [(file.key, file)] for name, file in record.files.items()})
    if tables is None:
        return issues
    issues += check_rows(files, tables, np.asarray(whole.plan.rows_of_shard(shard), np.int64))
    done = pa.array(whole.passes[record.retry].rows_of_shard(shard), pa.int64())
    errors = tables["errors"]
    failed = errors.filter(pc.is_in(errors["manifest_index"], done))
    key = whole.full_key(Shard.key_of(shard))
    return issues + check_codes(key, errors, record.errors) + check_codes(key, failed, record.failed)


def _check_record(whole: RunSnapshot, shard: int, record: Shard) -> list[Issue]:
    """A shard's record is about its files, one a table, and a pass that can have published it."""
    key, passes = whole.full_key(Shard.key_of(shard)), whole.passes_of(shard)
    issues = []
    if record.retry not in passes:
        allowed = f"{' or '.join(map(str, passes))}, which had rows to do in it"
        if record.retry not in whole.passes:
            allowed += f"; there is no {whole.full_key(Retry.key_of(record.retry))}"
        issues.append(Issue(key, f"retry {record.retry}", allowed))
    expected = {name: table_key(name, shard) for name in whole.run.tables.names}
    recorded = {name: file.key for name, file in record.files.items()}
    if recorded != expected:
        issues.append(Issue(key, f"files {sorted(recorded.values())}", str(sorted(expected.values()))))
    return issues


def _check_commits(whole: RunSnapshot, snapshot: ShardSnapshot) -> list[Issue]:
    issues = []
    for key, commit in snapshot.commits.items():
        if isinstance(commit, Issue):
            issues.append(commit)
        else:
            issues += _check_commit(whole, snapshot.shard, key, commit)
    return issues


def _check_commit(whole: RunSnapshot, shard: int, key: str, commit: Commit) -> list[Issue]:
    """A commit's staged files are the ones it names, and hold exactly the rows of its units."""
    called, units = whole.full_key(key), from_ranges(commit.units)
    if len(others := np.setdiff1d(units, whole.run.current.units_of_shard(shard))):
        return [Issue(called, f"units {others.tolist()[:5]}", "units that this pass has of the shard")]
    held = {n: [(whole.full_key(file.key), file) for file in files] for n, files in commit.files.items()}
    tables, issues = _read_files(whole, held)
    if tables is None:
        return issues
    files = {name: named[0][0] if len(named) == 1 else called for name, named in held.items()}
    issues += check_rows(files, tables, whole.rows_of_units(shard, units))
    return issues + check_codes(called, tables["errors"], commit.failed)


def _read_files(
    whole: RunSnapshot, files: Mapping[str, list[tuple[str, StagedFile]]]
) -> tuple[dict[str, pa.Table] | None, list[Issue]]:
    """Reads and checks files one by one.

    Args:
        whole: the run.
        files: by table, keys below the run directory and what the ledger says of the files.

    Returns:
        The tables, None where one of them cannot be had; and what is wrong.
    """
    named = [(name, *one) for name, held in files.items() for one in held]
    pieces: dict[str, list[pa.Table]] = {name: [] for name in files}
    issues = []
    read = whole.run.store.read_all(key for _, key, _ in named)
    for (name, key, recorded), data in zip(named, read, strict=True):
        if data is None:
            expected = (
                f"{counted(recorded.rows, 'row')} in {counted(recorded.size, 'byte')}, as the ledger says"
            )
            issues.append(Issue(key, "no such file", expected))
            continue
        table, wrong = check_file(key, data, recorded, whole.schema(name), name)
        issues += wrong
        pieces[name] += [] if table is None else [table]
    if any(len(pieces[name]) < len(held) for name, held in files.items()):
        return None, issues
    return {name: pa.concat_tables(tables) for name, tables in pieces.items()}, issues


def _check_unfinished(whole: RunSnapshot, snapshot: ShardSnapshot, publication: Publication) -> list[Issue]:
    """A shard that is being published, or whose publisher was killed.

    Each file is still as it was, or already what the chosen commits make of it; and what they make of it
    holds the shard's rows.
    """
    called, shard = whole.full_key(publication.key), snapshot.shard
    before = snapshot.record.files if isinstance(snapshot.record, Shard) else {}
    files = {name: table_key(name, shard) for name in whole.run.tables.names}
    try:
        folder = dataclasses.replace(whole.run, carried=_carried(whole, publication))
        _, tables = make_tables(folder, publication)
        there = {name: whole.run.store.read(files[name]) for name in before or snapshot.files}
    except (OSError, LookupError, ReconcileError, pa.ArrowException) as error:
        return [Issue(called, f"a choice that cannot be published ({error})", "one that can")]
    issues = check_rows(files, tables, np.asarray(whole.plan.rows_of_shard(shard), np.int64))
    for name, data in there.items():
        digest = hashlib.sha256(data).hexdigest()
        made = hashlib.sha256(parquet_bytes(tables[name], name)).hexdigest()
        if digest != made and not (name in before and digest == before[name].sha256):
            issues.append(Issue(files[name], f"sha256 {digest}", f"{made}, which the commits make of it"))
    return issues


def _carried(whole: RunSnapshot, publication: Publication) -> pa.Schema:
    """The manifest's own columns, as a part of a shard has them."""
    data = whole.run.ledger.read(publication.chosen[0].files["labels"][0].key)
    before = len(LABELS) + len(fact_fields(whole.run.tables.facts))
    return pa.schema(list(pq.read_schema(pa.BufferReader(data)))[before:])
