"""What there is to ask for: a row for each variable of a run."""

from __future__ import annotations

import math

import pandas as pd

from featdyn.names import described
from featdyn.query.catalogue import Catalogue, dims_of, kind_of
from featdyn.store import Run


def variables(run: Run, *patterns: str) -> pd.DataFrame:
    """Return the variables of a run, or those that patterns match: name, axes, type, bytes, units, meaning.

    Bytes are those of the values, before compression; what follows from other variables takes none.
    """
    catalogue, found = Catalogue(run), []
    for name in catalogue.matching(patterns) if patterns else catalogue.names:
        path = catalogue.paths[name]
        document = catalogue.document(path)
        attributes, shape = described(path.rpartition("/")[2], document["attributes"]), document["shape"]
        kind = kind_of(document)
        size = kind.itemsize if kind.kind != "O" else 0
        axes = " x ".join(f"{dim} {length}" for dim, length in zip(dims_of(document), shape, strict=True))
        found.append(
            {
                "variable": name,
                "axes": axes,
                "type": str(kind) if size else "text",
                "bytes": math.prod(shape) * size if path in run.nodes else 0,
                "units": str(attributes.get("units", "")),
                "meaning": str(attributes.get("long_name", "")),
            }
        )
    return pd.DataFrame(found)
