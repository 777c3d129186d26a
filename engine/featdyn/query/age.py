"""Whether a result is of all checkpoints that its run has by now, and what to say where it is not."""

from __future__ import annotations

from featdyn.output import quoted
from featdyn.query.catalogue import Catalogue
from featdyn.sizes import counted
from featdyn.store import Run


def checkpoints_then(run: Run, path: str) -> int:
    """Return how many checkpoints the run had when the result at a path was computed."""
    commit = run.nodes[path].get("attributes", {}).get("input_commit", run.commits[-1].number)
    return sum(c.kind == "checkpoint" and c.number <= commit for c in run.commits)


def behind(run: Run, path: str) -> str:
    """Return in a few words of how many checkpoints a result knows, nothing where it knows of all."""
    then = checkpoints_then(run, path)
    return (
        f"computed when there were {then} of now {counted(run.checkpoints, 'checkpoint')}"
        if then < run.checkpoints
        else ""
    )


def renewed_by(run: Run, path: str) -> str:
    """Return the command that computes a result anew."""
    return f"featdyn analyze {quoted(run.path)} {path.split('/')[1]}"


def warning(run: Run, path: str) -> str:
    """Return the line that says that a result is behind its run, nothing where it is not."""
    said = behind(run, path)
    return f"{run.path}: {path} was {said}; anew: {renewed_by(run, path)}" if said else ""


def warnings(run: Run, *names: str) -> list[str]:
    """Return such a line of each result that variables of these names, or patterns, are of."""
    catalogue = Catalogue(run)
    parts = (catalogue.path(name).split("/") for name in catalogue.matching(names))
    results = dict.fromkeys("/".join(part[:3]) for part in parts if part[0] == "results")
    return [said for path in results if (said := warning(run, path))]
