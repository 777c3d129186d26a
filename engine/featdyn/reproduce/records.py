"""What was measured of each run, in a small file that outlives its store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featdyn.errors import FeatdynError
from featdyn.output import output_file
from featdyn.reproduce.jobs import Job
from featdyn.reproduce.measured import Measured


@dataclass(frozen=True, eq=False)
class Record:
    """One run's quantities, and what they were made from."""

    digest: str
    """Of recipe, questions and quantities: the record stands as long as these are the same."""
    rules: str
    """Checksum of the study's rules when the run was made."""
    written: str
    """Their date."""
    recipe: Mapping[str, Any]
    asked: Mapping[str, Any]
    versions: Mapping[str, Any]
    history: Mapping[str, Any]
    """Accuracies and losses of its checkpoints."""
    quantities: Mapping[str, Measured]


def write(record: Record, path: Path) -> None:
    """Write a record whole, or not at all; the same record is the same bytes."""
    said = vars(record) | {"quantities": {name: found.json() for name, found in record.quantities.items()}}
    with output_file(path, parents=True) as stream:
        stream.write((json.dumps(said, indent=1, allow_nan=False) + "\n").encode())


def read(path: Path) -> Record | None:
    """Return a record; None where there is none.

    Raises
    ------
    FeatdynError
        A file that is no record.
    """
    try:
        said = json.loads(path.read_text())
        return Record(**said | {"quantities": {name: Measured.read(m) for name, m in said["quantities"].items()}})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise FeatdynError(f"{path}: is no record of a run; remove it, and its run is made again") from None


def current(job: Job, group: str, folder: Path) -> Record | None:
    """Return the record of a group's run if it is of just this recipe, these questions and quantities."""
    found = read(place(job, group, folder))
    return found if found is not None and found.digest == job.digest(group) else None


def place(job: Job, group: str, folder: Path) -> Path:
    """Return where the record of a group's run lies."""
    return folder / "measured" / job.scale / job.name / job.data / group / f"{job.seed}.json"
