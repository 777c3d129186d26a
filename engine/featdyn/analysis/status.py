"""Why cells of a result are missing: a code for each cell, its meanings stored beside it as CF flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import xarray as xr

DEAD = "features_do_not_vary"
FEW = "too_few_samples"
ONE_CLASS = "one_class"
STILL = "does_not_move"
ZERO = "features_are_zero"
NOT_FINITE = "not_finite"
NEVER_RIGHT = "reference_network_is_never_right"
NO_TRAINING_PROBES = "no_training_probes"
NO_LABELS = "probes_have_no_labels"
NO_LATER = "no_later_checkpoint"
ALIKE = "all_probes_are_alike"
UNEXPLAINED = "not_defined"
"""The reasons that several analyses share; an analysis may have others of its own."""


class Status:
    """Codes of the cells of one grid: 0 where a cell was computed, else why not."""

    def __init__(self, dims: Sequence[str], shape: Sequence[int]) -> None:
        self.dims, self.codes = tuple(dims), np.zeros(tuple(shape), np.int8)
        self._meanings = ["computed"]

    def mark(self, reason: str, where: Any = ...) -> Self:
        """Give cells a reason: an index or a mask of the grid. What has one keeps it."""
        chosen = np.zeros(self.codes.shape, bool)
        chosen[where] = True
        chosen &= self.codes == 0
        if chosen.any():
            if reason not in self._meanings:
                self._meanings.append(reason)
            self.codes[chosen] = self._meanings.index(reason)
        return self

    def reason(self, where: Any = ...) -> str:
        """Return the reason of cells, of several that which was marked last; "" where all are computed."""
        code = int(self.codes[where].max())
        return self._meanings[code] if code else ""

    @property
    def computed(self) -> NDArray[np.bool_]:
        """Which cells have no reason to be missing."""
        return np.asarray(self.codes == 0)

    def variable(self) -> xr.Variable:
        """Return the codes as a variable with CF's ``flag_values`` and ``flag_meanings``."""
        import xarray as xr

        attrs = {"flag_values": list(range(len(self._meanings))), "flag_meanings": " ".join(self._meanings)}
        return xr.Variable(self.dims, self.codes, {"long_name": "why cells are missing", **attrs})


def reasons(dataset: xr.Dataset, name: str) -> xr.DataArray | None:
    """Return in words why each cell of a variable is missing ('' where it is not); None where nothing says."""
    found: xr.DataArray | None = None
    for ancillary in str(dataset[name].attrs.get("ancillary_variables", "")).split():
        if ancillary not in dataset:
            continue
        codes = dataset[ancillary]
        words = codes.copy(data=np.array(meanings(codes.attrs), dtype=object)[np.asarray(codes.values, int)])
        found = words if found is None else found.where(found != "", words)
    return found


def summary(dataset: xr.Dataset) -> list[tuple[str, str, int, int]]:
    """Return (status variable, reason, cells that have it, cells in all) of a result, in the order of its variables."""
    found = []
    for name, variable in dataset.data_vars.items():
        if "flag_meanings" not in variable.attrs:
            continue
        words, codes = meanings(variable.attrs), np.asarray(variable.values, int)
        for code, reason in enumerate(words[1:], 1):
            if count := int((codes == code).sum()):
                found.append((str(name), reason, count, codes.size))
    return found


def explain(dataset: xr.Dataset, declared: Mapping[str, str]) -> xr.Dataset:
    """Link variables to the status that explains them, and give one to those with missing cells that nothing explains.

    ``declared`` gives a variable's name that of its status variable ("" where it has none).
    """
    added: dict[str, xr.Variable] = {}
    for name, of in declared.items():
        variable = dataset[name]
        linked = [of] if of in dataset else []
        missing = variable.isnull() & (dataset[of] == 0 if linked else True)
        missing = missing.transpose(*variable.dims)
        if bool(missing.any()):
            own = Status([str(dim) for dim in variable.dims], variable.shape)
            free = next(n for n in (f"{name}_status", f"{name}_missing", f"{name}_why") if n not in dataset)
            added[free] = own.mark(UNEXPLAINED, missing.values).variable()
            linked.append(free)
        if linked:
            variable.attrs["ancillary_variables"] = " ".join(linked)
    return dataset.assign(added)


def meanings(attributes: Mapping[str, Any]) -> list[str]:
    """Return in words what each code of a status variable with these attributes means; '' for the first, computed."""
    found = str(attributes.get("flag_meanings", "")).split()
    return ["", *(meaning.replace("_", " ") for meaning in found[1:])]
