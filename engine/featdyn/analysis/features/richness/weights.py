"""How large the weights of each checkpoint are, and how far from the first's."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from featdyn.analysis.status import NOT_FINITE
from featdyn.statistics.richness import parameter_distance, parameter_norm
from featdyn.store import Run

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Names of BatchNorm's own, by which buffers are told from weights where no network is given: our own choice."""
PARAMETERS = ("parameter_norm", "parameter_distance")
NOT_RECORDED, OTHERS = "weights_were_not_recorded", "weights_have_other_names_or_shapes"


def weights(run: Run, t: int) -> tuple[dict[str, Any], str]:
    """Return length and distance at a checkpoint, and why there are none or ""."""
    if weight_bytes(run, t) == 0 or weight_bytes(run, 0) == 0:
        return {}, NOT_RECORDED
    first, own = (_weights(run.state(at)) for at in (0, t))
    try:
        values = {"parameter_norm": parameter_norm(own), "parameter_distance": parameter_distance(own, first)}
    except ValueError:
        return {}, OTHERS
    return (values, "") if np.isfinite(list(values.values())).all() else ({}, NOT_FINITE)


def weight_bytes(run: Run, t: int) -> int:
    """Return the size of a checkpoint's weights in the store; 0 where there are none."""
    commit = next(c for c in run.commits if c.kind == "checkpoint" and c.name == str(t))
    return sum(file.size for file in commit.files(run.place) if file.path.endswith("/model.safetensors"))


def _weights(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k: v for k, v in state.items() if v.is_floating_point() and k.rpartition(".")[2] not in STATISTICS}
