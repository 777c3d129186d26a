"""Analyses of a store that is larger than their memory: ``python -m bench.scale STORE [name ...] --json FILE``.

Each runs in a process of its own, held to ``--limit`` bytes, with the store's files out of the page cache first; before
it the same process plainly reads the same files by as many threads, as cold. ``workers`` compares one worker process
with two.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from bench import harness
from featdyn.analysis.inputs.weights import network_of
from featdyn.networks import cuts, resolve, state_for
from featdyn_kernels import cores, set_threads
from featdyn_kernels.stitch import SuffixBank

PIECE = 2**22
ACTIVATIONS, GRADIENTS = "layers/*/activation", "layers/*/gradient"
FEATURES = {"features": "stored"}  # every analysis below reads; none computes features again
CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    # name: analysis, options, what it reads of the store
    "spectra of activations": ("spectra", {}, ACTIVATIONS),
    "spectra of gradients": ("spectra", {"of": "gradient"}, GRADIENTS),
    "density": ("density", {**FEATURES, "samples": 4000, "permutations": 50}, ACTIVATIONS),
    "isotropy": ("layer_isotropy", {"samples": 128}, GRADIENTS),
    "consistency": ("consistency", {**FEATURES, "cuts": ("s2b3", "pooled")}, "layers/[sp]*[2o]*/activation"),
    "similarity": ("similarity", {}, ACTIVATIONS),
    "richness": ("richness", {}, ACTIVATIONS),
    "interactions": ("interactions", {**FEATURES, "cuts": ("s2b3",), "samples": 20}, "layers/s2b3/activation"),
}
WARM: dict[str, dict[str, Any]] = {
    "spectra": {"layers": ("s2b3",)},  # maps, whose kernel is not that of vectors
    "layer_isotropy": {"layers": ("pooled",), "samples": 8},
    "density": {"cuts": ("pooled",), "samples": 20, "permutations": 19},
    "consistency": {"cuts": ("pooled",)},
    "similarity": {"layers": ("pooled",), "samples": 20},
    "richness": {"layers": ("pooled",)},
    "interactions": {"samples": 2, "checkpoints": "last"},
}
SUFFIXES = {"consistency": "prediction", "interactions": "v"}
"""Analyses that are bound by the suffixes they run, and their variable of one value for each sample that passes one."""
ROWS, REPEATS = 1024, 3
SCALING = {
    "moments": ("spectra", {}),
    "kde": ("density", {**FEATURES, "cuts": ("pooled",), "samples": 1500, "permutations": 100}),
}


PAUSE = 10.0
"""Seconds after files left the page cache: a virtual machine gives its free memory back by and by, and takes some of
the time of whoever fills it again."""


def evict(files: list[Path]) -> None:
    """Take files out of the page cache, as far as they are clean."""
    for path in files:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    time.sleep(PAUSE)


def read(files: list[Path], threads: int) -> float:
    """Read files from end to end; return the seconds."""

    def some(mine: list[Path]) -> None:
        buffer = bytearray(PIECE)
        for path in mine:
            with open(path, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass

    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(some, [files[i::threads] for i in range(threads)]))
    return time.perf_counter() - start


def child(
    store: str, analysis: str, options: dict[str, Any], where: dict[str, Any], pattern: str | None = None
) -> dict[str, Any]:
    """Run an analysis in this process; return its seconds, and the largest size of this process and of a worker.

    It runs on a little first: that workers load libraries and kernels takes seconds, whatever the store, and is told
    apart as ``loading``. With a pattern of files, a plain read of them comes between, and both find them on disk.
    """
    from featdyn.analysis import analyses
    from featdyn.compute import local, workers
    from featdyn.store import Run

    analyses()[analysis].function()  # its libraries take a second or two, whatever the store
    one = local.environment(1)
    local.environment = lambda threads: one  # a lone worker would else give its kernels all cores
    with workers(**where) as found:
        run = Run(store)
        start = time.perf_counter()
        analyses()[analysis](run, workers=found, **options | WARM[analysis])
        timed = {"loading": time.perf_counter() - start}
        if pattern is not None:
            files = matching(store, pattern)
            evict(files)
            timed["read"] = read(files, where["workers"])
            evict(files)
        start = time.perf_counter()
        result = analyses()[analysis](run, workers=found, **options).load()
        timed["seconds"] = time.perf_counter() - start
    peaks = [resource.getrusage(who).ru_maxrss * 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    if analysis in SUFFIXES:
        timed["suffixes alone"] = suffixes(run, analysis, result, where["workers"])
    values = {n: v.values for n, v in sorted(result.data_vars.items()) if v.dtype.kind in "fiub"}
    digest = [float(np.nansum(np.abs(v.astype(np.float64)))) for v in values.values()]
    return {**timed, "peak": peaks[0], "worker_peak": peaks[1], "digest": digest}


def suffixes(run: Any, analysis: str, result: xr.Dataset, threads: int) -> float:
    """Return the seconds that the suffixes of an analysis would take by themselves."""
    model = network_of(run, None)
    inputs = np.asarray(xr.open_datatree(run.path, engine="zarr")["inputs/input"])[:1]
    steps = run.checkpoints if analysis == "consistency" else 1  # whose suffixes meet one block of features
    passes, total = result[SUFFIXES[analysis]].size / result.sizes["cut"], 0.0
    set_threads(threads)
    for cut in resolve(cuts(model, torch.from_numpy(inputs).float()), list(map(str, result["cut"].values))):
        states = [state_for(cut.suffix, run.state(t)) for t in range(steps)]
        bank = SuffixBank.from_states(cut.suffix, states)
        features, labels, times = torch.randn(ROWS, *cut.shape), np.zeros(ROWS, np.int64), []
        for _ in range(1 + REPEATS):
            start = time.perf_counter()
            bank.run(features, labels)
            times.append(time.perf_counter() - start)
        total += min(times[1:]) * passes / (steps * ROWS)
    set_threads(None)
    return total


def matching(store: str, pattern: str) -> list[Path]:
    """Return the shards of some arrays."""
    return sorted(Path(store).glob(f"{pattern}/c.*"))


def run_child(*arguments: Any) -> dict[str, Any]:
    """Run :func:`child` in a new process."""
    task = json.dumps(arguments)
    done = subprocess.run(
        [sys.executable, "-m", "bench.scale", "--child", task], check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def beyond_memory(store: str, name: str, limit: str, repeats: int, threads: int) -> dict[str, Any]:
    """Time one analysis beside a plain read of what it reads, both cold."""
    analysis, options, pattern = CASES[name]
    where = {"scheduler": "threads", "workers": threads, "memory_limit": limit}
    rows = [run_child(store, analysis, options, where, pattern) for _ in range(repeats)]
    ratio = float(np.median([row["read"] / row["seconds"] for row in rows]))
    size = sum(p.stat().st_size for p in matching(store, pattern))
    return {"case": name, "options": options, "bytes": size, "limit": limit, "runs": rows, "speed over reading": ratio}


def scaling(store: str, name: str, repeats: int) -> dict[str, Any]:
    """Time an analysis on one worker process and on two, in turn; the files are in the page cache for both."""
    analysis, options = SCALING[name]
    read(matching(store, ACTIVATIONS), 1)
    rows = []
    for _ in range(repeats):
        one, two = (
            run_child(store, analysis, options, {"scheduler": "processes", "workers": n, "memory_limit": "2GB"})
            for n in (1, 2)
        )
        rows.append({"one": one, "two": two, "same": one["digest"] == two["digest"]})
    ratio = float(np.median([row["one"]["seconds"] / row["two"]["seconds"] for row in rows]))
    return {"case": f"workers: {name}", "options": options, "runs": rows, "one over two": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("store", nargs="?")
    parser.add_argument("name", nargs="*", help=f"some of {', '.join(CASES)}, workers; all by default")
    parser.add_argument("--limit", default="2GB")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(*json.loads(given.child))))
        return
    if given.store is None:
        parser.error("name a store")
    store = Path(given.store)
    total = sum(p.stat().st_size for p in store.rglob("*") if p.is_file())
    found: dict[str, Any] = {"environment": harness.environment("cpu"), "store": {"bytes": total}, "results": []}
    for name in given.name or [*CASES, "workers"]:
        if name == "workers":
            new = [scaling(given.store, kind, given.repeats) for kind in SCALING]
        else:
            new = [beyond_memory(given.store, name, given.limit, given.repeats, given.threads)]
        for result in new:
            found["results"].append(result)
            print(json.dumps({k: v for k, v in result.items() if k != "runs"}), flush=True)
            for row in result["runs"]:
                print("   ", {k: v for k, v in row.items() if k not in ("digest", "one", "two")}, flush=True)
        if given.json:
            Path(given.json).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
