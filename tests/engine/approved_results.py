"""Results as they were when they were last looked at: ``python -m tests.engine.approved_results`` approves them anew.

Each variable of each analysis is held to a few numbers that any of its cells moves, on a run of unlike layers and sets,
and on one of words. That these are right other tests say, by references of their own; this one says that no result
changes unnoticed: stored results of two versions are compared, and continued, as if they were of one. Who changes a
result on purpose runs this, and looks at what has changed. Numbers agree to :data:`CLOSE`, since processors round in
their own ways.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

PAGE = Path(__file__).with_suffix(".json")
CLOSE = 1e-3
"""Of the largest value of a variable."""
ROUNDING = 1e-5
"""Variables that are no larger say how float32 was rounded."""
ROUGH = {
    "adjusted", "pvalue", "loss_spearman", "gradient_benjamini_hochberg", "gradient_holm", "gradient_pvalue",
    "gradient_statistic",
}  # fmt: skip
"""Rounding can turn the order of two numbers or the rank of a matrix here, and so a cell or two: to five percent."""


def parts(result: xr.Dataset | str) -> dict[str, dict[str, Any]]:
    """Return of each variable and coordinate its axes, and its values in a few numbers or counts of words."""
    if isinstance(result, str):
        return {"refused": {"words": result}}
    found: dict[str, dict[str, Any]] = {}
    for name, variable in sorted(result.variables.items(), key=lambda one: str(one[0])):
        shape = " ".join(f"{dim}={size}" for dim, size in variable.sizes.items())
        meanings = str(variable.attrs.get("flag_meanings", "")).split()
        values = np.ravel(variable.values)
        if meanings:
            words = dict(zip(np.ravel(variable.attrs["flag_values"]).tolist(), meanings, strict=True))
            values = np.array([words[code] for code in values.tolist()], dtype=object)
        found[str(name)] = {"of": shape} | (numbers(values) if values.dtype.kind in "biuf" else _said(values))
    return found


def _said(words: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Count words, and say where each stands first."""
    each = list(map(str, words.tolist()))
    return {"words": {word: [count, each.index(word)] for word, count in sorted(Counter(each).items())}}


def numbers(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return how many values are known, the largest size, and sums with weights of which no two are equal."""
    values = values.astype(np.float64)
    known = np.isfinite(values)
    kept, place = values[known], np.flatnonzero(known)
    largest = float(np.abs(kept).max(initial=0.0))
    sums = [float(np.mean(kept * np.cos(k * (1 + place)))) if kept.size else 0.0 for k in (0, 1, 2)]
    return {"known": int(known.sum()), "largest": _short(largest), "means": [_short(each) for each in sums]}


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def differences(found: dict[str, dict[str, Any]], approved: dict[str, dict[str, Any]]) -> list[str]:
    """Return what is not as it was approved, a line for each variable."""
    said = [f"{name} is {'new' if name in found else 'gone'}" for name in found.keys() ^ approved.keys()]
    both = sorted(found.keys() & approved.keys())
    said += [f"{n}: {found[n]}, not {approved[n]}" for n in both if not agree(n, found[n], approved[n])]
    return sorted(said)


def agree(name: str, found: dict[str, Any], approved: dict[str, Any], close: float = CLOSE) -> bool:
    """Whether a variable is what was approved."""
    if "means" not in approved or "means" not in found:
        return found == approved
    rough, largest = name in ROUGH, approved["largest"]
    if found["of"] != approved["of"] or (found["known"] != approved["known"] and not rough):
        return False
    if largest < ROUNDING:
        return bool(found["largest"] < ROUNDING)
    mine, other = ([of["largest"], *of["means"]] for of in (found, approved))
    return np.allclose(mine, other, rtol=0, atol=(0.05 if rough else close) * largest)


def write(path: Path, page: dict[str, dict[str, Any]]) -> None:
    """Write what was approved, a line for each part of each whole."""
    wholes = (
        f" {json.dumps(name)}: {{\n"
        + ",\n".join(f"  {json.dumps(part)}: {json.dumps(held)}" for part, held in whole.items())
        + "\n }"
        for name, whole in page.items()
    )
    path.write_text("{\n" + ",\n".join(wholes) + "\n}\n")


def main() -> None:
    """Write the results of the run that tests look at."""
    from tempfile import TemporaryDirectory

    from tests.engine.test_approved_results import ASKED, OPTIONS, found, record_run

    page: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        runs = {kind: record_run(kind, Path(folder) / kind) for kind in OPTIONS}
        for name, kinds in ASKED.items():
            page |= {f"{name} of {kind}": parts(found(kind, name, *runs[kind])) for kind in kinds}
    write(PAGE, page)


if __name__ == "__main__":
    main()
