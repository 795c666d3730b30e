"""Memory use and limit of this machine, or of the container that this process runs in."""

from pathlib import Path
from typing import NamedTuple

import psutil

NEARLY_FULL = 0.9
"""Fraction of memory in use above which processes over their share are killed; Ray kills one at 0.95."""

GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "inactive_file"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "total_inactive_file",
    ),
)
"""Files of a control group, version 2 and 1: its limit, its use, and the line of `memory.stat` (in the same
folder) with the bytes of that use that are cached files, which the kernel may drop."""


class Memory(NamedTuple):
    """Bytes in use, and the limit in bytes."""

    used: int
    limit: int

    @property
    def is_nearly_full(self) -> bool:
        """Whether more than `NEARLY_FULL` of it is in use."""
        return self.used > NEARLY_FULL * self.limit


def memory() -> Memory:
    """The memory of the container if its limit is below the machine's memory, else of the machine."""
    machine = psutil.virtual_memory()
    for limit_file, used_file, droppable in GROUPS:
        limit = _number(limit_file)
        if limit is not None and limit < machine.total:
            cached = read_number(droppable, str(Path(used_file).with_name("memory.stat")))
            return Memory((_number(used_file) or 0) - cached, limit)
    return Memory(machine.total - machine.available, machine.total)


def kernel_kills() -> int:
    """How many processes the kernel has killed for lack of memory since boot, in containers too."""
    return read_number("oom_kill", "/proc/vmstat")


def read_number(name: str, file: str) -> int:
    """The number after a name in a file of "NAME NUMBER" lines; 0 if the file or the name is missing."""
    lines = Path(file).read_text().splitlines() if Path(file).is_file() else []
    entries = (line.split() for line in lines)
    return next((int(number) for key, number in entries if key == name), 0)


def _number(file: str) -> int | None:
    """The number in a file; None if there is no such file, or if it holds a word ("max")."""
    text = Path(file).read_text().strip() if Path(file).is_file() else ""
    return int(text) if text.isdigit() else None
