"""How layers and outputs are laid out in a recording: axes, pools and masks, written out case by case."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from featdyn.capture.axis import Axis
from featdyn.capture.layers import dims
from featdyn.capture.layout import Layout, layout, picked_outputs, unsure_positions
from featdyn.capture.outputs import Outputs
from featdyn.capture.tap import LayerError
from featdyn.classes import IGNORED


@pytest.mark.parametrize(
    ("shape", "positions", "names"),
    [
        ((5,), None, "feature"),
        ((5, 4), None, "position feature"),
        ((5, 4, 3), None, "channel height width"),
        ((5, 4, 3, 2), None, "axis0 axis1 axis2 axis3"),
        ((5,), True, "position"),
        ((5, 4), True, "position feature"),
        ((5, 4, 3), True, "position axis1 axis2"),
        ((5,), False, "feature"),
        ((5, 4), False, "axis0 axis1"),
        ((5, 4, 3), False, "axis0 axis1 axis2"),
    ],
)
def test_axes_are_named_by_their_number_and_what_is_known(
    shape: tuple[int, ...], positions: bool | None, names: str
) -> None:
    assert dims(shape, positions=positions) == tuple(names.split())


@pytest.mark.parametrize(
    ("turned", "axis", "pool", "mask", "kept", "shape", "positions"),
    [
        ((5, 4), Axis(), "none", None, "none", (5, 4), True),
        ((5, 4), Axis(), "none", 5, "none", (5, 4), True),
        ((5, 4), Axis(), "mean", 5, "mean", (4,), False),
        ((5, 4), Axis(pool="last"), "mean", None, "last", (4,), False),
        ((5, 4), Axis(pool="none"), "mean", None, "none", (5, 4), True),
        ((4,), Axis(), "mean", 5, "none", (4,), False),
        ((4,), Axis(pool="none"), "mean", None, "none", (4,), False),
        ((5, 4, 3), Axis(), "mean", None, "none", (5, 4, 3), False),
        ((5, 4, 3), Axis(position=2), "mean", 5, "mean", (4, 3), False),
    ],
)
def test_a_layer_is_pooled_over_known_positions(
    turned: tuple[int, ...], axis: Axis, pool: Any, mask: int | None, kept: str, shape: tuple[int, ...], positions: bool
) -> None:
    found = layout("a", turned, axis, pool, mask)
    assert (found.axis.pool, found.shape, found.positions) == (kept, shape, positions)
    assert found.known is (True if positions else False if kept != "none" else None)


@pytest.mark.parametrize(
    ("turned", "axis", "mask", "said"),
    [
        ((4,), Axis(pool="mean"), None, r"layer a gives a sample \(4,\), which has no known positions to pool"),
        ((5, 4, 3), Axis(pool="cls"), None, "which has no known positions to pool"),
        ((5, 4, 3), Axis(), 5, "where the mask of the probes does not say what is padding"),
        ((6, 4), Axis(), 5, "layer a has 6 positions, the mask of the probes 5"),
        ((4, 4), Axis(), 5, "layer a has 4 positions, the mask of the probes 5"),
    ],
)
def test_a_layer_without_the_positions_that_are_asked_for_is_refused(
    turned: tuple[int, ...], axis: Axis, mask: int | None, said: str
) -> None:
    with pytest.raises(LayerError, match=said):
        layout("a", turned, axis, "none", mask)


def test_of_maps_a_vector_is_the_mean_over_their_places() -> None:
    maps = Layout(Axis(), (3, 2, 5), False)
    vector, values = maps.as_vector(), torch.randn(4, 3, 2, 5).half()
    assert vector.shape == (3,)
    torch.testing.assert_close(vector.recorded("a", values, None), values.float().mean((2, 3)))
    assert torch.equal(maps.recorded("a", values, None), values)
    for other in (Layout(Axis(), (3, 2, 5), True), Layout(Axis(), (3, 2), False), Layout(Axis(), (3,), False)):
        assert other.as_vector() is other


def test_a_batch_of_another_form_than_at_first_is_refused() -> None:
    tokens, real = Layout(Axis(pool="mean"), (3,), False), torch.tensor([[True, False], [True, True]])
    values = torch.randn(2, 2, 3)
    torch.testing.assert_close(tokens.recorded("a", values, None), values.mean(1))
    torch.testing.assert_close(tokens.recorded("a", values, real)[0], values[0, 0])
    gradient = tokens.recorded("a", values, real, gradient=True)
    torch.testing.assert_close(gradient, torch.stack([values[0, 0], values[1].sum(0)]))
    with pytest.raises(LayerError, match=r"layer a gives \(2, 3\) rows and positions in a batch, not \(2, 2\)"):
        tokens.recorded("a", torch.randn(2, 3, 3), real)
    numbers, vectors = torch.randn(4), torch.randn(2, 3)
    assert torch.equal(Layout(Axis(), (), False).recorded("a", numbers, None), numbers)
    assert torch.equal(Layout(Axis(pool="none"), (3,), False).recorded("a", vectors, real), vectors)
    late = Layout(Axis(sample=1, position=2), (4, 3), True)
    assert late.recorded("a", torch.randn(3, 2, 4), None).shape == (2, 4, 3)
    with pytest.raises(LayerError, match="layer a has 2 axes in a batch, fewer than at first"):
        late.recorded("a", torch.randn(3, 2), None)


def test_a_store_says_of_a_layer_what_is_not_as_it_is_returned() -> None:
    assert Layout(Axis(pool="none"), (3,), False).attrs == {}
    every = Axis(sample=1, position=0, pool="last", mask="m", output="1.0")
    assert Layout(every, (3,), False).attrs == {
        "sample_axis": 1, "position_axis": 0, "output": "1.0", "pool": "last", "mask": "input.m",
    }  # fmt: skip


def test_what_was_guessed_is_said_where_it_shows() -> None:
    def made(pool: Any, positions: bool, **options: bool) -> Layout:
        return Layout(Axis(pool=pool, output="0"), (4, 3), positions, **options)

    layers = {
        "sure": made("none", True),
        "b": made("none", True, unsure=True),
        "pooled": made("mean", False, unsure=True),
        "vector": made("none", False, unsure=True),
    }
    assert unsure_positions(layers).startswith("the second axis of b, pooled is taken for positions: ")
    assert unsure_positions({"vector": layers["vector"]}) == ""
    picked = {"a": made("none", True, picked=True), **layers}
    assert "is recorded (a 0): for another" in picked_outputs(picked)
    assert picked_outputs(layers) == ""


@pytest.mark.parametrize(
    ("shape", "classes", "best"),
    [
        ((5, 1024), True, False),
        ((5, 1025), True, True),
        ((5, 1025), False, False),
        ((1025,), True, False),
        ((2, 5, 1025), True, False),
        ((1025, 3), True, False),
    ],
)
def test_of_a_large_vocabulary_at_positions_the_best_are_kept(
    shape: tuple[int, ...], classes: bool, best: bool
) -> None:
    outputs = Outputs(shape, loss=True, classes=classes)
    assert outputs.best_only == best
    assert {a.path for a in outputs.arrays(3)} == {
        *({"outputs/top_logits", "outputs/top_classes"} if best else {"outputs/logits"}),
        "outputs/loss",
    }
    assert bool(outputs.said) == best
    assert not best or {a.shape for a in outputs.arrays(3) if "top" in a.path} == {(3, shape[0], 16)}


@pytest.mark.parametrize(
    ("shape", "targets", "names"),
    [
        ((4,), False, "sample class"),
        ((3, 4), True, "sample position class"),
        ((3, 4), False, "sample position feature"),
        ((2, 3, 4), False, "sample channel height width"),
    ],
)
def test_axes_of_outputs_are_classes_where_targets_say_so(shape: tuple[int, ...], targets: bool, names: str) -> None:
    (logits,) = (a for a in Outputs(shape, loss=False, targets=targets).arrays(7) if a.path == "outputs/logits")
    assert (logits.dims, logits.shape) == (tuple(names.split()), (7, *shape))


@pytest.mark.parametrize(
    ("shape", "mask", "padded"), [((3, 4), 3, True), ((3, 4), 4, False), ((3, 4), None, False), ((3,), 3, False)]
)
def test_outputs_with_the_positions_of_the_mask_have_its_padding(
    shape: tuple[int, ...], mask: int | None, padded: bool
) -> None:
    outputs, real = Outputs(shape, loss=False, mask=mask), torch.tensor([[True, True, False]])
    assert outputs.padded == padded
    logits = torch.randn(1, *shape)
    kept = outputs.columns(logits, logits, None, real)["outputs/logits"]
    assert torch.equal(kept, logits.masked_fill(~real[:, :, None], 0) if padded else logits)
    assert set(outputs.missing(None, real, slice(0, 1))) == ({"outputs/logits"} if padded else set())
    assert outputs.missing(None, None, slice(0, 1)) == {}


def test_targets_that_do_not_count_are_missing_in_their_own_rows() -> None:
    targets = torch.tensor([[1, IGNORED], [0, 2], [IGNORED, 1]])
    missing = Outputs((2, 3), loss=True, targets=True).missing(targets, None, slice(1, 3))
    assert set(missing) == {"outputs/token_loss", "outputs/target_logit"}
    for found in missing.values():
        assert found.tolist() == [[False, False], [True, False]]
