"""`raylabel check` and `raylabel models`: everything that can be known before a run."""

import json
import time

from rich.console import Console
from rich.table import Table

from jobs.ledger import read_success
from jobs.manifest import assert_images, first_location
from jobs.resolve import ResolvedJob, resolve
from schemas.errors import ErrorCode
from schemas.exceptions import ImageError, StorageError
from schemas.spec import JobSpec
from workers.locations import read_image, said
from workers.storage import Store

UNREACHABLE = (
    ErrorCode.DENIED,
    ErrorCode.EXPIRED,
    ErrorCode.THROTTLED,
    ErrorCode.TIMEOUT,
    ErrorCode.NETWORK,
)
"""What a first image fails with where it is not this one image's fault."""


def check_job(spec: JobSpec, *, as_json: bool) -> None:
    """Resolves a job without running it, reads one image, tries the output, and prints what it comes to.

    Raises:
        RaylabelError: the first thing that would keep it from running.
    """
    job = resolve(spec)
    for source in job.sources:
        assert_images(spec.manifest, source)
    store = Store(spec.output)
    job.assert_same_run(store)
    store.try_to_write()
    facts = [*job.facts(), ("first image", _first_image(job))]
    state = "complete" if read_success(store) else "to do"
    if as_json:
        print(json.dumps({"state": state, "spec": job.public_spec(), **dict(facts)}))
        return
    console = Console(highlight=False, soft_wrap=True)
    for name, fact in facts:
        console.print(f"{name}: {fact}", markup=False)
    console.print(f"state: {state}", markup=False)


def _first_image(job: ResolvedJob) -> str:
    """What came of reading the first image of the manifest.

    Raises:
        StorageError: the store refuses it, or does not answer.
    """
    location = first_location(job.spec.manifest, job.sources[0])
    if location is None:
        return "none"
    began = time.monotonic()
    try:
        data = read_image(location, job.spec.fetch)
    except ImageError as error:
        if error.code in UNREACHABLE:
            raise StorageError(f"the first image cannot be read here: {error}") from None
        return f"a failed row: {error}"
    return f"{said(location)}, {len(data):,} bytes read in {time.monotonic() - began:.2f} s"


def list_models(text: str, *, timm: bool, as_json: bool) -> None:
    """Prints the models that a job can name, those whose name holds some text."""
    from workers.models.registry import list_models as known_models

    found = [model for model in known_models(timm=timm) if text.lower() in model.name.lower()]
    if as_json:
        print(json.dumps([model.model_dump() for model in found]))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "task", "source", "input", "classes", "quality", "licence"):
        table.add_column(heading, no_wrap=heading in ("model", "task", "source"), overflow="fold")
    for model in found:
        classes = str(model.categories)
        row = (model.name, model.task, model.source, model.input_size, classes, model.quality, model.licence)
        table.add_row(*row)
    Console(highlight=False).print(table)
