"""The cores that this process may use, of those that its machine has."""

import os
from collections.abc import Iterator
from pathlib import Path

from workers.process.groups import MEMBERSHIP, MOUNTED, group_folders, number_in


def usable_cpus(membership: Path = MEMBERSHIP, mounted: Path = MOUNTED) -> int:
    """The cores that affinity (taskset, Slurm, cpusets) and quotas of control groups allow, at least 1.

    Args:
        membership: see `group_folders`.
        mounted: see `group_folders`.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *_quotas(group_folders("cpu", membership, mounted))]))


def _quotas(folders: list[Path]) -> Iterator[int]:
    """The whole cores that each group's quota of CPU time is worth."""
    for folder in folders:
        if (
            file := folder / "cpu.max"
        ).is_file():  # version 2: "QUOTA PERIOD" in microseconds, or "max PERIOD"
            quota, period = file.read_text().split()
            if quota != "max":
                yield int(quota) // int(period)
        quota_us, period_us = number_in(folder / "cpu.cfs_quota_us"), number_in(folder / "cpu.cfs_period_us")
        if quota_us and period_us and quota_us > 0:  # -1: none
            yield quota_us // period_us
