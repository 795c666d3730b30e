"""`raylabel run` and `raylabel retry`: a job from its spec to its end."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from jobs.cluster import connect as cluster
from jobs.cluster.watch import watching
from jobs.prepare.begun import begun_spec
from jobs.prepare.resolve import ResolvedJob, resolve, resolving
from jobs.report.page import REPORT, write_report
from jobs.results.status import retry_command
from jobs.run.accuracy import accuracy_of
from jobs.run.console import RunConsole, format_rows
from jobs.run.pipeline import label
from jobs.run.retried import assert_retriable
from jobs.run.retry import (
    begin_retry,
    failed_by_code,
    next_retry,
    nothing_to_retry,
    outcome_of_retry,
)
from jobs.run.stop import Stopped, StopRequest, leave, received, stoppable
from schemas.exceptions import ManifestError, RaylabelError
from schemas.exit_codes import RAY_DIED
from schemas.spec import JobSpec
from schemas.words import by_code, counted, raylabel_command
from workers.ledger.runs import find_run
from workers.ledger.state import read_success
from workers.storage.options import configure_storage
from workers.storage.store import Store
from workers.storage.uris import clean_uri

STOP_COMES_S, WRAP_UP_S = 1, 3
"""Seconds to wait for a stop after Ray has died, and for the end of one that is under way."""

How = Literal["run", "restart", "retry"]


@dataclass(frozen=True)
class RunOptions:
    """How a job is run.

    Attributes:
        address: of the Ray cluster to join; None: RAY_ADDRESS, or a Ray of its own.
        stop_after: seconds after which it stops, to be resumed; None: when it is done.
        as_json: print for a program instead of a person.
        verbose: show log lines and Ray's own messages on stderr.
        command: the command line, as `jobs.prepare.begun.kept_command` gives it.
    """

    address: str | None
    stop_after: float | None
    as_json: bool
    verbose: bool
    command: str = ""


def run_job(spec: JobSpec, options: RunOptions, *, restart: bool = False) -> None:
    """Runs a job to its end, or says that it is complete.

    Args:
        spec: the job.
        options: how to run it.
        restart: delete the run that the output holds, and start over.

    Raises:
        RaylabelError: see `jobs.prepare.resolve`, `jobs.cluster.connect` and `jobs.run.pipeline`.
        Stopped: it was asked to stop.
    """
    console = RunConsole(options.as_json)
    configure_storage(spec.reached)
    output, store = clean_uri(spec.output), Store(spec.output)
    rows = None if restart else read_success(store, lambda error: console.message(f"note: {error}"))
    if rows:
        job = _completed(spec)
        job.assert_same_run(store)
        if not store.exists(REPORT):  # a stop may have come between the two
            _write_report(spec.output, _notes(job), console)
        console.message(f"{output} is complete: {format_rows(rows)}. Nothing to do.")
        console.event("complete", output=output, up_to_date=True, **rows)
        return
    with resolving(spec) as resolved:
        _run(spec, resolved, options, console, "restart" if restart else "run")


def _completed(spec: JobSpec) -> ResolvedJob:
    """The job of a run that is complete: no image is read, so its manifest may be gone.

    Raises:
        ManifestError: it is gone, and is not the one that the run was made of.
    """
    record = find_run(spec.output).record
    job = resolve(spec, record.manifest)
    if not job.not_found:
        return replace(job, began_with=None)  # one that is there may not have changed
    if job.public_spec()["manifest"] != record.spec["manifest"]:
        raise ManifestError(job.not_found)
    return job


def retry_run(output: str, codes: list[str], settings: dict[str, Any], options: RunOptions) -> None:
    """Retries the failed rows of a complete run; the results replace their errors.

    Raises:
        RaylabelError: see `jobs.run.retry.begin_retry` and `run_job`.
        Stopped: it was asked to stop.
    """
    console = RunConsole(options.as_json)
    spec = begun_spec(output, {**settings, "output": output})
    job = resolve(spec, find_run(output).record.manifest)
    job.assert_same_run(Store(output))
    assert_retriable(job, output, codes)
    retry = next_retry(output, codes)  # refuses a run with damage, so it goes first
    failed = failed_by_code(output)
    if not retry:
        console.message(nothing_to_retry(clean_uri(output), codes, failed))
        console.event("complete", output=clean_uri(output), up_to_date=True, failed=failed)
        return
    taken = [code for code in retry.codes if code in failed] or retry.codes  # once stopped it has done some
    rows = counted(sum(stop - start for start, stop in retry.rows), "image")
    console.message(f"retrying {rows} that failed with {', '.join(taken)}")
    if later := sorted(set(codes) & failed.keys() - set(retry.codes)):
        console.message(f"a retry that began before goes first; {', '.join(later)} can be retried after it")

    def begun() -> ResolvedJob:
        """Called once Ray is there: a run stays complete where no retry can be."""
        begin_retry(output, codes)
        return job

    _run(job.spec, begun, options, console, "retry")


def _run(
    spec: JobSpec,
    resolved: Callable[[], ResolvedJob],
    options: RunOptions,
    console: RunConsole,
    how: How,
) -> None:
    """Connects to Ray while the job is resolved, labels, reports."""
    output = clean_uri(spec.output)
    on_death = _leaver(console, output, StopRequest())
    connection = cluster.connect(options.address, verbose=options.verbose, on_death=on_death)
    with connection as logs, console.reporter() as reporter:
        left = None if options.stop_after is None else options.stop_after - console.seconds
        try:
            with stoppable(left) as request, watching(_leaver(console, output, request)):
                job = replace(resolved(), command=options.command)
                if how == "run":  # of a retry it is known
                    job.assert_same_run(Store(spec.output))
                for name, fact in job.facts():
                    console.message(f"{name}: {fact}")
                console.message(f"Ray's own messages: {logs}")
                console.event("started", output=output, ray_logs=str(logs), seconds=round(console.seconds, 1))
                rows = label(job, reporter, restart=how == "restart")
            machines = cluster.nodes()
        except Stopped as stop:
            console.event("stopped", output=output, reason=str(stop), seconds=round(console.seconds, 1))
            raise
    seconds = console.seconds
    accuracy = (
        None if how == "retry" else accuracy_of(job, reporter.meter, seconds, machines, console.message)
    )
    notes = {**_notes(job), **({"predicted": str(accuracy)} if accuracy else {})}
    _write_report(spec.output, notes, console)
    if how == "retry":
        console.message(outcome_of_retry(spec.output))
    console.message(f"{format_rows(rows)} in {seconds:.0f} s")
    if accuracy:
        console.message(f"predicted: {accuracy}")
    console.message(f"tables: {output}/{{{','.join(rows)}}}/*.parquet\nreport: {output}/{REPORT}")
    if rows["errors"]:
        failed = failed_by_code(spec.output)
        again = retry_command(output, failed)
        console.message(f"failed: {by_code(failed)}. Once the cause is removed, {again} labels them again")
    reached = "raylabel show JOB.yaml (its storage section says how the tables are reached)"
    console.message(f"a look: {reached if spec.storage else raylabel_command('show', output).strip('`')}")
    predicted = {"predicted": accuracy.to_dict()} if accuracy else {}
    console.event("complete", output=output, up_to_date=False, seconds=round(seconds, 1), **rows, **predicted)


def _write_report(output: str, notes: dict[str, str], console: RunConsole) -> None:
    """Writes the report, and says what it lacks; a run is complete without one too."""
    try:
        report = write_report(output, notes)
    except RaylabelError as error:
        again = raylabel_command("report", clean_uri(output))
        console.message(f"note: there is no report: {error}. {again} makes it")
        return
    if report.not_shown:
        console.message(f"note: {report.without}")


def _notes(job: ResolvedJob) -> dict[str, str]:
    """What a report tells of a job that the run's files do not."""
    return {name: fact for name, fact in job.facts() if name == "passed over"}


def _leaver(console: RunConsole, output: str, request: StopRequest) -> Callable[[str], None]:
    """What ends this process, from any thread, once a part of Ray is gone; it is called with what happened.

    Ray itself would end it seconds later, without a word. Who stops a whole job may stop Ray first and this
    process right after: then that is the reason, and what can be wrapped up without Ray is.
    """

    def on_death(reason: str) -> None:
        time.sleep(STOP_COMES_S)
        if stop := request.stopped or received():
            time.sleep(WRAP_UP_S)
            leave(stop.message, stop.exit_code)
        console.event("stopped", output=output, reason=reason, seconds=round(console.seconds, 1))
        leave(f"stopped, as {reason}; committed work stays, and the same command resumes", RAY_DIED)

    return on_death
