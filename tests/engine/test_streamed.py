"""Networks larger than memory: composites piece by piece are those of whole networks, and one piece is held."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from torch import nn

from featdyn.analysis import analyses
from featdyn.analysis.composites import order as orders
from featdyn.analysis.composites.order import Order, Sizes
from featdyn.analysis.composites.tally import SOFT
from featdyn.capture import Probes, Recorder
from featdyn.compute import Limits, Plan
from featdyn.compute.serial import Serial
from featdyn.errors import ComputeError, FeatdynError, NetworkError
from featdyn.networks import is_skeleton, skeleton
from featdyn.networks.kept_features import KeptFeatures
from featdyn.store import Run, commit_result, schema
from featdyn.store.state_file import StateFile

WORDS, WIDTH, LENGTH, STEPS, SAMPLES = 11, 16, 5, 3, 10


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True))
        return x + self.down(F.gelu(self.up(x)))


class Words(nn.Module):
    """A language model whose places are a buffer that no checkpoint holds, and whose head is its embedding."""

    def __init__(self, by_position: bool = True) -> None:
        super().__init__()
        self.by_position = by_position
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.register_buffer("places", torch.linspace(-1, 1, LENGTH * WIDTH).view(LENGTH, WIDTH), persistent=False)
        self.blocks = nn.Sequential(Block(), Block(), Block())
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.embed(words) + self.places)
        return self.head(x if self.by_position else x[:, -1])


def record(path: Any, make: Callable[[], nn.Module], **options: Any) -> Run:
    random = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model, words = make(), torch.randint(WORDS, (SAMPLES, LENGTH), generator=random)
    targets = words.roll(-1, 1) if model.by_position else words[:, 0]
    probes = Probes(words, targets, {"split": np.array(["train", "test"], dtype=object)[np.arange(SAMPLES) % 2]})
    layers = options.pop("layers", ["blocks.0"])
    with Recorder(model, probes, path, layers=layers, dtype="float32", batch=2, **options) as recorder, torch.no_grad():
        for step in range(STEPS):
            recorder.record(step=step)
            for tensor in model.parameters():
                tensor += 0.3 * tensor.std() * torch.randn(tensor.shape, generator=random)
    return Run(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three blocks of four, four and two probes, in batches of two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "SHARD_SAMPLES", 4)
        return record(tmp_path_factory.mktemp("streamed") / "run.zarr", Words)


CUTS = ("embed", "blocks.0", "blocks.1")


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are smaller here than the parts in which one is checked."""
    monkeypatch.setattr("featdyn.analysis.inputs.prefixes.CHECKING", 0)


class Tight(Serial):
    """This process, as if so many bytes were free: less than a network takes, more than its pieces do."""

    plan: Plan
    room: int = 120_000

    def limits(self) -> Limits:
        return Limits(2**40, 2**40 - self.room, 1, True)

    def admit(self, plan: Plan) -> None:
        self.plan = plan
        super().admit(plan)


def asked(run: Run, workers: Serial | None = None, model: Any = Words, **options: Any) -> xr.Dataset:
    return analyses()["consistency"](
        Run(run.path), model=model, workers=workers, fresh=True, cuts=CUTS, features="recomputed", **options
    )


@pytest.fixture(scope="module")
def whole(run: Run) -> xr.Dataset:
    return asked(run)


def same(found: xr.Dataset, whole: xr.Dataset) -> None:
    xr.testing.assert_identical(found.drop_vars("path").drop_attrs(), whole.drop_vars("path").drop_attrs())


class Counted:
    """Counts the bytes of weights that were read and still live."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = self.most = self.read = 0
        read = StateFile.read

        def counted(file: StateFile, name: str) -> torch.Tensor:
            found = read(file, name)
            self.now, self.read = self.now + found.nbytes, self.read + found.nbytes
            self.most = max(self.most, self.now)
            weakref.finalize(found, self._gone, found.nbytes)
            return found

        patch.setattr(StateFile, "read", counted)

    def _gone(self, size: int) -> None:
        self.now -= size


def test_no_more_than_a_piece_is_held_and_the_bits_are_those_of_whole_networks(
    run: Run, whole: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, workers = Counted(monkeypatch), Tight()
    monkeypatch.setattr(Run, "state", lambda *_: pytest.fail("a whole checkpoint was read"))
    made: list[bool] = []

    def make() -> nn.Module:
        made.append(is_skeleton(model := Words()))
        return model

    found = asked(run, workers, make)
    assert set(found["path"].values) == {"piece by piece"}
    assert made == [True]
    same(found, whole)
    units = 4 * sum(p.numel() for layer in (Block().up, Block().down) for p in layer.parameters())
    assert counted.now == 0
    assert counted.most == units  # attention, the smaller half of a block, is a piece of its own
    assert counted.most <= workers.plan.state["a piece"]
    parameters = WORDS * WIDTH + sum(p.numel() for p in Words().parameters())  # the head's again, as it is a piece
    checked = 2 * 4 * parameters  # the first and the last network are compared with what was recorded
    logits = STEPS * run.schema["outputs/logits"].nbytes
    assert counted.read - checked == workers.plan.reads - logits


@pytest.mark.parametrize(("group", "chunk", "disk"), [*product((1, 2, 3), (0, 1, 7, 1000), (False, True))][::3])
def test_every_order_gives_the_same(
    run: Run, whole: xr.Dataset, group: int, chunk: int, disk: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = orders.cheapest

    def chosen(*given: Any) -> tuple[Order, Plan]:
        return Order(3, STEPS, group, chunk, disk), own(*given)[1]

    monkeypatch.setattr("featdyn.analysis.composites.order.cheapest", chosen)
    same(asked(run, Tight()), whole)


def test_the_order_is_the_cheapest_of_those_that_fit() -> None:
    sizes = Sizes(
        steps=4, cuts=1, blocks=2, batches=8, of_block=4, unit=10, at_cuts=5, prefix=100, suffixes=(100,), behind=4,
        piece=30, stored=0, logits=0, outputs=(0, 0),
    )  # fmt: skip

    def chosen(room: int) -> tuple[Order, Plan]:
        return orders.cheapest(sizes, 0, Limits(room, 0, 1, True), Plan("all", 0, 0), {})

    order, plan = chosen(10**6)  # all at once: weights are read once for each t1 and each t2
    assert (order.group, order.chunk, order.disk, plan.reads) == (2, 32, False, 4 * 200)
    for room in range(170, 800, 10):
        order, plan = chosen(room)
        assert plan.peak() <= room
        cheaper = [one for one in sizes.orders() if sizes.moved(one) < plan.reads]
        assert all(sum((sizes.task(one) | sizes.state(one)).values()) > room for one in cheaper)
    assert chosen(1)[1].peak() == 150  # a piece and what is between two layers; all features on disk
    costly = replace(sizes, prefix=10**6, suffixes=(10**6,))
    assert orders.cheapest(costly, 0, Limits(160, 0, 1, True), Plan("all", 0, 0), {})[0].chunk == 0  # on disk instead


def test_earlier_results_and_stored_features_serve_as_in_memory(
    run: Run, whole: xr.Dataset, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "SHARD_SAMPLES", 4)
    own = record(tmp_path / "run.zarr", Words, layers=list(CUTS))
    options = {"model": Words, "cuts": CUTS, "workers": Tight()}
    first = analyses()["consistency"](Run(own.path, commit=2), **options)
    commit_result(own, "consistency", first)
    found = analyses()["consistency"](Run(own.path), **options)
    assert set(found["source"].values) == {"stored"}
    assert options["workers"].plan.tasks % STEPS == 0
    same(found.drop_vars("source"), whole.drop_vars("source"))


def test_where_layers_are_fused_in_memory_predictions_are_the_same_and_the_rest_to_rounding(tmp_path: Any) -> None:
    make = partial(Words, by_position=False)
    own = record(tmp_path / "run.zarr", make)
    found, whole = asked(own, Tight(), make), asked(own, model=make)
    assert "fused" in whole["path"].values
    for name in whole.data_vars:
        if name in SOFT:
            np.testing.assert_allclose(found[name], whole[name], rtol=1e-4, atol=1e-6)
        else:
            np.testing.assert_array_equal(found[name], whole[name])


def test_what_does_not_fit_is_refused_before_anything_is_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    workers, counted = Tight(), Counted(monkeypatch)
    workers.room = 20_000  # less than a piece and the results take
    with pytest.raises(ComputeError, match=r"piece by piece: needs .* a piece, .* raise --memory-limit"):
        asked(run, workers)
    checked = 2 * 4 * (WORDS * WIDTH + sum(p.numel() for p in Words().parameters()))
    assert counted.read == checked


def test_another_network_and_a_buffer_without_values_are_refused(run: Run) -> None:
    def other() -> nn.Module:
        model = Words()
        model.places *= 2
        return model

    with pytest.raises(NetworkError, match="the model is not the one recorded: with the weights of checkpoint 0"):
        asked(run, Tight(), other)
    with torch.device("meta"):
        model = Words()
    with pytest.raises(FeatdynError, match=r"places has no values, and no checkpoint holds it: give a function"):
        asked(run, Tight(), model)


def test_a_skeleton_keeps_ties_buffers_and_types_and_leaves_torch_as_it_was() -> None:
    model = skeleton(lambda: Words().double())
    assert model.head.weight is model.embed.weight
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    torch.testing.assert_close(model.places, Words().double().places, rtol=0, atol=0)
    with pytest.raises(ZeroDivisionError):
        skeleton(lambda: 1 // 0)
    assert not is_skeleton(nn.Linear(1, 1))


class Seen(Exception):
    """The sizes were told, which is all that was asked for."""


def test_what_orders_are_chosen_by_is_counted_by_hand(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Sizes] = []

    def seen(sizes: Sizes, *_: Any) -> None:
        told.append(sizes)
        raise Seen

    monkeypatch.setattr("featdyn.analysis.composites.order.cheapest", seen)
    with pytest.raises(Seen):
        asked(run, Tight())
    (sizes,) = told
    batch, embed, block = 2, 4 * WORDS * WIDTH, 4 * sum(p.numel() for p in Block().parameters())
    behind = [3 * block + embed, 2 * block + embed, block + embed]  # the head is the embedding again
    assert (sizes.steps, sizes.cuts, sizes.blocks, sizes.batches, sizes.of_block) == (STEPS, 3, 3, 5, 2)
    assert sizes.unit == 4 * batch * LENGTH * WIDTH  # no block comes apart where it is wider
    assert sizes.at_cuts == 4 * batch * 3 * LENGTH * WIDTH
    assert (sizes.prefix, sizes.suffixes) == (embed + 2 * block, tuple(behind))
    assert (sizes.stored, sizes.behind) == (0, 8)  # adding places, two pieces of each block, the head
    assert sizes.outputs[1] == 2 * sizes.outputs[0] >= 2 * 4 * batch * LENGTH * WORDS  # a block has two batches
    assert sizes.logits == 4 * SAMPLES * LENGTH * WORDS
    assert sizes.piece >= 4 * sum(p.numel() for layer in (Block().up, Block().down) for p in layer.parameters())


@pytest.mark.parametrize(("group", "chunk", "disk"), [(1, 7, False), (2, 0, True), (3, 4, True), (2, 1, False)])
def test_an_order_moves_and_holds_what_it_says(
    run: Run, group: int, chunk: int, disk: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By counting: what is read of weights, and of features on disk what is put there and read again."""
    told: list[Sizes] = []
    order = Order(3, STEPS, group, chunk, disk)

    own = orders.cheapest

    def chosen(sizes: Sizes, *given: Any) -> tuple[Order, Plan]:
        told.append(sizes)
        return order, own(sizes, *given)[1]

    monkeypatch.setattr("featdyn.analysis.composites.order.cheapest", chosen)
    counted, kept = Counted(monkeypatch), OnDisk(monkeypatch)
    asked(run, Tight())
    (sizes,) = told
    checked = 2 * 4 * (WORDS * WIDTH + sum(p.numel() for p in Words().parameters()))
    weights = replace(sizes, at_cuts=0, unit=0, logits=0)
    assert counted.read - checked <= weights.moved(order)
    assert kept.moved <= replace(sizes, prefix=0, suffixes=(0,), logits=0).moved(order)
    assert kept.most <= sizes.on_disk(order)
    if disk and chunk:
        assert kept.moved == replace(sizes, prefix=0, suffixes=(0,), logits=0).moved(order)
    assert (kept.moved > 0) == (disk or not chunk)


class OnDisk:
    """Counts the bytes of features that were put on disk and read, and the most that lay there."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.moved = self.most = self._now = 0
        put, get, drop = KeptFeatures.put, KeptFeatures.get, KeptFeatures._drop
        sizes: dict[tuple[int, Any], int] = {}

        def counted_put(kept: KeptFeatures, key: Any, features: torch.Tensor) -> None:
            put(kept, key, features)
            if kept._folder is not None:
                sizes[id(kept), key] = features.nbytes
                self.moved, self._now = self.moved + features.nbytes, self._now + features.nbytes
                self.most = max(self.most, self._now)

        def counted_get(kept: KeptFeatures, key: Any) -> torch.Tensor:
            found = get(kept, key)
            self.moved += found.nbytes * (kept._folder is not None)
            return found

        def counted_drop(kept: KeptFeatures, key: Any) -> None:
            drop(kept, key)
            self._now -= sizes.pop((id(kept), key), 0)

        patch.setattr(KeptFeatures, "put", counted_put)
        patch.setattr(KeptFeatures, "get", counted_get)
        patch.setattr(KeptFeatures, "_drop", counted_drop)
