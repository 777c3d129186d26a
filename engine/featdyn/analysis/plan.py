"""What an analysis will need, said before it starts; one that cannot fit is refused."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from featdyn.capture.plan import size
from featdyn.errors import FeatdynError

LOG = logging.getLogger("featdyn")


@dataclass(frozen=True)
class Plan:
    """Bytes of memory by what they are for, and the work in words."""

    work: str
    memory: dict[str, int]

    @property
    def peak(self) -> int:
        """Bytes that will be held at once, beside what importing the libraries takes."""
        return sum(self.memory.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{size(n)} {name}" for name, n in self.memory.items())
        return f"{self.work}; at most {size(self.peak)} of memory ({parts})"

    def announce(self) -> None:
        """Log the plan.

        Raises
        ------
        FeatdynError
            This machine has not that much memory left.
        """
        LOG.info("%s", self)
        free = available()
        if free is not None and self.peak > free:
            raise FeatdynError(
                f"{self}, but {size(free)} are free: name fewer cuts, or record fewer checkpoints and probes"
            )


def available() -> int | None:
    """Return the bytes of memory that can be had without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else None
