"""The child's side: a function built once, then called for each request."""

import contextlib
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from schemas.errors import ErrorCode, Stage
from schemas.exceptions import RaylabelError

StageCallback = Callable[[Stage], None]
"""Called when a stage begins: what is known of a process that dies in it."""


def serve(pipe: Connection) -> None:
    """The child's side: builds the function, then answers requests until the other process is gone.

    An exception that is not raylabel's ends the process, as a crash does: after one of a GPU, say, nothing
    works any more.
    """

    def on_stage(stage: Stage) -> None:
        pipe.send(("stage", stage))

    with contextlib.suppress(EOFError, ConnectionError):
        build, argument = pipe.recv()
        built = kind, function = _outcome(build, argument)
        while True:
            request = pipe.recv()
            outcome = _outcome(function, request, on_stage) if kind == "answer" else built
            pipe.send(outcome)
            if outcome[0] == "dying":
                return


def _outcome(function: Callable[..., Any], *arguments: Any) -> tuple[str, Any]:
    """What a call came to: "answer", "raised" with raylabel's exception, or "dying" with code and reason."""
    try:
        return "answer", function(*arguments)
    except RaylabelError as error:
        return "raised", error
    except Exception as error:  # a native library may raise anything
        traceback.print_exc()
        starved = isinstance(error, MemoryError)
        code = ErrorCode.OUT_OF_MEMORY if starved else ErrorCode.WORKER_CRASHED
        return "dying", (code, f"{type(error).__name__}: {error}")
