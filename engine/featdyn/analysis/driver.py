"""Runs any analysis: checks what it needs, gives it what it asks for, completes its result, and commits that."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from featdyn.analysis.context import Context, Progress
from featdyn.analysis.declaration import Analysis
from featdyn.analysis.identity import identity, known
from featdyn.analysis.inputs.lacking import INSTEAD, keeps_moments, lacking
from featdyn.analysis.registry import analyses
from featdyn.analysis.registry import analysis as named
from featdyn.analysis.status import explain
from featdyn.compute import SERIAL, Plan, Workers
from featdyn.errors import FeatdynError
from featdyn.extras import asked_for
from featdyn.names import NAMES
from featdyn.output import quoted
from featdyn.provenance import provenance
from featdyn.store import Run, commit_result
from featdyn.validation import Options, validate

if TYPE_CHECKING:
    import xarray as xr
    from torch import nn

HELD = 4
"""So many times the weights of a checkpoint are held at least: by the network, of two checkpoints, as they are read."""


@overload
def analyze(run: Run | str | Path, analysis: str | Analysis, **given: Any) -> xr.Dataset: ...
@overload
def analyze(run: Run | str | Path, analysis: Sequence[str | Analysis], **given: Any) -> dict[str, xr.Dataset]: ...
def analyze(
    run: Run | str | Path,
    analysis: str | Analysis | Sequence[str | Analysis],
    *,
    model: nn.Module | Callable[[], nn.Module] | None = None,
    forward: Callable[[Any, Any], Any] | None = None,
    output: str | int | Callable[[Any], Any] | None = None,
    batches: Iterable[Any] | None = None,
    loss: Callable[[Any, Any], Any] | None = None,
    progress: Progress | None = None,
    workers: Workers | None = None,
    fresh: bool = False,
    **options: Any,
) -> xr.Dataset | dict[str, xr.Dataset]:
    """Answer a question about a run, keep the answer in its store, and return it.

    Nobody is kept out while it computes: other analyses and a training that goes on may commit too. The result says
    which commit it was computed from.

    Parameters
    ----------
    run
        A run, or where it is.
    analysis
        The name, one of :func:`featdyn.analyses`; or several in a list, of which each is given the options that it has.
        Features that more than one of them asks for in this process are then read or computed once.
    model
        The network, where it is not one of featdyn's, or a function that makes it. It is left as it was: mode, device,
        parameters, random state. What a function makes has no weights where they do not fit into memory and the
        analysis can read them piece by piece.
    forward, output
        How the model is asked, as :class:`featdyn.Recorder` takes it, where that was a function: keys and places of an
        output are known from the store.
    batches, loss
        For what needs training data: a loader of (inputs, labels), which is read once and held in memory, and the loss
        ``(outputs, labels) -> (batch,)`` of each sample, cross-entropy when None. They come with ``model``.
    progress
        Called with (tasks done, in all).
    workers
        Where the work is done, as :func:`featdyn.compute.workers` gives them; in this process by default.
    fresh
        Reuse nothing of earlier results.
    **options
        Those of the analysis.

    Returns
    -------
    xarray.Dataset
        With the variables that the analysis declares; attribute ``path`` says where it lies in the store. Of several a
        dict, by name.

    Raises
    ------
    FeatdynError
        Options that are wrong, something that the analysis needs and the run has not, a model that is not the one
        recorded, or too little memory.

    Examples
    --------
    >>> result = featdyn.analyze("run.zarr", "spectra", layers=["pooled"], sets=["test"])
    >>> result["effective_rank"].dims
    ('layer', 'set', 't')
    >>> result.attrs["path"]  # doctest: +ELLIPSIS
    'results/spectra/...'
    """
    given = {
        "model": model, "forward": forward, "output": output, "batches": batches, "loss": loss, "progress": progress,
        "workers": workers, "fresh": fresh, **options,
    }  # fmt: skip
    if isinstance(analysis, str | Analysis):
        return analyze_one(run, analysis, **given)
    from featdyn.analysis.several import several

    answers = {}
    for one, found in several(run, analysis, **given):
        if isinstance(found, FeatdynError):
            raise found
        answers[one.name] = found
    return answers


def analyze_one(run: Run | str | Path, analysis: str | Analysis, **given: Any) -> xr.Dataset:
    """Answer one question; parameters are those of :func:`analyze`."""
    chosen = named(analysis) if isinstance(analysis, str) else analysis
    opened = run if isinstance(run, Run) else Run(run)
    if isinstance(opened.path, Path) and not os.access(opened.path, os.W_OK):  # else known when all is computed
        raise FeatdynError(f"{opened.path} cannot be written, so that no result could be kept there")
    commit = partial(commit_result, opened, chosen.name)
    found = compute(chosen, opened, commit=commit, **given)
    return found.assign_attrs(path=commit(found))


def compute(
    analysis: Analysis,
    run: Run,
    *,
    model: nn.Module | Callable[[], nn.Module] | None = None,
    forward: Callable[[Any, Any], Any] | None = None,
    output: str | int | Callable[[Any], Any] | None = None,
    batches: Iterable[Any] | None = None,
    loss: Callable[[Any, Any], Any] | None = None,
    progress: Progress | None = None,
    workers: Workers | None = None,
    fresh: bool = False,
    commit: Callable[[xr.Dataset], Any] | None = None,
    **options: Any,
) -> xr.Dataset:
    """Compute an analysis and commit nothing; parameters are those of :func:`analyze`.

    ``commit``, if any, is given results of the first checkpoints while the others are computed.
    """
    chosen = validate(analysis.options, options, analysis.name)
    check(analysis, run, chosen, model, batches)
    done_by, function = workers or SERIAL, analysis.function()  # libraries first: of what they leave it has to do
    empty = (analysis.streams or "network" in analysis.needs) and too_large(run, done_by)
    if empty and not analysis.streams:
        _refuse_large(analysis, run, done_by)
    own = None if model is None else _own(model, empty, analysis)
    empty = empty or (own is not None and is_empty(own))
    stamp = identity(analysis, run, own, chosen, [given for given in (forward, output) if given is not None])
    earlier = None if fresh else known(analysis, run, stamp)

    def completed(found: xr.Dataset, identity: dict[str, Any]) -> xr.Dataset:
        return _completed(analysis, found).assign_attrs(
            analysis=analysis.name,
            question=analysis.question,
            options=chosen.model_dump(mode="json"),
            identity=identity,
            input_commit=run.commits[-1].number,
            provenance=provenance(),
        )

    def keep(found: xr.Dataset) -> None:
        assert commit is not None
        commit(completed(found, stamp | {"weights": stamp["weights"][: int(found["t"][-1]) + 1]}))

    context = Context(
        run, chosen, done_by, own, batches, loss, forward, output, empty, earlier, progress, commit and keep
    )
    with _settled(), asked_for():
        found = function(context)
    return completed(found, stamp)


def check(analysis: Analysis, run: Run, options: Options, model: Any, batches: Iterable[Any] | None) -> None:
    """Refuse in one line what cannot be answered."""
    of_training = "training data" in analysis.needs
    if batches is not None and not of_training:
        raise FeatdynError(f"{analysis.name} needs no training data: leave batches= out")
    held = {spec.path.rpartition("/")[2] for spec in run.schema.arrays if spec.path.startswith("layers/")}
    paths, trained = run.paths("sample"), run.recipe is not None
    given = "train" in options.model_fields_set  # one that is not there is refused where sets are read
    train = given or ("split" in paths and "train" in run.values("split").tolist())
    from_python = f'featdyn.analyze(run, "{analysis.name}", model=model)'
    kept = keeps_moments(run)
    for need, (there, why) in {
        "activations": ("activation" in held, INSTEAD if kept else "none were recorded"),
        "moments": ("activation" in held or kept, "no activations were recorded, nor their moments"),
        "gradients": ("gradient" in held, "none were recorded"),
        "labels": ("label" in paths, "its probes have none"),
        "targets": ("label" in paths or "inputs/target" in run.nodes, "its probes have no labels"),
        "training probes": (train, "probes whose coordinate 'split' says 'train'"),
        "training data": (
            trained or batches is not None,
            "'featdyn train' did not make it, so nothing says what they are: give --model and --batches; from Python: "
            f'featdyn.analyze(run, "{analysis.name}", model=model, batches=loader)',
        ),
        "network": (
            model is not None or trained,
            f"it is known to its own code only: give --model module:factory; from Python: {from_python}",
        ),
    }.items():
        if need in analysis.needs and not there:
            raise FeatdynError(f"{run.path}: {analysis.name} needs {need}: {why}")
    if of_training and (model is None) != (batches is None):
        raise FeatdynError(f"{run.path}: {analysis.name} takes model= and batches= together, of one training")
    for name in analysis.results:
        if not run.results(name):
            if Run(run.place).results(name):
                raise FeatdynError(
                    f"{run.path}: {analysis.name} reads a result of {name}, which was committed after this run was "
                    "opened: open it again"
                )
            raise FeatdynError(
                f"{run.path}: {analysis.name} reads a result of {name}; run: featdyn analyze {quoted(run.path)} {name}"
            )
    if "network" in analysis.needs and (missing := lacking(run)):
        raise FeatdynError(f"{run.path}: {analysis.name} needs {missing}: none were recorded")


def too_large(run: Run, workers: Workers) -> bool:
    """Whether the weights of one checkpoint are too large to be held as often as every analysis of a network does."""
    if not run.has_state(0):
        return False
    return not _whole_network(run, "weights").fits(workers.limits())


def _whole_network(run: Run, what: str) -> Plan:
    """Return what an analysis needs at least that holds a network as a whole."""
    weights = sum(held.nbytes for held in run.state_file(0, checked=False).tensors.values())
    return Plan(what, 1, 0, state={"weights": HELD * weights})


def _refuse_large(analysis: Analysis, run: Run, workers: Workers) -> None:
    """Raise :class:`ComputeError` for an analysis that needs the whole of a network which is too large."""
    others = ", ".join(one.name for one in analyses().values() if one.streams)
    workers.admit(_whole_network(run, f"{analysis.name} of a network as a whole (piece by piece go {others})"))


def is_empty(model: nn.Module) -> bool:
    """Whether a network has no weights."""
    from featdyn.networks import is_skeleton

    return is_skeleton(model)


def _own(model: nn.Module | Callable[[], nn.Module], empty: bool, analysis: Analysis) -> nn.Module:
    """Return a network that may be moved and switched: a copy of the user's, or what their function makes."""
    from torch import nn

    from featdyn.networks import skeleton, unwrap
    from featdyn.networks.skeleton import refuse_empty

    if isinstance(model, nn.Module):
        found = _copied(model)
    else:
        made = skeleton(model) if empty else model()
        if not isinstance(made, nn.Module):
            raise FeatdynError(f"model: the function gives {type(made).__name__}, not a torch.nn.Module")
        found = unwrap(made)
    if is_empty(found):
        if not analysis.streams:
            raise FeatdynError(
                f"{analysis.name} needs a network with weights, and this one lies on torch's meta device"
            )
        refuse_empty(found, set(found.state_dict()))
    return found


def _copied(model: nn.Module) -> nn.Module:
    """Return a copy that may be moved and switched, without wrappers; the user's own stays as it is."""
    from torch import Tensor

    from featdyn.networks.unwrap import unwrap

    inner = unwrap(model)
    held = (value for part in inner.modules() for value in vars(part).values())
    # Of a weight that an earlier pass has computed, or a feature that one has kept, torch copies no graph.
    alone = {id(value): value.detach().clone() for value in held if isinstance(value, Tensor) and not value.is_leaf}
    try:
        return copy.deepcopy(inner, alone)
    except Exception as error:
        raise FeatdynError(f"the model cannot be copied ({error}): give one without hooks or compiled parts") from error


@contextmanager
def _settled() -> Iterator[None]:
    """Compute as in a process in which nobody has set anything of torch, and leave its generators as they were."""
    if "torch" not in sys.modules:
        yield
        return
    import torch

    kind, precision = torch.get_default_dtype(), torch.get_float32_matmul_precision()
    off: list[Any] = [torch.autocast(device, enabled=False) for device in ("cpu", "cuda")]
    if torch.get_default_device().type != "cpu":
        off.append(torch.device("cpu"))  # costs something at each call of torch
    try:
        torch.set_default_dtype(torch.float32)
        torch.set_float32_matmul_precision("highest")
        with torch.random.fork_rng(), ExitStack() as stack:
            for each in off:
                stack.enter_context(each)
            yield
    finally:
        torch.set_default_dtype(kind)
        torch.set_float32_matmul_precision(precision)


def _completed(analysis: Analysis, found: xr.Dataset) -> xr.Dataset:
    """Return a result with the attributes that were declared, and a status for whatever is missing."""
    statuses: dict[str, str] = {}
    for name in map(str, found.data_vars):
        declared = analysis.variable(name)
        if declared is None:
            if "flag_meanings" in found[name].attrs:
                continue
            raise ValueError(f"{analysis.name}: the variable {name} is not declared")
        status = declared.status
        if set(declared.dims.split()) != set(map(str, found[name].dims)) and "*" not in declared.dims:
            raise ValueError(f"{analysis.name}: {name} has dimensions {found[name].dims}, declared are {declared.dims}")
        found[name].attrs |= declared.attributes()
        if found[name].dtype.kind in "fc" and not declared.missing:
            if status in found and not set(found[status].dims) <= set(found[name].dims):
                dims = f"{found[status].dims}, {name} {found[name].dims}"
                raise ValueError(f"{analysis.name}: {status} has dimensions {dims}: it cannot say which cells it means")
            statuses[name] = status
        elif status in found:
            found[name].attrs["ancillary_variables"] = status
    for name in map(str, found.coords):
        if name in NAMES:
            long_name, units = NAMES[name]
            found[name].attrs |= {"long_name": long_name, "units": units}
    return explain(found, statuses)
