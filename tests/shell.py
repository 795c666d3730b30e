"""Code under limits of a shell, which this process must not set for itself."""

import os
import subprocess
import sys

from tests.conftest import ROOT


def python_under(limits: str, code: str) -> subprocess.CompletedProcess[str]:
    """Runs some Python after a shell's commands, such as `ulimit -n 200`."""
    return subprocess.run(
        ["bash", "-c", f'{limits}; "$PYTHON" -c "$CODE"'],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "CODE": code, "PYTHON": sys.executable},
    )
