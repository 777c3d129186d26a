"""Rewinding networks larger than memory: piece by piece it is what it is of whole networks, and one piece is held."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xarray as xr

from featdyn.analysis import analyses
from featdyn.analysis.composites import order as orders
from featdyn.analysis.composites.order import Order
from featdyn.analysis.composites.rewind.streamed import RewindSizes
from featdyn.compute import Plan
from featdyn.compute.serial import Serial
from featdyn.errors import ComputeError, NetworkError
from featdyn.store import Run, schema
from tests.engine.test_streamed import CUTS, LENGTH, SAMPLES, STEPS, WORDS, Counted, Tight, Words, record, small_files

__all__ = ["small_files"]  # a fixture of all tests here

MAKE = partial(Words, by_position=False)
SEGMENTS = {
    "embed": ("embed.",),
    "blocks.0": ("blocks.0.",),
    "blocks.1": ("blocks.1.",),
    "head": ("blocks.2.", "head."),
}
"""The weights of each segment, by how their names begin."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A class for each probe, in blocks of four, four and two, in batches of two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "SHARD_SAMPLES", 4)
        return record(tmp_path_factory.mktemp("rewound") / "run.zarr", MAKE)


def asked(run: Run, workers: Serial | None = None, model: Any = MAKE, t2: Any = "all") -> xr.Dataset:
    return analyses()["rewind"](Run(run.path), model=model, workers=workers, fresh=True, cuts=CUTS, t2=t2)


def same(found: xr.Dataset, whole: xr.Dataset) -> None:
    xr.testing.assert_identical(found.drop_attrs(deep=False), whole.drop_attrs(deep=False))  # they say when


@pytest.fixture(scope="module")
def whole(run: Run) -> xr.Dataset:
    return asked(run)


def agreement(run: Run, segment: str, t1: int, t2: int) -> float:
    """Return the share of probes for which plain torch predicts the same with a segment of t1 and without (float64)."""
    words = torch.randint(WORDS, (SAMPLES, LENGTH), generator=torch.Generator().manual_seed(0))
    early, late = run.state(t1), run.state(t2)

    def predicted(put_back: tuple[str, ...]) -> torch.Tensor:
        state = {name: (early if name.startswith(put_back) else late)[name].double() for name in late}
        model = MAKE().double()
        model.head.weight = torch.nn.Parameter(torch.empty_like(model.head.weight))  # apart from the embedding
        model.load_state_dict(state)
        with torch.no_grad():
            x = model.blocks(F.embedding(words, model.embed.weight) + model.places)
            return model.head(x[:, -1]).argmax(-1)

    return float((predicted(SEGMENTS[segment]) == predicted(("nothing",))).double().mean())


@pytest.mark.parametrize("t2", ["all", "last", 1])
def test_no_more_than_a_piece_is_held_and_the_result_is_that_of_whole_networks(
    run: Run, t2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory, counted, workers = asked(run, t2=t2), Counted(monkeypatch), Tight()
    monkeypatch.setattr(Run, "state", lambda *_: pytest.fail("a whole checkpoint was read"))
    found = asked(run, workers, t2=t2)
    assert workers.plan.work.endswith("piece by piece")
    same(found, in_memory)
    assert counted.now == 0
    assert counted.most <= workers.plan.state["a piece"]
    checked = 2 * 4 * (WORDS * 16 + sum(p.numel() for p in MAKE().parameters()))  # first and last, beside the recording
    assert counted.read - checked == workers.plan.reads - STEPS * run.schema["outputs/logits"].nbytes


def test_segments_are_those_of_plain_torch(run: Run) -> None:
    found, each = asked(run, Tight()), set[float]()
    shares = found["agreement"].weighted(found["set_size"]).mean("set")
    for segment, t1, t2 in product(SEGMENTS, range(STEPS), range(STEPS)):
        wanted = agreement(run, segment, t1, t2)
        each.add(wanted)
        assert float(shares.sel(segment=segment, t1=t1, t2=t2)) == pytest.approx(wanted)
    assert len(each) > 3  # else it would say little


@pytest.mark.parametrize(("group", "chunk", "disk"), [*product((1, 2, 3), (0, 1, 7, 1000), (False, True))][::3])
def test_every_order_gives_the_same(
    run: Run, whole: xr.Dataset, group: int, chunk: int, disk: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = orders.cheapest

    def chosen(*given: Any) -> tuple[Order, Plan]:
        return Order(3, STEPS, group, chunk, disk), own(*given)[1]

    monkeypatch.setattr(orders, "cheapest", chosen)
    same(asked(run, Tight()), whole)


def test_what_lies_on_disk_and_what_is_read_again_counts() -> None:
    sizes = RewindSizes(
        steps=4, cuts=2, blocks=2, batches=8, of_block=4, unit=10, at_cuts=5, prefix=100, suffixes=(150, 60), behind=4,
        piece=30, stored=0, logits=0, outputs=(0, 0), t2s=3,
    )  # fmt: skip
    once, halves = Order(2, 4, 2, 64, False), Order(2, 4, 1, 4, False)
    # Each t2: its prefix, all of each t1 (100 + 60), and what is behind the first cut; each t joined with itself.
    assert sizes.moved(once) == 3 * (100 + 4 * 160 + 150) + 4 * (100 + 150)
    # In two groups, of which four batches pass at once: units of each cut by themselves.
    assert sizes.moved(halves) == 2 * (3 * (100 + 4 * 160 + 210 * 4) + 4 * (100 + 210))
    # Outputs of each probe are read once, in whatever groups, where a checkpoint is joined with itself.
    assert replace(sizes, logits=7).moved(halves) == sizes.moved(halves) + 4 * 7
    assert sizes.state(once)["features at cuts"] == (1 + 4) * 8 * 5
    on_disk = Order(2, 4, 2, 64, True)
    assert (sizes.state(on_disk)["features at cuts"], sizes.on_disk(on_disk)) == (0, (1 + 4) * 8 * 5)
    assert sizes.moved(on_disk) > sizes.moved(once)
    assert sizes.moved(Order(2, 4, 2, 0, False)) > sizes.moved(once)


def test_what_does_not_fit_is_refused_before_anything_is_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    workers, counted = Tight(), Counted(monkeypatch)
    workers.room = 20_000  # less than a piece and the results take
    with pytest.raises(ComputeError, match=r"piece by piece: needs .* a piece, .* raise --memory-limit"):
        asked(run, workers)
    assert counted.read == 2 * 4 * (WORDS * 16 + sum(p.numel() for p in MAKE().parameters()))


def test_another_network_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the first and last checkpoint before, and by any in between when each is joined with itself."""

    def other() -> Words:
        model = MAKE()
        model.places *= 2
        return model

    with pytest.raises(NetworkError, match="the model is not the one recorded: with the weights of checkpoint 0"):
        asked(run, Tight(), other)
    block = Run.block

    def changed(self: Run, path: str, checkpoint: int, index: int) -> Any:
        found = block(self, path, checkpoint, index)
        return found + 9 * np.arange(WORDS) if (path, checkpoint) == ("outputs/logits", 1) else found

    monkeypatch.setattr(Run, "block", changed)
    with pytest.raises(NetworkError, match="for 1 of 3 checkpoints it gives other outputs"):
        asked(run, Tight())
