"""The Jobs API of a Ray cluster: jobs submitted, looked at, listened to and stopped from outside, over HTTP.

docs/design.md has what was found of it in Ray 2.60.
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
"""The variable that Ray's own commands take the dashboard's address from."""

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5, 60
"""Seconds to connect in, and to wait for an answer."""

POLL_S = 1
"""Seconds between two looks at a job."""

LOG_BYTES_PER_S = 1 << 20
"""The API gives a log as a whole: a long one is asked for less often than it is looked for."""

PATIENCE_S = 60
"""Seconds that a cluster which is being listened to may be away."""

STOP_WAIT_S = 60
"""Seconds from SIGTERM to SIGKILL. Ray's own 3 are too short for a store that is slow."""

TOKEN_ADVICE = (
    "Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to the cluster's token (or put that into ~/.ray/auth_token)"
)

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Submission:
    """A submitted job, as Ray tells of it.

    Attributes:
        id: its name in the cluster.
        state: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED.
        message: about the state; of a failed job the end of its log.
        exit_code: of its driver, as a shell tells it; None: it did not end by itself.
        metadata: what it was submitted with: see `jobs.cluster.submit`.
        submitted_at: UTC.
        ended_at: UTC; None: it did not.
    """

    id: str
    state: str
    message: str
    exit_code: int | None
    metadata: dict[str, str]
    submitted_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, found: Any) -> "Submission":
        """The same as Ray's `JobDetails`."""
        code = found.driver_exit_code
        return cls(
            id=found.submission_id or found.job_id,
            state=found.status.value,
            message=found.message or "",
            exit_code=128 - code if code is not None and code < 0 else code,
            metadata=found.metadata or {},
            submitted_at=datetime.fromtimestamp(found.start_time / 1000, UTC),
            ended_at=datetime.fromtimestamp(found.end_time / 1000, UTC) if found.end_time else None,
        )

    @property
    def is_over(self) -> bool:
        """Whether it will not change any more."""
        return self.state in ("STOPPED", "SUCCEEDED", "FAILED")

    @property
    def output(self) -> str | None:
        """Its run directory, without credentials; None of a job that `raylabel submit` did not make."""
        return self.metadata.get("output")

    @property
    def outcome(self) -> int:
        """What a command that waited for it ends with: its driver's exit code, where it had one."""
        if self.exit_code is not None:
            return self.exit_code
        return {"SUCCEEDED": 0, "STOPPED": TERMINATED}.get(self.state, 1)


class _Client(JobSubmissionClient):  # type: ignore[misc] # ray is not typed
    """Ray's client. By itself it waits for an answer for ever."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        patience = CONNECT_TIMEOUT_S if endpoint == "/api/version" else READ_TIMEOUT_S
        answer = super()._do_request(method, endpoint, timeout=(CONNECT_TIMEOUT_S, patience), **options)
        if answer.status_code >= 500:
            raise OSError(f"{answer.status_code}: {last_line(answer.text)}")
        return answer


class JobsClient:
    """A cluster that is reached by its dashboard.

    Args:
        address: of the dashboard; None: the variable `RAY_API_SERVER_ADDRESS`.

    Attributes:
        address: without user and password.
        ray: the version of its Ray.

    Raises:
        SpecError: the address is missing, or is none.
        ClusterError: no dashboard answers there, or it refuses the token.
    """

    def __init__(self, address: str | None) -> None:
        url = dashboard_url(address)
        self.address = clean_uri(url)
        os.environ[ADDRESS] = url  # Ray's client goes by the variables first, and by its argument last
        for logger in ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
            logging.getLogger(logger).setLevel(logging.ERROR)  # what they warn of is said by our exceptions
        self._client = self._call(lambda: _Client(url))
        self.ray = str(self._client._server_ray_version)

    def submit(self, submission: str, entrypoint: str, folder: Path, metadata: dict[str, str]) -> None:
        """Submits a job.

        Args:
            submission: an id that no job there has.
            entrypoint: its command.
            folder: is where the command runs, and where its modules are looked for first, on every node.
            metadata: whatever is to be seen of it.

        Raises:
            ClusterError: it was not submitted, or that is not known.
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
        found = [Submission.of(job) for job in self._call(self._client.list_jobs)]
        return sorted((job for job in found if "raylabel" in job.metadata), key=lambda job: job.submitted_at)

    def job(self, submission: str, throttle_timeout_s: float = 0) -> Submission:
        """A job as it stands.

        Args:
            submission: its id.
            throttle_timeout_s: seconds that the cluster may be away.
        """
        return Submission.of(self._call(lambda: self._client.get_job_info(submission), throttle_timeout_s))

    def log(self, submission: str, throttle_timeout_s: float = 0) -> str:
        """All that a job has printed so far, on stdout and stderr."""
        return str(self._call(lambda: self._client.get_job_logs(submission), throttle_timeout_s))

    def follow(self, submission: str) -> Iterator[str]:
        """What a job prints, in whole lines, until it is over.

        By asking again and again: a connection that is kept open does not notice that the other side is gone.
        """
        seen = 0
        while True:
            is_over = self.job(submission, PATIENCE_S).is_over  # asked first, so that nothing is missed
            log = self.log(submission, PATIENCE_S)
            end = len(log) if is_over else log.rfind("\n") + 1
            if end > seen:
                yield log[seen:end]
                seen = end
            if is_over:
                return
            time.sleep(max(POLL_S, len(log) / LOG_BYTES_PER_S))

    def stop(self, submission: str) -> bool:
        """Asks a job to stop: SIGTERM, and SIGKILL after `STOP_WAIT_S`; False where it is not running."""
        return bool(self._call(lambda: self._client.stop_job(submission)))

    def _call(self, question: Callable[[], Answer], throttle_timeout_s: float = 0) -> Answer:
        end = time.monotonic() + throttle_timeout_s
        while True:
            try:
                return question()
            except AuthenticationError as error:
                reason = re.split(r"\n|\. ", str(error))[0]
                raise ClusterError(
                    f"{self.address} wants its cluster's token: {reason}. {TOKEN_ADVICE}"
                ) from None
            except RuntimeError as error:
                reason = re.sub(r"^Request failed with status code \d+: ", "", str(error))
                raise ClusterError(f"the cluster at {self.address} refuses: {reason}") from None
            except (OSError, KeyError, ValueError) as error:  # no answer, or none of a dashboard's
                if time.monotonic() >= end:
                    reason = str(error) if type(error) is OSError else type(error).__name__
                    raise ClusterError(
                        f"no Ray dashboard answers at {self.address} ({reason}). It is at http://HEAD:8265 "
                        "as a rule, which is another address than `raylabel run` joins a cluster at"
                    ) from None
            time.sleep(POLL_S)


def dashboard_url(address: str | None) -> str:
    """The URL of a dashboard, which needs no scheme.

    Args:
        address: None: the variable `RAY_API_SERVER_ADDRESS`.

    Raises:
        SpecError: there is none, or it is none.
    """
    address = address or os.environ.get(ADDRESS)
    if not address:
        raise SpecError(
            f"found no cluster's address. Give --address http://HEAD:8265, its dashboard's, or set {ADDRESS}"
        )
    url = address if "://" in address else f"http://{address}"
    if not url.startswith(("http://", "https://")):
        raise SpecError(f"--address: found {clean_uri(address)}; allowed: a dashboard's, http://HEAD:8265")
    return url.rstrip("/")


def last_line(text: str) -> str:
    """The last line of a text that is not empty."""
    return (text.strip().splitlines() or [""])[-1]
