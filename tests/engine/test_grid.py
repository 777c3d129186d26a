"""Pairs of checkpoints in memory: their tasks, what joining each with itself costs, and BatchNorm by batch."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from featdyn.analysis.composites import grid, predictions
from featdyn.analysis.composites.batchnorm_statistics import OneValue, batch_norms, by_batch, reestimated
from featdyn.compute import Plan
from featdyn.statistics.resampling import Interval, share_interval


@pytest.mark.parametrize("old", range(6))
@pytest.mark.parametrize("together", [1, 2, 3, 5, 99])
def test_tasks_in_memory_are_all_pairs_that_are_not_known_of_all_blocks_once(
    old: int, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: Any = SimpleNamespace(states=range(5))
    monkeypatch.setattr(grid, "bank_bytes", lambda _: grid.HELD // together)
    items = grid.in_memory(parts, 3, old)
    found = [each for blocks, t1s, t2s in items for each in product(blocks, t1s, t2s)]
    assert len(found) == len(set(found))
    assert set(found) == {(b, t1, t2) for b in range(3) for t1 in range(5) for t2 in range(5) if max(t1, t2) >= old}
    assert all(len(blocks) == len(t1s) == 1 and 1 <= len(t2s) <= together for blocks, t1s, t2s in items if len(t2s))
    groups = grid.suffix_groups(parts, old)
    assert [t2 for group in groups for t2 in group] == list(range(5))
    assert not any(group.start < old < group.stop for group in groups)
    monkeypatch.setattr(grid, "bank_bytes", lambda _: grid.HELD + 1)  # one by one where not even one fits
    assert grid.suffix_groups(parts, old) == [range(t, t + 1) for t in range(5)]


def test_joining_each_checkpoint_with_itself_is_counted_by_hand() -> None:
    schema = {"outputs/logits": SimpleNamespace(nbytes=70, shape=(7, 5, 2))}

    class Shapes(dict[str, Any]):
        samples, blocks, shard_samples = 7, 2, 4

    run: Any = SimpleNamespace(checkpoints=3, schema=Shapes(schema))
    cuts = [SimpleNamespace(prefix_macs=100, suffix_macs=17), SimpleNamespace(prefix_macs=110, suffix_macs=11)]
    parts: Any = SimpleNamespace(cuts=cuts, features=SimpleNamespace(stored_bytes=13))
    # The prefix of the last cut holds those of all others; each cut has its own suffix.
    assert grid.apart_macs(run, parts) == 3 * 7 * (110 + 17 + 11)
    plan = grid.with_apart(Plan("w", 4, 1000, {"x": 5}, {"s": 6}, {"r": 7}), run, parts)
    assert (plan.tasks, plan.reads) == (4 + 3 * 2, 1000 + 3 * (13 + 70))
    of_block = predictions.outputs_bytes(run, 4)
    assert plan.task == {"x": 5, "compared": 2 * of_block}
    assert (plan.state, plan.result) == ({"s": 6}, {"r": 7})
    assert of_block == 4 * predictions.outputs_bytes(run, 1)
    assert of_block % (4 * 4 * 5 * 2) == 0  # float32 of four samples
    assert of_block > 4 * 4 * 5 * 2


@pytest.mark.parametrize(
    ("classes", "kind"), [(2, "int8"), (128, "int8"), (129, "int16"), (2**15, "int16"), (2**15 + 1, "int32")]
)
def test_predictions_have_the_smallest_type_that_holds_all_classes(
    classes: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "class_count", lambda *_, **__: classes)
    found = predictions.dtype_of(SimpleNamespace())  # type: ignore[arg-type]
    assert found == kind
    assert np.iinfo(found).min <= -1 < classes - 1 <= np.iinfo(found).max


def test_shares_and_intervals_are_of_what_is_known() -> None:
    hits = np.array([[True, True, False, True], [True, True, True, True], [False] * 4])
    known = np.array([[True, False, True, True], [False] * 4, [True] * 4])
    np.testing.assert_array_equal(predictions.share(hits, known), [2 / 3, np.nan, 0.0])
    origins = np.array([0, 0, 1, 2])
    found = predictions.interval_of(share_interval, known, origins, hits)
    for i, mine in enumerate(known):
        wanted = share_interval(hits[i][mine], groups=origins[mine]) if mine.any() else Interval(*(np.nan,) * 3)
        for end in ("estimate", "low", "high"):
            np.testing.assert_array_equal(getattr(found, end)[i], getattr(wanted, end))
    whole = predictions.interval_of(share_interval, np.ones((3, 4), bool), origins, hits)
    np.testing.assert_array_equal(whole.low, share_interval(hits, groups=origins).low)


class Named(nn.Module):
    """Its BatchNorm is given its input by name, behind one that is given it by place."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.first, self.second = nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.BatchNorm2d(3, affine=False)
        for norm in (self.first, self.second):
            norm.running_mean.uniform_()
        self.fails = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.second(input=self.first(self.conv(x)).relu())
        if self.fails:
            raise ZeroDivisionError
        return z


def frozen(model: nn.Module) -> list[Any]:
    """What may not change: buffers, modes, hooks."""
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    return [hooks, [m.training for m in model.modules()], {k: v.tolist() for k, v in model.state_dict().items()}]


@pytest.mark.parametrize("shape", [(5, 2, 3, 4), (1, 2, 3, 2), (2, 2, 2, 2)])
def test_by_batch_is_training_s_normalisation_and_leaves_nothing_behind(shape: tuple[int, ...]) -> None:
    model, x = Named().eval(), torch.randn(shape)
    before, seen = frozen(model), {}
    with torch.no_grad():
        plain = model(x)
        with by_batch(model, lambda name, batch: seen.update({name: batch})):
            found = [model(x) for _ in range(2)]
            model.fails = True
            with pytest.raises(ZeroDivisionError):
                model(x)
            model.fails = False
        z = F.batch_norm(model.conv(x), None, None, model.first.weight, model.first.bias, training=True).relu()
        wanted = F.batch_norm(z, None, None, training=True)
        assert all(torch.equal(each, wanted) for each in found)
        assert not torch.allclose(plain, wanted)
        torch.testing.assert_close(model(x), plain, rtol=0, atol=0)
    assert frozen(model) == before
    assert list(batch_norms(model)) == list(seen) == ["first", "second"]
    torch.testing.assert_close(seen["second"], z)


@pytest.mark.parametrize(("shape", "refused"), [((1, 2, 2, 2), True), ((2, 2, 2, 2), False), ((1, 2, 2, 3), False)])
def test_one_value_per_channel_has_no_variance(shape: tuple[int, ...], refused: bool) -> None:
    model, x = Named().eval(), torch.randn(shape)  # of 2 x 2 pixels one is left
    before = frozen(model)
    if refused:
        with pytest.raises(OneValue, match="first: one value per channel has no variance"), by_batch(model):
            model(x)
    else:
        with by_batch(model):
            model(x)
    assert frozen(model) == before


def test_statistics_are_anew_where_they_are_kept_and_nothing_else_is() -> None:
    model = Named().eval()
    model.second = nn.BatchNorm2d(3, track_running_stats=False).eval()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    batches = [torch.randn(4, 2, 3, 3), torch.randn(3, 2, 3, 3)]
    found = reestimated(model, state, batches)
    changed = {k for k in state if not torch.equal(found[k], state[k])}
    assert changed == {"first.running_mean", "first.running_var", "first.num_batches_tracked"}
    values = torch.cat([model.conv(x).detach() for x in batches]).double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(found["first.running_mean"].double(), values.mean(1), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found["first.running_var"].double(), values.var(1), rtol=1e-6, atol=1e-7)
    assert int(found["first.num_batches_tracked"]) == 2
    plain = nn.Sequential(nn.Linear(2, 2))
    own = plain.state_dict()
    assert reestimated(plain, own, iter(lambda: pytest.fail("read"), None)) == dict(own)
