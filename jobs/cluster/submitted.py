"""`raylabel jobs`, `logs`, `stop`, and `status` of a submission: the jobs submitted to a cluster."""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import Console

from jobs.cluster.jobs_api import POLL_S, STOP_WAIT_S, JobsClient, Submission, telling_line
from jobs.cluster.submit import end_message, follow, follow_hint
from jobs.results.status import Status, find_status, print_status
from jobs.results.text import shorten
from schemas.exceptions import RaylabelError
from schemas.words import raylabel_command
from workers.printable import one_line, printable, printable_log


def show_jobs(address: str | None, *, as_json: bool) -> None:
    """Prints the jobs that `raylabel submit` made in a cluster, with the last log line of each.

    Raises:
        ClusterError: the cluster is unreachable.
    """
    client = JobsClient(address)
    jobs = [(job, last_log_line(client, job)) for job in client.jobs()]
    if as_json:
        print(json.dumps([{**as_dict(job), "last_log_line": line} for job, line in jobs]))
        return
    if not jobs:
        print(f"raylabel submitted no job to {client.address}")
        return
    print_jobs(jobs, Console(highlight=False, markup=False, soft_wrap=True))


def print_jobs(jobs: list[tuple[Submission, str]], console: Console) -> None:
    """Prints jobs, each with what it says last, which is shortened to one line."""
    for job, line in jobs:
        console.print(f"{job.id}  {job.state.lower()} since {format_time(job.ended_at or job.submitted_at)}")
        console.print(f"  output: {one_line(job.output or '')}")
        console.print(f"  {shorten(line, console.width - 2)}")


def last_log_line(client: JobsClient, job: Submission) -> str:
    """What a job says last: of a running one its progress, of one that ended its end."""
    return telling_line(client.log(job.id) if job.state == "RUNNING" else job.message)


def show_log(submission: str, address: str | None, *, follow_log: bool) -> int:
    """Prints the output of a job.

    Args:
        submission: the job.
        address: of the cluster's dashboard.
        follow_log: print until the job ends.

    Returns:
        The exit code: 0, or with `follow_log` the job's.

    Raises:
        ClusterError: the cluster is unreachable, or has no such job.
    """
    client = JobsClient(address)
    if follow_log:
        return follow(client, submission)
    sys.stdout.write(printable_log(client.log(submission)))
    return 0


def stop_job(submission: str, address: str | None) -> None:
    """Stops a job with SIGTERM, waits for its end, and prints how to resume.

    Raises:
        ClusterError: the cluster is unreachable, or has no such job.
    """
    client = JobsClient(address)
    was_running = client.stop(submission)
    end = time.monotonic() + STOP_WAIT_S + 10 * POLL_S
    while not (job := client.job(submission)).is_over and was_running and time.monotonic() < end:
        time.sleep(POLL_S)
    if job.state == "SUCCEEDED":
        print(f"{submission} succeeded before it could be stopped")
    elif job.is_over:
        print(printable(end_message(job)))
    else:
        print(
            f"{submission} was asked to stop and is still {job.state.lower()}; "
            f"{follow_hint(client, submission)}"
        )


@dataclass(frozen=True)
class SubmissionStatus:
    """The status of a submission and of its run.

    Attributes:
        job: the submission, as Ray reports it.
        run: its status from its files, or why they cannot be read from here; None: no output is known.
        follow_hint: the commands that follow and stop it.
    """

    job: Submission
    run: Status | str | None
    follow_hint: str

    @property
    def next(self) -> str:
        """The next step."""
        if not self.job.is_over:
            return self.follow_hint
        if self.job.state != "SUCCEEDED":
            return end_message(self.job)
        if isinstance(self.run, Status):
            return self.run.next
        return raylabel_command("show", self.job.output or "OUTPUT")

    def facts(self) -> Iterator[tuple[str, str]]:
        """The status for a person: name and value."""
        job = self.job
        yield (
            "submission",
            f"{job.id}, {job.state.lower()}, since {format_time(job.ended_at or job.submitted_at)}",
        )
        if job.exit_code is not None:
            yield "exit code", str(job.exit_code)
        yield "message of Ray", job.message.strip()
        if isinstance(self.run, Status):
            yield from (fact for fact in self.run.facts() if fact[0] != "next")
        elif self.run:
            yield "output", f"{job.output}, which cannot be read from here: {self.run}"
        yield "next", self.next

    def to_json(self) -> str:
        """The object that `--json` prints."""
        run = json.loads(self.run.to_json()) if isinstance(self.run, Status) else None
        return json.dumps({**as_dict(self.job), "message": self.job.message, "run": run, "next": self.next})


def show_submission(submission: str, address: str | None, *, as_json: bool) -> None:
    """Prints the status of a submission, and of its run where the output can be read from here.

    Raises:
        ClusterError: the cluster is unreachable, or has no such job.
    """
    client = JobsClient(address)
    job = client.job(submission)
    print_status(SubmissionStatus(job, run_of(job), follow_hint(client, submission)), as_json=as_json)


def run_of(job: Submission) -> Status | str | None:
    """The status of a job's run, or why its files cannot be read; None where the job has no output."""
    try:
        return find_status(job.output) if job.output else None
    except RaylabelError as error:
        return str(error)


def as_dict(job: Submission) -> dict[str, Any]:
    """A submission as `--json` prints it."""
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


def format_time(time_: datetime) -> str:
    """A time as it is printed, in UTC."""
    return f"{time_:%F %T} UTC"
