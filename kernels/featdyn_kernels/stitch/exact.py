"""Predictions of fused arithmetic made equal to those of the plain module."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from featdyn_kernels.stitch.runner import each_checkpoint
from featdyn_kernels.stitch.score import Scores

TIE = 2.5e-7
"""Logits closer than this fraction of the largest count as tied in float32."""


def settle(modules: Sequence[nn.Module], features: Tensor, scores: Scores, bound: float) -> None:
    """Run samples whose two best logits are close through the plain suffix, and correct ``scores`` in place.

    ``modules`` are suffixes in eval mode, float32, on the device of the features (N, ...); scores are those of the
    fused path; ``bound`` is the largest difference of logits that is not trusted, as a fraction of the checkpoint's
    largest one.
    """
    scale = scores.scale.amax(1, keepdim=True)
    # NaN counts as close. One transfer for all checkpoints, rather than a wait for the device at each.
    close = (~(scores.gap > bound * scale)).cpu()

    def work(t: int) -> None:
        samples = close[t].nonzero()[:, 0].to(features.device)
        if len(samples):
            _rerun(modules[t], features, scores, t, samples)
            # Even the plain module's own answer depends on how a batch is laid out where logits all but tie.
            if len(samples) < len(features) and not (scores.gap[t, samples] > TIE * scale[t]).all():
                _rerun(modules[t], features, scores, t, slice(None))

    each_checkpoint(work, len(modules), features.device)


def _rerun(module: nn.Module, features: Tensor, scores: Scores, t: int, samples: Tensor | slice) -> None:
    scores.put(module(features[samples].float().contiguous())[:, None], t, samples)
