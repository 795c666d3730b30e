"""`raylabel jobs`, `logs`, `stop`, and `status` of a submission: what was submitted to a cluster."""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from jobs.cluster.jobs_api import POLL_S, STOP_WAIT_S, JobsClient, Submission, last_line
from jobs.cluster.submit import end_message, follow, follow_hint
from jobs.results.status import Status, find_status, print_status
from schemas.exceptions import RaylabelError


def show_jobs(address: str | None, *, as_json: bool) -> None:
    """Prints the jobs that `raylabel submit` made in a cluster, and the last thing that each said.

    Raises:
        ClusterError: the cluster is not reached.
    """
    client = JobsClient(address)
    found = [(job, last_said(client, job)) for job in client.jobs()]
    if as_json:
        print(json.dumps([{**as_dict(job), "last_log_line": said} for job, said in found]))
        return
    if not found:
        print(f"no job was submitted to {client.address} by raylabel")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("submission", "state", "since", "output", "last said"):
        table.add_column(heading, no_wrap=heading in ("submission", "state"), overflow="fold")
    for job, said in found:
        table.add_row(job.id, job.state.lower(), at(job.ended_at or job.submitted_at), job.output, said)
    Console(highlight=False, markup=False).print(table)


def last_said(client: JobsClient, job: Submission) -> str:
    """The last line of a running job's log, where its progress is, or of what is told of its end."""
    return last_line(client.log(job.id) if job.state == "RUNNING" else job.message)


def show_log(submission: str, address: str | None, *, on: bool) -> int:
    """Prints what a job has printed.

    Args:
        submission: the job.
        address: of the cluster's dashboard.
        on: and goes on doing so until the job is over.

    Returns:
        An exit code: 0, and with `on` the job's own.

    Raises:
        ClusterError: the cluster is not reached, or has no such job.
    """
    client = JobsClient(address)
    if on:
        return follow(client, submission)
    sys.stdout.write(client.log(submission))
    return 0


def stop_job(submission: str, address: str | None) -> None:
    """Stops a job as SIGTERM does, waits for its end, and says how to go on.

    Raises:
        ClusterError: the cluster is not reached, or has no such job.
    """
    client = JobsClient(address)
    was_running = client.stop(submission)
    end = time.monotonic() + STOP_WAIT_S + 10 * POLL_S
    while not (job := client.job(submission)).is_over and was_running and time.monotonic() < end:
        time.sleep(POLL_S)
    if job.state == "SUCCEEDED":
        print(f"{submission} had succeeded before it could be stopped")
    elif job.is_over:
        print(end_message(job))
    else:
        print(
            f"{submission} was asked to stop and is still {job.state.lower()}; "
            f"{follow_hint(client, submission)}"
        )


@dataclass(frozen=True)
class SubmissionStatus:
    """How a submission stands, and the run that it works at.

    Attributes:
        job: what Ray tells.
        run: what the run's files tell, or why they cannot be read from here; None where no output is known.
        follow_hint: how to follow and to stop it.
    """

    job: Submission
    run: Status | str | None
    follow_hint: str

    @property
    def next(self) -> str:
        """What to do."""
        if not self.job.is_over:
            return self.follow_hint
        if self.job.state != "SUCCEEDED":
            return end_message(self.job)
        return self.run.next if isinstance(self.run, Status) else f"`raylabel show {self.job.output}`"

    def facts(self) -> Iterator[tuple[str, str]]:
        """The status for a person: name and value."""
        job = self.job
        yield "submission", f"{job.id}, {job.state.lower()}, since {at(job.ended_at or job.submitted_at)}"
        if job.exit_code is not None:
            yield "exit code", str(job.exit_code)
        yield "Ray says", job.message.strip()
        if isinstance(self.run, Status):
            yield from (fact for fact in self.run.facts() if fact[0] != "next")
        elif self.run:
            yield "output", f"{job.output}, which cannot be read from here: {self.run}"
        yield "next", self.next

    def to_json(self) -> str:
        """The status as `--json` prints it: one object."""
        run = json.loads(self.run.to_json()) if isinstance(self.run, Status) else None
        return json.dumps({**as_dict(self.job), "message": self.job.message, "run": run, "next": self.next})


def show_submission(submission: str, address: str | None, *, as_json: bool) -> None:
    """Prints how a submission stands, and the run that it works at, where its output can be read from here.

    Raises:
        ClusterError: the cluster is not reached, or has no such job.
    """
    client = JobsClient(address)
    job = client.job(submission)
    print_status(SubmissionStatus(job, run_of(job), follow_hint(client, submission)), as_json=as_json)


def run_of(job: Submission) -> Status | str | None:
    """How the run of a job stands by its files, or why they do not; None where there is no output."""
    try:
        return find_status(job.output) if job.output else None
    except RaylabelError as error:
        return str(error)


def as_dict(job: Submission) -> dict[str, Any]:
    """A submission for a program."""
    return {
        "submission": job.id,
        "state": job.state,
        "exit_code": job.exit_code,
        "submitted_at": job.submitted_at.isoformat(),
        "ended_at": job.ended_at and job.ended_at.isoformat(),
        "job_name": job.metadata.get("job_name"),
        "output": job.output,
        "raylabel": job.metadata.get("raylabel"),
    }


def at(moment: datetime) -> str:
    """A moment for a person."""
    return f"{moment:%F %T} UTC"
