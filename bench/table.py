"""What was measured, as a table: ``python -m bench.table`` makes ``bench/results/README.md`` of the JSON beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
# A family that holds several generations is told apart by its instructions.
GENERATIONS = {("25", "AVX2"): "Zen 3", ("25", "AVX512"): "Zen 4", ("26", "AVX512"): "Zen 5"}
UNNAMED = {"25": "AVX2", "26": "AVX512"}  # of results from before they were written down

HEAD = """\
# What was measured

Made by `python -m bench.table` from the JSON files here, which hold versions, commit, date and all peers. A cell is
the time of the fastest peer over ours, the median over repeats of neighbours in time: above 1 ours is faster, **bold
where it is slower**; in brackets what ours took. One column a processor, two cores each; what is empty was not
measured. No GPU figure exists yet.
"""


def processor(environment: dict[str, Any]) -> str:
    """Return what stands above a column: the processor's generation where it is known, and its instructions."""
    if environment["device"] == "cuda":
        return str(environment["gpu"])
    family, _, name = environment["processor"].partition(", ")
    instructions = environment.get("instructions", UNNAMED.get(family))
    generation = GENERATIONS.get((family, instructions))
    return ", ".join(filter(None, (f"{name} {generation}" if generation else environment["processor"], instructions)))


def measured(folder: Path = RESULTS) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """Return what each operation's case gave on each processor; of several files that hold it, the newest counts."""
    found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    documents = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    timed = [d for d in documents if isinstance(d.get("results"), dict) and "ceilings" in d]
    for document in sorted(timed, key=lambda d: d["environment"]["date"]):
        column = processor(document["environment"])
        for operation, cases in document["results"].items():
            for case in cases:
                if case["ratios"]:
                    found.setdefault((operation, case["case"]), {})[column] = case
    return found


def table(found: dict[tuple[str, str], dict[str, dict[str, Any]]]) -> str:
    """Return the Markdown table."""
    columns = sorted({column for row in found.values() for column in row})
    lines = ["| operation | case | " + " | ".join(columns) + " |", "|" + "---|" * (2 + len(columns))]
    for (operation, case), row in sorted(found.items(), key=_natural):
        cells = [_cell(row[column]) if column in row else "" for column in columns]
        lines.append(f"| {operation} | {case} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _natural(item: tuple[tuple[str, str], Any]) -> list[Any]:
    """Return what puts d=16 after d=2."""
    return [(int(p), "") if p.isdigit() else (-1, p) for name in item[0] for p in re.split(r"(\d+)", name)]


def _cell(case: dict[str, Any]) -> str:
    ratio = _digits(case["ratios"][case["best_peer"]])
    seconds = case["seconds"]["ours"]["p50"]
    took = f"{_digits(seconds)} s" if seconds >= 0.1 else f"{_digits(1e3 * seconds)} ms"
    return f"{f'**{ratio}**' if float(ratio) < 1 else ratio} {case['best_peer']} ({took})"


def _digits(value: float) -> str:
    """Return two digits of a number, or all before the point."""
    return f"{value:.2g}" if value < 100 else f"{value:.0f}"


def main() -> None:
    """Write the file."""
    (RESULTS / "README.md").write_text(text())


def text() -> str:
    """Return all of the file."""
    return f"{HEAD}\n{table(measured())}\n"


if __name__ == "__main__":
    main()
