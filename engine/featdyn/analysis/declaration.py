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
    streams
        Whether it can do with a network without weights, whose pieces are read one by one (``networks/pieces.py``).
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
