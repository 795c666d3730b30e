"""The control groups that this process is in, version 1 and 2: what limits its memory and its cores."""

from collections.abc import Iterator
from pathlib import Path

MEMBERSHIP, MOUNTED = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def group_folders(controller: str, membership: Path = MEMBERSHIP, mounted: Path = MOUNTED) -> list[Path]:
    """The folders of this process's group for a controller and of those around it, innermost first.

    A limit holds for all groups within, so the tightest counts: a job of Slurm or systemd is in a group
    that is not the root. In a container paths may be the host's and lead nowhere: then the root is left.

    Args:
        controller: "memory" or "cpu".
        membership: which groups this process is in, as in /proc/self/cgroup.
        mounted: where control groups are mounted.
    """
    lines = membership.read_text().splitlines() if membership.is_file() else []
    folders = [folder for line in lines for folder in _folders(line, controller, mounted)]
    return [folder for folder in (*folders, mounted, mounted / controller) if folder.is_dir()]


def _folders(line: str, controller: str, mounted: Path) -> Iterator[Path]:
    """The folders that a line "NUMBER:CONTROLLERS:PATH" names; version 2 has no controllers in it."""
    _, controllers, path = line.split(":", 2)
    if controllers and controller not in controllers.split(","):
        return
    root = mounted / controller if controllers else mounted
    group = root / path.lstrip("/")
    yield from (
        folder for folder in (group, *group.parents) if folder.is_relative_to(root) and folder != root
    )


def number_in(file: Path) -> int | None:
    """The number in a file; None if there is no such file, or if it holds a word ("max")."""
    text = file.read_text().strip() if file.is_file() else ""
    return int(text) if text.lstrip("-").isdigit() else None
