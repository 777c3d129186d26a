"""Does a recording follow network and samples? Some probes pass the network anew, alone and in other company."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featdyn.capture.axis import Axis
from featdyn.capture.call import recorded_call
from featdyn.capture.open_store import identity
from featdyn.capture.options import CaptureOptions
from featdyn.capture.probes import Probes, batch_of, batch_size
from featdyn.capture.recording import Recording
from featdyn.capture.replica import with_state
from featdyn.errors import StoreError
from featdyn.networks import unwrap
from featdyn.store import Run
from featdyn.store.locate import Store
from featdyn.validation import validate

SAMPLES = 8
"""So many probes are run, from all over them: each passes the network alone."""
WAYS = ("recorded", "reversed", "alone")
ROUNDINGS = {"float16": 1, "float32": 64}
"""So many roundings of the stored type are allowed, of the largest value of a probe: batches of another shape add up in
another order, which float16 hides and float32 shows. Our own choice."""


@dataclass(frozen=True)
class Compared:
    """One array: the largest difference from what is stored, over the largest value of the probe, by way.

    In the batch in which it was recorded, in that batch in another order, and alone; 0 where all bits are the same.
    """

    path: str
    difference: dict[str, float]
    allowed: float

    @property
    def equal(self) -> bool:
        """Whether all are equal within the rounding of the stored type."""
        return all(value <= self.allowed for value in self.difference.values())


def run_again(
    model: nn.Module,
    probes: Probes,
    store: Store,
    *,
    loss: Callable[[Any, Any], Tensor] | None = None,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    output: str | int | Callable[[Any], Any] | None = None,
) -> tuple[int, int, list[Compared]]:
    """Run some probes of a store's last checkpoint again; return that, how many probes, and what came out.

    Parameters are those of :class:`featdyn.capture.Recorder`; the model is given the stored weights for the while.

    Raises
    ------
    StoreError
        The store holds no checkpoint, or was not recorded of this network and these probes.
    NetworkError
        The network does not run, or a layer does not follow the samples.
    """
    run, model = Run(store), unwrap(model)
    if not run.checkpoints:
        raise StoreError(f"{store}: holds no checkpoint yet")
    said = run.described("identity")
    for name, value in identity(model, probes).items():
        if said.get(name, value) != value:
            raise StoreError(f"{store}: was recorded of other {name}: {said[name]} there, {value} here")
    if run.values("sample").tolist() != probes.coords["sample"].tolist():
        raise StoreError(f"{store}: was recorded of probes with other sample ids")
    held = run.described("capture")
    if held.get("record") == "moments":
        raise StoreError(f"{store}: moments were kept of its activations, not they themselves: nothing to compare with")
    known = {name: value for name, value in held.items() if name in CaptureOptions.model_fields}
    specs = {a.path: a for a in run.schema.arrays if a.path.startswith("layers/")}
    axes = {path.split("/")[1]: _axis(spec.attrs) for path, spec in specs.items()}
    gradients = any(path.endswith("/gradient") for path in specs)
    options = validate(CaptureOptions, {**known, "layers": list(axes), "gradients": gradients}, "capture")
    t = run.checkpoints - 1
    call = recorded_call(run, forward, output, loss, options.token_loss)
    with with_state(model, run.state(t)):
        recording = Recording(model, probes, options, axes, call)
        places = np.unique(np.linspace(0, len(probes) - 1, SAMPLES).astype(int))
        found: dict[str, dict[str, float]] = {}
        for place in places.tolist():
            stored: dict[str, NDArray[Any]] = {}
            for way, columns, row in _passes(recording, run, place):
                for path, values in columns.items():
                    if path in run.nodes and values.is_floating_point():
                        ways = found.setdefault(path, dict.fromkeys(WAYS, 0.0))
                        if path not in stored:
                            stored[path] = _stored(run, path, t, place)
                        ways[way] = max(ways[way], _difference(path, stored[path], values[row]))
    compared = []
    for path in sorted(found, key=lambda path: path.startswith("outputs/")):
        dtype = run.schema[path].dtype
        compared.append(
            Compared(path, found[path], ROUNDINGS.get(dtype, ROUNDINGS["float32"]) * float(np.finfo(dtype).eps))
        )
    return t, len(places), compared


def _axis(attrs: dict[str, Any]) -> Axis:
    """Return where a stored array says that its samples and positions were."""
    mask = attrs.get("mask", "").partition(".")[2] or None
    places = attrs.get("sample_axis", 0), attrs.get("position_axis")
    return Axis(*places, attrs.get("pool", "none"), mask, attrs.get("output"))


def _passes(recording: Recording, run: Run, place: int) -> Any:
    """Yield the ways to run one probe, with what is recorded then and the row of the probe."""
    block = run.schema.block_slice(place // run.schema.shard_samples)
    size = batch_size(block.stop - block.start, recording.options.batch)
    start = block.start + (place - block.start) // size * size
    batch = batch_of(start, min(start + size, block.stop), size)
    yield "recorded", recording.columns(batch), place - start
    yield "reversed", recording.columns(batch.flip(0)), size - 1 - (place - start)
    yield "alone", recording.columns(torch.tensor([place], device="cpu")), 0


def _stored(run: Run, path: str, t: int, place: int) -> NDArray[Any]:
    block, row = divmod(place, run.schema.shard_samples)
    found: NDArray[Any] = run.block(path, t, block, stored=True, rows=slice(row, row + 1))[0]
    return found


def _difference(path: str, stored: NDArray[Any], values: Tensor) -> float:
    """Return how far a probe's values, converted as those stored are, differ from these, over the largest of them."""
    here = values.detach().cpu().to(getattr(torch, stored.dtype.name)).double().numpy()
    there = stored.astype(np.float64)
    if here.shape != there.shape:
        raise StoreError(f"{path} has the shape {there.shape} for a probe in the store, here it has {here.shape}")
    here = np.where(np.isnan(there), there, here)  # at padding nothing is stored
    with np.errstate(invalid="ignore"):
        apart = np.where(here == there, 0.0, np.abs(here - there))
    finite = np.abs(there[np.isfinite(there)])
    largest = max(float(finite.max(initial=0.0)), float(np.finfo(np.float64).tiny))
    return float(np.where(np.isnan(there), 0.0, np.where(np.isnan(apart), np.inf, apart)).max()) / largest
