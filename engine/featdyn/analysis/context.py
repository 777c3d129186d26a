"""What an analysis is given when it runs: a run, its options, workers, and what it asks for of the network."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.compute import Plan, Stage, Workers, same
from featdyn.errors import FeatdynError
from featdyn.store import Run
from featdyn.validation import Options

if TYPE_CHECKING:
    import xarray as xr
    from torch import nn

    from featdyn.analysis.inputs.stitchable import Stitchable
    from featdyn.capture.call import Call

Progress: TypeAlias = Callable[[int, int], None]
KEPT_EVERY = 60.0
"""Seconds of work between two results of the first checkpoints, at least: commits are to cost next to nothing."""
Chosen = TypeVar("Chosen", bound=Options)
State = TypeVar("State")
Value = TypeVar("Value")


@dataclass(eq=False)
class Context(Generic[Chosen]):
    """One analysis on one run."""

    run: Run  # opened at the commit that the result is computed from
    options: Chosen
    workers: Workers
    model: nn.Module | None = None  # a copy of the user's, which may be changed; None where it is one of featdyn's
    batches: Iterable[Any] | None = None
    """The user's training batches (inputs, labels), where the run's recipe does not say what they are."""
    loss: Callable[[Any, Any], Any] | None = None
    """The user's loss of each sample."""
    forward: Callable[[Any, Any], Any] | None = None
    output: str | int | Callable[[Any], Any] | None = None
    """How the model is asked, where the store cannot say it."""
    empty: bool = False
    """Whether the network's weights are too large to be held: ``model``, or the run's own, then has none."""
    known: xr.Dataset | None = None
    """An earlier result, if any, of the same version, options, network, store and probes, whose checkpoints are the
    first of this run."""
    progress: Progress | None = None
    commit: Callable[[xr.Dataset], Any] | None = None
    """Commits a result of the first checkpoints; None where nothing is to be committed."""
    _kept: float = field(default_factory=time.monotonic, repr=False)
    _total: int = field(default=0, repr=False)
    _done: int = field(default=0, repr=False)

    @cached_property
    def sets(self) -> ProbeSets:
        """The sets of probes that the option ``sets`` names; all where there is no such option."""
        ProbeSets.of(self.run).refuse_unknown(self.run, self.options)
        return ProbeSets.of(self.run, getattr(self.options, "sets", ("*",)))

    @cached_property
    def call(self) -> Call:
        """How the model is asked: as it was recorded."""
        from featdyn.capture.call import Call, recorded_call

        return Call() if self.model is None else recorded_call(self.run, self.forward, self.output)

    def stitchable(self, features: str | None = None, *, masked: bool = False) -> Stitchable:
        """Return the network, cut where the option ``cuts`` says; with ``masked`` for features without padding.

        Where features come from the option ``features`` says by default; where there is none they are recomputed.
        """
        from featdyn.analysis.inputs.stitchable import cut_network

        chosen: Any = self.options
        where = features or str(getattr(chosen, "features", "recomputed"))
        return cut_network(self.run, self.model, chosen.cuts, where, masked=masked, call=self.call, empty=self.empty)

    def layers(self) -> Stitchable:
        """Return the network as :meth:`stitchable` does; recorded layers where it is unknown or does not come apart.

        For analyses of features, which join no halves: padding takes no part in them (``inputs/positions.py``). The
        attribute ``cut_method`` of their coordinates says which.
        """
        from featdyn.analysis.inputs.recorded_layers import recorded_layers
        from featdyn.networks.choose import NoCut
        from featdyn.networks.trace import CannotCut

        chosen: Any = self.options
        if self.model is None and "recipe" not in self.run.attributes:
            return recorded_layers(self.run, chosen.cuts, "the network was not given")
        try:
            return self.stitchable(masked=True)
        except (CannotCut, NoCut) as error:
            try:
                return recorded_layers(self.run, chosen.cuts, str(error))
            except FeatdynError:
                raise error from None

    def admit(self, plan: Plan) -> None:
        """Say what will be needed, and refuse what cannot fit; its tasks are what progress counts."""
        if self.run.kept is not None:
            plan = replace(plan, result=plan.result | {"kept for other analyses": self.run.kept.room})
        self.workers.admit(plan)
        self._total = plan.tasks

    def stage(self, state: State, rebuild: Callable[[], State] | None = None) -> AbstractContextManager[Stage]:
        """Return workers that hold ``state``: made anew by ``rebuild``, or sent as it is."""
        return self.workers.stage(state, rebuild or partial(same, state))

    def each(self, found: Iterable[Value], tasks: int | Sequence[int] = 1) -> Iterator[Value]:
        """Yield results as they come and count their tasks: one each, or as many as given."""
        for i, value in enumerate(found):
            yield value
            self._done += tasks if isinstance(tasks, int) else tasks[i]
            if self.progress is not None:
                self.progress(min(self._done, self._total), self._total)

    def keep(self, first: Callable[[], xr.Dataset]) -> None:
        """Commit the result of the first checkpoints, so that what is stopped goes on from there as :attr:`known`.

        ``first`` returns what the analysis would if the run had no more of them, or more of it where it knows more. It
        is asked no more often than once a minute, nor for more than a tenth of the time.
        """
        now = time.monotonic()
        if self.commit is None or now < self._kept + KEPT_EVERY:
            return
        self.commit(first())
        self._kept = time.monotonic() + 9 * (time.monotonic() - now)
