"""Recording while the card is busy: the bits must be those that an idle card gives, and what it takes is told.

A copy that is read before it has arrived is silently wrong, and small or single ones pass by luck: so the layers are
large, checkpoints follow each other without a wait, and products of matrices fill another stream meanwhile.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.gpu import grid
from bench.harness import sized
from featdyn.capture import Probes, Recorder
from featdyn.store import Run, verify

LAYERS = ["s1b3", "s3b3", "pooled"]


@contextmanager
def busy(device: str) -> Iterator[list[int]]:
    """Multiply matrices on a stream of another thread; yields a list whose one number counts them."""
    stop, done = threading.Event(), [0]

    def work() -> None:
        side = sized(4096, 8)
        a = torch.randn(side, side, device=device)
        if device == "cuda":
            torch.cuda.set_stream(torch.cuda.Stream())
        while not stop.is_set():
            for _ in range(4):
                a @ a
            done[0] += 4
            if device == "cuda":  # else it would queue products without end
                torch.cuda.current_stream().synchronize()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()


def record(path: Path, network: Any, states: list[Any], probes: Probes, end: float) -> tuple[int, float]:
    """Record states one right after the other; return how many there was time for, and the seconds."""
    start, count = time.monotonic(), 0
    with Recorder(network, probes, path, layers=LAYERS, batch=sized(256, 4)) as recorder:
        recorder.meter.quiet = True
        for step, state in enumerate(states):
            network.load_state_dict(state)
            recorder.record(step=step)
            count += 1
            if time.monotonic() >= end:
                break
        recorder.wait()
    return count, time.monotonic() - start


def unlike(idle: Run, loaded: Run, checkpoints: int) -> list[str]:
    """Return the arrays whose bits differ at some checkpoint, with how many of their numbers."""
    found = []
    for spec in loaded.schema.arrays:
        if spec.sample_axis is None:
            continue
        a, b = (np.asarray(run.values(spec.path))[:checkpoints] for run in (idle, loaded))
        if a.tobytes() != b.tobytes():
            found.append(f"{spec.path}: {int((a != b).sum())} of {a.size}")
    return found


def rows(device: str, seconds: float) -> Iterator[dict[str, Any]]:
    """Yield one row: the idle run beside the one under load."""
    end = time.monotonic() + seconds
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    network, states = grid.trained(device, sized(20, 2))
    x = grid.samples(sized(1024, 6))
    probes = Probes(x, torch.arange(len(x)) % 10)
    folder = Path(tempfile.mkdtemp(prefix="featdyn-bench-"))
    try:
        count, quiet = record(folder / "idle.zarr", network, states, probes, end - 0.6 * seconds)
        with busy(device) as products:
            again, loaded = record(folder / "load.zarr", network, states[:count], probes, end - 0.15 * seconds)
        done, idle = Run(folder / "load.zarr"), Run(folder / "idle.zarr")
        wrong, sound = unlike(idle, done, again), verify(folder / "load.zarr").sound
        size = sum(p.stat().st_size for p in (folder / "load.zarr").rglob("*") if p.is_file())
    finally:
        shutil.rmtree(folder)
    whole, worked = again == len(states), products[0] > 0
    note = f"{again} of {len(states)} checkpoints of {len(x)} probes; {quiet / count:.3g} s each on an idle card, "
    note += f"{loaded / again:.3g} s beside {products[0]} products of matrices; {size / loaded / 1e6:.3g} MB/s"
    note += "; bits as on an idle card" if not wrong else f"; other bits in {', '.join(wrong)}"
    yield {
        "what": "recording under load",
        "ok": False if wrong or not sound else (True if whole and worked else None),
        "note": note + ("" if sound else "; verify finds it damaged"),
        "seconds": {"idle": quiet / count, "load": loaded / again},
        "products": products[0],
    }
