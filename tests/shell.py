"""Python under what only a shell can set up for it: limits and streams."""

import os
import subprocess
import sys

from tests.conftest import ROOT

PYTHON = '"$PYTHON" -c "$CODE"'
"""In a shell's command line: Python with the code."""


def shell(command: str, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a shell's command line with `PYTHON` in it, such as `ulimit -n 200; "$PYTHON" -c "$CODE"`."""
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "CODE": code, "PYTHON": sys.executable, **environment},
        errors="replace",
    )
