"""The report's figures in notebooks, as plotly's: ``tree.featdyn.plot.consistency(set="test")``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from featdyn.errors import FeatdynError
from featdyn.nearest import nearest
from featdyn.report.named import figures_of, find, groups
from featdyn.report.plotly import text, to_plotly
from featdyn.store import Run

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


class Plots:
    """Figures of a run, by the names of analyses, and ``training`` and ``layers``.

    ``plots(run).spectra("isotropy", set="test")`` is the figure ``spectra.isotropy`` of ``featdyn plot``; an analysis
    without a name is its first one. Of several that differ in a place, such as a cut, the last one stands where none is
    given.

    Examples
    --------
    >>> featdyn.report.plots(featdyn.open_run("run.zarr")).consistency("grid", set="test").data[0].type
    'heatmap'
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def __dir__(self) -> list[str]:
        return groups(self._run)

    def __getattr__(self, name: str) -> Callable[..., Figure]:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in groups(self._run):
            raise AttributeError(f"no result of {name!r}: {nearest(name, groups(self._run))}")

        def drawn(figure: str = "", /, **where: Any) -> Figure:
            import plotly.graph_objects as go

            short = [full.partition(".")[2] for full in figures_of(self._run, name)]
            if figure and figure not in short:
                raise FeatdynError(f"{name} has no figure {figure!r}: {nearest(figure, short)}")
            _, found = find(self._run, f"{name}.{figure}" if figure else name).figures(where)[-1]
            words = to_plotly(found)
            return go.Figure(words["data"], words["layout"] | {"title": {"text": text(found.title)}})

        return drawn
