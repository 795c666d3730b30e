"""The limits of this process (`ulimit`) that are so low that what fails may fail by them."""

import resource

FEW = 4096
"""Open files, or processes."""

ADDRESS_SPACE = 4 << 30
"""Bytes that torch, or one of Ray's processes, maps."""

LIMITS = (
    (resource.RLIMIT_NOFILE, "ulimit -n", "open files", FEW, 1),
    (resource.RLIMIT_NPROC, "ulimit -u", "processes", FEW, 1),
    (resource.RLIMIT_AS, "ulimit -v", "KB of address space", ADDRESS_SPACE, 1024),
)
"""Of each: its kind, the shell's command, what it counts, below which it is low, and the command's unit."""


def low_limits() -> str:
    """Sentences that name the low limits, each with ". " before it; empty where there is none."""
    return "".join(
        f". `{command}` limits this process to {limit // unit:,} {counted}: raise it"
        for kind, command, counted, low, unit in LIMITS
        if (limit := resource.getrlimit(kind)[0]) != resource.RLIM_INFINITY and limit < low
    )
