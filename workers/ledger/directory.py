"""A run in its directory: its records by kind, and which pass it is in."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import pyarrow as pa

from schemas.ledger import LedgerRecord, Retry, RunRecord, ledger_folder
from schemas.plan import Pass, Plan
from schemas.ranges import from_ranges
from workers.storage.store import Store

Kind = TypeVar("Kind", bound=LedgerRecord)


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

    @property
    def plan(self) -> Plan:
        """How the manifest is cut."""
        return self.current.plan

    @property
    def retry(self) -> int:
        """The number of the pass; 0 is the first."""
        return self.current.retry

    def newest(self) -> "RunDirectory":
        """The same run in its newest pass."""
        retry = self.last(Retry)
        return replace(self, current=self._pass_of(retry)) if retry else self

    def for_workers(self) -> "RunDirectory":
        """The same run without what only the driver needs of run.json, which may be large."""
        unneeded: dict[str, Any] = {"spec": {}, "manifest": [], "classifier": None, "detector": None}
        return replace(self, record=self.record.model_copy(update=unneeded))

    def passes(self) -> dict[int, Pass]:
        """Every pass that was started, by number."""
        first = Pass(self.record.plan)
        return {0: first} | {retry.number: self._pass_of(retry) for retry in self.read(Retry)}

    def _pass_of(self, retry: Retry) -> Pass:
        return Pass(self.record.plan, from_ranges(retry.rows), retry.number)

    def get(self, kind: type[Kind], *place: int) -> Kind | None:
        """The record of a kind at a place, such as `get(Shard, 3)`; None where there is none."""
        return self._read_one(kind, kind.key_of(*place))

    def _read_one(self, kind: type[Kind], key: str) -> Kind | None:
        try:
            return kind.model_validate_json(self.ledger.read(key))
        except FileNotFoundError:
            return None

    def last(self, kind: type[Kind]) -> Kind | None:
        """The record of a kind with the highest key; None where there is none."""
        keys = self.list(kind)
        return self._read_one(kind, keys[-1]) if keys else None

    def list(self, kind: type[LedgerRecord], *folder: str) -> list[str]:
        """The keys of the records of a kind, ascending; of those below a folder of theirs."""
        return self.ledger.list("/".join((kind.folder, *folder)))

    def read(self, kind: type[Kind], keys: Iterable[str] | None = None) -> Iterator[Kind]:
        """Records of a kind, in the order of their keys; one that is gone since it was listed is left out.

        Args:
            kind: of all of them.
            keys: of the records; None: all that there are.
        """
        for data in self.ledger.read_all(self.list(kind) if keys is None else keys):
            if data is not None:
                yield kind.model_validate_json(data)

    def put(self, record: LedgerRecord) -> None:
        """Puts a record, replacing the one at its place."""
        self.ledger.write(record.key, record.to_json())

    def create(self, record: LedgerRecord) -> bool:
        """Puts a record where there is none; whether this call did. See `Store.create`."""
        return self.ledger.create(record.key, record.to_json())
