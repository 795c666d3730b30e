"""A run in its directory: its records by kind, and which pass it is in."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.exceptions import DamagedFileError
from schemas.ledger import (
    PUBLICATIONS,
    LedgerRecord,
    NumberedRecord,
    Retry,
    RunRecord,
    Shard,
    StagedFile,
    ledger_folder,
)
from schemas.models import tables_of
from schemas.plan import Pass, Plan
from schemas.ranges import from_ranges
from schemas.tables import RunTables
from workers.ledger.damage import MISSING, PART, damaged, parse
from workers.storage.store import Store

Kind = TypeVar("Kind", bound=LedgerRecord)
Numbered = TypeVar("Numbered", bound=NumberedRecord)
OnDamage = Callable[[DamagedFileError], object]
"""What a command does about a damaged file that it can go on without."""


@dataclass(frozen=True)
class RunDirectory:
    """One run, in one of its passes. Pickles; every process that works for the run has its own copy.

    Attributes:
        store: the run directory, where readers find the tables.
        record: run.json.
        current: the pass; the first one, or the newest (see `newest`).
        carried: the manifest's own columns; empty where no table is made or merged.
    """

    store: Store
    record: RunRecord
    current: Pass
    carried: pa.Schema = field(default_factory=lambda: pa.schema([]))

    @classmethod
    def first(cls, store: Store, record: RunRecord, carried: pa.Schema | None = None) -> "RunDirectory":
        """A run in its first pass."""
        return cls(store, record, Pass(record.plan), carried or pa.schema([]))

    @cached_property
    def ledger(self) -> Store:
        """The folder of the run's records and staged parts."""
        return self.store.below(ledger_folder(self.record.id))

    @cached_property
    def tables(self) -> RunTables:
        """The tables that it writes."""
        return tables_of(self.record.models, self.carried, self.record.facts)

    @property
    def plan(self) -> Plan:
        """How the manifest is cut."""
        return self.current.plan

    @property
    def retry(self) -> int:
        """The number of the pass; 0 is the first."""
        return self.current.retry

    def newest(self) -> "RunDirectory":
        """The same run in its newest pass.

        Raises:
            DamagedFileError: the record of a retry that changes tables cannot be read, or is gone.
        """
        retry = self.last(Retry)
        for folder in self.ledger.folders(PUBLICATIONS):
            self.assert_begun(int(name) if (name := folder.rpartition("/")[2]).isdecimal() else 0)
        return replace(self, current=self._pass_of(retry)) if retry else self

    def assert_begun(self, retry: int) -> None:
        """Refuses a pass without its record: which rows of the tables it changes would not be known.

        Raises:
            DamagedFileError: naming the record.
        """
        if retry and retry not in self.numbers(Retry):
            raise self.damaged(Retry, Retry.key_of(retry), MISSING)

    def for_workers(self) -> "RunDirectory":
        """The same run with as much of run.json as workers need."""
        return replace(self, record=self.record.for_workers())

    def passes(self) -> dict[int, Pass]:
        """Every pass that was started, by number."""
        first = Pass(self.record.plan)
        return {0: first} | {retry.number: self._pass_of(retry) for retry in self._retries()}

    def _retries(self) -> Iterator[Retry]:
        return self.read(Retry, [Retry.key_of(number) for number in self.numbers(Retry)])

    def _pass_of(self, retry: Retry) -> Pass:
        return Pass(self.record.plan, from_ranges(retry.rows), retry.number)

    def get(self, kind: type[Kind], *place: int) -> Kind | None:
        """The record of a kind at a place, such as `get(Shard, 3)`; None where there is none.

        Raises:
            DamagedFileError: the file there holds no such record.
        """
        key = kind.key_of(*place)
        try:
            return self.parse(kind, key, self.ledger.read(key))
        except FileNotFoundError:
            return None

    def parse(self, kind: type[Kind], key: str, data: bytes) -> Kind:
        """The record in a file of the ledger, which must be of its place, and of a run that is cut like this.

        Raises:
            DamagedFileError: it holds no such record.
        """
        record = parse(kind, self.ledger, key, data)
        if misfit := record.misfit(self.record):
            raise self.damaged(kind, key, f"it has {misfit}")
        if record.key != key:
            raise self.damaged(kind, key, f"it is that of {record.key}")
        return record

    def damaged(self, kind: type[LedgerRecord] | str, key: str, reason: str) -> DamagedFileError:
        """The error of a damaged file of the ledger; see `workers.ledger.damage.damaged`."""
        return damaged(kind, self.ledger, key, reason)

    def last(self, kind: type[Numbered]) -> Numbered | None:
        """The record of a kind with the highest number; None where there is none.

        Raises:
            DamagedFileError: its file holds no such record.
        """
        numbers = self.numbers(kind)
        return self.get(kind, numbers[-1]) if numbers else None

    def numbers(self, kind: type[NumberedRecord]) -> list[int]:
        """The numbers of the records of a kind, ascending, whatever their files hold."""
        return sorted(n for key in self.list(kind) if (n := kind.number_of(key)) is not None)

    def list(self, kind: type[LedgerRecord], *folder: str) -> list[str]:
        """The keys of the records of a kind, ascending; of those below a folder of theirs."""
        return self.ledger.list("/".join((kind.folder, *folder)))

    def read(
        self, kind: type[Kind], keys: Iterable[str] | None = None, on_damage: OnDamage | None = None
    ) -> Iterator[Kind]:
        """Records of a kind, in the order of their keys; one that is gone since it was listed is left out.

        Args:
            kind: of all of them.
            keys: of the records; None: all that there are.
            on_damage: called with the error of each damaged file, which is then left out; None: raise it.

        Raises:
            DamagedFileError: a file holds no such record.
        """
        keys = list(self.list(kind) if keys is None else keys)
        for key, data in zip(keys, self.ledger.read_all(keys), strict=True):
            if data is None:
                continue
            try:
                yield self.parse(kind, key, data)
            except DamagedFileError as error:
                if on_damage is None:
                    raise
                on_damage(error)

    def read_shards(self, on_damage: OnDamage | None = None) -> Iterator[Shard]:
        """The records of the published shards, ascending; other files among them are left out. See `read`."""
        keys = {Shard.key_of(shard) for shard in range(self.plan.shards)}
        yield from self.read(Shard, [key for key in self.list(Shard) if key in keys], on_damage)

    def read_parts(self, files: Iterable[StagedFile]) -> Iterator[pa.Table]:
        """Staged tables, in order, each the very one that was committed.

        Raises:
            DamagedFileError: a file is gone, or is not that one.
        """
        files = list(files)
        for file, data in zip(files, self.ledger.read_all(file.key for file in files), strict=True):
            if data is None:
                raise self.damaged(PART, file.key, MISSING)
            if hashlib.sha256(data).hexdigest() != file.sha256:
                raise self.damaged(PART, file.key, "its content is not what was committed")
            yield pq.read_table(pa.BufferReader(data))

    def put(self, record: LedgerRecord) -> None:
        """Puts a record, replacing the one at its place."""
        self.ledger.write(record.key, record.to_json())

    def create(self, record: LedgerRecord) -> bool:
        """Puts a record where there is none; whether this call did. See `Store.create`."""
        return self.ledger.create(record.key, record.to_json())
