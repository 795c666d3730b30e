"""This machine and its processes, told apart from others: which of them have ended."""

from pathlib import Path


def this_machine() -> str:
    """What tells this machine from others, from itself before it booted, and from its containers."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    spaces = (Path(f"/proc/self/ns/{name}") for name in ("pid", "time"))
    return "/".join([boot, *(str(space.stat().st_ino) for space in spaces if space.exists())])


def started_at(pid: int) -> int | None:
    """When a process began, in clock ticks since this machine booted; None where it has ended."""
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = status.rpartition(b")")[2].split()  # its name may hold spaces and brackets
    return None if fields[0] in (b"Z", b"X") else int(fields[19])
