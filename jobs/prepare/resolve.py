"""Resolves a job spec to everything that decides its rows: manifest files, models, code."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Protocol

import pyarrow as pa

from jobs.prepare.begun import changed_keys
from jobs.prepare.code import code_of
from schemas.exceptions import ManifestError, ModelError, ProcessDiedError, StorageError
from schemas.identity import settings_of_rows
from schemas.ledger import RunRecord, SourceFile
from schemas.models import ResolvedModel, identities_of, tables_of
from schemas.plan import Pass, Plan
from schemas.spec import JobSpec, ManifestSpec
from schemas.words import counted
from workers.label.children import build_model_resolver
from workers.label.settings import LabelSettings, runtime_of
from workers.ledger.runs import assert_same_run, new_run_id, read_run
from workers.manifest.find import find_sources
from workers.manifest.manifest import Manifest
from workers.manifest.sources import Source
from workers.places import with_absolute_places
from workers.printable import one_line
from workers.process.child import Child
from workers.process.forkserver import shared_fork_server
from workers.process.limits import low_limits
from workers.storage.options import assert_headers, configure_storage
from workers.storage.store import Store
from workers.storage.uris import absolute_uri, clean_uri


class ActorResources(Protocol):
    """What a labelling actor computes with; a `jobs.cluster.pools.Pool` has it for each of its actors."""

    @property
    def device(self) -> str:
        """Where the models run: "cuda" or "cpu"."""

    @property
    def threads(self) -> int:
        """To compute with on a CPU, to decode with where a GPU computes."""

    @property
    def memory_share(self) -> float:
        """The part of its node's memory that it may count on, 0 to 1."""


@dataclass(frozen=True)
class ResolvedJob:
    """A job whose manifest exists and whose models can be built.

    Attributes:
        spec: the job spec.
        sources: files of its manifest.
        models: as built, by name.
        began_with: of a retry: the manifest's files as they were when the run began, where they have changed.
        not_found: of a retry: why one of these files is not there; "" where all are.
        command: the command line that asks for it, without credentials.
    """

    spec: JobSpec
    sources: list[Source]
    models: dict[str, ResolvedModel]
    began_with: list[SourceFile] | None = None
    not_found: str = ""
    command: str = ""

    @property
    def files(self) -> list[SourceFile]:
        """What its manifest is known by."""
        return self.began_with or [source.file for source in self.sources]

    def identity(self) -> dict[str, Any]:
        """The `RunRecord.identity` of a run of this job, without opening the manifest."""
        return {
            **settings_of_rows(self.public_spec()),
            "manifest": [file.model_dump() for file in self.files],
            **identities_of(self.models),
            "code": code_of(self.models),
        }

    def assert_same_run(self, store: Store) -> None:
        """Refuses an output that holds another run.

        Raises:
            OutputConflictError: with every value that differs.
        """
        if record := read_run(store):
            assert_same_run(store, record.identity(), self.identity())

    def digest(self) -> str:
        """The sha256 of all that decides the job's rows and speed, whatever its output."""
        spec = {
            key: value for key, value in self.public_spec().items() if key not in ("output", "max_failed")
        }
        return hashlib.sha256(json.dumps([self.identity(), spec], sort_keys=True).encode()).hexdigest()

    def facts(self) -> list[tuple[str, str]]:
        """Name and value of the lines that describe a job."""
        spec = self.spec
        manifest = ", ".join(_describe(source) for source in self.sources[:5])
        if self.not_found and not self.sources:
            manifest = "gone; the rows to retry are those that the run holds"
        if len(self.sources) > 5:
            manifest += f" and {counted(len(self.sources) - 5, 'more file')}"
        facts = [("manifest", manifest)]
        if passed_over := [str(source.passed_over) for source in self.sources if source.passed_over]:
            facts.append(("passed over", "; ".join(passed_over)))
        facts.append(("output", clean_uri(spec.output)))
        for name, resolved in self.models.items():
            model = spec.models[name]
            facts.append((name, f"{_model(resolved)}, {one_line(model.what_is_kept(len(resolved.classes)))}"))
            if model.weights:
                facts.append((f"{name} weights", resolved.weights))
            facts += [(f"{name} note", note) for note in resolved.notes]
        if spec.facts:
            facts.append(("facts", ", ".join(spec.facts)))
        return facts

    def public_spec(self) -> dict[str, Any]:
        """The spec with all defaults and absolute local paths, without credentials."""
        public: dict[str, Any] = _without_secrets(self.spec.model_dump(mode="json"))
        manifest = public["manifest"]
        manifest["uri"] = [_absolute(uri) for uri in self.spec.manifest.uris]
        manifest["base"] = manifest["base"] and _absolute(manifest["base"])
        return public

    def not_kept(self) -> list[str]:
        """The dotted keys of the spec whose URLs have credentials or a query, which `public_spec` lacks."""
        values = self.spec.model_dump(mode="json")
        return list(changed_keys(values, _without_secrets(values)))

    def label_settings(
        self, manifest: Manifest, current: Pass, rows: int, actors: int, resources: ActorResources
    ) -> LabelSettings:
        """The part of the job that each labelling process gets.

        Args:
            manifest: where it reads the rows of a unit; without files where it is given images.
            current: which rows of a unit are to be done.
            rows: of the whole manifest.
            actors: that fetch at most, and share `fetch.rate`.
            resources: of one actor with models.
        """
        spec = self.spec
        return LabelSettings(
            manifest=manifest,
            current=current,
            tables=tables_of(self.models, manifest.carried, spec.facts),
            models=spec.models,
            fingerprints=tuple(model.fingerprint for model in self.models.values()),
            fetch=spec.fetch.share_of(actors),
            storage=spec.reached,
            decode=spec.decode,
            compute=spec.compute,
            device=resources.device,
            runtime=runtime_of(spec.compute, rows, spec.models),
            threads=resources.threads,
            memory_share=resources.memory_share,
            fork_server=shared_fork_server().address,
            texts={name: model.texts for name, model in self.models.items() if model.texts},
        )

    def probe_settings(self, rows: int, actors: int, resources: ActorResources) -> LabelSettings:
        """The same for a process that is given images, and no rows of a unit; see `label_settings`."""
        nothing = Plan(rows=0, unit_rows=1, shard_units=1)
        no_rows = Manifest([], "uri", None, pa.schema([]))
        return self.label_settings(no_rows, Pass(nothing), rows, actors, resources)

    def record(self, manifest: Manifest) -> RunRecord:
        """The `run.json` of a new run of this job."""
        return RunRecord(
            id=new_run_id(),
            raylabel=version("raylabel"),
            created_at=datetime.now(UTC),
            spec=self.public_spec(),
            manifest=self.files,
            manifest_columns=manifest.columns,
            plan=Plan.of(manifest.rows, self.spec.units, tables_of(self.models).names),
            models=self.models,
            code=code_of(self.models),
            command=self.command,
            not_kept=self.not_kept(),
        )


def resolve(spec: JobSpec, began_with: list[SourceFile] | None = None) -> ResolvedJob:
    """Finds the manifest's files and builds the models once, on the CPU.

    Args:
        spec: the job.
        began_with: see `resolving`.

    Raises:
        RaylabelError: see `resolving`.
    """
    with resolving(spec, began_with) as resolved:
        return resolved()


@contextlib.contextmanager
def resolving(
    spec: JobSpec, began_with: list[SourceFile] | None = None
) -> Iterator[Callable[[], ResolvedJob]]:
    """Starts to resolve a job; yields a function that waits for the result. Sets the job's storage options.

    A child process builds the models: this process need not import torch, and is free meanwhile. Local paths
    of models become absolute, so that all processes build the same ones wherever they start.

    Args:
        spec: the job.
        began_with: of a retry: the manifest's files as they were when the run began. They may have changed,
            or be gone.

    Raises:
        ManifestError: the manifest does not exist, or its format is unknown.
        ModelError: from the function: a model cannot be built, or its weights are not the ones named.
    """
    spec = with_absolute_places(spec)
    configure_storage(spec.reached)
    assert_headers()
    sources, not_found = _sources(spec.manifest, are_needed=began_with is None)
    changed = None if began_with == [source.file for source in sources] else began_with
    builder = Child(
        shared_fork_server().address, build_model_resolver, spec, memory_share=1, plain_output=True
    )

    def resolved() -> ResolvedJob:
        try:
            models = builder(None)
        except ProcessDiedError as death:
            raise ModelError(
                f"the process that built the models died: {death.message}{low_limits()}"
            ) from None
        finally:
            builder.end()
        return ResolvedJob(spec, sources, models, changed, not_found)

    try:
        yield resolved
    finally:
        builder.end()


def _sources(spec: ManifestSpec, *, are_needed: bool) -> tuple[list[Source], str]:
    """The manifest's files; where some are missing and none is needed, those that are there, and why."""
    if are_needed:
        return find_sources(spec), ""
    sources, why = [], ""
    for uri in spec.uris:
        try:
            sources += find_sources(spec.model_copy(update={"uri": uri}))
        except (ManifestError, StorageError) as error:
            why = why or str(error)
    return sources, why


def _describe(source: Source) -> str:
    beside = source.metadata and counted(len(source.metadata.files), "file")
    metadata = f" with metadata of {beside}" if beside else ""
    if source.format == "images":
        return f"{source.file.uri} ({counted(source.file.size, 'image')}{metadata})"
    return f"{source.file.uri} ({source.format}, {counted(source.file.size, 'byte')})"


def _model(model: ResolvedModel) -> str:
    size = f"{model.info.input_size}, " if model.info.input_size else ""
    answer = counted(model.width, "number") if model.width else _classes(model)
    return f"{model.fingerprint} ({size}{answer})"


def _classes(model: ResolvedModel) -> str:
    own = counted(len(model.categories), "class", "classes")
    return f"{own} folded to {len(model.classes):,}" if model.names else own


def _absolute(uri: str) -> str:
    """The absolute URI, without credentials."""
    return clean_uri(absolute_uri(uri))


def _without_secrets(value: Any) -> Any:
    """A nested value with the credentials cut from every URL in it."""
    match value:
        case dict():
            return {key: _without_secrets(inner) for key, inner in value.items()}
        case list():
            return [_without_secrets(inner) for inner in value]
        case str():
            return clean_uri(value)
        case _:
            return value
