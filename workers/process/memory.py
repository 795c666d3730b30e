"""How much memory is used: of this machine, or of the container that this process is in."""

from pathlib import Path
from typing import NamedTuple

import psutil

NEARLY_FULL = 0.9
"""Used part from which on processes over their share are ended. Ray kills a process of its choice at 0.95."""

GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "inactive_file"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "total_inactive_file",
    ),
)
"""Files of a control group, version 2 and 1: its limit, what it uses, and what of that are files that the
kernel may drop (a line of `memory.stat` beside them)."""


class Memory(NamedTuple):
    """Bytes in use, and bytes that may be."""

    used: int
    limit: int

    @property
    def is_nearly_full(self) -> bool:
        """Whether little is left."""
        return self.used > NEARLY_FULL * self.limit


def memory() -> Memory:
    """The memory of the container, or of the machine where no container has less."""
    machine = psutil.virtual_memory()
    for limit_file, used_file, droppable in GROUPS:
        limit = _number(limit_file)
        if limit is not None and limit < machine.total:
            files = number_named(droppable, str(Path(used_file).with_name("memory.stat")))
            return Memory((_number(used_file) or 0) - files, limit)
    return Memory(machine.total - machine.available, machine.total)


def kernel_kills() -> int:
    """Processes that the kernel has killed because memory ran out, here or in any container."""
    return number_named("oom_kill", "/proc/vmstat")


def number_named(name: str, file: str) -> int:
    """The number beside a name in a file of names and numbers; 0 where there is none."""
    lines = Path(file).read_text().splitlines() if Path(file).is_file() else []
    found = (line.split() for line in lines)
    return next((int(number) for key, number in found if key == name), 0)


def _number(file: str) -> int | None:
    """The number in a file; None where there is no such file, or a word ("max") in it."""
    text = Path(file).read_text().strip() if Path(file).is_file() else ""
    return int(text) if text.isdigit() else None
