"""A clock that stands still for a test: for its thread alone, as loops of others would sleep for hours."""

import threading
import time
from collections.abc import Callable


def standing_still(at_s: float) -> Callable[[], float]:
    """A `time.monotonic` that is always the same in this thread, and the real one in others."""
    real, thread = time.monotonic, threading.current_thread()
    return lambda: at_s if threading.current_thread() is thread else real()
