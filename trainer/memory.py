"""How much memory is free, and whether something that was asked for has a place in it."""

from __future__ import annotations

import os
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
GROUP = Path("/proc/self/cgroup")


def need(byte_count: int, what: str) -> None:
    """ValueError, saying `what` takes so much, where more is needed than is free."""
    free = available()
    if byte_count > free:
        raise ValueError(f"{what} take {told(byte_count)} of memory, and {told(free)} are free")


def available() -> int:
    """Bytes that this process may still take: of the machine, of its container and of its limit."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        of_machine = next(int(line.split()[1]) for line in lines if "MemAvailable" in line) * 1024
    except (OSError, StopIteration):  # no Linux
        if not hasattr(os, "sysconf"):
            return 1 << 62
        of_machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(0, min(of_machine, _of_group(GROUPS), _of_limit()))


def told(byte_count: int) -> str:
    """The number with a unit: 1.5 GB."""
    return f"{byte_count / 1e9:,.1f} GB" if byte_count >= 1e8 else f"{byte_count / 1e6:,.1f} MB"


def _of_group(root: Path) -> int:
    """What is left of the narrowest control group (version 2) that the process is in."""
    try:
        path = GROUP.read_text().partition("0::/")[2].strip()
    except OSError:
        return 1 << 62
    left = 1 << 62
    for group in (root / path, *(root / path).parents):
        try:
            limit = int((group / "memory.max").read_text())  # or the word `max`
            taken = int((group / "memory.current").read_text())
            lines = (group / "memory.stat").read_text().splitlines()
            cache = next(int(line.split()[1]) for line in lines if line.startswith("inactive_file"))
        except (OSError, ValueError, StopIteration):
            continue
        left = min(left, limit - taken + cache)
    return left


def _of_limit() -> int:
    """What `ulimit -v` leaves of the address space."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return 1 << 62
        return limit - int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        return 1 << 62
