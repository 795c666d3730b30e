"""`raylabel check` and `raylabel models`: everything that can be known before a run."""

import json

from rich.console import Console
from rich.table import Table

from jobs.ledger import read_success
from jobs.manifest import assert_images
from jobs.resolve import resolve
from schemas.spec import JobSpec
from workers.storage import Store


def check_job(spec: JobSpec, *, as_json: bool) -> None:
    """Resolves a job without running it, and prints what it comes to.

    Raises:
        RaylabelError: the first thing that would keep it from running.
    """
    job = resolve(spec)
    for source in job.sources:
        assert_images(spec.manifest, source)
    store = Store(spec.output)
    job.assert_same_run(store)
    state = "complete" if read_success(store) else "to do"
    if as_json:
        print(json.dumps({"state": state, "spec": job.public_spec(), **dict(job.facts())}))
        return
    console = Console(highlight=False, soft_wrap=True)
    for name, fact in job.facts():
        console.print(f"{name}: {fact}", markup=False)
    console.print(f"state: {state}", markup=False)


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
