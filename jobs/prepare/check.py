"""`raylabel check`: finds what would keep a job from running."""

import json
import time
from dataclasses import dataclass, field, replace

from rich.console import Console

from jobs.prepare.resolve import ResolvedJob, resolve
from schemas.errors import ErrorCode
from schemas.exceptions import ImageError, ModelError, ProcessDiedError, StorageError
from schemas.locations import Location
from schemas.spec import JobSpec
from schemas.words import counted
from workers.fetch.locate import describe, read_image
from workers.label.children import build_profiler
from workers.ledger.state import read_success
from workers.manifest.formats import FORMATS
from workers.manifest.open import assert_common_columns, no_rows
from workers.printable import printable
from workers.process.child import Child
from workers.process.cpus import usable_cpus
from workers.storage.store import UNCONDITIONAL, Store

UNREACHABLE = (
    ErrorCode.DENIED,
    ErrorCode.EXPIRED,
    ErrorCode.THROTTLED,
    ErrorCode.TIMEOUT,
    ErrorCode.NETWORK,
)
"""Codes of a first image that point at the storage rather than at this image."""


@dataclass(frozen=True)
class ThisMachine:
    """What the process computes with that labels the first image; see `jobs.prepare.resolve.ActorResources`.

    On the CPU, wherever the job's models run: one image is soon done.
    """

    device: str = "cpu"
    threads: int = field(default_factory=usable_cpus)
    memory_share: float = 1


def check_job(spec: JobSpec, *, as_json: bool) -> None:
    """Resolves a job, labels its first image, tests writing to the output, and prints the result.

    Raises:
        RaylabelError: the first problem that would keep the job from running.
    """
    job = resolve(spec)
    for source in job.sources:
        FORMATS[source.format].check(spec.manifest, source)
    if not any(FORMATS[source.format].has_rows(source) for source in job.sources):
        raise no_rows(spec.manifest)
    assert_common_columns(spec.manifest, job.sources)
    store = Store(spec.output)
    job.assert_same_run(store)
    creates_once = store.try_to_write()
    facts = [*job.facts(), ("first image", _first_image(job))]
    if not creates_once:
        facts.append(("note", UNCONDITIONAL))
    complete = read_success(store, lambda error: facts.append(("note", str(error))))
    state = "complete" if complete else "to do"
    if as_json:
        print(json.dumps({"state": state, "spec": job.public_spec(), **dict(facts)}))
        return
    console = Console(highlight=False, soft_wrap=True)
    for name, fact in facts:
        console.print(printable(f"{name}: {fact}"), markup=False)
    console.print(f"state: {state}", markup=False)


def _first_image(job: ResolvedJob) -> str:
    """Reads the first image of the manifest and sends it through the models; returns the result in words.

    Raises:
        StorageError: the store refuses the request or does not answer.
        ModelError: the models that are built for it are not those of the job, or a model's answer is none.
    """
    source = job.sources[0]
    location = FORMATS[source.format].first_location(job.spec.manifest, source)
    if location is None:
        return "none"
    start = time.monotonic()
    try:
        data = read_image(location, job.spec.fetch)
    except ImageError as error:
        if error.code in UNREACHABLE:
            raise StorageError(f"the first image cannot be read here: {error}") from None
        return f"a failed row: {error}"
    read = f"{describe(location)}, {counted(len(data), 'byte')} read in {time.monotonic() - start:.2f} s"
    failure = _label(job, location)
    return f"{read}; a failed row: {failure}" if failure else f"{read}, labelled"


def _label(job: ResolvedJob, location: Location) -> str:
    """Sends an image through the job's models; returns why it failed, or "".

    Raises:
        ModelError: the models that are built for it are not those of the job, or a model's answer is none.
    """
    settings = job.probe_settings(rows=1, actors=1, resources=ThisMachine())
    compute = settings.compute.model_copy(update={"precision": "auto"})  # that of a GPU may be none of a CPU
    settings = replace(settings, compute=compute)
    child = Child(settings.fork_server, build_profiler, settings, 1, settings.timeouts, plain_output=True)
    try:
        child([location])
        probed = child(None)
    except ProcessDiedError as death:
        return str(death)
    finally:
        child.end()
    if ErrorCode.MODEL_ERROR in probed.failed:
        raise ModelError(f"the models fail on the first image: {probed.example}")
    if probed.wrong:
        raise ModelError(
            f"a model with `on: boxes` fails on a part of the first image, which has no box: {probed.wrong}"
        )
    return str(probed.example)
