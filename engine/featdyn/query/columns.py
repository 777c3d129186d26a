"""What stands beside the name of a row: the coordinates of its axis that a reader wants."""

from __future__ import annotations

from featdyn.query.cells import Array
from featdyn.query.selection import Selection

# Any other coordinate comes with a condition on it.
BESIDE = ("step", "epoch", "split", "label", "class_name", "corruption", "severity", "step1", "step2")


def columns(selection: Selection, dim: str, asked: set[str]) -> dict[str, Array]:
    """Return an axis with the coordinates that a reader wants beside it."""
    wanted = {*BESIDE, *asked, *selection.named}
    along = selection.coordinates()
    names = [name for name, of in along.items() if of == dim and name != dim and name in wanted]
    names.sort(key=lambda name: BESIDE.index(name) if name in BESIDE else len(BESIDE))
    found = {name: selection.selected(name)[1] for name in (dim, *names)}
    number = found.get("label", found.get("class"))
    spelled = found.get("class_name")
    if spelled is not None and number is not None and "class_name" not in {*asked, *selection.named}:
        digits = (spelled.astype(str) == number.astype(str)).all()  # such names say nothing new
        found = {name: values for name, values in found.items() if not (digits and name == "class_name")}
    return found
