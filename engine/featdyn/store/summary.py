"""What a run holds, in a few lines: for a prompt, and for a notebook."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from featdyn.errors import StoreError
from featdyn.sizes import size

if TYPE_CHECKING:
    from featdyn.store.reader import Run


def text(run: Run) -> str:
    """Return a line for the run and one for each thing that it holds."""
    return "\n".join([f"<featdyn run {run.path}>", *(f"  {name:<12} {value}" for name, value in _held(run))])


def html(run: Run) -> str:
    """Return the same as a small table."""
    rows = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{escape(value)}</td></tr>'
        for name, value in _held(run)
    )
    return f"<div><strong>featdyn run</strong> <code>{escape(str(run.path))}</code><table>{rows}</table></div>"


def _held(run: Run) -> list[tuple[str, str]]:
    """Return the lines; of a damaged store what is wrong with it, since a prompt shows this too."""
    try:
        return list(_lines(run))
    except StoreError as error:
        return [("unreadable", str(error))]


def _lines(run: Run) -> Iterator[tuple[str, str]]:
    """Yield what there is, each with how to get at it."""
    steps = run.values("step") if "step" in run.nodes else np.array([])
    yield "checkpoints", f"{run.checkpoints}" + (f", to step {int(steps[-1]):,}" if len(steps) else "")
    probes = f"{run.schema.samples:,}"
    if "split" in run.paths("sample"):
        probes += ": " + ", ".join(f"{n:,} {name}" for name, n in Counter(run.values("split").tolist()).items())
    yield "probes", probes
    arrays = [spec for spec in run.schema.arrays if spec.path.startswith("layers/")]
    layers = run.layers
    held = size(run.checkpoints * sum(spec.nbytes for spec in arrays))
    shown = ", ".join(layers[:8]) + (f" and {len(layers) - 8} more" if len(layers) > 8 else "")
    yield "layers", f"{len(layers)}, {held}: {shown}" if layers else "none; a cube of summaries at most"
    yield "results", ", ".join(run.analyses) or "none yet: featdyn.analyze(run, name), names in featdyn.analyses()"
    yield "read", "run.tree (xarray), run.result(name), run.coords; featdyn.query.query(run, variable)"
