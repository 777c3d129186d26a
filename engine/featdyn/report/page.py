"""Put the page together and write it."""

from __future__ import annotations

import secrets
import shlex
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from featdyn.errors import FeatdynError
from featdyn.report.consistency import MEASURES, consistency
from featdyn.report.facts import head, recipe_tables, tables
from featdyn.report.layers import layers
from featdyn.report.sections import sections
from featdyn.report.training import panels, steps
from featdyn.store import Run
from featdyn.store.files import Folder


def write_report(run: Run, path: str | Path) -> Path:
    """Write the report of a run: one HTML file that works offline.

    Parameters
    ----------
    run
        A run; what was not recorded or not analysed yet becomes a sentence that says how to get it.
    path
        The file; it is written aside and renamed, so an older report stays whole until the new one is.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    FeatdynError
        The file cannot be written.
    """
    target = Path(path)
    # A store may name things with halves of surrogate pairs, which no file can hold.
    content = render(run).encode("utf-8", errors="replace")
    try:
        if target.is_dir():
            raise IsADirectoryError(0, "is a folder, give a file")
        Folder(target.parent).replace(target.name, content)
    except OSError as error:
        with suppress(OSError):
            target.with_name(f".{target.name}.new").unlink()
        raise FeatdynError(f"{target}: the report cannot be written: {error.strerror}") from error
    return target


def render(run: Run) -> str:
    """Return the page as HTML.

    Names in a store are anybody's words: they reach the page as escaped HTML, or as JSON in which ``<``, ``>`` and
    ``&`` are escaped, and the page's policy runs no script but its own and loads nothing.
    """
    from plotly.offline import get_plotlyjs

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    training, stitched, recorded = panels(run), consistency(run), layers(run)
    figures: dict[str, Any] = {f"training-{i}": {"": panel.figure} for i, panel in enumerate(training)}
    figures |= {"layers": recorded.figures} if recorded else {}
    figures |= stitched.figures if stitched else {}
    more = sections(run)
    for section in more:
        figures |= section.slots()
    page: str = environment.from_string(_read("report.html.j2")).render(
        run=run,
        store=shlex.quote(str(run.path)),
        head=head(run),
        training=training,
        consistency=stitched,
        measures=MEASURES,
        labels={"set": "Probes", "cut": "Cut after", "memory": "Measure", "measure": "Measure"},
        layers=recorded,
        sections=more,
        tables=tables(run, stitched, more),
        recipe=recipe_tables(run),
        data={"steps": steps(run).tolist(), "figures": figures, "grid": stitched.grid if stitched else None},
        nonce=secrets.token_urlsafe(16),
        plotly=Markup(get_plotlyjs()),
        script=Markup(_read("report.js")),
        style=Markup(_read("report.css")),
    )
    return page


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
