"""What every analysis says that it will need, beside the memory that it takes, as a run grows in each dimension.

Every analysis of the registry is asked, so that a new one needs no test of its own.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from featdyn.analysis import Analysis, analyses
from featdyn.capture import Probes, Recorder
from featdyn.compute import Plan
from featdyn.compute.serial import Serial
from featdyn.statistics.wishart import KEPT, SIZES
from featdyn.store import Run, commit_result, schema
from featdyn_kernels import set_threads
from tests.engine import approved_plans
from tests.engine.memory import RESET, peak

Recorded = Callable[..., tuple[Run, nn.Module]]

INPUTS = 8
SMALL = {"width": 16, "probes": 64, "checkpoints": 3, "classes": 4}
LAYERS = {"width": 400, "probes": 1200, "classes": 200, "checkpoints": 60}
"""How large each dimension becomes: of recorded layers, whose covariances are held."""
CUTS = {"width": 6000, "classes": 2000, "probes": 1200, "checkpoints": 60}
"""And of features at cuts. The first two of either are what most analyses hold most of; the others are slow tests."""
ASKED = {
    "cuts": ("1",), "features": "recomputed", "permutations": 19, "samples": 10**6, "players": 6, "draws": 16,
    "rate": 0.1,
}  # fmt: skip
"""Options, where an analysis has them. Where features come from, on which plans depend, is not left to the clock."""
OVERHEAD = 2**21
"""Bytes that Python and xarray take whatever the run."""
MOST = {"layers": 3, "cuts": 12}
"""How many times what is taken a plan may say. Plans of features at cuts hold for any network, and most keep more
between two layers than the one here."""
SPARE = {"layer_isotropy": SIZES * KEPT, "isotropy": SIZES * KEPT}
"""What is kept for numbers of draws that a run may have, and this one has not."""

WARM = set[str]()
"""Analyses that have loaded and compiled what they keep."""


class Enough(Exception):
    """A plan was told, which is all that was asked for."""


class Told(Serial):
    """This process, which keeps the plan that it was told, and may be told nothing else."""

    plan: Plan
    goes_on: bool = True

    def admit(self, plan: Plan) -> None:
        self.plan = plan
        if not self.goes_on:
            raise Enough


def record(
    path: Path, width: int, checkpoints: int, classes: int, of_set: np.ndarray, **options: Any
) -> tuple[Run, nn.Module]:
    """Record a network whose layers have one width."""
    random, probes = torch.Generator().manual_seed(0), len(of_set)
    last = [nn.ReLU(), nn.BatchNorm1d(width), nn.Linear(width, classes)]
    model = nn.Sequential(nn.Linear(INPUTS, width), *last)
    coords = {"split": np.array(["train", "test"], dtype=object)[of_set]}
    fixed = Probes(torch.randn(probes, INPUTS, generator=random), torch.arange(probes) // 2 % classes, coords)
    with Recorder(model, fixed, path, layers=["1"], dtype="float32", **options) as recorder, torch.no_grad():
        for t in range(checkpoints):
            recorder.record(step=t)
            for tensor in model.parameters():
                tensor += 0.1 * torch.randn(tensor.shape, generator=random)
    return Run(path), model


def record_alternating(path: Path, width: int, probes: int, checkpoints: int, classes: int) -> tuple[Run, nn.Module]:
    """Record with sets that alternate."""
    return record(path, width, checkpoints, classes, np.arange(probes) % 2)


@pytest.fixture(scope="module")
def recorded() -> Iterator[Recorded]:
    """Record, and keep the run."""
    memory = Path("/dev/shm")
    folder = tempfile.mkdtemp(dir=memory if memory.is_dir() else None)

    @cache
    def made(width: int, probes: int, checkpoints: int, classes: int) -> tuple[Run, nn.Module]:
        path = Path(folder, f"{width}-{probes}-{checkpoints}-{classes}.zarr")
        return record_alternating(path, width, probes, checkpoints, classes)

    yield made
    shutil.rmtree(folder)


def asked(analysis: Analysis, run: Run, model: nn.Module, **more: Any) -> tuple[Callable[[], Any], Told]:
    """Return a call of the analysis, and where it leaves its plan; what it reads of others is made here."""
    for other in analysis.results:
        if not run.results(other):
            commit_result(run, other, asked(analyses()[other], run, model)[0]())
    told, options = Told(), {k: v for k, v in (ASKED | more).items() if k in analysis.options.model_fields}
    if "training data" in analysis.needs:
        last = list(model.children())[-1]
        assert isinstance(last, nn.Linear)
        images = torch.randn(64, *run.nodes["inputs/input"]["shape"][1:])
        options["batches"] = DataLoader(TensorDataset(images, torch.arange(64) % last.out_features), 16)
    return lambda: analysis(Run(run.path), model=model, workers=told, fresh=True, **options), told


OTHERWISE = {
    "cuts": ("1", "3"), "features": "recomputed", "kind": "components", "masked": "mean", "players": 5, "samples": 20,
    "pairs": "all", "permutations": 23, "permuted": False, "keep": "raw", "draws": 12, "directions": 5, "curvature": 2,
    "probes": 7, "folds": 3, "block": 4, "train": "train", "rate": 0.1,
}  # fmt: skip
"""What :func:`record_convolutions` is asked, so that terms count that are nothing, or all alike, in the others."""


def record_convolutions(path: Path) -> tuple[Run, nn.Module]:
    """Record three layers of unlike shapes, on sets of unlike sizes, in several shards."""
    random, of_set = torch.Generator().manual_seed(0), np.array([0] * 30 + [1] * 11 + [2] * 4)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Conv2d(5, 3, 2), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(27, 7)
        )
    coords = {"split": np.array(["train", "test", "corrupted"], dtype=object)[of_set]}
    probes = Probes(torch.randn(45, 2, 6, 6, generator=random), torch.arange(45) % 7, coords)
    options: dict[str, Any] = {"layers": ["0", "1", "3"], "dtype": "float32", "batch": 16}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "SHARD_SAMPLES", 16)
        with Recorder(model, probes, path, **options) as recorder, torch.no_grad():
            for t in range(11):
                recorder.record(step=t)
                for tensor in model.parameters():
                    tensor += 0.1 * torch.randn(tensor.shape, generator=random)
    return Run(path), model


OFTEN = ("consistency", "drift", "interactions", "noise", "representation", "spectra")
"""Of each room one or two, whose memory is measured at each run of the tests; that of all is in the slow ones."""


def cases() -> list[Any]:
    found = []
    for name, analysis in analyses().items():
        kind = "layers" if "layers" in analysis.options.model_fields else "cuts"
        for i, dimension in enumerate(LAYERS if kind == "layers" else CUTS):
            marks = [] if i == 0 and name in OFTEN else [pytest.mark.slow]
            found.append(pytest.param(name, kind, dimension, marks=marks))
    return found


@pytest.mark.skipif(not RESET.exists(), reason="needs /proc")
@pytest.mark.parametrize(("name", "kind", "dimension"), cases())
def test_a_plan_is_the_memory_that_is_taken(recorded: Recorded, name: str, kind: str, dimension: str) -> None:
    analysis, large = analyses()[name], LAYERS if kind == "layers" else CUTS
    if name not in WARM:
        asked(analysis, *recorded(**SMALL))[0]()
        WARM.add(name)
    call, told = asked(analysis, *recorded(**SMALL | {dimension: large[dimension]}))
    taken = peak(call) - OVERHEAD
    planned = told.plan.peak()
    if taken > max(planned, OVERHEAD):  # a module or a kernel may have been loaded or compiled for the first time
        taken = peak(call) - OVERHEAD
    assert taken <= max(planned, OVERHEAD), f"a worker may be ended: {taken:,} of {told.plan}"
    assert planned - SPARE.get(name, 0) <= MOST[kind] * max(taken, OVERHEAD), f"{taken:,} of {told.plan}"


@pytest.mark.slow
@pytest.mark.skipif(not RESET.exists(), reason="needs /proc")
@pytest.mark.parametrize("name", ["drift", "density", "consistency"])
def test_a_plan_holds_where_features_are_read(recorded: Recorded, name: str) -> None:
    """Between layers nothing is held then, which would cover a term that is not counted."""
    analysis = analyses()[name]
    asked(analysis, *recorded(**SMALL), features="stored")[0]()
    call, told = asked(analysis, *recorded(**SMALL | {"width": 8 * CUTS["width"]}), features="stored")
    taken = min(peak(call) for _ in range(2)) - OVERHEAD
    assert taken <= told.plan.peak(), f"a worker may be ended: {taken:,} of {told.plan}"


def record_positions(path: Path, shape: tuple[int, ...], probes: int) -> tuple[Run, nn.Module]:
    """Record inputs as they come, and what a head makes of their means."""
    random = torch.Generator().manual_seed(0)
    head = [nn.AvgPool2d(shape[1:]), nn.Flatten()] if len(shape) == 3 else [nn.Flatten()]
    size = shape[0] if len(shape) == 3 else int(np.prod(shape))
    model = nn.Sequential(nn.Identity(), *head, nn.Linear(size, 4))
    coords = {"split": np.array(["train", "test"], dtype=object)[np.arange(probes) % 2]}
    fixed = Probes(torch.randn(probes, *shape, generator=random), torch.arange(probes) // 2 % 4, coords)
    with Recorder(model, fixed, path, layers=["0"]) as recorder:
        for t in range(2):
            recorder.record(step=t)
    return Run(path), model


@pytest.mark.slow
@pytest.mark.skipif(not RESET.exists(), reason="needs /proc")
@pytest.mark.parametrize("name", ["richness", "collapse", "representation", "similarity", "pattern_shift"])
@pytest.mark.parametrize("shape", [(16, 32, 32), (128, 64)])
def test_a_plan_holds_where_features_have_positions(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    """They are averaged, piece by piece: float64 values of a whole block would be four times the block."""
    analysis = analyses()[name]
    asked(analysis, *record_positions(tmp_path / "small.zarr", shape, 64))[0]()
    call, told = asked(analysis, *record_positions(tmp_path / "large.zarr", shape, 1024))
    taken = min(peak(call) for _ in range(2)) - OVERHEAD
    assert taken <= told.plan.peak(), f"a worker may be ended: {taken:,} of {told.plan}"
    block = told.plan.task["blocks"]
    assert block <= 7 * 2 * 1024 * int(np.prod(shape)), f"{block:,} bytes for a block"


def planned(analysis: Analysis, run: Run, model: nn.Module, **more: Any) -> Plan:
    """Return the plan of an analysis that is not carried out."""
    call, told = asked(analysis, run, model, **more)
    told.goes_on = False
    set_threads(1)  # what several threads hold beside is another number on each machine
    try:
        with pytest.raises(Enough):
            call()
    finally:
        set_threads(None)
    return told.plan


@pytest.fixture(scope="module")
def of_the_small(recorded: Recorded) -> Callable[[str], Plan]:
    """Return the plan of the small run, with which several are compared."""
    return cache(lambda name: planned(analyses()[name], *recorded(**SMALL)))


def growing() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield analyses with a dimension of the run; with all at once where results of others have to be made first."""
    for name, analysis in analyses().items():
        yield from ((name, each) for each in ([(*SMALL,)] if analysis.results else [(d,) for d in SMALL]))


@pytest.mark.parametrize(("name", "dimensions"), [*growing()])
def test_a_plan_is_of_whole_bytes_and_grows_in_every_part(
    recorded: Recorded, of_the_small: Callable[[str], Plan], name: str, dimensions: tuple[str, ...]
) -> None:
    """While the other dimensions stay, so that nothing is divided by one; and is what was approved, part by part."""
    more = SMALL | {dimension: 2 * SMALL[dimension] for dimension in dimensions}
    few, many = of_the_small(name), planned(analyses()[name], *recorded(**more))
    assert many.tasks >= few.tasks > 0
    assert many.reads >= few.reads >= 0
    for parts in (few, many):
        numbers = [parts.tasks, parts.reads, *(parts.task | parts.state | parts.result).values()]
        assert all(isinstance(number, Integral) for number in numbers), parts
    for large, small in ((many.task, few.task), (many.state, few.state), (many.result, few.result)):
        assert large.keys() == small.keys()
        assert all(large[part] >= small[part] >= 0 for part in small), (large, small)
    approved = json.loads(approved_plans.PAGE.read_text())[name]
    assert approved_plans.parts(few) == approved["small"], approved_plans.__doc__
    assert approved_plans.parts(many) == approved[" ".join(dimensions)], approved_plans.__doc__


FIRST = [name for name, analysis in analyses().items() if not analysis.results]
"""Analyses that read no results of others."""


@pytest.fixture(scope="module")
def convolutions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, nn.Module]:
    return record_convolutions(tmp_path_factory.mktemp("convolutions") / "run.zarr")


@pytest.mark.parametrize("name", FIRST)
def test_a_plan_for_unlike_layers_and_other_options_is_what_was_approved(
    convolutions: tuple[Run, nn.Module], name: str
) -> None:
    plan = planned(analyses()[name], *convolutions, **OTHERWISE)
    assert approved_plans.parts(plan) == json.loads(approved_plans.PAGE.read_text())[name]["unlike layers"]


OF_BYTES = {"predictions", "perturbed", "nulls"}
"""Parts with numbers of one byte: classes, and who is a probe's neighbour or swapped."""


@pytest.mark.parametrize("name", FIRST)
def test_a_plan_is_of_numbers_of_four_or_eight_bytes_and_says_how_many(recorded: Recorded, name: str) -> None:
    """Where everything that is counted but the sets is odd."""
    plan = planned(analyses()[name], *recorded(width=17, probes=65, checkpoints=3, classes=5))
    parts = plan.task | plan.state | plan.result | {"reads": plan.reads}
    assert {part for part, size in parts.items() if size % 4} <= OF_BYTES
    counts = {"layers": 1, "cuts": 1, "sets": 2, "segments": 2, "windows": 3, "checkpoints": 3}
    said = re.findall(rf"(\d+) ({'|'.join(counts)})\b", plan.work)
    assert all(counts[unit] == int(number) for number, unit in said), plan.work


PREFIX, SUFFIX = INPUTS * SMALL["width"], SMALL["width"] * SMALL["classes"]
"""Multiply-adds before and behind the cut, for one probe."""
SET, PAIRS, STEPS = SMALL["probes"] // 2, SMALL["checkpoints"], SMALL["checkpoints"]
"""Probes of each of the two sets; pairs of any checkpoint and the last one."""
APART = STEPS * 2 * SET * (PREFIX + SUFFIX)
"""Each checkpoint joined with itself, to see whether that is its network."""
ARITHMETIC = {
    "consistency": 2 * SET * (STEPS * PREFIX + STEPS**2 * SUFFIX),
    "controls": APART + PAIRS * 2 * SET * (PREFIX + 5 * SUFFIX),  # the drift, and four of its length
    # Both sets, and the training probes for their statistics.
    "batchnorm": APART + PAIRS * 3 * SET * (PREFIX + 3 * SUFFIX),
    # Both segments, and what is behind the first.
    "rewind": APART + 2 * SET * (PREFIX + PAIRS * (PREFIX + 2 * SUFFIX)),
    # To and fro, and products of one probe's features at any two checkpoints.
    "drift": 2 * SET * (2 * STEPS * PREFIX + STEPS**2 * SMALL["width"] / 2),
    "interactions": STEPS * 2 * SET * 2 ** ASKED["players"] * SUFFIX,
    # Forwards and twice that backwards: the four batches of training, 16 draws, and as many with permuted labels.
    "noise": STEPS * 3 * 16 * (4 + 16 + 16) * (PREFIX + SUFFIX),
}
"""Of the small run; what others say they do is in other words."""


@pytest.mark.parametrize("name", ARITHMETIC)
def test_a_plan_s_arithmetic_is_that_of_the_layers(of_the_small: Callable[[str], Plan], name: str) -> None:
    found = re.findall(r"(\S+) T multiply-adds", of_the_small(name).work)
    assert [1e12 * float(number) for number in found] == pytest.approx([ARITHMETIC[name]], rel=0.005)


OF_SETS = [name for name, analysis in analyses().items() if {"sets", "layers"} <= {*analysis.options.model_fields}]
"""Analyses of recorded layers that can be asked of some sets, and look at no other probes."""


@pytest.mark.parametrize("name", OF_SETS)
def test_a_plan_says_how_many_probes_are_looked_at(recorded: Recorded, name: str) -> None:
    for sets, count in (("test",), SET), (("*",), 2 * SET):
        work = planned(analyses()[name], *recorded(**SMALL), sets=sets).work
        each, said = re.search(r"(\d+) sets of up to", work), re.search(r"(\d+) probes", work)
        assert said, work
        assert int(said[1]) * (int(each[1]) if each else 1) == count, work


@pytest.fixture(scope="module")
def in_shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, nn.Module]:
    """A run in eight shards, none of which has probes of both sets, recorded shard by shard."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "SHARD_SAMPLES", 16)
        return record(tmp_path_factory.mktemp("shards") / "run.zarr", 16, 3, 4, np.arange(128) // 64, batch=16)


@pytest.mark.parametrize("name", analyses())
def test_a_plan_reads_what_is_read(
    in_shards: tuple[Run, nn.Module], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside outputs here and there, by which a network is known; and of other results no more than they hold."""
    analysis, block, read = analyses()[name], Run.block, Counter[str]()
    if analysis.results:
        reads = planned(analysis, *in_shards).reads
        assert 0 < reads <= sum(Run(in_shards[0].path).result(other).nbytes for other in analysis.results)
        return
    call, told = asked(analysis, *in_shards, features="stored")

    def counted(run: Run, path: str, *args: Any, **options: Any) -> Any:
        found = block(run, path, *args, **options)
        read[path] += found.nbytes
        return found

    monkeypatch.setattr(Run, "block", counted)
    call()
    if told.plan.reads:
        assert told.plan.reads <= read.total() <= 1.2 * told.plan.reads, read
    else:
        assert not any(path.startswith("layers/") for path in read), read
