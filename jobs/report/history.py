"""How a run went, by its records: the attempts, and where the time of one went."""

from dataclasses import dataclass
from itertools import pairwise

from jobs.report.facts import Rate
from schemas.ledger import Attempt, HeartbeatRecord
from workers.ledger.directory import RunDirectory
from workers.ledger.heartbeat import last_attempt, last_heartbeat, last_number

MAX_ATTEMPTS = 10
"""Attempts that are shown: the last ones."""


@dataclass(frozen=True, slots=True)
class PastAttempt:
    """An attempt at a run.

    Attributes:
        number: from 1.
        record: where and when it began; None: its record is gone.
        heartbeat: its last sign of life, which says how it ended, or "running", also where it was killed;
            None: nothing is known of its end.
    """

    number: int
    record: Attempt | None
    heartbeat: HeartbeatRecord | None

    @property
    def seconds(self) -> float | None:
        """From its start to its last sign of life."""
        if self.record is None or self.heartbeat is None:
            return None
        return max((self.heartbeat.at - self.record.started_at).total_seconds(), 0.0)


@dataclass(frozen=True, slots=True)
class History:
    """The attempts at a run.

    Attributes:
        attempts: the last `MAX_ATTEMPTS`, in order.
        number: how many there were.
    """

    attempts: tuple[PastAttempt, ...]
    number: int

    def phases(self, rate: Rate | None) -> list[tuple[str, float]]:
        """What a run of one attempt did one after the other, in seconds; empty where that is not known.

        Args:
            rate: when its first and its last image were done.
        """
        if self.number != 1 or rate is None:
            return []
        (only,) = self.attempts
        if only.record is None or only.heartbeat is None or only.heartbeat.state != "complete":
            return []
        moments = [only.record.started_at, rate.first, rate.last, only.heartbeat.at]
        seconds = [(after - before).total_seconds() for before, after in pairwise(moments)]
        names = (
            "until the first image was done",
            "first to last image",
            "committing and publishing the rest",
        )
        return list(zip(names, seconds, strict=True)) if min(seconds) >= 0 else []  # clocks may differ


def find_history(run: RunDirectory) -> History:
    """The attempts at a run; of a damaged record nothing is said.

    Raises:
        StorageError: they cannot be read.
    """
    number = last_number(run)
    shown = range(max(1, number - MAX_ATTEMPTS + 1), number + 1)
    attempts = (PastAttempt(one, last_attempt(run, one), last_heartbeat(run, one)) for one in shown)
    return History(tuple(attempts), number)
