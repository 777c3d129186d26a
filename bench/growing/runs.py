"""The run that grows along one axis at a time, and what is asked of it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

FORMAT_1 = Path(__file__).parents[2] / "tests/engine/formats/format-1.zip"
CLASSES = 4
ANALYSES = ("consistency", "spectra", "drift", "density", "similarity", "richness")


@dataclass(frozen=True)
class Size:
    """What a run is of; ``workers`` are threads that analyses run on, 0 for this process without Dask."""

    checkpoints: int = 6
    samples: int = 64
    layers: int = 3
    width: int = 16
    workers: int = 0


def network(size: Size) -> nn.Module:
    """Return so many linear layers of that width, with ReLUs, and a head; gradients of many layers stay as large."""
    torch.manual_seed(0)
    parts = (nn.Sequential(nn.Linear(size.width if i else 8, size.width), nn.ReLU()) for i in range(size.layers))
    model = nn.Sequential(*parts, nn.Linear(size.width, CLASSES))
    for name, parameter in model.named_parameters():
        if name.endswith("weight"):
            nn.init.kaiming_normal_(parameter, nonlinearity="relu")
    return model


def probes(size: Size) -> Any:
    """Return random probes, half of them for training."""
    from featdyn.capture import Probes

    draw = torch.Generator().manual_seed(1)
    labels = torch.arange(size.samples) % CLASSES
    inputs = torch.randn(size.samples, 8, generator=draw) + labels[:, None]
    split = np.repeat(np.array(["train", "test"], dtype=object), [size.samples // 2, size.samples - size.samples // 2])
    return Probes(inputs, labels, {"split": split})


def layers(size: Size) -> list[str]:
    """Return the names of the recorded layers."""
    return [str(i) for i in range(size.layers)]


def changed(model: nn.Module) -> None:
    """Let the weights walk at random."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)


def record(folder: Path, size: Size) -> None:
    """Record a loop: what ``featdyn train`` does beside training."""
    from featdyn.capture import Recorder

    model = network(size)
    with Recorder(model, probes(size), folder / "run.zarr", layers=layers(size)) as recorder:
        recorder.meter.quiet = True
        for step in range(size.checkpoints):
            recorder.record(step=step)
            changed(model)


def states(folder: Path, size: Size) -> None:
    """Write the files that ``featdyn capture`` reads."""
    model = network(size)
    for step in range(size.checkpoints):
        torch.save(model.state_dict(), folder / f"step{step:06d}.pt")
        changed(model)


def capture(folder: Path, size: Size) -> None:
    from featdyn.capture.checkpoint_steps import by_step
    from featdyn.capture.existing import capture as captured

    paths = by_step(sorted(folder.glob("step*.pt")), None)
    captured(network(size), probes(size), paths, folder / "captured.zarr", layers=layers(size))


def old(folder: Path, size: Size) -> None:
    """Record a small store of format 1, which is what ``featdyn compact`` is for."""
    from featdyn.store import Run, RunWriter

    with zipfile.ZipFile(FORMAT_1) as archive:
        archive.extractall(folder)
    run = Run(folder / "none.zarr")
    held = {spec.path: run.values(spec.path)[0] for spec in run.schema.arrays}
    with RunWriter.open(folder / "none.zarr") as writer:
        for _ in range(size.checkpoints - run.checkpoints):
            with writer.checkpoint() as checkpoint:
                for spec in writer.schema.arrays:
                    for block in range(writer.schema.blocks if spec.sample_axis is not None else 1):
                        rows = [slice(None)] * len(spec.dims)
                        if spec.sample_axis is not None:
                            rows[spec.sample_axis] = writer.schema.block_slice(block)
                        part = np.array(
                            held[spec.path][tuple(rows)], spec.dtype, order="C"
                        )  # ascontiguousarray knows no scalars
                        checkpoint.write(spec.path, part, block)


def compact(folder: Path, size: Size) -> None:
    from featdyn.store import compact as compacted

    if not compacted(folder / "none.zarr"):
        raise AssertionError("nothing was to be compacted")


def analysis(name: str) -> Callable[[Path, Size], None]:
    """Return what runs one analysis."""

    def call(folder: Path, size: Size) -> None:
        from featdyn.analysis.driver import analyze
        from featdyn.compute import workers

        where = {"scheduler": "threads", "workers": size.workers} if size.workers else {}
        asked = {} if name in ("spectra", "similarity", "richness") else {"features": "stored"}
        given = {"model": network(size)} if name in ("consistency", "drift") else {}
        with workers(**where) as found:
            analyze(folder / "run.zarr", name, workers=found, fresh=True, **given, **asked)  # again each time

    return call


def _info(store: Any) -> None:
    from featdyn.cli.info import describe
    from featdyn.store import Run

    describe(Run(store))


def _query(store: Any) -> None:
    from featdyn.query import query
    from featdyn.store import Run

    query(Run(store), "cube.activation_norm", reduce="mean:sample")


def _sql(store: Any) -> None:
    from featdyn.query.sql import sql
    from featdyn.store import Run

    sql(Run(store), "select split, avg(loss) from outputs group by split")


def _report(store: Any) -> None:
    from featdyn.report.page import write_report
    from featdyn.store import Run

    write_report(Run(store), "/dev/null")


def _verify(store: Any) -> None:
    from featdyn.store import verify

    if not verify(store).sound:
        raise AssertionError("the run is damaged")


def _gc(store: Any) -> None:
    from featdyn.store import gc

    gc(store)


READS: dict[str, Callable[[Any], None]] = {
    "info": _info, "query": _query, "sql": _sql, "report": _report, "verify": _verify, "gc": _gc,
}  # fmt: skip
"""What takes a store and nothing else: from a bucket as well, where its requests are counted."""


def reading(name: str) -> Callable[[Path, Size], None]:
    """Return one of them, of the run in a folder."""
    return lambda folder, size: READS[name](folder / "run.zarr")


COMMANDS: dict[str, Callable[[Path, Size], None]] = {
    "record": record,
    "capture": capture,
    **{name: analysis(name) for name in ANALYSES},
    **{name: reading(name) for name in READS},
    "compact": compact,
}
"""In the order in which they are asked: the run that is read holds the results."""
BEFORE: dict[str, Callable[[Path, Size], None]] = {"capture": states, "compact": old}
"""What is made first, and not measured."""
