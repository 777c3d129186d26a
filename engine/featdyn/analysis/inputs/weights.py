"""The network of a run, rebuilt from what the store says of it, with the weights of any checkpoint."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from torch import Tensor, nn

from featdyn.analysis.inputs.lacking import lacking
from featdyn.capture.tap import device_of
from featdyn.errors import FeatdynError, NetworkError
from featdyn.functional import functional_call
from featdyn.networks import build, is_skeleton, skeleton, unwrap
from featdyn.networks.twin import eval_twin
from featdyn.store import Run
from featdyn.store.state_file import StateFile

if TYPE_CHECKING:
    from featdyn.analysis.inputs.features_at_cuts import Batch

ROUNDING = 2e-3
"""Of the largest output: what another device may change, beside the network's own precision. Our own choice."""
CHECKED = 8
"""So many checkpoints tell whether a model is the one recorded."""
HELD = 2**30
"""Bytes of weights in memory, for each model that takes them."""


def network(run: Run, device: torch.device | None = None, *, empty: bool = False) -> nn.Module:
    """Return the run's network in eval mode, in the memory format that it was trained in; ``empty`` without weights.

    Of a run that ``featdyn train`` did not make it is known to its own code only: NetworkError says so.
    """
    recipe, dataset = run.recipe, run.described("dataset")
    if recipe is None or not {"classes", "shape"} <= dataset.keys():
        raise NetworkError(
            f"{run.path}: its network is not one of featdyn's: give --model module:factory, or model= from Python"
        )
    options = recipe["network"]
    asked = {"classes": len(dataset["classes"]), "shape": tuple(dataset["shape"]), **options["options"]}
    make = partial(build, options["name"], **asked)
    model = skeleton(make) if empty else make()
    return prepare(model, channels_last=recipe["training"]["channels_last"], device=device)


def prepare(model: nn.Module, *, channels_last: bool, device: torch.device | None = None) -> nn.Module:
    """Return a model in eval mode on its device, in the memory format asked for; one without weights stays as it is."""
    model = (model if is_skeleton(model) else model.to(device or default_device())).eval()
    return model.to(memory_format=torch.channels_last) if channels_last else model


def network_of(run: Run, model: nn.Module | None, *, empty: bool = False) -> nn.Module:
    """Return the given network without wrappers, or the run's own, in eval mode on its device.

    With ``empty`` the run's own has no weights.

    Raises :class:`FeatdynError` where the run lacks what a network is asked about.
    """
    if missing := lacking(run):
        raise FeatdynError(f"{run.path}: no {missing} were recorded, so its network cannot be asked")
    return network(run, empty=empty) if model is None else prepare(unwrap(model), channels_last=False)


def refuse_other_function(run: Run, model: nn.Module, states: States, batch: Batch) -> None:
    """Raise NetworkError where a model with the weights of a checkpoint does not give the outputs recorded then.

    Weights fit many networks: another activation, another order of the same layers, another constant. What was recorded
    tells: of the first batch of probes at some checkpoints, the first and the last among them. The model runs as
    analyses run it, as a twin without its hooks.
    """
    twin = eval_twin(model)
    hooks = _hooks(model) > _hooks(twin)
    for t in dict.fromkeys(np.linspace(0, run.checkpoints - 1, CHECKED).astype(int).tolist()):
        with torch.inference_mode():
            refuse_other_outputs(run, t, functional_call(twin, states[t], (batch.inputs.clone(),)), batch, hooks=hooks)


def refuse_other_outputs(run: Run, t: int, found: Any, batch: Batch, *, hooks: bool = False) -> None:
    """Raise NetworkError where these are not the outputs of a batch that were recorded at checkpoint ``t``.

    ``hooks`` says whether the model has some that it was run without.
    """
    path = "outputs/logits" if "outputs/logits" in run.nodes else "outputs/top_logits"
    recorded = run.block(path, t, batch.block)[: batch.stop - batch.start]
    if isinstance(found, Tensor) and path != "outputs/logits":
        found = found.topk(min(recorded.shape[-1], found.shape[-1]), dim=-1).values
    if not isinstance(found, Tensor) or found[: len(recorded)].shape != recorded.shape:
        raise NetworkError(f"{run.path}: the model's outputs have another shape than those recorded")
    difference = largest = 0.0
    for one, row in zip(found, recorded, strict=False):  # in float64 all at once would take much
        there, exact = ~np.isnan(row), row.astype(np.float64)  # at padding there is nothing
        apart = np.abs(one.double().cpu().numpy() - exact).max(initial=0, where=there)
        difference = float(np.maximum(difference, apart))  # NaN stays
        largest = max(largest, float(np.abs(exact).max(initial=0, where=there)))
    if not difference <= max(ROUNDING, 16 * torch.finfo(found.dtype).eps) * largest:
        raise NetworkError(
            f"{run.path}: the model is not the one recorded: with the weights of checkpoint {t} its outputs"
            f"{' without its hooks' if hooks else ''} differ by {difference:.3g} from those recorded, of up to "
            f"{largest:.3g}" + (": write what they do into its forward function" if hooks else "")
        )


def _hooks(model: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules())


class States(Sequence[dict[str, Tensor]]):
    """Parameters and buffers of every checkpoint, each like the model's own in device and memory format.

    Where the model is not known there are none: nothing but its network could use them.

    They are read when they are asked for; the last ones are kept, up to :data:`HELD` bytes.
    """

    def __init__(self, run: Run, model: nn.Module | None) -> None:
        self._run, self._own = run, None if model is None else model.state_dict()
        names: dict[int, list[str]] = {}
        for name, tensor in ({} if model is None else model.state_dict(keep_vars=True)).items():
            names.setdefault(id(tensor), []).append(name)
        self._tied = [tied for tied in names.values() if len(tied) > 1]
        self.sizes: dict[str, int] = {name: tensor.nbytes for name, tensor in (self._own or {}).items()}
        """Bytes of each tensor of one checkpoint."""
        self.nbytes: int = sum(self.sizes.values())
        """Of one checkpoint."""
        self._files: dict[int, StateFile] = {}
        empty = model is not None and is_skeleton(model)
        self.room = 0 if empty else min(run.checkpoints, max(2, HELD // max(1, self.nbytes)))
        """How many are kept; none of a network that is read piece by piece (``networks/pieces.py``)."""
        self._held: OrderedDict[int, dict[str, Tensor]] = OrderedDict()
        if model is not None:
            for t in (0, run.checkpoints - 1):  # what does not fit is said before any work
                self._check(t, {n: held.shape for n, held in run.state_file(t, checked=False).tensors.items()})

    def __len__(self) -> int:
        return self._run.checkpoints

    @overload
    def __getitem__(self, index: int) -> dict[str, Tensor]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Tensor]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        if isinstance(index, slice):
            return [self[t] for t in range(*index.indices(len(self)))]
        t = range(len(self))[index]
        if t not in self._held:
            while len(self._held) >= self.room:
                self._held.popitem(last=False)
            self._held[t] = self._read(t)
        self._held.move_to_end(t)
        return self._held[t]

    def part(self, checkpoint: int, name: str, first: int, stop: int) -> Tensor:
        """Return the values ``first:stop`` of one tensor in a row, read from the file alone."""
        assert self._own is not None
        if checkpoint not in self._files:
            self._files[checkpoint] = self._run.state_file(checkpoint)
        return self._files[checkpoint].part(name, first, stop).to(self._own[name].dtype)

    def _read(self, checkpoint: int) -> dict[str, Tensor]:
        own = self._own
        if own is None:
            return {}
        stored = self._run.state(checkpoint)
        self._check(checkpoint, {name: tuple(tensor.shape) for name, tensor in stored.items()})
        found = {name: torch.empty_like(own[name]).copy_(stored[name]) for name in own}
        for first, *others in self._tied:  # one tensor under several names, as the model has it
            found |= dict.fromkeys(others, found[first])
        return found

    def _check(self, checkpoint: int, stored: Mapping[str, tuple[int, ...]]) -> None:
        assert self._own is not None
        own = {name: tuple(tensor.shape) for name, tensor in self._own.items()}
        for name in (*own, *stored):
            if name not in stored or name not in own:
                why = f"it has {name}, which they lack" if name in own else f"they have {name}, which it lacks"
            elif own[name] != stored[name]:
                why = f"its {name} has shape {own[name]}, theirs {stored[name]}"
            else:
                continue
            fit = f"the weights of checkpoint {checkpoint} do not fit this network"
            raise NetworkError(f"{self._run.path}: {fit}: {why}")


def device_for(model: nn.Module) -> torch.device:
    """Return where a model runs: where its parameters are, or, where they have no values, the default device."""
    return default_device() if is_skeleton(model) else device_of(model)


def default_device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
