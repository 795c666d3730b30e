"""How long a read is waited for, how often it is tried again, and what a server says of that."""

import math
import random
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from schemas.errors import ErrorCode
from schemas.spec import FetchSpec
from workers.storage.s3 import causes

FIRST_WAIT_S = 0.2
MAX_WAIT_S = 10.0
"""A retry waits up to the first number of seconds, doubled with each attempt, and never over the second. A
server may ask for as long as the second, or for as long as throttling is borne."""

_T = TypeVar("_T")


class Patience:
    """The attempts at one read.

    Args:
        spec: tries `spec.attempts` times; while the store throttles, for `spec.throttle_timeout_s` seconds.

    Attributes:
        attempt: the number of the one that is under way.
    """

    def __init__(self, spec: FetchSpec) -> None:
        self._spec = spec
        self._throttled_since = math.inf
        self.attempt = 1

    def waited(self, code: ErrorCode, error: BaseException) -> bool:
        """Waits before another attempt; False at once if there is none."""
        left_s = 0.0
        if code is ErrorCode.THROTTLED:
            self._throttled_since = min(self._throttled_since, time.monotonic())
            left_s = self._spec.throttle_timeout_s - (time.monotonic() - self._throttled_since)
        if not code.retryable or not (self.attempt < self._spec.attempts or left_s > 0):
            return False
        time.sleep(wait_s(self.attempt, retry_after_s(error), max(left_s, MAX_WAIT_S)))
        self.attempt += 1
        return True


def wait_s(attempt: int, asked_s: float, bound_s: float) -> float:
    """Seconds until the next attempt.

    Args:
        attempt: the one that failed, from 1.
        asked_s: what the server asks for; 0: nothing.
        bound_s: the longest that is heeded; a date years ahead must not hang the job.
    """
    # Full jitter, so that readers refused together do not come back together:
    # https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    own_s = random.uniform(0, min(MAX_WAIT_S, FIRST_WAIT_S * 2 ** min(attempt, 16)))
    return min(asked_s + own_s, bound_s) if asked_s <= bound_s else own_s


def retry_after_s(error: BaseException) -> float:
    """Seconds after which a server wants to be asked again, by its Retry-After; 0 if it does not say."""
    for cause in causes(error):
        if header := _header(cause):
            return _seconds(header.strip())
    return 0.0


def _header(error: BaseException) -> str:
    """The Retry-After behind an exception, of any of the libraries that read files."""
    if own := getattr(error, "retry_after", None):
        return str(own)
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's
        headers: Any = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    else:
        headers = getattr(response if response is not None else error, "headers", None)
    get = getattr(headers, "get", None)
    return str(get("Retry-After") or get("retry-after") or "") if get else ""


def _seconds(header: str) -> float:
    """A Retry-After in seconds: https://www.rfc-editor.org/rfc/rfc9110#field.retry-after."""
    if re.fullmatch(r"\d{1,12}(\.\d{1,9})?", header, re.ASCII):
        return float(header)
    try:
        when = parsedate_to_datetime(header)
    except (ValueError, OverflowError, TypeError):
        return 0.0
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max((when - datetime.now(UTC)).total_seconds(), 0.0)


def within(timeout_s: float, read: Callable[[], _T]) -> _T:
    """The result of a call that may hang, if it comes in time.

    A call that does not end in time goes on in its thread until its own library gives up.

    Raises:
        TimeoutError: it did not come in `timeout_s` seconds.
        Exception: what the call raised.
    """
    outcome: Future[_T] = Future()

    def call() -> None:
        try:
            outcome.set_result(read())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=call, name="read", daemon=True).start()
    if not wait([outcome], timeout_s).done:
        raise TimeoutError(f"no answer in {timeout_s:g} s")
    return outcome.result()
