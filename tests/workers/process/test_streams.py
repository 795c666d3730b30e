"""What a command prints to streams that are closed, full, given up by their reader, or not UTF-8."""

import subprocess
from pathlib import Path

import pytest

from tests.shell import PYTHON, shell

GOES_ON = "the job goes on, and its tables are written"
PREPARE = "import os, sys; from workers.process.streams import *; prepare_streams(); "


def printing(code: str, streams: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs some Python whose streams a shell sets up."""
    return shell(f"{PYTHON} {streams}", PREPARE + code, **environment)


def test_closed_streams_are_open_and_lead_nowhere() -> None:
    code = "print('x'); file = open('/dev/null'); print_error('y'); os._exit(file.fileno())"
    done = printing(code, "<&- >&- 2>&-")
    assert (done.stdout, done.stderr) == ("", "")
    assert done.returncode > 2, "a file got the number of a standard stream"


@pytest.mark.parametrize(
    ("streams", "code", "complaint"),
    [
        ("> /dev/full", 5, "raylabel: cannot print the result: No space left on device\n"),
        ("| head -c 1 > /dev/null", 141, ""),
        ("> /dev/null", 0, ""),
    ],
)
def test_a_command_that_only_prints_ends_where_it_cannot(streams: str, code: int, complaint: str) -> None:
    done = printing("[print('x' * 9999) for _ in range(99)]", streams)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", complaint)


@pytest.mark.parametrize(("streams", "why"), [("> /dev/full", "No space left"), ("| true", "Broken pipe")])
def test_a_command_that_does_more_goes_on_and_says_so_once(streams: str, why: str, tmp_path: Path) -> None:
    done_file = tmp_path / "done"
    code = "go_on_without_output(); [print('x' * 9999, flush=True) for _ in range(99)]; "
    done = printing(f"{code} open({str(done_file)!r}, 'w')", streams)
    assert done.returncode == 0
    assert done.stderr.startswith(f"raylabel: cannot print any more ({why}")
    assert done.stderr.endswith(f"; {GOES_ON}\n")
    assert done.stderr.count("\n") == 1
    assert done_file.exists()


def test_a_command_that_does_more_goes_on_where_nobody_reads(tmp_path: Path) -> None:
    done_file = tmp_path / "done"
    lines = "[print('x' * 9999, flush=True) for _ in range(99)]"
    code = f"import workers.process.streams as s; s.READER_S = 1; go_on_without_output(); {lines}; "
    done = printing(
        f"{code} open({str(done_file)!r}, 'w')", "| while ! [ -e $DONE ]; do :; done", DONE=str(done_file)
    )
    why = "nobody has read it for 1 s"
    assert done.stderr == f"raylabel: cannot print any more ({why}); {GOES_ON}\n"
    assert done.returncode == 0


def test_what_an_encoding_lacks_is_replaced() -> None:
    code = "print('é … 图 \\udce9'); print_error('é … 图')"
    done = printing(code, "", PYTHONIOENCODING="latin-1")
    assert done.stdout.encode("utf-8", "replace") == "\N{REPLACEMENT CHARACTER} ? ? ?\n".encode()
    assert done.stderr == "raylabel: \N{REPLACEMENT CHARACTER} \\u2026 \\u56fe\n"
    assert printing(code, "", PYTHONIOENCODING="utf-8").stdout == "é … 图 ?\n"


def test_an_error_is_said_at_the_terminal_while_stderr_goes_elsewhere() -> None:
    code = "null = os.open('/dev/null', os.O_WRONLY); os.dup2(null, 2); os.write(2, b'x'); print_error('y')"
    assert printing(code, "").stderr == "raylabel: y\n"
