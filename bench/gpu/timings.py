"""Every kernel beside its peers, with what the card can do at best: ``python -m bench`` with a limit of time.

A peer that is not installed, or fails, is left out and named; ours that is wrong is an error. A kernel that a peer
beats is right all the same: the row says so, and by how much.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import ceilings, harness

REPEATS = 5
SLOW = ("keops",)  # compiles each formula for a minute
LATE = ("stitch", "kde", "recording")
"""Their peers take longest, or are measured by another part too: what comes last is the first to be left out."""


def operations() -> list[str]:
    """Return the kernels that have a benchmark, and recording, in the order in which they are measured."""
    kernels = {p.name for p in (Path(__file__).parents[2] / "kernels/featdyn_kernels").iterdir() if p.is_dir()}
    there = [name for name in harness.operations() if name in kernels | {"sparsify", "recording"}]
    return sorted(there, key=lambda name: (name in LATE, LATE.index(name) if name in LATE else 0, name))


def rows(device: str, seconds: float, skip: list[str] = []) -> Iterator[dict[str, Any]]:  # noqa: B006  read only
    """Yield the ceilings, then a row for each case, and before each operation one that says that it begins."""
    end = time.monotonic() + seconds
    if harness.TINY:
        ceilings.ELEMENTS, ceilings.SIDE = 2**12, 16
    found = ceilings.measure(device)
    yield {"what": "at best", "ok": True, "note": ", ".join(f"{k} {v:.3g}/s" for k, v in found.items()), **found}
    for name in operations():
        if name in skip:
            continue
        yield {"begins": name}
        try:
            for case in importlib.import_module(f"bench.{name}").cases(device):
                yield timed(name, case, device, found)
                if time.monotonic() >= end:
                    return
        except Exception as error:
            yield {"what": name, "ok": False, "note": f"{type(error).__name__}: {_line(error)}"}
        yield {"ends": name}


def timed(name: str, case: harness.Case, device: str, found: dict[str, float]) -> dict[str, Any]:
    """Measure one case with the peers that work here."""
    out: dict[str, str] = {}
    for peer, call in list(case.peers.items()):
        try:
            if peer.startswith(SLOW):
                raise RuntimeError("compiles for a minute: python -m bench measures it")
            case.check(call())
        except Exception as error:
            out[peer] = _line(error)
            del case.peers[peer]
    row = {"what": f"{name}: {case.name}", "left out": out}
    try:
        result = harness.measure(case, device, found, min(REPEATS, case.repeats))
    except Exception as error:
        return row | {"ok": False, "note": f"{type(error).__name__}: {_line(error)}"}
    said = [f"{ratio:.3g}x {peer}" for peer, ratio in sorted(result["ratios"].items(), key=lambda item: item[1])]
    if "ceiling" in result:
        said.append(f"{result['ceiling']['fraction']['ours']:.1%} of {case.ceiling}")
    said += [f"behind {aim:g} for {what}" for what, aim in case.target.items() if reached(result, what) < aim]
    return row | {"ok": True, "note": ", ".join(said), "result": result}


def reached(result: dict[str, Any], what: str) -> float:
    """Return the ratio, or the fraction of the ceiling, that a target is about; infinite where it was not measured."""
    if what == "ceiling":
        return float(result.get("ceiling", {}).get("fraction", {}).get("ours", float("inf")))
    return float(result["ratios"].get(result.get("best_peer") if what == "best" else what, float("inf")))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
