"""What pages, papers and commands show, as a person last looked at it: ``python -m tests.engine.approved_looks`` anew.

Checksums of the parts of each analysis's section, for a result of random values, and the looks of some figures in
Matplotlib: places, colours, sizes and words, not pixels, which depend on its version. Who changes what is shown looks
at it, and runs this.
"""

from __future__ import annotations

import json
import pkgutil
import re
import shlex
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from click.testing import CliRunner

from featdyn.analysis import Analysis, analyses
from featdyn.cli.main import featdyn
from featdyn.report.figure import Axis, Figure, Lines, Map, Mark, Series
from featdyn.report.plotly import to_plotly
from featdyn.report.section import Section
from featdyn.store import RunWriter
from tests.engine.approved_results import write
from tests.engine.declared_results import declared_result
from tests.engine.synthetic_run import add_consistency, make_run

PAGE = Path(__file__).with_suffix(".json")
TIMES = Axis("checkpoint / step", "checkpoint", checkpoints=(0, 1, 2, 30_000), steps=(0, 9, 90, 40_600_000))
Y = np.array([0.1, 0.4, 0.7, 1.0])
LONG = "encoder.layers.3.attention.output_projection.dense_with_a_long_name"
FIGURES: dict[str, Figure] = {
    "lines by depth": Lines(
        TIMES,
        Axis("a title of an axis that is much too long for one line", "auto"),
        tuple(
            Series(f"{LONG}.{i}", Y * (i + 1), low=Y * i, high=Y * (i + 2), depth=i / 8, order=i, dash="dashdot")
            for i in range(9)
        ),
        (Mark(1.0, "begin of the second phase", 0.5, 1.5), Mark(2.0, "alone")),
        "spread",
        "drawn: all",
    ),
    "points by name": Lines(
        Axis("place", "category"),
        Axis("share", share=True, from_zero=True),
        tuple(
            Series(n, Y[:2], ["a" * 50, "b"], Y[:2] / 2, 2 * Y[:2], order=i, joined=False, beside=Y[:2])
            for i, n in enumerate(("one", "<two>", "three"))
        ),
    ),
    "many values": Lines(
        Axis("rank", "log", whole=True),
        Axis("share", "log", share=True),
        (Series("a", np.geomspace(1e-4, 1, 70), np.arange(1, 71).tolist()), Series("b", np.full(70, 0.5))),
    ),
    "a map by name": Map(
        Axis("one", "category"),
        Axis("other", "category"),
        np.arange(9.0).reshape(3, 3),
        ((LONG, "b", "c"), ("a", "b", LONG)),
        low=np.zeros((3, 3)),
        high=np.ones((3, 3)),
        range=(-1.0, 9.0),
        title="of what this is a map: all",
    ),
    "a map over checkpoints": Map(TIMES, TIMES, np.where(np.eye(4) > 0, np.nan, 0.25), share=True, title="shares"),
}


def checksum(value: Any) -> str:
    """Return a short checksum of plain values."""
    return f"{zlib.crc32(json.dumps(value, sort_keys=True).encode()):08x}"


def of_section(analysis: Analysis) -> dict[str, str]:
    """Return a checksum for each part of the section of an analysis."""
    result = declared_result(analysis, seed=1, missing=0.1, checkpoints=5)
    found = pkgutil.resolve_name(analysis.section)(result)
    said: dict[str, str] = {}
    for section in [found] if isinstance(found, Section) else found:
        said[f"{section.title}: words"] = checksum(
            [section.text, section.note, section.caveat, section.finding and asdict(section.finding)]
        )
        said[f"{section.title}: choices"] = checksum([section.choices, section.preset, section.wide, section.timed])
        said[f"{section.title}: table"] = checksum(section.grid and asdict(section.grid))
        said[f"{section.title}: maps over pairs"] = checksum(section.pair_maps)
        for number, panel in enumerate(section.panels):
            figures = {key: [figure.title, to_plotly(figure)] for key, figure in panel.figures.items()}
            said[f"{section.title}: {number} {panel.name}"] = checksum(
                [panel.caption, panel.detail, panel.choices, dict(panel.at), panel.pair_map, figures]
            )
    return said


def on_paper(figure: Figure) -> dict[str, Any]:
    """Return what a figure looks like in Matplotlib."""
    from matplotlib.colors import to_hex

    from featdyn.report.paper import drawn

    paper: Any = drawn([("panel", figure), ("other", figure)], "page")
    legends = [
        [text.get_fontsize(), text.get_text(), legend._ncols, legend.get_frame_on(), legend.handlelength]
        for legend in paper.legends
        for text in legend.get_texts()
    ]
    titles = [t and [t.get_text(), t.get_fontsize()] for t in (paper._suptitle, paper._supxlabel, paper._supylabel)]
    found: dict[str, Any] = {
        "size": list(map(float, paper.get_size_inches())),
        "legend": legends[:2],
        "titles": titles,
        "paper": to_hex(paper.get_facecolor()),
    }
    return found | {f"axes {i}": dict(_axes(axes)) for i, axes in enumerate(paper.axes)}


def _axes(axes: Any) -> Iterator[tuple[str, Any]]:
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_hex

    yield "title", [axes.get_title(), axes.title.get_fontsize()]
    yield "paper", to_hex(axes.get_facecolor())
    yield "borders", [[n, s.get_visible(), s.get_linewidth()] for n, s in axes.spines.items()]
    for name, own in (("x", axes.xaxis), ("y", axes.yaxis)):
        labels = [[text.get_text(), text.get_rotation(), text.get_fontsize()] for text in own.get_ticklabels()]
        yield f"{name} axis", [own.get_scale(), own.label.get_text(), own.label.get_fontsize(), labels[:1]]
        grid = own.get_gridlines()[:1]
        yield f"{name} grid", [[line.get_visible(), to_hex(line.get_color()), line.get_linewidth()] for line in grid]
        if own.get_scale() == "linear" and type(own.get_major_locator()).__name__ == "FixedLocator":
            yield f"{name} ticks", [*map(float, own.get_ticklocs()), *(text[0] for text in labels)]
        yield f"{name} ends", [float(end) for end in own.get_view_interval()]
    for i, line in enumerate(axes.lines[:4]):
        look = [to_hex(line.get_color()), line.get_linestyle(), line.get_linewidth(), line.get_marker()]
        x, y = (np.asarray(values, float)[:4].tolist() for values in line.get_data())
        yield f"line {i}", [line.get_gid(), *look, line.get_markersize(), line.get_label(), *x, *y]
    for i, held in enumerate(axes.collections[:2]):
        if isinstance(held, LineCollection):
            ends = [segment.tolist() for segment in held.get_segments()[:2]]
            yield f"bars {i}", [held.get_gid(), np.ravel(held.get_linewidth()).tolist(), held.get_alpha(), ends]
        else:
            yield f"cells {i}", [held.get_gid(), held.get_cmap().name, list(map(float, held.get_clim()))]
    for i, patch in enumerate(axes.patches[:2]):
        box = [patch.get_x(), patch.get_width(), patch.get_height(), patch.get_alpha(), patch.get_linewidth()]
        yield f"patch {i}", [to_hex(patch.get_facecolor()), *map(float, box)]
    for i, text in enumerate(axes.texts):
        yield f"text {i}", [text.get_text(), *map(float, text.xy), text.get_ha(), text.get_va(), text.get_fontsize()]


COMMANDS = (
    "info", "info --results", "info --json", "verify", "query step", "query label --by split",
    "query cube.activation_norm --where layer=stem --limit 3 --format json", "query --list", "plot",
    "query results.drift.motion --reduce mean:t1,t2 --by set --top 3", "query step --format csv",
    "query cube.gradient_norm --where checkpoint=-1 --where gradient_norm>0.1 --sort gradient_norm --limit 4",
    "sql 'select split, count(*) as n, min(label) as least from samples group by split'",
)  # fmt: skip


def asked_run(path: Path) -> Path:
    """Make a run with results of random values, of which commands are asked."""
    run = make_run(path)
    add_consistency(run)
    with RunWriter.open(path) as writer:
        for name in ("drift", "spectra"):
            writer.result(name, declared_result(analyses()[name], seed=1, missing=0.2, checkpoints=5))
    return path


def said(command: str, store: Path) -> list[str]:
    """Return the lines that a command writes."""
    name, *options = shlex.split(command)
    result = CliRunner().invoke(featdyn, [name, str(store), *options])
    lines = f"{result.output}{result.exception or ''}".replace(str(store), "STORE").splitlines()
    few = [re.sub(r"\d+\.\d{7,}", lambda number: f"{float(number[0]):.6g}", line) for line in lines]
    return [f"ends with {result.exit_code}", *few]


def looks() -> dict[str, Any]:
    """Return all of it, but for what Matplotlib draws."""
    found: dict[str, Any] = {f"section of {n}": of_section(a) for n, a in analyses().items() if a.section}
    return found | {f"page: {name}": to_plotly(figure) for name, figure in FIGURES.items()}


def main() -> None:
    """Write what tests look at."""
    with TemporaryDirectory() as folder:
        store = asked_run(Path(folder) / "run.zarr")
        page = looks() | {"commands": {command: said(command, store) for command in COMMANDS}}
    page |= {f"paper: {name}": on_paper(figure) for name, figure in FIGURES.items()}
    write(PAGE, page)


if __name__ == "__main__":
    main()
