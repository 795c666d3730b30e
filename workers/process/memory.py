"""Memory use and limit of this machine, or of the container that this process runs in."""

from pathlib import Path
from typing import NamedTuple

import psutil

from workers.process.groups import MEMBERSHIP, MOUNTED, group_folders, number_in

NEARLY_FULL = 0.9
"""Fraction of memory in use above which processes over their share are killed; Ray kills one at 0.95."""

FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Files of a control group, version 2 and 1: its limit, its use, and the line of `memory.stat` with the bytes
of that use that are cached files, which the kernel may drop."""


class Memory(NamedTuple):
    """Bytes in use, and the limit in bytes."""

    used: int
    limit: int

    @property
    def is_nearly_full(self) -> bool:
        """Whether more than `NEARLY_FULL` of it is in use."""
        return self.used > NEARLY_FULL * self.limit


def memory(membership: Path = MEMBERSHIP, mounted: Path = MOUNTED) -> Memory:
    """The memory of the control group with the least, where that is below the machine's; else the machine's.

    Args:
        membership: see `group_folders`.
        mounted: see `group_folders`.
    """
    machine = psutil.virtual_memory()
    whole = Memory(machine.total - machine.available, machine.total)
    folders = group_folders("memory", membership, mounted)
    groups = [group for folder in folders for files in FILES if (group := _group_memory(folder, *files))]
    return min([whole, *groups], key=lambda memory: memory.limit)


def _group_memory(folder: Path, limit_file: str, used_file: str, droppable: str) -> Memory | None:
    """The memory of a control group; None where it has no limit, or is of the other version."""
    limit = number_in(folder / limit_file)
    if limit is None:
        return None
    used = number_in(folder / used_file) or 0
    return Memory(used - read_number(droppable, str(folder / "memory.stat")), limit)


def kernel_kills() -> int:
    """How many processes the kernel has killed for lack of memory since boot, in containers too."""
    return read_number("oom_kill", "/proc/vmstat")


def read_number(name: str, file: str) -> int:
    """The number after a name in a file of "NAME NUMBER" lines; 0 if the file or the name is missing."""
    lines = Path(file).read_text().splitlines() if Path(file).is_file() else []
    entries = (line.split() for line in lines)
    return next((int(number) for key, number in entries if key == name), 0)
