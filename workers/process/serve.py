"""The loop of a child process: builds a function once, then calls it for each request."""

import contextlib
import os
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from schemas.errors import ErrorCode, Stage
from schemas.exceptions import RaylabelError
from workers.printable import message_of
from workers.process.steps import show_steps

StageCallback = Callable[[Stage], None]
"""Called when a stage begins, so that the parent knows in which stage a child crashed."""


def serve(pipe: Connection) -> None:
    """Builds the function, then answers requests until the parent closes the connection.

    Receives `(build, argument, address)`, the last of the memory that shows its steps; then requests. Sends
    `("stage", stage)` while a request is under way, then its outcome, see `_outcome`. An exception that is
    not raylabel's ends the process as a crash does, because the process may be unusable after it: a GPU
    fault, for example, breaks its CUDA context. A copy of this process that a call forked ends where it would
    say a stage or answer: the parent would take its messages for this one's.
    """
    pid = os.getpid()

    def on_stage(stage: Stage) -> None:
        if os.getpid() != pid:
            os._exit(0)
        pipe.send(("stage", stage))

    with contextlib.suppress(EOFError, OSError):  # the parent has exited
        build, argument, steps = pipe.recv()
        show_steps(steps)
        built = kind, function = _outcome(build, argument)  # a failed build is the answer to every request
        while True:
            request = pipe.recv()
            outcome = _outcome(function, request, on_stage) if kind == "answer" else built
            pipe.send(outcome)
            if outcome[0] == "crashed":
                return


def _outcome(function: Callable[..., Any], *arguments: Any) -> tuple[str, Any]:
    """What a call came to, as (kind, value).

    "answer" with the result, "raised" with an exception of raylabel's, or "crashed" with (code, message). A
    copy of this process that the call forked, and that comes back from it too, ends here.
    """
    pid = os.getpid()
    try:
        return "answer", function(*arguments)
    except RaylabelError as error:
        return "raised", error
    except Exception as error:  # a native library may raise anything
        traceback.print_exc()
        out_of_memory = isinstance(error, MemoryError)
        code = ErrorCode.OUT_OF_MEMORY if out_of_memory else ErrorCode.WORKER_CRASHED
        return "crashed", (code, f"{type(error).__name__}: {message_of(error)}")
    finally:
        if os.getpid() != pid:
            os._exit(0)
