"""Variables that follow from stored ones: what a network says of a sample, how sure it is, and whether it is right."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np

from featdyn.classes import confidence, predicted_classes
from featdyn.query.cells import Array, Cells
from featdyn.store import Run
from featdyn.store.metadata import Document

if TYPE_CHECKING:
    from collections.abc import Callable

CLASS_NAME = "class_name"
LOGITS = "outputs/logits"
MEANING = {
    CLASS_NAME: ("name of the label's class", "string"),
    "outputs/prediction": ("predicted class, -1 where a logit is NaN", "int64"),
    "outputs/confidence": ("probability of the predicted class", "float32"),
    "outputs/correct": ("whether the prediction is the label", "bool"),
}

LOGICAL = {path for path, (_, dtype) in MEANING.items() if dtype == "bool"}


def paths(run: Run) -> list[str]:
    """Return the variables that follow from what a run has recorded."""
    found = [CLASS_NAME] if _labelled(run) and class_names(run) is not None else []
    if not _predicts(run):
        return found
    outputs = [path for path in MEANING if path != CLASS_NAME]
    return found + [path for path in outputs if path != "outputs/correct" or _labelled(run)]


def axes(path: str) -> list[str]:
    """Return the axes of such a variable."""
    return ["sample"] if path == CLASS_NAME else ["checkpoint", "sample"]


def document(run: Run, path: str) -> Document:
    """Return the metadata that such a variable would have."""
    meaning, dtype = MEANING[path]
    of = run.nodes["label" if path == CLASS_NAME else LOGITS]
    dims = axes(path)
    chunk = of["chunk_grid"]["configuration"]["chunk_shape"][: len(dims)]
    return {
        "node_type": "array",
        "shape": of["shape"][: len(dims)],
        "data_type": dtype,
        "dimension_names": dims,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "attributes": {"long_name": meaning, "units": "1"},
    }


def cells(run: Run, path: str, stored: Callable[[str], Cells]) -> Cells:
    """Return the values of such a variable, from stored ones, cell by cell."""
    if path == CLASS_NAME:
        label, names = stored("label"), class_names(run)
        assert names is not None
        return replace(
            label, dtype=np.dtype(object), read=lambda index: named(label.read(index), names), read_part=None
        )
    logits = stored(LOGITS)
    labels = run.values("label") if path == "outputs/correct" else np.array([], np.int64)
    known = (labels >= 0) & (labels < max(2, logits.shape[2]))  # one logit tells two classes apart
    dtype = np.dtype(MEANING[path][1] if known.all() else np.float32)  # 1, 0, and NaN where the label is no class

    as_they_are = cache(partial(_probabilities, run))  # asked where values are: it reads logits

    def read(index: tuple[int, ...]) -> Array:
        values = logits.read((*index, 0))
        if path == "outputs/confidence":
            return (values.max(-1) if as_they_are() else confidence(values)).astype(dtype)
        found = predicted_classes(values)
        if path == "outputs/prediction":
            return found
        place = slice(start := index[1] * logits.cell[1], start + found.shape[1])
        right = found == labels[place]
        return np.asarray(right if known.all() else np.where(known[place], right, np.nan).astype(dtype))

    return Cells(logits.dims[:2], logits.positions[:2], logits.cell[:2], dtype, read)


def _probabilities(run: Run) -> bool:
    from featdyn.analysis.inputs.no_classes import outputs_are_probabilities  # reads the first checkpoint

    return outputs_are_probabilities(run)


def class_names(run: Run) -> Array | None:
    """Return the name of each label, None where nothing says."""
    names = run.described("dataset").get("classes")
    fine = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
    return np.array(names, dtype=object) if fine else None


def named(labels: Array, names: Array) -> Array:
    """Return the class name of each label; '' of what is none."""
    known = (labels >= 0) & (labels < len(names))
    return np.where(known, names[np.where(known, labels, 0)], "")


def _labelled(run: Run) -> bool:
    return "label" in run.paths("sample") and "int" in run.nodes["label"]["data_type"]


def _predicts(run: Run) -> bool:
    """Whether outputs are logits of classes; those of a regression are not, nor is one output without such labels."""
    document = run.nodes.get(LOGITS)
    if document is None or document.get("dimension_names") != ["checkpoint", "sample", "class"]:
        return False
    width = document["shape"][2]
    if not _labelled(run):
        return bool(width > 1) and not any(path in run.nodes for path in ("label", "inputs/target"))
    if width > 1:
        return True
    from featdyn.analysis.inputs.no_classes import not_classes  # reads the first checkpoint: for one output alone

    return not not_classes(run, 2)
