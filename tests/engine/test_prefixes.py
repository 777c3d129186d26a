"""Features of networks larger than memory: those of whole networks, made piece by piece, each piece read once."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from torch import nn

from featdyn.analysis import analyses
from featdyn.analysis.features.drift import weight_distance
from featdyn.analysis.inputs.prefixes import PrefixOrder, PrefixSizes
from featdyn.capture import Probes, Recorder
from featdyn.compute import Limits, Plan
from featdyn.compute.plan import resident
from featdyn.compute.serial import Serial
from featdyn.errors import ComputeError, FeatdynError
from featdyn.store import Run, schema
from tests.engine.forked import alone
from tests.engine.memory import RESET, peak
from tests.engine.test_streamed import CUTS, Counted, Words
from tests.engine.test_streamed import record as record_words

SAMPLES, STEPS = 11, 3
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "words": (Words, CUTS),
    "images": (lambda: Images(), ("stem.1", "add", "pool")),
}
OVERHEAD = 2**21
"""Bytes that Python and xarray take whatever the run."""
OPTIONS: dict[str, dict[str, Any]] = {"drift": {"samples": 4}, "density": {"samples": 4, "permutations": 19}}
COMPOSITES: dict[str, dict[str, Any]] = {"rewind": {"t2": "all"}}


class Images(nn.Module):
    """Convolutions with BatchNorm, steps in place, a shortcut, and a tensor that no module returns."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.deep = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, padding=1))
        self.pool, self.head = nn.AdaptiveAvgPool2d(2), nn.Linear(24, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = F.relu(x + self.deep(x), inplace=True)
        return self.head(self.pool(x).flatten(1))


def record_images(path: Path) -> Run:
    """Record some probes in shards of four, with three, one and so on in a batch."""
    random = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model, split = Images(), np.array(["train", "test"], dtype=object)[np.arange(SAMPLES) % 2]
    probes = Probes(torch.randn(SAMPLES, 2, 5, 5, generator=random), torch.arange(SAMPLES) // 2 % 3, {"split": split})
    with Recorder(model, probes, path, layers=["head"], dtype="float32", batch=3) as recorder, torch.no_grad():
        for step in range(STEPS):
            recorder.record(step=step)
            for tensor in (*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())):
                tensor += 0.3 * torch.rand(tensor.shape, generator=random)
    return Run(path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "SHARD_SAMPLES", 4)
        folder = tmp_path_factory.mktemp("prefixes")
        return {"words": record_words(folder / "words", Words), "images": record_images(folder / "images")}


class Tight(Serial):
    """This process, as if a network did not fit; ``room`` are the bytes that plans may take, None for any."""

    plan: Plan
    room: int | None = None

    def limits(self) -> Limits:
        return Limits(self.room, 0, 1, True)

    def admit(self, plan: Plan) -> None:
        self.plan = plan
        super().admit(plan)


def asked(run: Run, kind: str, name: str, workers: Serial | None = None) -> xr.Dataset:
    make, cuts = CASES[kind]
    found = analyses()[name](Run(run.path), model=make, workers=workers, fresh=True, cuts=cuts, **OPTIONS[name])
    return found.drop_attrs()


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a network takes, it is too large."""
    monkeypatch.setattr("featdyn.analysis.driver.too_large", lambda run, workers: isinstance(workers, Tight))


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(("kind", "name"), [*product(CASES, OPTIONS)])
def test_results_are_those_of_whole_networks_and_a_piece_is_read_once(
    runs: dict[str, Run], kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for each checkpoint: by counting the bytes that are read of weights."""
    run = runs[kind]
    wanted = asked(run, kind, name)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "state", lambda *_: pytest.fail("a whole checkpoint was read"))
        counted, workers = Counted(patch), Tight()
        found = asked(run, kind, name, workers)
    xr.testing.assert_identical(found, wanted)
    assert counted.now == 0
    assert counted.most <= workers.plan.state["a piece"]
    assert "prefixes piece by piece" in workers.plan.work
    model, names = CASES[kind][0](), {"images": ["stem", "deep"], "words": ["embed", "blocks.0", "blocks.1"]}[kind]
    prefix = sum(t.nbytes for part in names for t in model.get_submodule(part).state_dict().values())
    whole = sum(t.nbytes for t in model.state_dict().values())  # the first and the last are compared with the outputs
    assert counted.read == 2 * whole + STEPS * prefix


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(("chunk", "disk"), [*product((0, 1, 3, 100), (False, True))])
def test_every_order_gives_the_same(
    runs: dict[str, Run], chunk: int, disk: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = asked(runs["images"], "images", "density")
    monkeypatch.setattr(PrefixSizes, "orders", lambda self: [PrefixOrder(chunk, disk)])
    xr.testing.assert_identical(asked(runs["images"], "images", "density", Tight()), wanted)


def test_the_order_is_the_cheapest_of_those_that_fit() -> None:
    sizes = PrefixSizes(
        steps=3, batches=8, unit=10, at_cuts=5, weights=100, pieces=4, piece=30, asked=2
    )  # fmt: skip

    def chosen(room: int) -> tuple[PrefixOrder, Plan]:
        return sizes.cheapest(Plan("all", 0, 7, state={"own": 1}), Limits(room, 0, 1, True))

    order, plan = chosen(10**6)  # weights are read once for each checkpoint
    assert (order, plan.reads) == (PrefixOrder(8, False), 7 + 3 * 100)
    fitting = [chosen(room) for room in range(41, 400, 5)]
    for room, (_, plan) in zip(range(41, 400, 5), fitting, strict=True):
        assert plan.peak() <= room
        cheaper = [one for one in sizes.orders() if sizes.moved(one) + 7 < plan.reads]
        assert all(1 + sum(sizes.state(one).values()) > room for one in cheaper)
    assert {order.disk for order, _ in fitting} == {False, True}
    assert chosen(1)[0] == PrefixOrder(0, True)  # the smallest, which is then refused
    costly = PrefixSizes(**vars(sizes) | {"weights": 10**6})
    assert costly.cheapest(Plan("all", 0, 0), Limits(40, 0, 1, True))[0].chunk == 0  # between pieces on disk instead


WIDTH, LAYERS = 800, 24


def taken(tmp_path: Path, name: str) -> tuple[int, Plan]:
    """Return the bytes that an analysis takes of a network that does not fit, and its plan; changes the process."""
    weight_distance.HELD = 2**21
    width, layers = WIDTH, LAYERS

    def make() -> nn.Module:
        return nn.Sequential(*(nn.Linear(width, width) for _ in range(layers)))

    torch.manual_seed(0)
    model, split = make(), np.array(["train", "test"], dtype=object)[np.arange(64) % 2]
    probes = Probes(torch.randn(64, width), torch.arange(64) % 3, {"split": split})
    options: dict[str, Any] = {"layers": [f"{layers - 1}"], "dtype": "float32", "batch": 32, "gradients": False}
    with Recorder(model, probes, tmp_path / "run.zarr", **options) as recorder, torch.no_grad():
        for step in range(2):
            recorder.record(step=step)
            model[0].weight += 0.01
    del model
    told: list[Plan] = []
    workers = Serial(resident() + 2**27)  # into which four times 62 MB of weights do not go
    vars(workers)["admit"] = told.append

    def call() -> None:
        analyses()[name](
            Run(tmp_path / "run.zarr"),
            model=make,
            workers=workers,
            fresh=True,
            cuts=("20", "21"),
            **(OPTIONS | COMPOSITES)[name],
        )

    call()  # libraries and kernels are loaded
    return min(peak(call) for _ in range(3)), told[0]  # what passes leave to the allocator counts now and then


@pytest.mark.skipif(not RESET.exists(), reason="needs /proc")
@pytest.mark.parametrize("name", OPTIONS | COMPOSITES)
def test_the_plan_is_the_memory_that_is_taken(tmp_path: Path, name: str) -> None:
    """Of a network whose weights take more than that."""
    found, plan = alone(taken, tmp_path, name)
    weights = 4 * LAYERS * (WIDTH * WIDTH + WIDTH)
    assert "piece by piece" in plan.work
    assert found <= plan.peak() + OVERHEAD
    assert plan.peak() < weights / 2


@pytest.mark.usefixtures("large")
def test_what_needs_a_whole_network_says_so_before_one_is_made(runs: dict[str, Run]) -> None:
    run, made = runs["images"], list[int]()

    def make() -> nn.Module:
        made.append(1)
        return Images()

    for name in ("controls", "batchnorm", "averaging", "interactions", "tangent_kernel"):
        said = rf"{name} of a network as a whole \(piece by piece go .*, d.* needs .* of memory .*raise --memory-limit"
        tight = Tight()
        tight.room = 1000
        with pytest.raises(ComputeError, match=said):
            analyses()[name](Run(run.path), model=make, workers=tight, fresh=True)
    assert not made


class Branches(nn.Module):
    """What it does depends on values, so that no graph says it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(x) if x.sum() > 0 else x)


@pytest.mark.usefixtures("large")
def test_a_network_that_has_no_graph_is_refused_or_its_recorded_layers_are_taken(tmp_path: Path) -> None:
    probes = Probes(torch.rand(8, 4), torch.arange(8) % 3)
    with Recorder(Branches(), probes, tmp_path / "run.zarr", layers=["one"], dtype="float32") as recorder:
        recorder.record(step=0)
    run, ask = Run(tmp_path / "run.zarr"), analyses()["density"]
    said = "its weights do not fit into memory, and without them only torch.fx takes it apart .torch.fx: "
    with pytest.raises(FeatdynError, match=said):
        ask(run, model=Branches, workers=Tight(), cuts=("two",))
    with pytest.raises(FeatdynError, match=said):
        analyses()["consistency"](run, model=Branches, workers=Tight(), cuts=("one",))
    assert ask(run, model=Branches, workers=Tight(), cuts=("one",), samples=8).sizes["cut"] == 1


@pytest.mark.usefixtures("large")
def test_what_does_not_fit_is_refused_before_anything_is_made(
    runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = Tight()
    workers.room = 1000
    monkeypatch.setattr("featdyn.analysis.inputs.prefixes.Prefixes.at", lambda *_: pytest.fail("features were made"))
    with pytest.raises(ComputeError, match=r"prefixes piece by piece: needs .* a piece, .* raise --memory-limit"):
        asked(runs["images"], "images", "density", workers)
