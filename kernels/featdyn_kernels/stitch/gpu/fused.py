"""A plan run on a GPU: every step once for all checkpoints."""

# ruff: noqa: D102  as Runner says

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from featdyn_kernels.stitch.gpu.layers import Convolution, Heads, Linear, prepare
from featdyn_kernels.stitch.gpu.replay import Inputs, Replays
from featdyn_kernels.stitch.gpu.scores import MOST_CLASSES, scores
from featdyn_kernels.stitch.gpu.values import Padded, Values
from featdyn_kernels.stitch.patterns import head, paddings
from featdyn_kernels.stitch.plan import Affine, Call, SuffixPlan, reads
from featdyn_kernels.stitch.runner import Path
from featdyn_kernels.stitch.score import Scores

WORKSPACE = 2**29
"""Bytes of activations that are alive at a time; samples and checkpoints are split to stay below. Untuned: no GPU
figure exists yet."""
MIN_BLOCK = 64
"""Samples below which checkpoints are split rather than samples: weights are read once a block."""
ERRORS = {torch.float32: (1e-6, 1e-3), torch.float16: (1e-3, 1e-1), torch.bfloat16: (5e-3, 1e-1)}
"""Expected error of a logit as a fraction of the largest, and the one that nothing but a fault explains."""


class Fused:
    """A plan with the weights of every checkpoint laid out, of suffixes in eval mode and float32, on the device.

    ``dtype`` is that of weights and activations, but for the logits, which are float32.
    """

    def __init__(self, plan: SuffixPlan, modules: Sequence[nn.Module], dtype: torch.dtype) -> None:
        device = next((tensor.device for tensor in modules[0].parameters()), torch.device("cpu"))
        found = head(plan, modules[0])
        if found is not None and found.layer.out_features > MOST_CLASSES:
            found = None
        self.plan, self.modules = plan if found is None else found.plan, modules
        self._paddings = paddings(self.plan)
        self._layers: dict[str, Convolution | Linear] = {}
        for step in self.plan.own:
            if isinstance(step, Affine):
                # What gives the logits stays in float32: it costs little and decides much.
                layer = prepare(step, modules, torch.float32 if step.value == plan.output else dtype, device)
                if layer is not None:
                    self._layers[step.value] = layer
        self._heads = None if found is None else Heads(self._layers.pop(plan.output), found.pooled)
        state = modules[0].state_dict()
        self._weighted = {step.value for step in self.plan.own if isinstance(step, Call) and reads(step, state)}
        self._dtype = dtype if self._layers else torch.float32
        self.error, self.tolerance = ERRORS[self._dtype]
        self._layouts = [*self._layers.values(), *([self._heads] if self._heads else [])]
        self.nbytes = sum(layer.nbytes for layer in self._layouts)
        self._bytes = self._classes = 0
        self._replays = Replays(self._compute, device)

    @property
    def path(self) -> Path:
        """What is fused, and whether it is captured."""
        kinds = Counter(layer.kind for layer in self._layouts)
        steps = len(self.plan.own) + len(self.plan.shared)
        kinds["by torch"] = steps - len(self._layouts) - len(self._paddings)
        said = [", ".join(f"{n} {kind}" for kind, n in kinds.items() if n), "one launch for all checkpoints"]
        said.append(f"activations of {str(self._dtype).removeprefix('torch.')}")
        why_not = self._replays.why_not
        said.append(f"no CUDA graph: {why_not}" if why_not else "replayed as a CUDA graph")
        return Path("fused", "; ".join(said))

    def run(self, features: Tensor, scores: Scores) -> None:
        with torch.inference_mode():
            if not self._classes:  # one sample through one checkpoint tells what the others will need
                self._compute((self._cast(features[:1]), None, None), slice(0, 1))
            scores.check(self._classes)
            total, checkpoints = len(features), len(self.modules)
            together = max(1, WORKSPACE // self._bytes)  # samples, each counted for each checkpoint that it meets
            size = min(together, max(MIN_BLOCK, together // checkpoints))
            size = -(-total // -(-total // size))  # blocks of one size
            step = min(checkpoints, together // size)
            for start in range(0, total, size):
                rows = slice(start, min(start + size, total))
                labels = None if scores.labels is None else scores.labels[rows]
                own = None if scores.own is None else scores.own[:, rows].transpose(0, 1)
                block = self._replays.start((self._cast(features[rows]), labels, own), size)
                for first in range(0, checkpoints, step):
                    group = slice(first, min(first + step, checkpoints))
                    scores.write(*block(group), group, rows)

    def _cast(self, features: Tensor) -> Tensor:
        order = torch.channels_last if features.ndim == 4 else torch.contiguous_format
        return features.to(self._dtype, memory_format=order)

    def _compute(self, inputs: Inputs, group: slice) -> tuple[Tensor, Tensor]:
        """Return predictions and figures of a group of checkpoints."""
        features, labels, own = inputs
        own = None if own is None else own.transpose(0, 1)[group]
        modules = self.modules[group]
        values, held = Values(self._shared(features), len(modules)), 0
        for step, drop in zip(self.plan.own, self.plan.drops, strict=True):
            if self._heads is not None and step.value == self.plan.output:
                break
            values[step.value] = self._value(step, values, modules, group)
            held = max(held, values.nbytes())
            for name in drop:
                del values[name]
        self._bytes = max(self._bytes, held // (len(features) * len(modules)), 1)
        if self._heads is not None:
            self._classes = self._heads.classes
            return self._heads(values.stacked(self.plan.own[-1].sources[0]), labels, own, group)
        logits = values.stacked(self.plan.output)
        if not isinstance(logits, Tensor) or logits.ndim != 3 or logits.shape[1] != len(features):
            got = type(logits).__name__ if logits is None else tuple(logits.shape[1:])
            raise ValueError(f"a suffix must return logits ({len(features)}, classes), got {got}")
        self._classes = logits.shape[-1]
        found: tuple[Tensor, Tensor] = scores(logits.expand(len(modules), -1, -1), labels, own)
        return found

    def _shared(self, features: Tensor) -> dict[str, Any]:
        values: dict[str, Any] = {self.plan.input: features}
        for step in self.plan.shared:
            if step.value in self._paddings:
                source, before, after = self._paddings[step.value]
                values[step.value] = Padded(values[source][None], before, after)
            else:
                values[step.value] = step(self.modules[0], values)
        return values

    def _value(self, step: Affine | Call, values: Values, modules: Sequence[nn.Module], group: slice) -> Any:
        if isinstance(step, Affine):
            found = self._fused(step, values, group)
            if found is not None:
                return found
        elif step.value in self._paddings:
            source, before, after = self._paddings[step.value]
            images = values.stacked(source)
            if isinstance(images, Tensor):
                return Padded(images, before, after)
        elif step.value not in self._weighted:
            found = values.together(lambda given: step(modules[0], given), step.sources)
            if found is not None:
                return found
        return values.one_by_one(lambda t, given: step(modules[t], given), step.sources)

    def _fused(self, step: Affine, values: Values, group: slice) -> Tensor | None:
        """Return the value of a step by its kernel, or None if that cannot take what it reads."""
        layer, x = self._layers.get(step.value), values.stacked(step.source)
        if layer is None or not isinstance(x, Tensor):
            return None
        residual = values.stacked(step.residual) if step.residual else None
        shape = layer.shape(x)
        if step.residual and (residual is None or residual.shape[1:] != shape):
            return None
        if step.norm and isinstance(layer, Linear) and x.ndim > 3:  # BatchNorm's channels are not the last axis
            return None
        return layer(x, residual, group)
