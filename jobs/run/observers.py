"""What watches a run: the one face that the pipeline shows each change to."""

from typing import Protocol

from schemas.metrics import NO_USAGE, Usage
from workers.ledger.state import PassState


class Observer(Protocol):
    """Watches a pass: the console, the metrics, the heartbeat, the publisher, the failure limits."""

    def on_progress(self, state: PassState, usage: Usage) -> None:
        """Called with what was there when the attempt started, then after each commit.

        Args:
            state: of the pass, as it is now.
            usage: what was spent since the call before.
        """


class Observers:
    """Several observers as one, called in their order.

    Args:
        observers: one that raises ends the run.
    """

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def on_progress(self, state: PassState, usage: Usage = NO_USAGE) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.on_progress(state, usage)
