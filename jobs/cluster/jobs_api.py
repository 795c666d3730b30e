"""The Jobs API of a Ray cluster: submits, lists, follows and stops jobs over HTTP.

docs/notes/ray.md has the API's behaviour in Ray 2.60.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from schemas.exceptions import ClusterError, SpecError
from schemas.exit_codes import TERMINATED
from workers.storage.uris import clean_uri

ADDRESS = "RAY_API_SERVER_ADDRESS"
"""The environment variable with the dashboard's address; Ray's own commands use it too."""

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5, 60
"""Seconds to wait for a connection, and for an answer."""

POLL_S = 1
"""Seconds between two requests for a job's state."""

LOG_BYTES_PER_S = 1 << 20
"""Slows down the requests for a long log: the API returns it whole each time."""

OUTAGE_TIMEOUT_S = 60
"""Seconds that a cluster may be unreachable while a job is followed."""

STOP_WAIT_S = 60
"""Seconds from SIGTERM to SIGKILL. Ray's default of 3 is too short for a slow store."""

TOKEN_ADVICE = (
    "Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to the cluster's token (or put that into ~/.ray/auth_token)"
)

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Submission:
    """A submitted job, as Ray reports it.

    Attributes:
        id: of the submission.
        state: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED.
        message: Ray's, about the state; of a failed job the end of its log.
        exit_code: of its driver, as in a shell (128 + signal); None: it did not end by itself.
        metadata: that it was submitted with; see `jobs.cluster.submit`.
        submitted_at: UTC.
        ended_at: UTC; None: it has not ended.
    """

    id: str
    state: str
    message: str
    exit_code: int | None
    metadata: dict[str, str]
    submitted_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, details: Any) -> "Submission":
        """The submission of Ray's `JobDetails`."""
        code = details.driver_exit_code
        return cls(
            id=details.submission_id or details.job_id,
            state=details.status.value,
            message=details.message or "",
            exit_code=128 - code if code is not None and code < 0 else code,
            metadata=details.metadata or {},
            submitted_at=datetime.fromtimestamp(details.start_time / 1000, UTC),
            ended_at=datetime.fromtimestamp(details.end_time / 1000, UTC) if details.end_time else None,
        )

    @property
    def is_over(self) -> bool:
        """Whether the job has ended."""
        return self.state in ("STOPPED", "SUCCEEDED", "FAILED")

    @property
    def output(self) -> str | None:
        """Its run directory, without credentials; None of a job that `raylabel submit` did not make."""
        return self.metadata.get("output")

    @property
    def outcome(self) -> int:
        """The exit code for a command that waited for it: its driver's, where it has one."""
        if self.exit_code is not None:
            return self.exit_code
        return {"SUCCEEDED": 0, "STOPPED": TERMINATED}.get(self.state, 1)


class _Client(JobSubmissionClient):  # type: ignore[misc] # ray is not typed
    """Ray's client with timeouts: by itself it waits for an answer forever."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        # the first request finds out whether a dashboard answers at all
        read_timeout_s = CONNECT_TIMEOUT_S if endpoint == "/api/version" else READ_TIMEOUT_S
        answer = super()._do_request(method, endpoint, timeout=(CONNECT_TIMEOUT_S, read_timeout_s), **options)
        if answer.status_code >= 500:
            raise OSError(f"{answer.status_code}: {telling_line(answer.text)}")
        return answer


class JobsClient:
    """Jobs of a cluster, over its dashboard.

    Args:
        address: of the dashboard; None: the environment variable `RAY_API_SERVER_ADDRESS`.

    Attributes:
        address: without user and password.
        ray: the cluster's version of Ray.

    Raises:
        SpecError: the address is missing or invalid.
        ClusterError: no dashboard answers, or it refuses the token.
    """

    def __init__(self, address: str | None) -> None:
        url = dashboard_url(address)
        self.address = clean_uri(url)
        os.environ[ADDRESS] = url  # Ray's client prefers the variable to its argument
        for logger in ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
            logging.getLogger(logger).setLevel(logging.ERROR)  # our exceptions say the same
        self._client = self._call(lambda: _Client(url))
        self.ray = str(self._client._server_ray_version)

    def submit(self, submission: str, entrypoint: str, folder: Path, metadata: dict[str, str]) -> None:
        """Submits a job.

        Args:
            submission: a new id.
            entrypoint: its command.
            folder: shipped to every node; the command runs in it and imports from it first.
            metadata: shown by the dashboard and `raylabel jobs`.

        Raises:
            ClusterError: it was not submitted, or that is unknown.
        """
        runtime_env = {
            "working_dir": str(folder),
            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)},  # read by the job's supervisor
        }
        self._call(
            lambda: self._client.submit_job(
                entrypoint=entrypoint, runtime_env=runtime_env, metadata=metadata, submission_id=submission
            )
        )

    def jobs(self) -> list[Submission]:
        """The jobs that `raylabel submit` made, the newest last."""
        jobs = [Submission.of(job) for job in self._call(self._client.list_jobs)]
        return sorted((job for job in jobs if "raylabel" in job.metadata), key=lambda job: job.submitted_at)

    def job(self, submission: str, outage_timeout_s: float = 0) -> Submission:
        """The current state of a job.

        Args:
            submission: its id.
            outage_timeout_s: seconds that the cluster may be unreachable.
        """
        return Submission.of(self._call(lambda: self._client.get_job_info(submission), outage_timeout_s))

    def log(self, submission: str, outage_timeout_s: float = 0) -> str:
        """The whole output of a job so far, stdout and stderr."""
        return str(self._call(lambda: self._client.get_job_logs(submission), outage_timeout_s))

    def follow(self, submission: str) -> Iterator[str]:
        """Yields what a job prints, in whole lines, until it has ended.

        Polls: an open connection does not notice that the other side is gone.
        """
        printed = 0
        while True:
            is_over = self.job(
                submission, OUTAGE_TIMEOUT_S
            ).is_over  # before the log, so that its end is not missed
            log = self.log(submission, OUTAGE_TIMEOUT_S)
            end = len(log) if is_over else log.rfind("\n") + 1
            if end > printed:
                yield log[printed:end]
                printed = end
            if is_over:
                return
            time.sleep(max(POLL_S, len(log) / LOG_BYTES_PER_S))

    def stop(self, submission: str) -> bool:
        """Stops a job: SIGTERM, and SIGKILL after `STOP_WAIT_S`. Returns False where it is not running."""
        return bool(self._call(lambda: self._client.stop_job(submission)))

    def _call(self, request: Callable[[], Answer], outage_timeout_s: float = 0) -> Answer:
        """The answer to a request, repeated during an outage of the cluster.

        Raises:
            ClusterError: the cluster refuses the request, or gives no answer in time.
        """
        end = time.monotonic() + outage_timeout_s
        while True:
            try:
                return request()
            except AuthenticationError as error:
                reason = re.split(r"\n|\. ", str(error))[0]
                raise ClusterError(
                    f"{self.address} needs its cluster's token: {reason}. {TOKEN_ADVICE}"
                ) from None
            except RuntimeError as error:
                reason = re.sub(r"^Request failed with status code \d+: ", "", str(error))
                raise ClusterError(f"the cluster at {self.address} refuses the request: {reason}") from None
            except (OSError, KeyError, ValueError) as error:  # no answer, or not a dashboard's
                if time.monotonic() >= end:
                    reason = str(error) if type(error) is OSError else type(error).__name__
                    raise ClusterError(
                        f"no Ray dashboard answers at {self.address} ({reason}). It is usually at "
                        "http://HEAD:8265, which is not the address that `raylabel run` joins a cluster at"
                    ) from None
            time.sleep(POLL_S)


def dashboard_url(address: str | None) -> str:
    """The URL of a dashboard.

    Args:
        address: with or without a scheme; None: the environment variable `RAY_API_SERVER_ADDRESS`.

    Raises:
        SpecError: the address is missing or invalid.
    """
    address = address or os.environ.get(ADDRESS)
    if not address:
        raise SpecError(f"found no dashboard address. Give --address http://HEAD:8265, or set {ADDRESS}")
    url = address if "://" in address else f"http://{address}"
    if not url.startswith(("http://", "https://")):
        raise SpecError(f"--address: found {clean_uri(address)}; allowed: a dashboard URL, http://HEAD:8265")
    return url.rstrip("/")


def telling_line(text: str) -> str:
    """The line of a log that says how a job stands: raylabel's last error, or else the last line that is one.

    An error may have more lines behind it, which mean little without it.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("raylabel: ")]
    return (errors or lines or [""])[-1]
