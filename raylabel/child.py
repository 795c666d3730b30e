"""The command `raylabel` in a child process: its events as they come, its failure as an exception."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from raylabel.errors import failure_of

Event = dict[str, Any]
"""What `raylabel run --json` prints in a line: docs/json.md."""

CODE = "from raylabel.command import main; main({parent})"


def run_command(arguments: list[str], stdin: str, on_event: Callable[[Event], object]) -> None:
    """Runs the command to its end; whatever ends this call before, the command is stopped and waited for.

    Args:
        arguments: of the command, `--json` among them.
        stdin: what it reads there, which is neither in a file nor in the list of processes.
        on_event: called with each event.

    Raises:
        RaylabelError: the command failed, or was stopped; see `raylabel.errors.failure_of`.
        KeyboardInterrupt: by Ctrl-C, which the command got as well.
    """
    # -P keeps the working directory, which may hold another `raylabel`, off the module path
    command = [sys.executable, "-P", "-c", CODE.format(parent=os.getpid()), *arguments]
    with os.fdopen(os.memfd_create("stdin"), "w+b") as file, tempfile.TemporaryFile() as stderr:
        file.write(stdin.encode())
        file.seek(0)
        # its own group: of Ctrl-C at a terminal it is told here, once
        with subprocess.Popen(
            command, stdin=file, stdout=subprocess.PIPE, stderr=stderr, process_group=0
        ) as child:
            try:
                for line in child.stdout or ():
                    on_event(_event(line))
                child.wait()
            except BaseException as error:
                _stop(child, signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM)
                raise
        stderr.seek(0)
        if child.returncode:
            raise failure_of(child.returncode, stderr.read().decode(errors="replace"))


def _stop(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Passes a signal on and waits for the end; the second one makes the command leave at once."""
    while child.poll() is None:
        child.send_signal(number)
        with contextlib.suppress(KeyboardInterrupt):
            child.communicate()  # reads on: it waits for whoever should read its events


def _event(line: bytes) -> Event:
    """The event of a line; a line that other code printed is a message."""
    with contextlib.suppress(ValueError):
        found = json.loads(line)
        if isinstance(found, dict) and "event" in found:
            return found
    return {"event": "message", "text": line.decode(errors="replace").rstrip()}
