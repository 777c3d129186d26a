"""``--by``: places of an axis that go together, as all samples of a label."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featdyn.query.cells import Array, Region
from featdyn.query.folds import Place


@dataclass(frozen=True)
class Groups:
    """The groups of one axis."""

    columns: dict[str, Array]  # what tells each group apart
    codes: NDArray[np.intp]  # of each selected place

    @classmethod
    def of(cls, columns: Mapping[str, Array]) -> Groups:
        """Return one group for each combination of values that is there, sorted; numbers in text as numbers."""
        frame = pd.DataFrame({name: _ordered(values) for name, values in columns.items()})
        codes = frame.groupby(list(columns), sort=True, dropna=False, observed=True).ngroup().to_numpy()
        first = np.unique(codes, return_index=True)[1]
        return cls({name: np.asarray(values)[first] for name, values in columns.items()}, np.asarray(codes, np.intp))

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


def _ordered(values: Array) -> Any:
    """Return text as categories in the order 2, 10, 10a; other values as they are."""
    if values.dtype != object:
        return values
    words = sorted({str(value) for value in values}, key=lambda text: _parts(text))
    return pd.Categorical([str(value) for value in values], words, ordered=True)


def _parts(text: str) -> list[str | int]:
    """Return text and numbers by turns, so that like stands against like."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", text))]


def split(region: Region, piece: Array, groups: Mapping[int, Groups]) -> Iterator[tuple[Place, Array]]:
    """Cut a piece at a region along its grouped axes; yield where each part goes, and the part."""
    parts: list[tuple[Place, Array]] = [(region, piece)]
    for axis, of in groups.items():
        codes = of.codes[region[axis]]
        order = np.argsort(codes, kind="stable")
        found, starts = np.unique(codes[order], return_index=True)
        places = np.split(order, starts[1:])
        parts = [
            ((*at[:axis], int(group), *at[axis + 1 :]), part.take(chosen, axis))
            for at, part in parts
            for group, chosen in zip(found, places, strict=True)
        ]
    yield from parts
