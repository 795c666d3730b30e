"""`raylabel run`: a job from its spec to its end, and what the user is told on the way."""

import json
import sys
import time

from rich.console import Console

from jobs import cluster
from jobs.label import label
from jobs.ledger import read_success
from jobs.progress import Bar, JsonLines, Quiet
from jobs.report import write_report
from jobs.resolve import resolve
from schemas.spec import JobSpec
from workers.storage import Store, clean_uri


def run_job(spec: JobSpec, *, address: str | None, as_json: bool, verbose: bool) -> None:
    """Runs a job to its end, or says that it has been.

    Args:
        spec: the job.
        address: of the Ray cluster to join; None: RAY_ADDRESS, or a Ray of its own.
        as_json: tell a program instead of a person.
        verbose: show Ray's own messages.

    Raises:
        RaylabelError: see `jobs.resolve.resolve`, `jobs.cluster.connect` and `jobs.label.label`.
    """
    began = time.monotonic()
    console = Console(quiet=as_json, highlight=False, soft_wrap=True)
    output = clean_uri(spec.output)
    job = resolve(spec)
    store = Store(spec.output)
    job.assert_same_run(store)
    if rows := read_success(store):
        console.print(f"{output} is complete: {said(rows)}. Nothing to do.", markup=False)
        _tell(as_json, event="complete", output=output, already=True, **rows)
        return

    for name, fact in job.facts():
        console.print(f"{name}: {fact}", markup=False)
    with cluster.connect(address, verbose=verbose) as logs, _reporter(console, as_json) as reporter:
        console.print(f"Ray's own messages: {logs}", markup=False)
        _tell(as_json, event="started", output=output, ray_logs=str(logs))
        rows = label(job, reporter)

    seconds = time.monotonic() - began
    write_report(spec.output, {**dict(job.facts()), "this attempt": f"{seconds:.0f} s"})
    console.print(f"{said(rows)} in {seconds:.0f} s", markup=False)
    console.print(
        f"tables: {output}/{{labels,boxes,errors}}/*.parquet\nreport: {output}/report.html", markup=False
    )
    console.print(f"a look: raylabel show {output}", markup=False)
    _tell(as_json, event="complete", output=output, already=False, seconds=round(seconds, 1), **rows)


def said(rows: dict[str, int]) -> str:
    """A run's rows in a sentence."""
    return f"{rows['labels']:,} images labelled, {rows['boxes']:,} objects, {rows['errors']:,} images failed"


def _reporter(console: Console, as_json: bool) -> Quiet:
    if as_json:
        return JsonLines()
    return Bar(console) if sys.stdout.isatty() else Quiet()


def _tell(as_json: bool, **event: object) -> None:
    if as_json:
        print(json.dumps(event), flush=True)
