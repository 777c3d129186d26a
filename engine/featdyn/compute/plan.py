"""What an analysis will need, said before it starts; one that cannot fit is refused."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from featdyn.errors import ComputeError
from featdyn.sizes import counted, singular, size

LOG = logging.getLogger("featdyn")


class Limits(NamedTuple):
    """What a process may take that works on tasks."""

    limit: int | None  # bytes; None where nobody knows
    base: int  # bytes that are taken already, for libraries above all
    threads: int  # tasks at once
    here: bool  # whether it also collects the results


@dataclass(frozen=True)
class Plan:
    """Tasks, bytes read, and bytes of memory by what they are for."""

    work: str  # in words
    tasks: int  # how many run, and each holds `task` while it does
    reads: int  # bytes read from the store, in all
    task: dict[str, int] = field(default_factory=dict)  # bytes held by each task
    state: dict[str, int] = field(default_factory=dict)  # once by every thread of a worker
    result: dict[str, int] = field(default_factory=dict)  # by the process that collects

    def peak(self, threads: int = 1, *, here: bool = True) -> int:
        """Return the bytes held at once by a worker of so many threads, which also collects when it is ``here``."""
        parts = threads * (sum(self.task.values()) + sum(self.state.values()))
        return parts + (sum(self.result.values()) if here else 0)

    def fits(self, limits: Limits) -> bool:
        """Whether no process takes more than it may."""
        limit, base, threads, here = limits
        return limit is None or base + self.peak(threads, here=here) <= limit

    def announce(self, limit: int | None, base: int, *, threads: int, here: bool) -> None:
        """Log the plan of a worker that runs so many tasks at once and, where it is ``here``, collects the results.

        Raises :class:`ComputeError` if that takes more than ``limit`` bytes (None where nobody knows), of which
        ``base`` are taken already, for libraries above all.
        """
        peak = base + self.peak(threads, here=here)
        held = self.task | self.state | (self.result if here else {})
        parts = ", ".join(f"{size(n)} {name}" for name, n in held.items() if n)
        each = f"{threads} at once, each " if threads > 1 else ""
        libraries = f"{size(base)} of it is taken already; " if base else ""
        LOG.info(
            "%s; %s, %s to read; at most %s of memory in a process (%s%s%s)",
            singular(self.work), counted(self.tasks, "task"), size(self.reads), size(peak), libraries, each, parts,
        )  # fmt: skip
        if limit is not None and peak > limit:
            raise ComputeError(
                f"{self.work}: needs {size(peak)} of memory in a process ({libraries}{each}{parts}), but {size(limit)} "
                "are allowed or free: raise --memory-limit, use fewer --workers, or name fewer cuts, layers or samples"
            )


def available() -> int | None:
    """Return the bytes of memory that can be had without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else None


def resident() -> int:
    """Return the bytes of memory that this process has; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
