"""Put the page of a run together and write it."""

from __future__ import annotations

import shlex
from pathlib import Path

from featdyn.report.chapters import chapters, unasked
from featdyn.report.document import Document, write
from featdyn.report.layer_summaries import layers
from featdyn.report.provenance_tables import head, recipe_tables, tables
from featdyn.report.section import Section
from featdyn.report.training_curves import panels, steps
from featdyn.store import Run


def write_report(run: Run, path: str | Path) -> Path:
    """Write the report of a run: one HTML file that works offline.

    What was not recorded or not analysed yet becomes a sentence that says how to get it. The file at ``path``, which is
    returned, is replaced whole, so an older report stays until the new one is there.

    Raises
    ------
    FeatdynError
        The file cannot be written.
    """
    return write(render(run), path)


def render(run: Run) -> str:
    """Return the page as HTML; names in a store cannot act there (:class:`~featdyn.report.document.Document`)."""
    training, results, recorded = panels(run), chapters(run), layers(run)
    places = {"training-0": Section("Training", panels=training)} if training else {}
    places |= {f"{c.name}-{i}": section for c in results for i, section in enumerate(c.sections)}
    places |= {"layers-0": recorded[0]} if recorded else {}
    checkpoints = [int(number) for number in run.coords["checkpoint"].values]
    document = Document(run.name, places, checkpoints, steps(run).tolist())
    return document.render(
        "report.html.j2",
        run=run,
        store=shlex.quote(str(run.path)),
        head=head(run),
        chapters=results,
        unasked=unasked(run),
        meanings=recorded[1] if recorded else {},
        tables=tables(run, results),
        recipe=recipe_tables(run),
    )
