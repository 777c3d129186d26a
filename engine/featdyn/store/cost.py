"""What recording has taken of a run's time, as it is kept in a store's folder: no commit names what tells the time."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass

from featdyn.errors import StoreError
from featdyn.store.files import Folder
from featdyn.store.layout import COST
from featdyn.store.place import Place


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock: of the thread that trains, while it recorded, and of the whole run."""

    recording: float = 0.0
    run: float = 0.0

    @property
    def share(self) -> float:
        """Of the run's time."""
        return self.recording / self.run if self.run else 0.0

    def __str__(self) -> str:
        return f"recording has taken {self.share:.1%} of the run's time ({self.recording:,.0f} of {self.run:,.0f} s)"


def cost_of(place: Place) -> Cost | None:
    """Return what a store's recording has cost as far as that was kept, None where it was not."""
    with suppress(OSError, StoreError, ValueError, TypeError):
        if isinstance(place, Folder) and (found := place.fetch(COST)) is not None:
            document = json.loads(found[0])
            return Cost(float(document["recording"]), float(document["run"]))
    return None


def keep(cost: Cost, place: Place) -> None:
    """Keep it in place of what was kept, in a folder; that it cannot be stops no run."""
    with suppress(OSError, StoreError):
        if isinstance(place, Folder):
            place.replace(COST, json.dumps(asdict(cost)).encode(), durable=False)
