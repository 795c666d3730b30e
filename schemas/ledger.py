"""The records that a run keeps of itself: run.json, epochs, commits, published shards."""

import hashlib
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from schemas.models import ResolvedModel
from schemas.plan import Plan


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
        version: its ETag, or when it was last changed; of a listing: the sha256 over all names and versions.
    """

    uri: str
    size: int
    version: str


class RunRecord(_Record):
    """run.json: what a run was asked, and everything that decides its rows.

    Attributes:
        raylabel: the version that began the run.
        created_at: when it began, UTC.
        spec: the job spec with every default filled in, credentials cut from its URLs.
        manifest: the files the manifest was made of.
        manifest_columns: the columns carried into the labels table, name to Arrow type.
        plan: how the manifest is cut.
        classifier: None where none was asked.
        detector: None where none was asked.
        code: the sha256 over the source of `schemas` and `workers`, which make the rows.
    """

    raylabel: str
    created_at: datetime
    spec: dict[str, Any]
    manifest: list[SourceFile]
    manifest_columns: dict[str, str]
    plan: Plan
    classifier: ResolvedModel | None
    detector: ResolvedModel | None
    code: str

    def identity(self) -> dict[str, Any]:
        """What must be the same for two attempts to belong to one run."""
        parts = self.model_dump(mode="json", include={"manifest", "classifier", "detector", "code"})
        return {**settings_of_rows(self.spec), **parts}


def settings_of_rows(spec: dict[str, Any]) -> dict[str, Any]:
    """The settings of a job spec that decide its rows, beside its manifest's files and its models."""
    manifest = {key: spec["manifest"][key] for key in ("uri_column", "image_id_column", "base")}
    return {
        **{f"manifest.{key}": value for key, value in manifest.items()},
        "decode": spec["decode"],
        "fetch.max_bytes": spec["fetch"]["max_bytes"],
        "compute.precision": spec["compute"]["precision"],
        "units": spec["units"],
    }


class Epoch(_Record):
    """One attempt at a run: taken with a conditional PUT, so that no two attempts share a number."""

    number: int
    started_at: datetime
    host: str
    pid: int


class StagedFile(_Record):
    """One Parquet file of a part or of a shard.

    Attributes:
        key: below the run directory.
        rows: rows in it.
        size: its bytes.
        sha256: of its bytes, in hexadecimal.
    """

    key: str
    rows: int
    size: int
    sha256: str


class Commit(_Record):
    """The entry that makes a staged part count: put last, conditionally.

    Attributes:
        epoch: the attempt that made it.
        shard: the shard that its units belong to.
        units: the whole units that it holds, ascending.
        files: by table.
        failed: images in the errors table, by code.
    """

    epoch: int
    shard: int
    units: list[int]
    files: dict[str, StagedFile]
    failed: dict[str, int]

    @property
    def key(self) -> str:
        """Where the entry is kept, made of what it holds: a retry overwrites nothing and adds nothing."""
        return f"{COMMITS}/{shard_name(self.shard)}/{part_name(self.epoch, self.units)}.json"


class Publication(_Record):
    """Which commit's rows each unit of a shard takes; put conditionally before the shard's files.

    Attributes:
        shard: its number.
        winners: keys of commits, each with the units taken from it.
    """

    shard: int
    winners: dict[str, list[int]]

    @property
    def key(self) -> str:
        """Where it is kept."""
        return f"{PUBLICATIONS}/{shard_name(self.shard)}.json"


class Shard(_Record):
    """A published shard: put when its files are whole and in place.

    Attributes:
        shard: its number.
        files: by table.
        failed: images in the errors table, by code.
    """

    shard: int
    files: dict[str, StagedFile]
    failed: dict[str, int]

    @property
    def key(self) -> str:
        """Where it is kept."""
        return f"{SHARDS}/{shard_name(self.shard)}.json"


RUN = "run.json"
SUCCESS = "_SUCCESS"
MANIFEST = "_work/manifest"
EPOCHS = "_work/epochs"
PARTS = "_work/parts"
COMMITS = "_work/commits"
PUBLICATIONS = "_work/publications"
SHARDS = "_work/shards"


def shard_name(shard: int) -> str:
    """A shard's name in files and folders."""
    return f"shard-{shard:05d}"


def part_name(epoch: int, units: list[int]) -> str:
    """A part's name, made of its epoch and its units."""
    digest = hashlib.sha256(",".join(map(str, units)).encode()).hexdigest()[:12]
    return f"{epoch:06d}-{units[0]:09d}-{digest}"
