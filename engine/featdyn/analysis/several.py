"""Several analyses of one run in one call: what more than one of them reads or computes is read and computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from featdyn.analysis.declaration import Analysis
from featdyn.analysis.driver import analyze_one, check
from featdyn.analysis.registry import analyses
from featdyn.analysis.registry import analysis as named
from featdyn.compute.plan import available
from featdyn.errors import FeatdynError
from featdyn.nearest import nearest
from featdyn.store import Run
from featdyn.store.kept import Kept
from featdyn.store.locate import Store

if TYPE_CHECKING:
    import xarray as xr

KEPT = 2**30
"""Bytes of features that are kept from one analysis for the next, at most: a quarter of memory where that is less."""
TRAINING = ("batches", "loss")


def several(
    run: Run | Store, asked: Sequence[str | Analysis], **given: Any
) -> Iterator[tuple[Analysis, xr.Dataset | FeatdynError]]:
    """Yield each analysis and its result, committed, or why there is none: one that fails leaves the others alone.

    Parameters are those of :func:`featdyn.analyze`. An option goes to the analyses that have it; one that none has
    raises :class:`FeatdynError`, as does a name that is none, before anything runs. Analyses that read another's result
    come after it.
    """
    chosen = _ordered([named(a) if isinstance(a, str) else a for a in asked])
    settings = {"model", "forward", "output", "progress", "workers", "fresh", *TRAINING}
    of_any = {name for one in chosen for name in one.options.model_fields}
    for name in given.keys() - settings - of_any:
        names = ", ".join(one.name for one in chosen)
        raise FeatdynError(f"{names}: none has an option {name!r}: {nearest(name, of_any | settings)}")
    opened = run if isinstance(run, Run) else Run(run)
    with keeping(opened, getattr(given.get("workers"), "limit", None)):
        for one in chosen:
            # What was committed meanwhile is seen by those that read it, and by no other.
            its = Run(opened.place) if one.results else opened
            left_out = set() if "training data" in one.needs else set(TRAINING)
            mine = {k: v for k, v in given.items() if k in settings - left_out or k in one.options.model_fields}
            found: xr.Dataset | FeatdynError
            try:
                found = analyze_one(its, one, **mine)
            except FeatdynError as error:
                found = error
            yield one, found


@contextmanager
def keeping(run: Run, limit: int | None = None) -> Iterator[None]:
    """Keep features that this process reads or computes of a run, for the next who asks; ``limit`` is its memory."""
    run.kept = Kept(min(KEPT, (limit or available() or 4 * KEPT) // 4))
    try:
        yield
    finally:
        run.kept = None


def answerable(run: Run, model: Any = None, batches: Any = None) -> list[Analysis]:
    """Return the analyses for which a run, and what is given, has all that they need, with their own options."""
    found = []
    for one in analyses().values():
        # A network of the user's brings no training data by itself, and batches are for those that need them.
        given = batches if "training data" in one.needs else None
        try:
            check(replace(one, results=()), run, one.options(), model, given)
        except FeatdynError:
            continue
        found.append(one)
    names = {one.name for one in found}
    return [one for one in found if all(name in names or run.results(name) for name in one.results)]


def _ordered(asked: Sequence[Analysis]) -> list[Analysis]:
    """Return each once, in their order but for those that read results of others among them."""
    left, found = list({one.name: one for one in asked}.values()), list[Analysis]()
    while left:
        waiting = {one.name for one in left}
        found.append(next((one for one in left if not waiting & (set(one.results) - {one.name})), left[0]))
        left.remove(found[-1])
    return found
