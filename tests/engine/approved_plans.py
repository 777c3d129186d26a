"""Plans as they were when memory was last measured: ``python -m tests.engine.approved_plans`` approves them anew.

That a plan is the memory that is taken is measured by the slow tests of ``test_plans.py`` with wide limits, since
memory is hard to measure. Between two measures no number of a plan may change: a term that is lost, or counted twice,
would stay within those limits. Who changes a plan runs ``pytest -m slow tests/engine/test_plans.py``, then this.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featdyn.compute import Plan

PAGE = Path(__file__).with_suffix(".json")


def parts(plan: Plan) -> dict[str, int]:
    """Return the numbers of a plan, by what they are for."""
    kinds = {"task": plan.task, "state": plan.state, "result": plan.result}
    held = {f"{kind}: {name}": int(size) for kind, sizes in kinds.items() for name, size in sizes.items()}
    return {"tasks": int(plan.tasks), "reads": int(plan.reads)} | held


def main() -> None:
    """Write the plans of the runs that tests look at."""
    from tempfile import TemporaryDirectory

    from featdyn.analysis import analyses
    from tests.engine.test_plans import (
        FIRST,
        OTHERWISE,
        SMALL,
        growing,
        planned,
        record_alternating,
        record_convolutions,
    )

    found: dict[str, dict[str, dict[str, int]]] = {}
    for name, dimensions in growing():
        for which, sizes in (("small", SMALL), (" ".join(dimensions), SMALL | {d: 2 * SMALL[d] for d in dimensions})):
            with TemporaryDirectory() as folder:
                run = record_alternating(Path(folder) / "run.zarr", **sizes)
                found.setdefault(name, {})[which] = parts(planned(analyses()[name], *run))
    with TemporaryDirectory() as folder:
        run = record_convolutions(Path(folder) / "run.zarr")
        for name in FIRST:
            found[name]["unlike layers"] = parts(planned(analyses()[name], *run, **OTHERWISE))
    PAGE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
