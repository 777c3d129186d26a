"""Predictions of fused arithmetic made equal to those of the plain module."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from featdyn_kernels._threads import one_torch_thread, parallel_blocks
from featdyn_kernels.stitch.score import Scores

TIE = 2.5e-7
"""Logits closer than this fraction of the largest count as tied in float32."""


def settle(modules: Sequence[nn.Module], features: Tensor, scores: Scores, bound: float) -> None:
    """Run samples whose two best logits are close through the plain suffix, and take its results.

    Parameters
    ----------
    modules
        Suffixes in eval mode, float32, on the device of the features.
    features
        (N, ...).
    scores
        Results of the fused path; they are corrected in place.
    bound
        Largest difference of logits that is not trusted, as a fraction of the checkpoint's largest logit.
    """

    def work(start: int, stop: int) -> None:
        with torch.inference_mode(), one_torch_thread():
            for t in range(start, stop):
                scale = scores.scale[t].max()
                close = np.flatnonzero(~(scores.gap[t] > bound * scale))  # NaN counts as close
                if len(close):
                    _rerun(modules[t], features, scores, t, close)
                    # Even the plain module's own answer depends on how a batch is laid out where logits all but tie.
                    if len(close) < len(features) and not (scores.gap[t, close] > TIE * scale).all():
                        _rerun(modules[t], features, scores, t, np.arange(len(features)))

    parallel_blocks(work, len(modules))


def _rerun(module: nn.Module, features: Tensor, scores: Scores, t: int, samples: np.ndarray) -> None:
    logits = module(features[torch.from_numpy(samples).to(features.device)].float())
    scores.put(logits[:, None].cpu().numpy(), t, samples)
