"""What a recording of another tool may not have."""

from __future__ import annotations

from featdyn.store import Run


def lacking(run: Run) -> str:
    """Return what a run has not that its network is asked about, such as ``weights and inputs``; or nothing."""
    there = {
        "weights": run.has_state(run.checkpoints - 1),
        "inputs": any(path.startswith("inputs/input") for path in run.nodes),
        "outputs": "outputs/logits" in run.nodes or "outputs/top_logits" in run.nodes,
    }
    return " and ".join(what for what, held in there.items() if not held)
