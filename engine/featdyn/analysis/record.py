"""Run an analysis and commit what it found, with where it comes from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featdyn.analysis import Analysis
from featdyn.provenance import provenance
from featdyn.store import Run, commit_result

if TYPE_CHECKING:
    from featdyn.compute import Workers


def record(
    path: str | Path,
    analysis: Analysis,
    options: dict[str, Any],
    progress: Callable[[int, int], None] | None = None,
    workers: Workers | None = None,
) -> str:
    """Run an analysis on a store and commit its result there; return the path of the result in the store."""
    run = Run(path)
    found = analysis(run, progress, workers, **options)
    return commit_result(run, analysis.name, found.assign_attrs(provenance=provenance()))
