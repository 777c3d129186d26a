"""What a run may not have: a recording of another tool, or one of moments."""

from __future__ import annotations

from featdyn.store import Run

INSTEAD = "in place of them their moments were kept, from which not all follows"
"""Why a run that keeps moments has no activations."""


def lacking(run: Run) -> str:
    """Return what a run has not that its network is asked about, such as ``weights and inputs``; or nothing."""
    there = {
        "weights": run.has_state(run.checkpoints - 1),
        "inputs": any(path.startswith("inputs/input") for path in run.nodes),
        "outputs": "outputs/logits" in run.nodes or "outputs/top_logits" in run.nodes,
    }
    return " and ".join(what for what, held in there.items() if not held)


def keeps_moments(run: Run) -> bool:
    """Whether a run was recorded with ``record = "moments"``."""
    return bool(run.described("capture").get("record") == "moments")
