"""Put the page of a run together, part by part, and write it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from featdyn.output import quoted
from featdyn.report.chapters import Chapter, chapters, unasked
from featdyn.report.document import Document, check_ending, write
from featdyn.report.layer_summaries import Sums, layers
from featdyn.report.provenance_tables import head, recipe_tables, tables, tested
from featdyn.report.section import Section
from featdyn.report.training_curves import panels, steps
from featdyn.store import Run


@dataclass(frozen=True)
class Part:
    """A part of the page, which a live page takes anew when it has changed.

    Attributes
    ----------
    name : of the part
    html : what it says
    data : what its figures are drawn from, as of :meth:`~featdyn.report.document.Document.data`
    """

    name: str
    html: Markup
    data: Mapping[str, Any]


@dataclass
class Known:
    """What was made of earlier commits of the same run, and stays as it is: results, checkpoints, their figures."""

    chapters: dict[str, Chapter] = field(default_factory=dict)
    sums: Sums = field(default_factory=dict)
    data: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # of chapters, by their path in the store


def write_report(run: Run, path: str | Path) -> Path:
    """Write the report of a run: one HTML file that works offline.

    What was not recorded or not analysed yet becomes a sentence that says how to get it. The file at ``path``, which is
    returned, is replaced whole, so an older report stays until the new one is there.

    Raises
    ------
    FeatdynError
        The file cannot be written, or has the ending of no page.
    """
    check_ending(path)
    return write(render(run), path)


def render(run: Run) -> str:
    """Return the page as HTML; names in a store cannot act there (:class:`~featdyn.report.document.Document`)."""
    return page(run.name, list(parts(run)), *times(run))


def page(
    name: str, found: list[Part], checkpoints: list[int], at_steps: list[int], live: Mapping[str, str] | None = None
) -> str:
    """Return the page of parts; with their tags, of a live store, it asks whether they have changed."""
    document = Document(name, {}, checkpoints, at_steps)
    data = document.data() | {
        of: {k: v for part in found for k, v in part.data[of].items()} for of in ("figures", "maps")
    }
    return document.render("report.html.j2", data=data, parts=found, live=live)


def times(run: Run) -> tuple[list[int], list[int]]:
    """Return the numbers of the checkpoints, and their steps."""
    return [int(number) for number in run.coords["checkpoint"].values], steps(run).tolist()


def parts(run: Run, known: Known | None = None) -> Iterator[Part]:
    """Yield the parts of a run's page in their order, the head first.

    What is made of a result or a checkpoint goes into ``known``, and what is there already is not made again.
    """
    known = known or Known()
    training, results, recorded = panels(run), chapters(run, known.chapters), layers(run, known.sums)
    checkpoints, at_steps = times(run)
    store, asked = quoted(run.path), unasked(run)

    def part(
        name: str, template: str, sections: Mapping[str, Section] | None = None, key: str = "", **more: Any
    ) -> Part:
        document = Document(run.name, sections or {}, checkpoints, at_steps)
        data = known.data.get(key) or document.data()
        if key:
            known.data[key] = data
        html = document.part(f"parts/{template}.html.j2", run=run, store=store, **more)
        return Part(name, html, {of: data[of] for of in ("figures", "maps")})

    yield part("head", "head", head=head(run), chapters=results, unasked=asked)
    yield part("overview", "overview", chapters=results)
    curves = {"training-0": Section("Training", panels=training)} if training else {}
    yield part("training", "training", curves, tested=tested(run))
    for chapter in results:
        sections = {f"{chapter.name}-{i}": section for i, section in enumerate(chapter.sections)}
        yield part(f"result-{chapter.name}", "chapter", sections, chapter.path, chapter=chapter)
    shown = {"layers-0": recorded[0]} if recorded else {}
    yield part("layers", "layers", shown, meanings=recorded[1] if recorded else {})
    yield part("unasked", "unasked", unasked=asked)
    yield part("provenance", "provenance", tables=tables(run, results), recipe=recipe_tables(run))
