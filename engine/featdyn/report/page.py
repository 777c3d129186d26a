"""Put the page together and write it."""

from __future__ import annotations

import secrets
import shlex
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from featdyn.output import output_file
from featdyn.report.chapters import chapters, unasked
from featdyn.report.layer_summaries import layers
from featdyn.report.provenance_tables import head, recipe_tables, tables
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
    # A store may name things with halves of surrogate pairs, which no file can hold.
    content = render(run).encode("utf-8", errors="replace")
    with output_file(path, parents=True) as stream:
        stream.write(content)
    return Path(path)


def render(run: Run) -> str:
    """Return the page as HTML.

    Names in a store are anybody's words: they reach the page as escaped HTML, or as JSON in which ``<``, ``>`` and
    ``&`` are escaped, and the page's policy runs no script but its own and loads nothing.
    """
    from plotly.offline import get_plotlyjs

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    training, results, recorded = panels(run), chapters(run), layers(run)
    figures: dict[str, Any] = {f"training-{i}": panel.figures for i, panel in enumerate(training)}
    figures |= {"layers": recorded.figures} if recorded else {}
    for chapter in results:
        figures |= {slot: panel.figures for slot, (_, panel) in chapter.slots().items() if panel.figures}
    maps = {f"{c.name}-{i}": s.pair_maps for c in results for i, s in enumerate(c.sections) if s.pair_maps}
    page: str = environment.from_string(_read("report.html.j2")).render(
        run=run,
        store=shlex.quote(str(run.path)),
        head=head(run),
        training=training,
        chapters=results,
        unasked=unasked(run),
        labels={"set": "Probes", "cut": "Cut after", "memory": "Measure", "t": "Checkpoint"},
        layers=recorded,
        tables=tables(run, results),
        recipe=recipe_tables(run),
        data={"steps": steps(run).tolist(), "figures": figures, "maps": maps},
        nonce=secrets.token_urlsafe(16),
        plotly=Markup(get_plotlyjs()),
        script=Markup(_read("report.js")),
        style=Markup(_read("report.css")),
    )
    return page


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
