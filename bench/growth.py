"""How each command grows: ``python -m bench.growth --json FILE --figure FILE``.

Processor time and memory of each command, files of the run and requests to a bucket, against checkpoints, samples,
layers, width and workers, five points each, with the exponents that fit. What grows faster than its work is said, and
what ends first: the size at which a command, growing as in its last step, takes an hour or 16 GB. Each call runs in a
process of its own, of which the better of ``--repeats`` counts; times are of the processor, and nothing is synced.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from bench import harness
from bench.growing import figure, fit
from bench.growing.measured import apart
from bench.growing.runs import ANALYSES, BEFORE, COMMANDS, READS, Size
from tests.engine.counted import Counter, counted_bucket, upload

BEYOND = 1e6
"""So many times the largest size that was measured, nothing is said of an end."""
ONCE = ("record", "capture", "compact", "gc")
"""Commands that leave nothing to do for a second call."""
LIGHT = ("record", "info", "query", "sql", "report", "verify", "gc", "compact")
AXES: dict[str, tuple[Size, str, tuple[int, ...], tuple[str, ...]]] = {
    # name: what else it is of, the field that grows, its values, commands
    "checkpoints": (Size(), "checkpoints", (3, 6, 12, 24, 48), ("record", "capture", *ANALYSES, "report")),
    "checkpoints of a long run": (Size(samples=16, layers=2, width=4), "checkpoints", (25, 50, 100, 200, 400), LIGHT),
    "samples": (Size(), "samples", (64, 128, 256, 512, 1024), ("record", "capture", *ANALYSES, *READS)),
    "layers": (Size(checkpoints=4), "layers", (2, 4, 8, 16, 32), ("record", "capture", *ANALYSES, *READS)),
    "width": (Size(), "width", (8, 16, 32, 64, 128), ("record", "capture", *ANALYSES, *READS)),
    "workers": (Size(samples=256), "workers", (1, 2, 3, 4, 5), ANALYSES),
}
WORK: dict[str, dict[str, float]] = {
    # The exponent of the work along an axis, where it is not 1: all pairs of checkpoints, of layers or of probes, a
    # covariance or a Gram matrix and its eigenvalues. On more workers there is as much to do.
    "checkpoints": {"consistency": 2, "drift": 2, "similarity": 2, "report": 2},
    "samples": {"similarity": 2, "density": 2, "drift": 3},
    "layers": {"similarity": 2},
    "width": {"record": 2, "capture": 2, **dict.fromkeys(ANALYSES, 3.0), "verify": 2},
    "workers": dict.fromkeys(ANALYSES, 0.0),
}
HOUR, MEMORY = 3600.0, 16e9
QUANTITIES = ("seconds", "bytes", "requests")


def measure(name: str, counted: tuple[str, Counter] | None, repeats: int, values: Sequence[int] = ()) -> dict[str, Any]:
    """Return, along one axis, what each command takes at each point, and how many files the run is."""
    base, field, points, commands = AXES[name]
    found: dict[str, Any] = {"axis": name, "field": field, "values": list(values or points), "files": []}
    rows: dict[str, dict[str, list[float]]] = {command: {} for command in commands}
    for value in found["values"]:
        folder = Path(tempfile.mkdtemp(prefix="featdyn-growth-"))
        try:
            size = replace(base, **{field: value})
            point(folder, size, rows, repeats)
            found["files"].append(sum(p.is_file() for p in (folder / "run.zarr").rglob("*")))
            if counted is not None:
                ask(folder / "run.zarr", f"{counted[0]}/{field}{value}.zarr", counted[1], rows)
        finally:
            shutil.rmtree(folder)
    return found | {"commands": rows}


def point(folder: Path, size: Size, rows: dict[str, dict[str, list[float]]], repeats: int) -> None:
    """Ask for everything once at one point; a run that no command makes is made all the same."""
    if "record" not in rows:
        apart(lambda: COMMANDS["record"](folder, size))
    for command, taken in rows.items():
        if command in BEFORE:
            apart(lambda command=command: BEFORE[command](folder, size))
        best = cheapest(partial(COMMANDS[command], folder, size), repeats, again=command not in ONCE)
        for quantity in ("seconds", "bytes"):
            taken.setdefault(quantity, []).append(best[quantity])


def cheapest(call: Callable[[], None], repeats: int, *, again: bool) -> dict[str, float]:
    """Return the least of some calls, or what one takes."""
    runs = [apart(call) for _ in range(repeats if again else 1)]
    return {quantity: min(run[quantity] for run in runs) for quantity in runs[0]}


def ask(store: Path, url: str, counter: Counter, rows: dict[str, dict[str, list[float]]]) -> None:
    """Count the requests of what reads, from a bucket that holds the run."""
    apart(lambda: upload(store, url))
    for command in set(rows) & set(READS):
        requests, _ = counter.count(lambda command=command: apart(lambda: READS[command](url)))
        rows[command].setdefault("requests", []).append(requests)


def fitted(found: dict[str, Any]) -> dict[str, Any]:
    """Return the same with exponents, what is a fault, and where each command ends."""
    work = WORK.get(found["axis"], {})
    growths: dict[str, Any] = {}
    faults, limits = [], []
    for command, taken in found["commands"].items():
        wanted = work.get(command, 1.0)
        growths[command] = {q: fit.growth(found["values"], taken[q]) for q in QUANTITIES if q in taken}
        for quantity, grown in growths[command].items():
            if grown["last"] > wanted + fit.SLACK:
                faults.append(f"{command}: {quantity} grow as {grown['last']:.2f}, the work as {wanted:g}")
        if found["field"] != "workers":
            for quantity, limit in (("seconds", HOUR), ("bytes", MEMORY)):
                limits.append((fit.ends(found["values"], taken[quantity], limit), command, quantity))
    files = fit.growth(found["values"], found["files"])
    limits = sorted(end for end in limits if end[0] < BEYOND * found["values"][-1])
    first = [{"size": s, "command": c, "of": q} for s, c, q in limits[:3]]
    return found | {"growth": growths, "growth of files": files, "faults": faults, "ends first": first}


def show(found: dict[str, Any]) -> str:
    """Return one axis as a table."""
    lines = [f"{found['axis']}: {', '.join(map(str, found['values']))}; files {found['files']}"]
    lines.append(f"  {'':<12}" + "".join(f"{v:>9}" for v in found["values"]) + "   slope (95 %)        last step")
    for command, grown in found["growth"].items():
        for quantity, unit, what in zip(QUANTITIES, (1, 1e-6, 1), ("s", "MB", "requests"), strict=True):
            if quantity in grown:
                g = grown[quantity]
                cells = "".join(f"{unit * v:>9.3g}" for v in found["commands"][command][quantity])
                words = f"{g['slope']:.2f} ({g['low']:.2f} to {g['high']:.2f})  {g['last']:.2f}"
                lines.append(f"  {command:<12}{cells}   {words}  {what}")
    lines += [f"  faster than its work: {line}" for line in found["faults"]]
    for end in found["ends first"]:
        limit = "an hour" if end["of"] == "seconds" else "16 GB"
        lines.append(f"  {end['command']} takes {limit} at {end['size']:.3g} {found['axis']}")
    return "\n".join(lines)


def drawn(axes: list[dict[str, Any]]) -> str:
    """Return the figure: seconds and bytes of each command along each axis."""
    panels: dict[str, figure.Lines] = {}
    for quantity, unit, words in (("seconds", 1, "processor seconds"), ("bytes", 1e-6, "MB")):
        for found in axes:
            lines = {c: (found["values"], [unit * v for v in t[quantity]]) for c, t in found["commands"].items()}
            panels[f"{words}, by {found['axis']}"] = lines
    return figure.figure(panels, len(axes))


def warm() -> None:
    """Import and compile what the commands need, so that no call that is measured does."""
    import featdyn.capture
    import featdyn.compute.cluster
    import featdyn.query.sql
    import featdyn.report.page  # noqa: F401

    folder = Path(tempfile.mkdtemp(prefix="featdyn-growth-"))
    try:
        size = Size(checkpoints=3, samples=32, layers=2, width=8)
        for command, call in COMMANDS.items():
            if command in BEFORE:
                BEFORE[command](folder, size)
            call(folder, size)
    finally:
        shutil.rmtree(folder)


def main() -> None:
    start = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("axis", nargs="*", help=f"some of {', '.join(AXES)}; all by default")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--no-requests", action="store_true", help="ask no bucket")
    parser.add_argument("--json", metavar="FILE", help="also write all numbers and the environment here")
    parser.add_argument("--figure", metavar="FILE", help="draw them as SVG")
    given = parser.parse_args()
    if unknown := set(given.axis) - set(AXES):
        parser.error(f"no axis {', '.join(sorted(unknown))}; there are {', '.join(AXES)}")
    axes = []
    with mock.patch.object(os, "fsync", return_value=None), counted_bucket() as counted:
        warm()
        for name in given.axis or AXES:
            axes.append(fitted(measure(name, None if given.no_requests else counted, given.repeats)))
            print(show(axes[-1]), flush=True)
            if given.json:
                document = {"environment": harness.environment("cpu"), "results": axes}
                Path(given.json).write_text(json.dumps(harness.plain(document), indent=1) + "\n")
    if given.figure:
        Path(given.figure).write_text(drawn(axes))
    print(f"in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
