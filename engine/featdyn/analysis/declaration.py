"""What an analysis is, said once: command line, driver, report and documentation read it from here."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from featdyn.validation import Options

if TYPE_CHECKING:
    import xarray as xr
    from torch import nn

    from featdyn.analysis.context import Context, Progress
    from featdyn.compute import Workers
    from featdyn.store import Run

Need: TypeAlias = Literal[
    "network", "training data", "labels", "targets", "activations", "moments", "gradients", "training probes"
]
"""``moments`` are there where activations are, or were kept in place of them."""


@dataclass(frozen=True)
class Variable:
    """One variable of a result.

    Attributes
    ----------
    dims : names of its dimensions, with spaces between them
    long_name : what it is, in words
    units : as in the CF conventions; "1" has none
    valid_range : smallest and largest value that are possible
    missing : what a missing value means, where the same is true of every result (padding, the first checkpoint)
    status : the variable that says cell by cell why a value is missing
    """

    dims: str
    long_name: str
    units: str = "1"
    valid_range: tuple[float, float] | None = None
    missing: str = ""
    status: str = ""

    def attributes(self) -> dict[str, Any]:
        """Return what is stored with the array."""
        found: dict[str, Any] = {"long_name": self.long_name, "units": self.units}
        if self.valid_range is not None:
            found["valid_range"] = list(self.valid_range)
        return found | ({"missing": self.missing} if self.missing else {})


SHARE = (0.0, 1.0)
"""The valid range of shares and probabilities."""
SIGNED = (-1.0, 1.0)
"""That of their differences."""


def bounded(name: str, dims: str, long_name: str, **more: Any) -> dict[str, Variable]:
    """Return a variable and the limits of its 95 % interval, ``<name>_low`` and ``<name>_high``."""
    ends = {"": "", "_low": ", lower 95 % limit", "_high": ", upper 95 % limit"}
    return {f"{name}{end}": Variable(dims, long_name + words, **more) for end, words in ends.items()}


@dataclass(frozen=True)
class Analysis:
    """One question to a run.

    Attributes
    ----------
    name : for the command line, and of its results in the store
    question : one line
    source : where definitions come from, and what is our own choice
    options : their class; each field is a flag too
    variables
        Name to what it is; a name may be a pattern (``directions_*``), and variables may be left out of a result.
    compute
        The function, or ``"module:function"``, which is imported when it runs: ``compute(context)`` returns a data set.
    needs : what is checked before anything runs
    results : names of analyses whose newest result it reads
    section : ``"module:function"`` that makes the report's section from a result; "" where there is none
    incidental : options that leave the cells alone which :attr:`Context.known` gives
    streams : whether it can do with a network without weights, whose pieces are read one by one (``inputs/pieces.py``)
    version : of its numbers: results of another version are not reused
    demo : whether ``featdyn demo`` asks it: it takes seconds, and shows what featdyn is for
    """

    name: str
    question: str
    source: str
    options: type[Options]
    variables: Mapping[str, Variable]
    compute: str | Callable[[Context[Any]], xr.Dataset]
    needs: frozenset[Need] = frozenset()
    results: tuple[str, ...] = ()
    section: str = ""
    incidental: tuple[str, ...] = ()
    streams: bool = False
    version: int = 1
    demo: bool = False
    module: str = field(default="", compare=False)

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={field.get_default()!r}" for name, field in self.options.model_fields.items())
        return f"{self.name}: {self.question}\n  {self.source}\n  options: {options}"

    def __call__(
        self,
        run: Run,
        *,
        model: nn.Module | Callable[[], nn.Module] | None = None,
        batches: Iterable[Any] | None = None,
        loss: Callable[[Any, Any], Any] | None = None,
        progress: Progress | None = None,
        workers: Workers | None = None,
        fresh: bool = False,
        **options: Any,
    ) -> xr.Dataset:
        """Compute it, and commit nothing; see :func:`featdyn.analyze`."""
        from featdyn.analysis.driver import compute

        more: dict[str, Any] = {"progress": progress, "workers": workers, "fresh": fresh}
        return compute(self, run, model=model, batches=batches, loss=loss, **more, **options)

    def function(self) -> Callable[[Context[Any]], xr.Dataset]:
        """Return the function that computes."""
        return pkgutil.resolve_name(self.compute) if isinstance(self.compute, str) else self.compute

    def variable(self, name: str) -> Variable | None:
        """Return what is declared of a variable."""
        if name in self.variables:
            return self.variables[name]
        return next((v for pattern, v in self.variables.items() if fnmatchcase(name, pattern)), None)


COORDINATES: dict[str, tuple[str, str]] = {
    "cut": ("the last module before the cut", "1"),
    "cut2": ("the last module before the second cut", "1"),
    "layer": ("recorded layer", "1"),
    "layer2": ("second recorded layer", "1"),
    "set": ("set of probes", "1"),
    "set_size": ("probes of the set", "1"),
    "t": ("checkpoint", "1"),
    "t1": ("checkpoint of the prefix (shallow half), or the earlier one", "1"),
    "t2": ("checkpoint of the suffix (deep half), or the later one", "1"),
    "step": ("training steps at t", "step"),
    "step1": ("training steps at t1", "step"),
    "step2": ("training steps at t2", "step"),
    "rate1": ("learning rate at t1", "1"),
    "rate2": ("learning rate at t2", "1"),
    "probe": ("id of the probe", "1"),
    "split": ("set of the probe", "1"),
    "prefix_macs": ("multiply-adds of a sample up to the cut", "1"),
    "suffix_macs": ("multiply-adds of a sample behind the cut", "1"),
    "prefix_params": ("parameters up to the cut", "1"),
    "source": ("where features at the cut came from", "1"),
    "test": ("test of isotropy", "1"),
    "k": ("number of leading directions", "1"),
    "class": ("label", "1"),
    "width": ("variables of a layer", "1"),
    "observations": ("observations behind a covariance", "1"),
    "rank": ("number of a principal direction, largest variance first", "1"),
    "lag": ("checkpoints from the prefix's to the suffix's", "1"),
    "path": ("which way the composites were evaluated", "1"),
    "kind": ("what takes the place of the drift", "1"),
    "policy": ("what is done with BatchNorm statistics", "1"),
    "segment": ("layer that is put back", "1"),
    "average": ("what is averaged", "1"),
    "window": ("checkpoints in the average", "1"),
    "measure": ("distance between distributions", "1"),
    "component": ("principal axis that all checkpoints share", "1"),
    "rate": ("learning rate at t", "1"),
    "draw": ("number of a mini-batch", "1"),
    "player": ("number of a player: a patch, a word, ... that is masked", "1"),
    "subset": ("players that are kept: bit i is player i", "1"),
    "order": ("players of an interaction", "1"),
    "reference": ("kind of the networks beside which interactions are labelled", "1"),
    "compared": ("two kinds of labels", "1"),
    "criterion": ("by what phases are told: a kind of labels, the decay's share, or the mean order", "1"),
    "role": ("probes that the network was trained on, or not", "1"),
    "origin": ("number of the image or document that the probe was made from", "1"),
    "label": ("label of the probe", "1"),
    "used": ("probes of the set that were looked at", "1"),
}
"""Coordinates that results share: long name and units."""
