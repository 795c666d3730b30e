import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from workers.process.cpus import usable_cpus

HERE = len(os.sched_getaffinity(0))


def quota(folder: Path, membership: str, **files: str) -> int:
    """The cores of a process in a group; files by the names of their groups."""
    (folder / "membership").write_text(membership)
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return usable_cpus(folder / "membership", folder)


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("", {}, HERE),
        ("0::/\n", {"cpu.max": "max 100000\n"}, HERE),
        ("0::/\n", {"cpu.max": "100000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/job/step\n", {"job/step/cpu.max": "max 100000", "job/cpu.max": "100000 100000"}, 1),
        ("0::/the/host\n", {"cpu.max": "100000 100000\n"}, 1),
        (
            "2:cpu,cpuacct:/job\n0::/\n",
            {"cpu/job/cpu.cfs_quota_us": "100000\n", "cpu/job/cpu.cfs_period_us": "100000\n"},
            1,
        ),
        ("2:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, HERE),
    ],
)
def test_a_quota_counts_in_whole_cores_and_leaves_at_least_one(
    tmp_path: Path, membership: str, files: dict[str, str], cores: int
) -> None:
    assert quota(tmp_path, membership, **files) == cores


def test_cores_that_this_process_may_not_use_are_not_counted() -> None:
    code = (
        "import os; from workers.process.cpus import usable_cpus; "
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(usable_cpus())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "1\n"
