"""The fixed samples that every checkpoint is asked about, as a model takes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from featdyn.capture.nest import leaves, mapped, nest


@dataclass(frozen=True)
class Probes:
    """Fixed probe samples.

    What is given is copied, so that a buffer that is used again changes no probe: tensors that require a gradient, or
    lie on a GPU, are kept without and on the host, and integer labels as int64.

    Parameters
    ----------
    inputs
        What the model takes, normalised: one ``(N, ...)`` tensor, array or list, given to it as ``model(inputs)``; a
        dict of such, given as ``model(**inputs)``; or a tuple, given as ``model(*inputs)``.
    labels
        What the loss compares the outputs with: ``(N,)`` integers for classes, or for another loss whatever that takes,
        of any shape, also a dict or tuple of such; None where it takes nothing.
    coords
        What is known of each sample: name to an ``(N,)`` array of numbers or text. ``sample`` holds unique ids and is
        made where it is missing, and so is ``label`` of ``(N,)`` integer labels. ``origin`` says which image, document,
        ... a probe was made from: probes of one origin (an image and its corrupted copies) are no independent samples,
        so the origin is the unit of resampling. Without it each probe counts as its own.
    mask
        ``(N, position)`` of 0 and 1, or truth values: which positions of each probe are no padding. Where it is None
        and ``inputs`` is a dict with ``attention_mask``, that; with ``decoder_input_ids`` the
        ``decoder_attention_mask``, as the outputs are the decoder's. Padding takes no part in anything that is
        recorded. All layers with positions are taken to have these, but for those of an ``encoder`` beside a decoder,
        which have the ``attention_mask``, and those that ``layers=`` gives another of the inputs as their mask:
        ``{"reader.**": Axis(mask="source_mask")}``. That of the probes is that of the outputs.

    Raises
    ------
    TypeError, ValueError
        What cannot be taken as such, in one line.

    Examples
    --------
    >>> Probes({"input_ids": [[1, 2], [3, 4]], "attention_mask": [[1, 1], [1, 0]]}, [0, 1]).inputs.keys()
    dict_keys(['input_ids', 'attention_mask'])
    """

    inputs: Any
    labels: Any = None
    coords: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    mask: Any = None

    def __post_init__(self) -> None:
        inputs, labels = nest("inputs", self.inputs), mapped(_int64, nest("labels", self.labels))
        inputs, labels = (mapped(torch.clone, values) for values in (inputs, labels))
        found = dict(leaves(inputs, "inputs"))
        if not found:
            raise ValueError("inputs must hold a tensor")
        n = len(next(iter(found.values()))) if next(iter(found.values())).ndim else 0
        if not n and next(iter(found.values())).ndim:
            raise ValueError(f"{next(iter(found))} hold no samples")
        for path, tensor in {**found, **dict(leaves(labels, "labels"))}.items():
            if n == 0 or not tensor.ndim or len(tensor) != n:
                first = next(iter(found))
                raise ValueError(f"{path} must have shape ({n}, ...) like {first}, got {tuple(tensor.shape)}")
        coords = {name: _coordinate(name, values) for name, values in self.coords.items()}
        coords.setdefault("sample", np.array([f"{i:06d}" for i in range(n)], dtype=object))
        if isinstance(labels, Tensor) and labels.dtype == torch.int64 and labels.ndim == 1:
            coords.setdefault("label", labels.numpy().copy())
        for name, values in coords.items():
            if values.shape != (n,):
                raise ValueError(f"coordinate {name} must have length {n} like inputs, got shape {values.shape}")
        if len(set(coords["sample"].tolist())) != n:
            raise ValueError("coordinate sample must hold unique ids")
        mask = mapped(torch.clone, _mask(self.mask, inputs, n))
        for name, value in (("inputs", inputs), ("labels", labels), ("coords", coords), ("mask", mask)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.coords["sample"])

    def odd(self) -> int:
        """Return how many samples have inputs that are not finite."""
        fine = [t.isfinite().view(len(t), -1).all(1) for _, t in leaves(self.inputs, "inputs") if t.is_floating_point()]
        return int((~torch.stack(fine).all(0)).sum()) if fine else 0

    def mask_named(self, key: str | None) -> Tensor | None:
        """Return the mask of the probes, or that of the inputs which has this key, ``(sample, position)`` of bool.

        Raises :class:`ValueError` where there is no such input, or it is no mask.
        """
        if key is None:
            return self.mask  # type: ignore[no-any-return]
        held = {path.partition(".")[2]: tensor for path, tensor in leaves(self.inputs, "input")}
        if key not in held:
            raise ValueError(f"Axis: no input is called {key!r}; there are {', '.join(held) or 'none with names'}")
        return _mask(held[key], self.inputs, len(self), f"input {key}")

    def few(self, device: torch.device, most: int = 4) -> tuple[Any, Any]:
        """Return some samples from all over them, to try a network on."""
        return self.rows(torch.linspace(0, len(self) - 1, min(len(self), most), device="cpu").long(), device)

    def rows(self, places: Tensor, device: torch.device) -> tuple[Any, Any]:
        """Return inputs and labels of the samples at these places, on the device."""
        return tuple(mapped(lambda t: t[places].to(device), values) for values in (self.inputs, self.labels))


def batch_size(samples: int, most: int) -> int:
    """Return how large batches are where so many samples pass in as few as hold ``most`` at most: as even as may be.

    Of 600 samples three batches of 200 and none of 256, whose last would be filled with 168 samples that nobody needs.
    """
    return -(-samples // -(-samples // most))


def batch_of(start: int, stop: int, size: int) -> Tensor:
    """Return the places ``start:stop``, the last one again until there are ``size``, so that no shape ever changes.

    The same sample in batches of different shapes does not give the same bits.
    """
    return torch.arange(start, start + size, device="cpu").clamp(max=stop - 1)


def _mask(given: Any, inputs: Any, samples: int, name: str = "mask") -> Tensor | None:
    """Return a mask as truth values, ``(sample, position)``."""
    if given is None and isinstance(inputs, dict):
        name = "decoder_attention_mask" if "decoder_input_ids" in inputs else "attention_mask"
        given = inputs.get(name)
    if given is None:
        return None
    found = nest(name, given)
    right = isinstance(found, Tensor) and found.ndim == 2 and len(found) == samples
    if not isinstance(found, Tensor) or not right or bool(((found != 0) & (found != 1)).any()):
        got = tuple(found.shape) if isinstance(found, Tensor) else type(given).__name__
        what = f"{name}: give mask= too, which is" if name.endswith("attention_mask") else f"{name} must be"
        also = " with other values" if right else ""
        raise ValueError(f"{what} ({samples}, position) of 0 (padding) and 1, got {got}{also}")
    empty = (~found.bool().any(1)).nonzero()
    if len(empty):
        raise ValueError(f"{name} leaves no position of probe {int(empty[0])} ({len(empty)} such): leave them out")
    return found.bool()


def filled(values: Tensor, start: int, stop: int, size: int) -> Tensor:
    """Return the rows ``start:stop``, the last one again until there are ``size``."""
    return values[torch.arange(start, start + size, device=values.device).clamp(max=stop - 1)]


def _int64(labels: Tensor) -> Tensor:
    """Return integers as losses take them; a truth value for each sample is a class, several are not."""
    several = labels.dtype == torch.bool and labels.ndim > 1
    return labels if labels.is_floating_point() or labels.is_complex() or several else labels.to(torch.int64)


def _coordinate(name: str, values: Any) -> np.ndarray[Any, Any]:
    """Return numbers or text as they will be stored."""
    found = np.array(values.detach().cpu() if isinstance(values, Tensor) else values)
    if found.dtype.kind == "T":  # numpy's own strings of any length
        found = found.astype(object)
    odd = [v for v in found.ravel().tolist() if not isinstance(v, str)] if found.dtype == object else []
    if odd or found.dtype.kind not in "biufUO":
        got = repr(odd[0]) if odd else str(found.dtype)
        raise TypeError(f"coordinate {name} must hold numbers or text, got {got}: write '' where nothing is known")
    return found
