"""Time ours beside its peers: one process, interleaved, warm, results checked first.

A file ``bench/<operation>.py`` yields :class:`Case` objects from ``cases(device)``. Peers come from
``tests/kernels/peers``, so that the tests check what the benchmark times.
"""

from __future__ import annotations

import importlib
import json
import math
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from featdyn_kernels import cores

TINY = False
"""Set by the tests: shapes so small that only the checks count."""

PACKAGES = (
    "numpy", "scipy", "numba", "torch", "triton", "pykeops", "scikit-learn", "zarr", "zarrs", "xarray", "flox",
    "torchvision", "timm", "transformers", "pytorch-cka",
)  # fmt: skip


@dataclass
class Case:
    """One setting of one operation."""

    name: str  # shapes, dtype and what else tells this setting from others: "N=M=8000 d=2 float32"
    ours: Callable[[], Any]
    peers: dict[str, Callable[[], Any]]
    check: Callable[[Any], None]  # raises AssertionError when a result (ours or a peer's) is wrong
    ceiling: str | None = None  # "copy" (bytes/s), "matmul-float32", "matmul-bfloat16" (multiply-adds/s)
    amount: float = 0.0  # bytes or multiply-adds of one call, for the fraction of the ceiling
    target: dict[str, float] = field(default_factory=dict)  # peer (or "best", "ceiling") -> wanted ratio
    repeats: int = 15
    notes: str = ""
    prepare: Callable[[], None] = lambda: None  # before each timed call, and not timed


def sized(full: Any, tiny: Any) -> Any:
    """Return the size to measure, or the one to test the benchmark with."""
    return tiny if TINY else full


def _seconds(call: Callable[[], Any], device: str) -> tuple[float, float]:
    """Return the time on the clock, and that of the processor, of all threads."""
    cpu = time.process_time()
    wall = _clock(call, device)
    return wall, time.process_time() - cpu


def _clock(call: Callable[[], Any], device: str) -> float:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        return time.perf_counter() - start
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(case: Case, device: str, ceilings: dict[str, float], repeats: int | None = None) -> dict[str, Any]:
    """Check every contender, then time those that are right in turn: seconds, and ratios peer / ours (above 1: ours is
    faster). That ours is wrong ends it; a peer that is wrong is named.
    """
    contenders, wrong = {"ours": case.ours, **case.peers}, dict[str, str]()
    for name, call in list(contenders.items()):  # the first call also compiles and warms
        try:
            case.check(call())
        except AssertionError as error:
            if name == "ours":
                raise
            # A peer that misses the precision on this processor is no peer of this case here.
            wrong[name] = next(filter(None, map(str.strip, str(error).splitlines())), "its result is wrong")
            del contenders[name]
    times: dict[str, list[float]] = {name: [] for name in contenders}
    cpu: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats or case.repeats):
        for name, call in contenders.items():
            case.prepare()
            for kept, seconds in zip((times, cpu), _seconds(call, device), strict=True):
                kept[name].append(seconds)
    quantiles = {
        n: dict(zip(("p20", "p50", "p80"), np.quantile(t, (0.2, 0.5, 0.8)), strict=True)) for n, t in times.items()
    }
    # A ratio of neighbours in time, not of two medians: the speed of a shared machine drifts.
    ratios = {n: float(np.median(np.divide(times[n], times["ours"]))) for n in contenders if n != "ours"}
    result: dict[str, Any] = {
        "case": case.name,
        "ratios": ratios,
        "processor_ratios": {n: float(np.median(np.divide(cpu[n], cpu["ours"]))) for n in ratios},
        "seconds": quantiles,
        "repeats": repeats or case.repeats,
        "target": case.target,
    }
    if ratios:
        result["best_peer"] = min(ratios, key=lambda n: ratios[n])
    if case.ceiling in ceilings:  # this processor has it
        ceiling = ceilings[case.ceiling]
        result["ceiling"] = {
            "kind": case.ceiling,
            "per_second": ceiling,
            "fraction": {n: case.amount / q["p50"] / ceiling for n, q in quantiles.items()},
        }
    if wrong:
        result["wrong_here"] = wrong
    if case.notes:
        result["notes"] = case.notes
    return result


def environment(device: str) -> dict[str, Any]:
    """Return what a reader needs to place the numbers: machine, versions, commit."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    info: dict[str, Any] = {
        "device": device,
        "processor": _processor(),
        "instructions": _instructions(),
        "cores": cores(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions,
        "commit": _git("rev-parse", "--short", "HEAD"),
        "modified": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "date": time.strftime("%Y-%m-%d"),
    }
    if device == "cuda":
        import torch

        info["gpu"] = torch.cuda.get_device_name()
    return info


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    models = {line.split(":", 1)[1].strip() for line in lines if line.startswith(("model name", "cpu family"))}
    return ", ".join(sorted(models))


def _instructions() -> str:
    """Return the widest instructions that PyTorch finds here, such as AVX2 or AVX512; '' without it."""
    try:
        import torch
    except ModuleNotFoundError:
        return ""

    return str(torch.backends.cpu.get_cpu_capability())


def _git(*arguments: str) -> str:
    run = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    return run.stdout.strip()


def operations() -> list[str]:
    """Return the names of the benchmark files: those that have cases to time."""
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if "\ndef cases(" in p.read_text())


def run(
    operation: str, device: str, ceilings: dict[str, float], repeats: int | None = None
) -> Iterator[dict[str, Any]]:
    """Measure the cases of one operation, one by one."""
    module = importlib.import_module(f"bench.{operation}")
    for case in module.cases(device):
        yield measure(case, device, ceilings, repeats)


def show(operation: str, result: dict[str, Any]) -> str:
    """Return one case as lines of text, ratios first."""
    lines = [f"{operation}: {result['case']}"]
    for peer, ratio in sorted(result["ratios"].items(), key=lambda item: item[1]):
        wanted = result["target"].get(peer)
        aim = f"  (target {wanted:g}x)" if wanted else ""
        lines.append(f"  {ratio:8.2f}x {peer}{aim}")
    if result["target"].get("best") and result["ratios"]:
        lines.append(f"  best peer: {result['best_peer']} (target {result['target']['best']:g}x)")
    if "ceiling" in result:
        ceiling = result["ceiling"]
        wanted = result["target"].get("ceiling")
        aim = f" (target {wanted:.0%})" if wanted else ""
        lines.append(f"  {ceiling['fraction']['ours']:8.1%} of {ceiling['kind']} {ceiling['per_second']:.3g}/s{aim}")
    times = "  ".join(f"{n} {q['p50']:.3g}" for n, q in result["seconds"].items())
    lines.append(f"  p50 seconds: {times}")
    lines += [f"  not timed, wrong here: {name} ({why})" for name, why in result.get("wrong_here", {}).items()]
    if "notes" in result:
        lines.append(f"  {result['notes']}")
    return "\n".join(lines)


def plain(value: Any) -> Any:
    """Return the same without what JSON cannot say: null where a number is not there, text where it is infinite."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def save(path: str, device: str, ceilings: dict[str, float], results: dict[str, list[dict[str, Any]]]) -> None:
    """Write results with their environment as JSON."""
    document = {"environment": environment(device), "ceilings": ceilings, "results": results}
    Path(path).write_text(json.dumps(document, indent=1) + "\n")
