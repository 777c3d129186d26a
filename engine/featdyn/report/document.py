"""What pages share: one file with its style, its script, its figures and the library that draws them."""

from __future__ import annotations

import base64
import gzip
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from featdyn.errors import FeatdynError
from featdyn.output import output_file
from featdyn.report.plotly import to_plotly
from featdyn.report.section import Section, alt_text

LABELS = {"set": "Probes", "cut": "Cut after", "memory": "Measure"}
"""What choices are called, where not by their own name."""

POLL = 2000
"""Milliseconds after which a live page asks whether there is something new."""

ENDINGS = ("", ".html", ".htm")
"""Of files with a page; none for pipes and devices."""

LONG = 48
"""Letters of a name in a table up to which it stands whole."""
LIBRARY = "vendor/plotly-cartesian.min.js"


@dataclass(frozen=True)
class Document:
    """A page of sections.

    Names in a store are anybody's words: they reach the page as escaped HTML, or packed where nothing is HTML, and the
    page's policy runs no script but its own and loads nothing.

    Attributes
    ----------
    name : of what the page is about; downloads start with it
    places : sections by their place on the page
    checkpoints, steps : of the slider; without them there is none
    """

    name: str
    places: Mapping[str, Section]
    checkpoints: Sequence[int] = ()
    steps: Sequence[int] = ()

    def data(self) -> dict[str, Any]:
        """Return what the page's script draws from: figures by slot and choices, and maps over pairs."""
        figures = {
            f"{place}-{i}": {key: to_plotly(figure) for key, figure in panel.figures.items()}
            for place, section in self.places.items()
            for i, panel in enumerate(section.panels)
            if panel.pair_map is None and panel.figures
        }
        maps = {place: section.pair_maps for place, section in self.places.items() if section.pair_maps}
        run = {"name": self.name, "checkpoints": list(self.checkpoints), "steps": list(self.steps)}
        return {**run, "figures": figures, "maps": maps}

    def part(self, template: str, **more: Any) -> Markup:
        """Return the HTML of a part of a page."""
        return Markup(_environment().get_template(template).render(document=self, **more))

    def render(
        self,
        template: str,
        *,
        data: Mapping[str, Any] | None = None,
        live: Mapping[str, str] | None = None,
        **more: Any,
    ) -> str:
        """Return the HTML of a page; ``data`` is that of :meth:`data` where it is known, ``live`` the tags of
        its parts where it is to ask for news.
        """
        data = dict(data or self.data()) | ({"live": {"every": POLL, "tags": dict(live)}} if live else {})
        return (
            _environment()
            .get_template(template)
            .render(
                document=self,
                data=packed(json.dumps(data, allow_nan=False, separators=(",", ":"))),
                library=_library(),
                live=bool(live),
                licence=_read("vendor/LICENSE-plotly.txt"),
                nonce=secrets.token_urlsafe(16),
                script=Markup(_read("page.js")),
                style=Markup(_read("page.css")),
                **more,
            )
        )


@cache
def _environment() -> Environment:
    loader = PackageLoader("featdyn", "report")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"brief": brief, "breakable": breakable}
    environment.globals |= {"labels": LABELS, "alt_text": alt_text}
    return environment


@cache
def _library() -> str:
    return packed(_read(LIBRARY))


def brief(text: object, most: int = LONG) -> str:
    """Return a text whose middle is left out where it is longer than a cell has room for."""
    whole, half = str(text), most // 2
    return whole if len(whole) <= most else f"{whole[:half]}…{whole[-half:]}"


def breakable(name: str) -> Markup:
    """Return a dotted name that may break behind its dots and underscores, rather than inside its words."""
    return Markup(re.sub(r"(?<=[._])(?=\w)", "<wbr>", str(escape(name))))


def check_ending(path: str | Path) -> None:
    """Raise :class:`FeatdynError` where no page is expected in a file of this name."""
    if (ending := Path(path).suffix.lower()) not in ENDINGS:
        raise FeatdynError(f"{path}: a page is HTML, and no {ending}: let the name end with .html")


def write(page: str, path: str | Path) -> Path:
    """Write a page, replacing the file as a whole, and return its path.

    Raises
    ------
    FeatdynError
        The file cannot be written.
    """
    # A store may name things with halves of surrogate pairs, which no file can hold.
    with output_file(path, parents=True) as stream:
        stream.write(page.encode("utf-8", errors="replace"))
    return Path(path)


def packed(text: str) -> str:
    """Return text as base64 of gzip, which is a third of it; the page's script unpacks it."""
    return base64.b64encode(gzip.compress(text.encode("utf-8", errors="replace"), mtime=0)).decode("ascii")


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
