"""Why values of a result are missing, in words: from the status variables that its attributes name."""

from __future__ import annotations

import numpy as np

from featdyn.query.cells import Array, Cells
from featdyn.query.stored_array import StoredArray, stored_cells
from featdyn.store import Run


def why_missing(run: Run, array: StoredArray, selected: Cells) -> Array | None:
    """Return the reason of each selected value that is missing, '' of the others; None where none is missing.

    A value of another kind than floating point counts as missing where a status says so; of a status variable itself
    the codes are given in words. ``selected`` are the array's cells at the positions that the table shows.
    """
    group, attributes = array.path.rpartition("/")[0], array.attributes
    paths = [f"{group}/{name}" for name in str(attributes.get("ancillary_variables", "")).split()]
    own = "flag_meanings" in attributes
    codes_of = [array.path] if own else [path for path in paths if path in run.nodes]
    if not codes_of:  # as of all that is recorded: a question to it starts without what declares analyses
        return None
    from featdyn.analysis.status import meanings

    words = np.full(selected.shape, "", dtype=object)
    for path in codes_of:
        table = np.array(meanings(run.nodes[path]["attributes"]), dtype=object)
        status = stored_cells(run, path)
        if not set(status.dims) <= set(selected.dims):
            continue
        for dim in status.dims:
            status = status.select(dim, selected.positions[selected.dims.index(dim)])
        order = sorted(range(len(status.dims)), key=lambda axis: selected.dims.index(status.dims[axis]))
        codes = np.clip(status.load().transpose(order), 0, len(table) - 1)
        absent = tuple(axis for axis, dim in enumerate(selected.dims) if dim not in status.dims)
        words = np.where(words == "", table[np.expand_dims(codes, absent)], words)
    if not own and selected.dtype.kind == "f" and (words != "").any():
        words = np.where(np.isnan(selected.load()), words, "")
    return words if (words != "").any() else None
