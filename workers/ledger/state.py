"""What of a pass is committed and published: read from the files, then kept up to date."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt, TypeAdapter, ValidationError

from schemas.exceptions import DamagedFileError, ReconcileError
from schemas.ledger import (
    COMMITS,
    MANIFEST,
    PARTS,
    PUBLICATIONS,
    SUCCESS,
    TEMPORARY,
    Commit,
    Publication,
    Shard,
    StagedFile,
    manifest_folder,
    pass_name,
    shard_number,
    table_key,
)
from schemas.ranges import from_ranges
from schemas.tables import ALWAYS, TABLES
from workers.ledger.commit import merge_commits
from workers.ledger.damage import MARK, MISSING, PART, TABLE, damaged
from workers.ledger.directory import OnDamage, RunDirectory
from workers.printable import short_line
from workers.storage.store import Store
from workers.storage.uris import clean_uri

MERGE_AT = 256
"""Commit entries of one shard that are made into one."""


@dataclass(frozen=True)
class Damage:
    """A damaged file, without which its images can be labelled again.

    Attributes:
        finding: which file, and what is wrong with it.
        keys: of the ledger's records that count what it held.
    """

    finding: str
    keys: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.finding}. What it held is done again as the run goes on"


class PassState:
    """What of a pass is done, committed and published: read from the files, then kept up to date.

    Attributes:
        run: the pass.
        failed: images of it that failed, by code.
        published: shards that it has published.
        done: rows of it in a final state: labelled or failed.
        publishable: shards whose units are all committed and that are not published yet.
        damage: what is not counted, as a file is damaged; see `take_back`.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self.failed: Counter[str] = Counter()
        self.published: set[int] = set()
        self.publishable: set[int] = set()
        self.damage: list[Damage] = []
        self.done = 0
        self._committed = np.ones(run.plan.units, bool)
        self._committed[run.current.units] = False
        self._left = Counter((run.current.units // run.plan.shard_units).tolist())
        self._single: dict[int, list[Commit]] = {}
        self._failing: dict[str, Commit] = {}

    @classmethod
    def read(cls, run: RunDirectory, suspects: Collection[int] = ()) -> "PassState":
        """The state of a pass, from its shards and commits.

        What is damaged does not count: a record that cannot be read, and one whose files are gone or of
        another size. In the first pass that holds for published shards, too.

        Args:
            run: the pass.
            suspects: shards whose staged parts are read as well, as one of them was found to be damaged.

        Raises:
            DamagedFileError: in a retry, a published shard is damaged, which holds rows of other passes.
        """
        state = cls(run)
        lost = state._read_shards()
        choices, commits = state._read_choices(lost), state._read_commits()
        # after the records of them: a part is there before
        sizes = run.ledger.sizes(f"{PARTS}/{pass_name(run.retry)}") if choices or commits else {}
        incomplete: dict[str, DamagedFileError] = {}
        for choice in choices:
            files = [file for one in choice.chosen for held in one.files.values() for file in held]
            if error := _damage(run, files, sizes, read=choice.shard in suspects):
                incomplete[choice.key] = error
        for _, of_shard in groupby(commits, key=lambda commit: commit.shard):
            # the largest first: where merging was cut short, entries are there next to the one made of them
            for commit in sorted(of_shard, key=lambda commit: -len(from_ranges(commit.units))):
                files = [file for held in commit.files.values() for file in held]
                if error := _damage(run, files, sizes, read=commit.shard in suspects):
                    incomplete[commit.key] = error
                else:
                    state.add(commit)
        state._lose_incomplete(incomplete)
        return state

    def _read_shards(self) -> set[int]:
        """Counts the shards that the pass has published; gives those of them that are damaged."""
        records, errors = read_shards(self.run)
        if self.run.retry:
            _assert_all(self.run, records, errors)
        for shard, error in errors.items():
            self._lose(error, Publication.key_of(0, shard), Shard.key_of(shard))
        for shard, record in records.items():
            if record.retry == self.run.retry and shard not in errors:
                self._add_shard(record)
        return set(errors)

    def _read_choices(self, lost: Collection[int]) -> list[Publication]:
        """The choices of commits for shards that were never published."""
        retry = self.run.retry
        shards = [shard for shard in self.run.current.shards if shard not in self.published]
        expected = {Publication.key_of(retry, shard) for shard in shards if shard not in lost}
        keys = [key for key in self.run.list(Publication, pass_name(retry)) if key in expected]
        return list(self.run.read(Publication, keys, self._lose_record))

    def _read_commits(self) -> list[Commit]:
        """The commits of shards that are not published yet."""
        keys = [key for key in self.run.list(Commit, pass_name(self.run.retry)) if self._is_open(key)]
        return list(self.run.read(Commit, keys, self._lose_record))

    def _lose_incomplete(self, incomplete: Mapping[str, DamagedFileError]) -> None:
        """Notes that parts of records are damaged; a record that is gone by now was published meanwhile."""
        if incomplete:
            folder = pass_name(self.run.retry)
            there = {*self.run.list(Publication, folder), *self.run.list(Commit, folder)}
            for key, error in incomplete.items():
                if key in there:
                    self._lose(error, key)

    def _lose_record(self, error: DamagedFileError) -> None:
        """Notes that a record of the ledger cannot be read."""
        self._lose(error, error.key)

    def _lose(self, error: DamagedFileError, *keys: str) -> None:
        self.damage.append(Damage(error.finding, keys))

    def take_back(self) -> None:
        """Deletes the records that count what is damaged, so that it is done again.

        Only the newest attempt may: what one that slept takes for damage may be whole by now.
        """
        self.run.ledger.delete([key for damage in self.damage for key in damage.keys])

    def _is_open(self, key: str) -> bool:
        """Whether a commit's shard is not published yet."""
        return shard_number(key.split("/")[-2]) not in self.published

    def _add_shard(self, shard: Shard) -> None:
        self.published.add(shard.shard)
        self.failed.update(shard.failed)
        self.done += len(self.run.current.rows_of_shard(shard.shard))
        self._committed[self.run.current.units_of_shard(shard.shard)] = True
        self._left[shard.shard] = 0

    def add(self, commit: Commit) -> None:
        """Counts a commit; units that are counted already are not counted again."""
        units = from_ranges(commit.units)
        new = units[~self._committed[units]]
        if len(new):
            self._committed[new] = True
            self.done += sum(len(self.run.current.rows_of_unit(unit)) for unit in new.tolist())
            self.failed.update(commit.failed)
            self._failing.update(dict.fromkeys(commit.failed, commit))
            self._left[commit.shard] -= len(new)
            if not self._left[commit.shard]:
                self.publishable.add(commit.shard)
        if len(new) == len(units) and len(commit.files["labels"]) < MERGE_AT:
            self._single.setdefault(commit.shard, []).append(commit)

    def merge(self, shard: int) -> None:
        """Makes a shard's commit entries one where they are many, so that resuming takes few reads."""
        entries = self._single.get(shard, [])
        if len(entries) >= MERGE_AT and self._left[shard]:
            merge_commits(self.run, entries)
            del self._single[shard]

    def example(self, code: str) -> str:
        """An image that failed so and why, from the last commit that has one."""
        files = self._failing[code].files["errors"] if code in self._failing else []
        with suppress(DamagedFileError):
            errors = (row for table in self.run.read_parts(files) for row in table.to_pylist())
            texts = (f"{row['uri']}: {row['message']}" for row in errors if row["code"] == code)
            return next(texts, "none kept")
        return "none kept"

    @property
    def rows(self) -> int:
        """Rows that the pass has to do."""
        return self.run.current.size

    @property
    def pending(self) -> NDArray[np.int64]:
        """Units still to do, ascending."""
        return np.flatnonzero(~self._committed)


_COUNTS = TypeAdapter(dict[str, NonNegativeInt])


def read_success(store: Store, on_damage: OnDamage | None = None) -> dict[str, int] | None:
    """Rows of each table of a run that was marked complete; None while it is not.

    Args:
        store: the run directory.
        on_damage: called where the mark cannot be read, which then is none; None: raise the error.

    Raises:
        DamagedFileError: the mark cannot be read.
    """
    try:
        rows = _COUNTS.validate_json(store.read(SUCCESS))
        if set(ALWAYS) <= rows.keys() <= TABLES.keys():
            return rows
    except FileNotFoundError:
        return None
    except ValidationError:
        pass
    error = damaged(MARK, store, SUCCESS, f"it does not hold the rows of {', '.join(ALWAYS)}")
    if on_damage is None:
        raise error
    on_damage(error)
    return None


def read_shards(run: RunDirectory) -> tuple[dict[int, Shard], dict[int, DamagedFileError]]:
    """The records of published shards, and what is damaged of published shards, by shard.

    That is a record that cannot be read, or whose tables are gone or of another size.

    Raises:
        DamagedFileError: a shard was published by a retry whose record is gone.
    """
    errors: dict[int, DamagedFileError] = {}
    of_record = {Shard.key_of(shard): shard for shard in range(run.plan.shards)}

    def on_damage(error: DamagedFileError) -> None:
        errors[of_record[error.key]] = error

    records = {record.shard: record for record in run.read_shards(on_damage)}
    run.assert_begun(
        max((record.retry for record in records.values() if record.retry > run.retry), default=0)
    )
    sizes = {key: size for name in run.tables.names for key, size in run.store.sizes(name).items()}
    for shard, record in records.items():
        for file in record.files.values():
            if sizes.get(file.key) != file.size and not _is_changing(run, record):
                errors[shard] = damaged(TABLE, run.store, file.key, _of_size(sizes.get(file.key), file))
    return records, errors


def assert_published(run: RunDirectory) -> None:
    """Refuses a run of which a published shard is damaged or gone, after its first pass.

    Raises:
        DamagedFileError: naming the first file.
    """
    _assert_all(run, *read_shards(run))


def _assert_all(
    run: RunDirectory, records: Mapping[int, Shard], errors: Mapping[int, DamagedFileError]
) -> None:
    for shard in range(run.plan.shards):
        if error := errors.get(shard):
            raise error
        if shard not in records:
            raise run.damaged(Shard, Shard.key_of(shard), MISSING)


def _is_changing(run: RunDirectory, record: Shard) -> bool:
    """Whether the retry that a run is in has yet to publish a shard: its tables may be the next ones already.

    `workers.ledger.publish.make_tables` tells these from damaged ones.
    """
    is_open = record.retry < run.retry and record.shard in run.current.shards
    return is_open and read_success(run.store, lambda _: None) is None


def _damage(
    run: RunDirectory, files: Iterable[StagedFile], sizes: Mapping[str, int], *, read: bool
) -> DamagedFileError | None:
    """The error of a part that is gone or has another size, or, where they are read, another content."""
    files = list(files)
    for file in files:
        if sizes.get(file.key) != file.size:
            return run.damaged(PART, file.key, _of_size(sizes.get(file.key), file))
    try:
        for _ in run.read_parts(files if read else ()):
            pass
    except DamagedFileError as error:
        return error
    return None


def _of_size(size: int | None, file: StagedFile) -> str:
    return MISSING if size is None else f"it has {size:,} bytes where {file.size:,} were recorded"


def lost_records(run: RunDirectory) -> str | None:
    """A sentence where tables of a first pass are there and the ledger knows of none; None otherwise."""
    if run.retry or run.list(Shard) or run.list(Publication):
        return None
    tables = [key for name in TABLES for key in run.store.list(name)]
    if not tables:
        return None
    return (
        f"{clean_uri(run.ledger.url)} has no record of the {len(tables):,} tables there, for example "
        f"{short_line(tables[0])}: their images are labelled again"
    )


def stray_tables(run: RunDirectory) -> list[str]:
    """A sentence for each file in the folders of the tables that no shard of the run has."""
    own = {table_key(name, shard) for name in run.tables.names for shard in range(run.plan.shards)}
    strays = [key for name in TABLES for key in run.store.list(name) if key not in own]
    advice = "is no file of this run, but readers of the tables may take it for one: move it elsewhere"
    return [f"{clean_uri(run.store.url)}/{short_line(key)} {advice}" for key in strays]


def count_rows(run: RunDirectory, shards: Iterable[Shard]) -> dict[str, int]:
    """Rows of each table of some published shards of a run."""
    total = Counter(dict.fromkeys(run.tables.names, 0))
    for shard in shards:
        for name, file in shard.files.items():
            total[name] += file.rows
    return dict(total)


def finish_run(run: RunDirectory, assert_newest: Callable[[], None] = lambda: None) -> dict[str, int]:
    """Marks a run complete when its published tables add up to its manifest, its work cleared away.

    Args:
        run: in its newest pass.
        assert_newest: stops an attempt that was superseded; called right before the mark is put.

    Returns:
        Rows of each table.

    Raises:
        ReconcileError: they do not; `_SUCCESS` was not written.
    """
    rows = _added_up(run)
    _clear_work(run)
    mark = json.dumps(rows).encode()
    assert_newest()
    if not run.store.create(SUCCESS, mark) and read_success(run.store, lambda _: None) != rows:
        # it is damaged, or one of the two is of an earlier pass, by an attempt that slept
        rows = _added_up(run)
        run.store.write(SUCCESS, json.dumps(rows).encode())
    run.store.clear(TEMPORARY)
    return rows


def _added_up(run: RunDirectory) -> dict[str, int]:
    """Rows of each table of a run, all of whose shards are published."""
    plan, shards = run.plan, list(run.read_shards())
    rows = count_rows(run, shards)
    if [s.shard for s in shards] != list(range(plan.shards)) or rows["labels"] + rows["errors"] != plan.rows:
        raise ReconcileError(
            f"{len(shards)} of {plan.shards} shards are published, with {rows['labels']} labels and "
            f"{rows['errors']} errors for {plan.rows} manifest rows. Run the same command again"
        )
    return rows


def _clear_work(run: RunDirectory) -> None:
    """Deletes what a complete run needs no more: staged parts, commits, and what was made of its manifest.

    Not those of a later pass: an attempt that slept since it completed this one may find it started. The
    manifest as it was made into Parquet has each URL whole, with what may be secret.
    """
    for retry in range(run.retry + 1):
        run.store.clear(manifest_folder(retry))
        for kind in (COMMITS, PUBLICATIONS, PARTS):
            run.ledger.clear(f"{kind}/{pass_name(retry)}")
    # an older version kept them right there
    run.store.delete([key for key in run.store.list(MANIFEST) if key.count("/") == MANIFEST.count("/") + 1])
