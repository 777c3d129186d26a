"""What a run holds of outputs and of positions, in words: for ``info`` and for the report."""

from __future__ import annotations

from featdyn.store import ArraySpec, Run


def layout(spec: ArraySpec) -> str:
    """Return in what a layer's array is not what the layer returns as it is, or nothing."""
    said = {"mean": "mean of positions", "last": "last position", "cls": "first position"}
    found = [said.get(str(spec.attrs["pool"]), str(spec.attrs["pool"]))] if "pool" in spec.attrs else []
    axes = {name: spec.attrs[f"{name}_axis"] for name in ("sample", "position") if f"{name}_axis" in spec.attrs}
    return ", ".join([*found, *(f"{name}s were axis {axis}" for name, axis in axes.items())])


def outputs(run: Run) -> dict[str, str]:
    """Return the names of what is recorded of the outputs, with axes and meaning."""
    found = {}
    for spec in run.schema.arrays:
        if spec.path.startswith("outputs/"):
            shape = " x ".join(f"{length:,} {name}" for name, length in zip(spec.dims, spec.shape, strict=True))
            meaning = spec.attrs.get("long_name")
            found[spec.path.removeprefix("outputs/")] = shape + (f": {meaning}" if meaning else "")
    return found


def padding(run: Run) -> str:
    """Return how many positions there are and how many are padding; nothing where the run has no mask."""
    if "inputs/mask" not in run.nodes:
        return ""
    mask = run.values("inputs/mask").astype(bool)
    return f"{mask.shape[1]:,} of each probe, {1 - mask.mean():.1%} of them padding, which takes part in nothing"
