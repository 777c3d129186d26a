"""What analyses are fed with, piece by piece: vectors, moments by folds, choices of probes, halves of a network."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn.analysis.composites.halves import apart
from featdyn.analysis.features import folded_moments
from featdyn.analysis.inputs import feature_source, layer_vectors
from featdyn.analysis.inputs.probe_sets import ProbeSets, _balanced
from featdyn.analysis.status import ALIKE, DEAD, FEW, NOT_FINITE, ZERO
from featdyn.capture.layers import dims
from featdyn.classes import class_logits
from featdyn.errors import FeatdynError
from featdyn.statistics.jackknife import jackknife_interval
from featdyn.store import ArraySpec, Schema
from featdyn_kernels.moments import Moments, accumulate

SHAPES = {(6,): ("feature",), (2, 3): ("position", "feature"), (3, 2, 2): ("channel", "height", "width")}


def run_of(arrays: dict[str, np.ndarray], shard: int, mask: np.ndarray | None = None) -> Any:
    """Return a run of arrays (sample, ...), as recorded at two checkpoints: the second holds the negatives."""
    kinds = {path: ("sample", *SHAPES.get(x.shape[1:], ("class",))) for path, x in arrays.items()}
    specs = tuple(ArraySpec(path, kinds[path], x.shape, str(x.dtype)) for path, x in arrays.items())
    schema = Schema(specs, len(next(iter(arrays.values()))), shard, "none")
    nodes = dict.fromkeys([*arrays, *([] if mask is None else ["inputs/mask"])])
    return SimpleNamespace(
        path="r.zarr", schema=schema, nodes=nodes, values=lambda path: mask,
        block=lambda path, t, block: (-1) ** t * arrays[path][schema.block_slice(block)],
    )  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shard", [1, 4, 16])
@pytest.mark.parametrize("dtype", ["float16", "float32", "int16"])
def test_a_probe_is_one_vector(
    shape: tuple[int, ...], padded: bool, shard: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_vectors, "PIECE", 15)  # two probes with positions at once
    rng = np.random.default_rng(0)
    values, real = rng.normal(0, 9, (11, *shape)).astype(dtype), rng.random((11, 2)) < 0.5
    real[:, 0] |= ~real.any(1)
    run = run_of({"layers/a/activation": values}, shard, real if padded else None)
    places = np.array([0, 3, 4, 9, 10])
    found = layer_vectors.chosen_vectors(run, "layers/a/activation", 1, places)
    expected = {1: lambda x, m: x, 2: lambda x, m: x[m].mean(0), 3: lambda x, m: x.mean((1, 2))}[len(shape)]
    every = np.ones(2, bool)
    rows = [expected(-values[i].astype(np.float64), real[i] if padded else every) for i in places]
    np.testing.assert_allclose(found, rows, rtol=1e-12)
    assert found.dtype == np.float64
    member = np.isin(np.arange(11), places)
    pieces = list(layer_vectors.pieces(run, member))
    assert [b for b, _, _ in pieces] == sorted({int(i) // shard for i in places})
    assert np.concatenate([p for _, _, p in pieces]).tolist() == places.tolist()
    for block, mine, own in pieces:
        assert (np.flatnonzero(mine) + block * shard).tolist() == own.tolist()


@pytest.mark.parametrize(("width", "fits"), [(4096, True), (4097, False)])
def test_outputs_are_one_vector_up_to_a_size(width: int, fits: bool) -> None:
    run = run_of({"outputs/logits": np.zeros((3, width), np.float32)}, 4)
    if fits:
        assert layer_vectors.outputs(run) == width
        assert layer_vectors.vectors(run, "outputs/logits", 0, 0, np.ones(3, bool)).shape == (3, width)
        return
    with pytest.raises(FeatdynError, match="only up to 4096 numbers"):
        layer_vectors.outputs(run)


def test_outputs_of_several_axes_are_one_vector_and_not_averaged() -> None:
    values = np.random.default_rng(2).normal(size=(5, 3, 2, 2)).astype(np.float32)
    run = run_of({"outputs/logits": values}, 4)
    assert layer_vectors.outputs(run) == 12
    found = layer_vectors.chosen_vectors(run, "outputs/logits", 0, np.arange(5))
    np.testing.assert_array_equal(found, values.reshape(5, 12))


@pytest.mark.parametrize("shard", [4, 16])
def test_moments_by_folds_are_those_of_their_probes(shard: int) -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(13, 6)).astype(np.float32)
    run, path = run_of({"layers/a/activation": values}, shard), "layers/a/activation"
    member, fold = rng.random(13) < 0.8, np.arange(13) % 3
    targets = rng.normal(size=(13, 2))
    # The other set shares probes with it, and its folds are others.
    parts, other = folded_moments.folded(
        run, run.schema[path], 0, [member, ~member | (fold == 1)], [fold, np.arange(13) // 7],
        lambda block, mine, places: {"outputs": targets[places]},
    )  # fmt: skip
    assert (len(parts), len(other)) == (3, 2)

    def check(found: Moments, chosen: np.ndarray) -> None:
        x, y = values[chosen].astype(np.float64), targets[chosen]
        assert found.count == len(x)
        np.testing.assert_allclose(found.scatter, (x - x.mean(0)).T @ (x - x.mean(0)), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.cross_scatter, (x - x.mean(0)).T @ (y - y.mean(0)), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.output_mean, y.mean(0), rtol=1e-6)

    check(folded_moments.whole(parts), member)
    check(folded_moments.whole(other), ~member | (fold == 1))
    for g, (one, rest) in enumerate(zip(parts, folded_moments.left_out(parts), strict=True)):
        check(one, member & (fold == g))
        check(rest, member & (fold != g))
    assert list(folded_moments.left_out(parts[:1])) == []


def test_limits_are_the_jackknifes_on_the_scale_of_the_measure() -> None:
    others = [0.2, 0.25, 0.3, 0.35]
    for valid, span in (((0.0, 1.0), (0.0, 1.0)), ((0.0, 0.3), (0.0, 0.3))):
        expected = jackknife_interval(0.27, others, bounds=span)
        assert folded_moments.bounds(0.27, others, valid) == (expected.low, expected.high, "")
    log = jackknife_interval(np.log(0.27), np.log(others).tolist())
    assert folded_moments.bounds(0.27, others, None) == pytest.approx((np.exp(log.low), np.exp(log.high), ""))
    plain = jackknife_interval(0.27, [0.0, *others], bounds=(0.0, np.inf))  # of zero there is no logarithm
    assert folded_moments.bounds(0.27, [0.0, *others], None) == (plain.low, plain.high, "")
    for few in (others[:3], [*others, np.nan]):
        assert folded_moments.bounds(0.27, few)[2] == FEW
        assert np.isnan(folded_moments.bounds(0.27, few)[:2]).all()
    assert folded_moments.bounds(0.3, [0.3] * 4)[2] == ALIKE


def test_features_without_a_measure_have_a_reason() -> None:
    x = np.random.default_rng(0).normal(size=(9, 3))
    eps = layer_vectors.EPS
    wave = np.tile([1.0, -1.0], 5)[:9, None]
    for values, why in (
        (x, ""), (x[:2], ""), (x[:1], FEW), (0 * x, ZERO), (0 * x + 2, DEAD), (x * np.nan, NOT_FINITE),
        (1 + 0.1 * eps * wave, DEAD), (1 + 10 * eps * wave, ""), (np.hstack([0 * x + 1, 1e-12 * x]), ""),
    ):  # fmt: skip
        with np.errstate(invalid="ignore"):
            assert folded_moments.flaw(accumulate(values)) == why


@settings(max_examples=60)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 99), st.data())
def test_each_kind_has_its_share_of_a_choice(counts: list[int], seed: int, data: st.DataObject) -> None:
    kinds = [(k,) for k, n in enumerate(counts) for _ in range(n)]
    samples = data.draw(st.integers(1, len(kinds)))
    found = _balanced(kinds, samples, np.random.default_rng(seed))
    assert len(set(found.tolist())) == samples
    assert found.tolist() == sorted(found)
    assert 0 <= found[0] <= found[-1] < len(kinds)
    chosen = np.bincount([kinds[i][0] for i in found], minlength=len(counts))
    share = samples / len(kinds) * np.array(counts)
    assert (np.abs(chosen - share) < 2).all()


def test_chance_decides_which_probes_of_a_kind_are_chosen() -> None:
    kinds = [(0,)] * 20 + [(1,)] * 4
    often = np.zeros(24)
    for seed in range(600):
        often[_balanced(kinds, 6, np.random.default_rng(seed))] += 1
    np.testing.assert_allclose(often / 600, 0.25, atol=0.09)  # five standard errors


@pytest.mark.parametrize("known", [("dataset", "dataset_index"), ("dataset_index",), ("origin", "dataset_index")])
def test_copies_are_of_one_image_of_one_part_of_one_data_set(known: tuple[str, ...]) -> None:
    """Images of two data sets, each with training and test images that are counted from 0; test images have copies."""
    rng = np.random.default_rng(0)
    rows = [(d, "train", i) for d in ("mnist", "svhn") for i in range(12)]
    rows += [(d, split, i) for d in ("mnist", "svhn") for split in ("test", "corrupted") for i in range(12)]
    rows = [rows[i] for i in rng.permutation(len(rows))]
    images = [(d if "dataset" in known or "origin" in known else "", split == "train", i) for d, split, i in rows]
    columns = dict(zip(("dataset", "split", "dataset_index"), map(np.array, zip(*rows, strict=True)), strict=True))
    columns["origin"] = np.array(["/".join(map(str, image)) for image in images])
    coords = {name: SimpleNamespace(values=columns[name]) for name in (*known, "split")}
    run = SimpleNamespace(path="r.zarr", coords=coords, schema=SimpleNamespace(samples=len(rows)))
    origins = ProbeSets.of(run).origins  # type: ignore[arg-type]
    for i, image in enumerate(images):
        assert (origins == origins[i]).tolist() == [other == image for other in images]


def test_a_choice_by_origin_takes_one_probe_of_each_image() -> None:
    origins = np.array([0, 0, 0, 1, 2, 2, 5, 5])
    members = [np.arange(8) < 6, np.arange(8) >= 6]
    sets, run = ProbeSets(["a", "b"], members, origins), SimpleNamespace(coords={})
    seen: set[int] = set()
    for seed in range(20):
        one, other = sets.choose(run, 9, seed, per_origin=True)  # type: ignore[arg-type]
        assert (origins[one].tolist(), origins[other].tolist()) == ([0, 1, 2], [5])
        assert len(sets.choose(run, 2, seed, per_origin=True)[0]) == 2  # type: ignore[arg-type]
        seen |= set(one.tolist())
    assert seen == set(range(6))
    np.testing.assert_allclose(sets.weights.sum(0), 1)
    assert sets.sizes == [6, 2]
    assert sets.index("b") == 1
    assert not sets.member("c").any()


LOGITS = np.random.default_rng(3).normal(size=(8, 4)) * 5
LABELS = np.arange(8) % 4


def stitched(logits: np.ndarray) -> Any:
    """Return what a suffix bank says of such logits ``(N, classes)``."""
    z = torch.as_tensor(logits)
    own = z[torch.arange(len(z)), torch.as_tensor(LABELS)]
    others = z.clone()
    others[torch.arange(len(z)), torch.as_tensor(LABELS)] = -torch.inf
    prediction = torch.where(z.isnan().any(1), -1, z.argmax(1))
    return SimpleNamespace(
        predictions=prediction[None], loss=(z.logsumexp(1) - own)[None], margin=(own - others.amax(1))[None]
    )


def test_a_composite_is_its_network_within_a_tolerance() -> None:
    assert not apart(stitched(LOGITS), 0, LABELS, LOGITS, 1e-9).any()
    scale, rows = np.abs(LOGITS).max(), np.arange(8)
    moved = LOGITS.copy()
    moved[rows, LABELS] += np.where(rows % 2, 0.9, 3.0) * 0.01 * scale  # margins move as far
    np.testing.assert_array_equal(apart(stitched(moved), 0, LABELS, LOGITS, 0.01), rows % 2 == 0)
    assert not apart(stitched(moved), 0, LABELS, LOGITS, 0.02).any()
    one = LOGITS[:, :1]
    two = np.hstack([np.zeros_like(one), one])
    binary = LABELS % 2
    found = stitched(np.hstack([two, np.full_like(two, -np.inf)]))
    wrong = apart(found, 0, binary, one, 1e-9)
    assert not wrong[LABELS < 2].any()


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_of_logits_that_are_no_numbers_the_class_is_compared(odd: float) -> None:
    own, other = LOGITS.copy(), LOGITS.copy()
    own[0, 1], other[0, 1] = odd, odd
    assert not apart(stitched(other), 0, LABELS, own, 1e-9).any()
    other[0] = [9.0, 0.0, 0.0, 0.0]
    assert apart(stitched(other), 0, LABELS, own, 1e-9).tolist() == [True] + [False] * 7
    down = LOGITS.copy()
    down[2, 3] = -np.inf  # a class that is masked out is a number like others
    assert not apart(stitched(down), 0, LABELS, down, 1e-9).any()


@pytest.mark.parametrize(
    ("shape", "positions", "names"),
    [
        ((5,), None, "feature"),
        ((5, 6), None, "position feature"),
        ((5, 6, 7), None, "channel height width"),
        ((5, 6, 7, 8), None, "axis0 axis1 axis2 axis3"),
        ((), None, ""),
        ((5,), True, "position"),
        ((5, 6), True, "position feature"),
        ((5, 6, 7), True, "position axis1 axis2"),
        ((5,), False, "feature"),
        ((5, 6), False, "axis0 axis1"),
        ((5, 6, 7), False, "axis0 axis1 axis2"),
    ],
)
def test_axes_have_names(shape: tuple[int, ...], positions: bool | None, names: str) -> None:
    assert " ".join(dims(shape, positions=positions)) == names


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_features_are_read_from_the_store_where_it_holds_what_the_network_hands_on(exact: bool, masked: bool) -> None:
    real = np.array([[True, True], [True, False], [True, True]])
    run = run_of({"layers/texts/activation": np.zeros((3, 2, 3), np.float32)}, 4, real)
    as_it_is = ArraySpec("layers/kept/activation", ("sample", "feature"), (3, 6), "float32")
    others: dict[str, dict[str, Any]] = {
        "rounded": {"dtype": "float16"},
        "pooled": {"attrs": {"pool": "mean"}},
        "other": {},
    }
    more = [replace(as_it_is, path=f"layers/{name}/activation", **of) for name, of in others.items()]
    run.schema = replace(run.schema, arrays=(*run.schema.arrays, as_it_is, *more))
    shapes = {"texts": (2, 3), "kept": (6,), "rounded": (6,), "pooled": (6,), "other": (7,), "absent": (6,)}
    cuts: Any = [SimpleNamespace(name=name, shape=shape) for name, shape in shapes.items()]
    expected = {"kept", *(["texts"] if masked else []), *([] if exact else ["rounded"])}
    assert feature_source.stored_layers(run, cuts, exact, masked=masked) == expected


def test_one_logit_is_that_of_class_1_against_class_0() -> None:
    one, two = np.array([[[-2.0], [3.0]]]), np.array([[1.0, 2.0]])
    assert class_logits(one).tolist() == [[[0.0, -2.0], [0.0, 3.0]]]
    assert class_logits(two) is two
