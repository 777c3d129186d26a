"""``--like``: how far each sample lies from one of them, by what a layer says of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from featdyn.errors import FeatdynError
from featdyn.query.cells import Array, Cells, Region
from featdyn.query.folds import FOLDS
from featdyn.query.selection import Selection
from featdyn.query.where import places

DISTANCE = "distance"
GRID = ("checkpoint", "layer", "sample")  # axes that stay; the others are features


def distances(selection: Selection, sample: str | int) -> Selection:
    """Return the Euclidean distance of each other sample to one, in the features of a variable, in memory.

    ``sample`` is its id, or where no id is spelt so its place along the axis; it need not be selected itself. Features
    that are missing in one of the two count as equal; where all are, so is the distance.
    """
    if len(selection.cells) != 1:
        raise FeatdynError("--like goes by one variable, such as cube.sketch or a layer's activation")
    ((name, cells),) = selection.cells.items()
    features = tuple(axis for axis, dim in enumerate(cells.dims) if dim not in GRID)
    if "sample" not in cells.dims or not features or cells.dtype.kind not in "biuf":
        raise FeatdynError(
            f"--like needs features of samples, and {name} goes along {', '.join(cells.dims)}: ask for cube.sketch, or "
            "for an activation or gradient of a layer"
        )
    place = _place(selection, sample)
    others = cells.positions[cells.dims.index("sample")]
    others = others[others != place]
    if not len(others):
        raise FeatdynError(f"--like {sample}: no other sample is selected")
    one, cells = cells.select("sample", np.array([place])), cells.select("sample", others)
    found = _distances(cells, one, features)
    if np.isnan(found.load()).all():
        raise FeatdynError(f"--like {sample}: no feature of {name} is there both of it and of another selected sample")
    filters = tuple(
        (condition, of, held.select("sample", others) if "sample" in held.dims else held)
        for condition, of, held in selection.filters
    )
    return replace(
        selection,
        arrays={DISTANCE: selection.arrays[name]},
        cells={DISTANCE: found},
        positions={d: p for d, p in (selection.positions | {"sample": others}).items() if d in GRID},
        filters=filters,
    )


def _place(selection: Selection, sample: str | int) -> int:
    ids = selection.coordinate("sample")[1]
    names = list(map(str, ids.tolist()))
    if names.count(str(sample)) == 1:
        return names.index(str(sample))
    at = None if ".." in str(sample) else places(len(ids), str(sample))
    if at is None:
        raise FeatdynError(f"--like {sample!r}: no sample of this id; give one such as {ids[0]}, or a number from 0")
    if not len(at):
        raise FeatdynError(f"--like {sample}: there are samples 0 to {len(ids) - 1}")
    return int(at[0])


def _distances(cells: Cells, one: Cells, features: tuple[int, ...]) -> Cells:
    axis = cells.dims.index("sample")
    kept = [a for a in range(len(cells.dims)) if a not in features]
    fold = FOLDS["norm"](tuple(cells.shape[a] for a in kept), np.dtype(np.float64))
    held: tuple[Region, Array] | None = None  # the one sample's features, which pieces of the same checkpoint share
    for region, piece in cells.pieces():
        where = (*region[:axis], slice(0, 1), *region[axis + 1 :])
        if held is None or held[0] != where:
            held = (where, one.at(cells.dims, where).astype(np.float64))
        fold.add(tuple(region[a] for a in kept), piece - held[1], features)
    return Cells.held(fold.result(), tuple(cells.dims[a] for a in kept))
