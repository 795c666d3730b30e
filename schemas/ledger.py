"""The records that a run keeps of itself: run.json, attempts, retries, commits, published shards.

All but run.json are kept below `ledger_folder(run.id)`, the run's ledger: what a process of a run that was
restarted still writes is in a folder that nobody reads any more.
"""

import hashlib
import re
from collections.abc import Collection
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    computed_field,
    model_validator,
)

from schemas.identity import settings_of_rows
from schemas.models import ResolvedModel, identities_of, tables_of
from schemas.plan import Plan
from schemas.ranges import Ranges
from schemas.spec import ManifestFormat, StorageMap, StorageOptions, reached_by

RUN = "run.json"
SUCCESS = "_SUCCESS"
WORK = "_work"
MANIFEST = f"{WORK}/manifest"
TEMPORARY = f"{WORK}/tmp"
PREDICTION = f"{WORK}/prediction.json"
"""Next to the ledgers' folders: no part of a run."""

PARTS = "parts"
COMMITS = "commits"
PUBLICATIONS = "publications"
SHARDS = "shards"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)

    def to_json(self) -> bytes:
        """The record as it is stored: indented, so that a person can read it."""
        return self.model_dump_json(indent=1).encode()


class SourceFile(_Record):
    """One file that the manifest was made of, or the listing of a folder.

    Attributes:
        uri: where it is, without credentials.
        size: its bytes; of a listing: how many images.
        version: its ETag; on a local disk the sha256 of its contents, or of parts of a large Parquet or tar
            file; else when it was last changed; of a listing: the sha256 over names, sizes and versions.
        format: what it is read as.
        partitions: the columns that its folders say.
    """

    uri: str
    size: int
    version: str
    format: ManifestFormat | None = None
    partitions: dict[str, str | None] = {}


class RunRecord(_Record):
    """run.json: what a run was asked, and everything that decides its rows.

    Attributes:
        id: names this run among those that were restarted in the same directory.
        raylabel: the version that began the run.
        created_at: when it began, UTC.
        spec: the job spec with every default filled in, credentials cut from its URLs.
        manifest: the files the manifest was made of.
        manifest_columns: the columns carried into the labels table, name to Arrow type.
        plan: how the manifest is cut.
        models: those of the job, by name.
        code: that makes the rows: of each part of the run the digests of its files, by name.
        command: the command line that began it, quoted for a shell, without credentials.
        not_kept: dotted keys of the spec whose URLs had credentials or a query, which were cut.
        tables: names of those that it writes.
    """

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*$")]  # a folder is named so
    raylabel: str
    created_at: AwareDatetime
    spec: dict[str, Any]
    manifest: list[SourceFile]
    manifest_columns: dict[str, str]
    plan: Plan
    models: dict[str, ResolvedModel]
    code: dict[str, dict[str, str]]
    command: str = ""
    not_kept: list[str] = []

    @model_validator(mode="after")
    def _has_the_settings_of_rows(self) -> Self:
        try:
            settings_of_rows(self.spec)
        except (KeyError, TypeError, AttributeError):
            raise ValueError("the spec lacks settings that decide rows") from None
        return self

    @computed_field  # type: ignore[prop-decorator]
    @property
    def tables(self) -> list[str]:
        """The names of the tables that the run writes."""
        return list(tables_of(self.models).names)

    @property
    def taggers_of_boxes(self) -> tuple[str, ...]:
        """The names of the taggers that get the detector's boxes; the embedder may get them, too."""
        getting = (name for name, model in self.models.items() if model.gets_boxes and "tags" in model.tables)
        return tuple(name.partition(".")[2] for name in getting)

    @property
    def facts(self) -> tuple[str, ...]:
        """What the job asks for beside labels; see `schemas.tables.FACTS_OF`."""
        return tuple(self.spec.get("facts", ()))

    def for_workers(self) -> Self:
        """The record without what only the driver needs, which may be large."""
        models = {name: model.without_details() for name, model in self.models.items()}
        return self.model_copy(
            update={"spec": {"facts": [*self.facts]}, "manifest": [], "models": models, "code": {}}
        )

    def identity(self) -> dict[str, Any]:
        """What must be the same for two attempts to belong to one run."""
        parts = self.model_dump(mode="json", include={"manifest", "code"})
        return {**settings_of_rows(self.spec), **parts, **identities_of(self.models)}

    @property
    def storage(self) -> StorageMap:
        """How the job reaches the files below each URL."""
        options = self.spec.get("storage", {})
        storage = {url: StorageOptions.model_validate(values) for url, values in options.items()}
        return reached_by(storage, self.spec.get("fetch", {}).get("headers", {}))


class LedgerRecord(_Record):
    """A record that a run's ledger keeps, one file each.

    Attributes:
        folder: of the ledger, for all records of the kind.
    """

    folder: ClassVar[str]

    @property
    def key(self) -> str:
        """The key of the file, below the ledger."""
        raise NotImplementedError

    @classmethod
    def key_of(cls, *place: int) -> str:
        """The key of the record at a place: the numbers that tell it from others of its kind."""
        raise NotImplementedError

    def misfit(self, run: RunRecord) -> str | None:  # noqa: ARG002 - for those below
        """What of the record cannot be of a run; None: nothing."""
        return None


class NumberedRecord(LedgerRecord):
    """A record whose place is one number."""

    number: int

    @classmethod
    def key_of(cls, *place: int) -> str:
        """See `LedgerRecord`."""
        (number,) = place
        return f"{cls.folder}/{number:06d}.json"

    @classmethod
    def number_of(cls, key: str) -> int | None:
        """The number in the key of a record of the kind; None where another file has it."""
        match = re.fullmatch(rf"{cls.folder}/(\d{{6,}})\.json", key)
        return int(match[1]) if match and cls.key_of(int(match[1])) == key else None

    @property
    def key(self) -> str:
        """See `LedgerRecord`."""
        return self.key_of(self.number)


class Attempt(NumberedRecord):
    """One attempt at a run: taken with a conditional PUT, so that no two attempts share a number.

    Attributes:
        number: 1 for the first attempt.
        started_at: UTC.
        host: the driver's machine.
        pid: the driver's process.
        machine: that machine since it booted, and the namespace in which pids count there.
        process_started: when that process began, in clock ticks since then: pids are used again.
    """

    folder = "attempts"

    started_at: AwareDatetime
    host: str
    pid: Annotated[int, Field(gt=0, lt=2**31)]
    machine: str
    process_started: int

    def __str__(self) -> str:
        return f"attempt {self.number} (process {self.pid} on {self.host}, since {self.started_at:%F %T} UTC)"


class HeartbeatRecord(NumberedRecord):
    """The heartbeat of an attempt: replaced every few seconds, and once more when the attempt ends.

    Attributes:
        number: the attempt's.
        at: when, UTC.
        state: "running", or how it ended.
        reason: why it ended, where it did not complete.
        done: rows of its pass in a final state; None before the ledger was read.
        failed: of them failed, by code.
    """

    folder = "heartbeats"

    at: AwareDatetime
    state: Literal["running", "complete", "stopped", "failed"]
    reason: str | None = None
    done: int | None = None
    failed: dict[str, int] = {}


class Retry(NumberedRecord):
    """A pass over the rows that had failed with some codes, after the first one, which does every row.

    Attributes:
        number: from 1; the first pass is number 0 and has no record.
        codes: the error codes that were asked for.
        rows: the manifest rows that had them.
    """

    folder = "retries"

    codes: list[str]
    rows: Ranges

    def misfit(self, run: RunRecord) -> str | None:
        """See `LedgerRecord`."""
        return None if _within(self.rows, range(run.plan.rows)) else "rows that the manifest does not have"


class StagedFile(_Record):
    """One Parquet file of a part or of a shard.

    Attributes:
        key: of a part: below the run's ledger; of a shard: below the run directory.
        rows: rows in it.
        size: its bytes.
        sha256: of its bytes, in hexadecimal.
    """

    key: str
    rows: NonNegativeInt
    size: NonNegativeInt
    sha256: str


class Commit(LedgerRecord):
    """The entry that makes staged parts count: put last, conditionally.

    Attributes:
        attempt: the attempt that made it.
        retry: the pass it belongs to; 0 is the first.
        shard: the shard that its units belong to.
        units: the units whose rows of this pass it holds.
        files: by table; more than one where commits were merged.
        failed: images in the errors table, by code.
    """

    folder = COMMITS

    attempt: NonNegativeInt
    retry: NonNegativeInt
    shard: NonNegativeInt
    units: Annotated[Ranges, Field(min_length=1)]
    files: dict[str, list[StagedFile]]
    failed: dict[str, int]

    @property
    def key(self) -> str:
        """Where the entry is kept, made of what it holds: a task that runs again adds nothing."""
        return f"{shard_folder(COMMITS, self.retry, self.shard)}/{part_name(self.attempt, self.units)}.json"

    def misfit(self, run: RunRecord) -> str | None:
        """See `LedgerRecord`."""
        return _misfit_of_parts(self.units, self.files, self.shard, run)


class ChosenCommit(_Record):
    """Units of a shard, and the files that their rows are taken from.

    Attributes:
        units: taken from these files; others in them are passed over.
        files: by table.
    """

    units: Ranges
    files: dict[str, list[StagedFile]]


class Publication(LedgerRecord):
    """Where the rows of each unit of a shard come from; put conditionally before the shard's files.

    Attributes:
        retry: the pass it belongs to; 0 is the first.
        shard: its number.
        chosen: every unit with rows in this pass, once.
    """

    folder = PUBLICATIONS

    retry: NonNegativeInt
    shard: NonNegativeInt
    chosen: list[ChosenCommit]

    def misfit(self, run: RunRecord) -> str | None:
        """See `LedgerRecord`."""
        misfits = (_misfit_of_parts(one.units, one.files, self.shard, run) for one in self.chosen)
        return next(filter(None, misfits), None)

    @classmethod
    def key_of(cls, *place: int) -> str:
        """The key of the choice for a shard in a pass: (retry, shard)."""
        retry, shard = place
        return f"{shard_folder(PUBLICATIONS, retry, shard)}.json"

    @property
    def key(self) -> str:
        """See `LedgerRecord`."""
        return self.key_of(self.retry, self.shard)


class Shard(LedgerRecord):
    """A published shard: put when its files are whole and in place.

    Attributes:
        shard: its number.
        retry: the pass that published it last; 0 is the first.
        files: by table.
        failed: of the images that this pass did, those that failed, by code.
        errors: rows of its errors table, by code.
    """

    folder = SHARDS

    shard: NonNegativeInt
    retry: NonNegativeInt
    files: dict[str, StagedFile]
    failed: dict[str, int]
    errors: dict[str, int]

    @classmethod
    def key_of(cls, *place: int) -> str:
        """The key of a shard's record: (shard,)."""
        (shard,) = place
        return f"{SHARDS}/{shard_name(shard)}.json"

    def misfit(self, run: RunRecord) -> str | None:
        """See `LedgerRecord`."""
        if self.shard >= run.plan.shards:
            return "a shard that the run does not have"
        return _misfit_of_tables(self.files, run)

    @property
    def key(self) -> str:
        """See `LedgerRecord`."""
        return self.key_of(self.shard)


def _misfit_of_parts(
    units: Ranges, files: dict[str, list[StagedFile]], shard: int, run: RunRecord
) -> str | None:
    if not _within(units, run.plan.units_of_shard(shard)):
        return "units that its shard does not have"
    return _misfit_of_tables(files if all(files.values()) else (), run)


def _misfit_of_tables(names: Collection[str], run: RunRecord) -> str | None:
    return None if set(names) == set(run.tables) else f"files of other tables than {', '.join(run.tables)}"


def _within(ranges: Ranges, numbers: range) -> bool:
    return all(numbers.start <= start and stop <= numbers.stop for start, stop in ranges)


def ledger_folder(run_id: str) -> str:
    """The folder below the run directory that holds a run's ledger and its staged parts."""
    return f"{WORK}/{run_id}"


def shard_name(shard: int) -> str:
    """A shard's name in files and folders."""
    return f"shard-{shard:05d}"


def shard_number(name: str) -> int | None:
    """The number in a shard's name; None where it is not one."""
    number = name.removeprefix("shard-")
    return int(number) if number.isdecimal() and shard_name(int(number)) == name else None


def table_key(table: str, shard: int) -> str:
    """Where readers find a table of a shard."""
    return f"{table}/{shard_name(shard)}.parquet"


def pass_name(retry: int) -> str:
    """A pass's name in folders."""
    return f"{retry:03d}"


def manifest_folder(retry: int) -> str:
    """The folder below the run directory with what a pass made of the manifest."""
    return f"{MANIFEST}/{pass_name(retry)}"


def shard_folder(kind: str, retry: int, shard: int) -> str:
    """The folder of one shard's parts or commits in one pass."""
    return f"{kind}/{pass_name(retry)}/{shard_name(shard)}"


def part_name(attempt: int, units: Ranges) -> str:
    """A part's name, made of its attempt and its units."""
    digest = hashlib.sha256(str(units).encode()).hexdigest()[:12]
    return f"{attempt:06d}-{units[0][0]:09d}-{digest}"
