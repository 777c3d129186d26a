"""What passes beside a cut: composites are those of mixed state dicts, or they are missing with a reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from featdyn import analyze
from featdyn.analysis.status import reasons
from featdyn.capture import Probes, Recorder
from featdyn.errors import NetworkError
from featdyn.networks import cuts
from featdyn.store import Run

STEPS, N, RARE = 4, 24, 20


class Net(nn.Module):
    """Three layers; what happens between the last two is decided by code that nothing traces."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle, self.extra, self.last = (nn.Linear(6, 6) for _ in range(4))

    def between(self, x: Tensor, early: Tensor, h: Tensor) -> Tensor:
        return h

    def forward(self, x: Tensor) -> Tensor:
        if bool((x > 100).all()):
            return x
        early = torch.relu(self.first(x))
        return self.last(self.between(x, early, torch.tanh(self.middle(early))))[:, :3]


class Steered(Net):
    """The sign of the early features decides."""

    def between(self, x, early, h):
        return -h if float(early.sum()) > 3.7 else h


class Seldom(Net):
    """No probe has so large an early feature."""

    def between(self, x, early, h):
        return torch.where(early[:, :1] > 60, -h, h)


class Rare(Net):
    """Only a probe that is not among the first is steered, by operations that run in its batch only."""

    def between(self, x, early, h):
        if float(x[:, 0].detach().max()) <= 8:
            return h
        return torch.where((x[:, :1] > 8) & (early[:, 5:6] > early[:, 3:4]), -3 * h, h)


class Idle(Net):
    """A layer that runs only for a probe that is not among the first."""

    def between(self, x, early, h):
        return h + 3 * self.extra(h) if bool((h[:, 0] > 0.9).any()) and len(h) > 8 else h


class Writes(Net):
    """Writes into its input and into what its layers return."""

    def forward(self, x):
        x -= 0.5
        if bool((x > 100).all()):
            return x
        h = self.middle(self.first(x).mul_(2).add_(1))
        return self.last(h.relu_())[:, :3]


class Computed(Net):
    """A weight that each pass computes, with the graph of it."""

    def __init__(self) -> None:
        super().__init__()
        self.middle = nn.utils.weight_norm(self.middle)


class Imaginary(Net):
    """Complex features, and numbers of classes, between its layers."""

    def forward(self, x):
        h = torch.tanh(self.middle(torch.fft.fft(self.first(x)).abs()))
        return self.last.weight[h.argmax(1)][:, :3] * (1 + h.sum(1, keepdim=True))


def inputs() -> Tensor:
    x = torch.randn(N, 6, generator=torch.Generator().manual_seed(3))
    x[RARE, 0] = 9
    return x


def recorded(path, net: nn.Module) -> Run:
    random = torch.Generator().manual_seed(1)
    given = Probes(inputs(), torch.arange(N) % 3, {"split": np.array(["train", "test"] * (N // 2), dtype=object)})
    with Recorder(net, given, path, layers=["first"], dtype="float32", batch=12) as recorder:
        for step in range(STEPS):
            recorder.record(step=step)
            with torch.no_grad():
                for parameter in net.parameters():
                    parameter.copy_(torch.randn(parameter.shape, generator=random))
    return Run(path)


def mixed(run: Run, net: nn.Module, before: tuple[str, ...], behind: tuple[str, ...]) -> np.ndarray[Any, Any]:
    """Return the classes ``(t1, t2, probe)`` of the networks in which ``before`` is of t1 and ``behind`` of t2.

    A layer that runs on both sides is none here. Batches are those of the recording: the networks look at them.
    """
    found = []
    for t1 in range(STEPS):
        for t2 in range(STEPS):
            states = run.state(t1), run.state(t2)
            state = {name: states[name.startswith(behind)][name] for name in states[0]}
            parts = [functional_call(net, state, (x.clone(),)) for x in inputs().split(12)]
            found.append(torch.cat(parts).argmax(1).numpy())
    return np.stack(found).reshape(STEPS, STEPS, N)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("net", [Writes, Computed, Imaginary])
def test_networks_that_write_compute_weights_or_leave_the_real_numbers_are_asked_right(tmp_path, net):
    run = recorded(tmp_path / "r.zarr", net())
    found = analyze(run, "consistency", model=net(), cuts=["all"])
    assert not found["apart"].any()
    assert not found["diagonal_differences"].any()
    first, last = ("abs", "tanh") if net is Imaginary else ("first", "middle")  # in a graph what follows them
    for cut, before in ((first, ("first",)), (last, ("first", "middle"))):
        wanted = mixed(run, net(), before, tuple({"middle", "extra", "last"} - {*before}))
        np.testing.assert_array_equal(found["prediction"].sel(cut=cut), wanted, err_msg=cut)
    analyze(run, "averaging", model=net())
    assert not np.isnan(analyze(run, "rewind", model=net(), cuts=[last])["accuracy"]).any()


@pytest.mark.parametrize("net", [Steered, Seldom])
def test_a_place_beside_which_early_features_decide_is_no_cut(net):
    assert [cut.name for cut in cuts(net(), inputs())] == ["first", "last"]


@pytest.mark.parametrize("cut", ["first", "middle"])
def test_a_layer_that_seldom_runs_is_that_of_the_suffix(tmp_path, cut):
    run = recorded(tmp_path / "r.zarr", Idle())
    found = analyze(run, "consistency", model=Idle(), cuts=[cut])
    before = ("first",) if cut == "first" else ("first", "middle")
    behind = tuple({"middle", "extra", "last"} - {*before})
    wanted = mixed(run, Idle(), before, behind)
    assert (wanted != mixed(run, Net(), before, behind)).any()  # it does run
    np.testing.assert_array_equal(found["prediction"].sel(cut=cut), wanted)
    assert not found["apart"].any()


class Heavy(Net):
    """A graph whose cuts are dense enough, though an encoder is one operation to it."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(6, 2, 6, dropout=0.0, batch_first=True)
        self.encoder, self.wide = nn.TransformerEncoder(layer, 2), nn.Sequential(nn.Linear(6, 150), nn.Linear(150, 6))

    def forward(self, x):
        return self.last(self.wide(self.encoder(self.first(x)[:, None])[:, 0]))[:, :3]


def test_a_cut_that_the_first_way_lacks_is_found_by_another(tmp_path):
    torch.manual_seed(0)
    run = recorded(tmp_path / "r.zarr", net := Heavy())
    assert analyze(run, "consistency", model=net, cuts=["encoder"]).attrs["cut_method"] == "torch.fx"
    found = analyze(run, "consistency", model=net, cuts=["encoder.layers.0"])
    assert found.attrs["cut_method"].startswith("forward hooks")
    behind = ("encoder.layers.1.", "wide.", "last.")
    wanted = mixed(run, net.eval(), ("encoder.layers.0.",), behind)
    np.testing.assert_array_equal(found["prediction"].sel(cut="encoder.layers.0"), wanted)
    with pytest.raises(NetworkError, match=r"no cut 'encoder.layers.7'; .*there are"):
        analyze(run, "consistency", model=net, cuts=["encoder.layers.7"])


def test_what_passes_beside_a_cut_unseen_is_missing_where_it_shows(tmp_path):
    net = Rare()
    run = recorded(tmp_path / "r.zarr", net)
    given = Rare()  # of the weights of step 0
    found = analyze(run, "consistency", model=given, cuts=["first", "middle"])
    wanted = mixed(run, net, ("first", "middle"), ("last", "extra"))
    early = [functional_call(net.first, {k: run.state(t)[f"first.{k}"] for k in ("weight", "bias")}, (inputs(),))
             for t in range(STEPS)]  # fmt: skip
    steered = np.array([bool(z[RARE, 5].relu() > z[RARE, 3].relu()) for z in early])
    apart = found["apart"].sel(cut="middle").values > 0
    np.testing.assert_array_equal(apart, steered != steered[0])
    assert 0 < apart.sum() < STEPS - 1
    pairs = apart[:, None] | apart
    prediction = found["prediction"].sel(cut="middle").values
    np.testing.assert_array_equal(prediction[~pairs], wanted[~pairs])
    assert (prediction[pairs] == -1).all()
    for name in ("accuracy", "agreement", "loss", "retention", "forgetting"):
        cell = found.sel(cut="middle")
        np.testing.assert_array_equal(np.isnan(cell[name].values), np.stack([pairs] * 2), err_msg=name)
        if name != "forgetting":
            said = reasons(cell, name).values[:, pairs]
            assert set(said.ravel()) == {"something passes beside the cut"}, name
    for name in ("horizon", "gap_accuracy"):
        assert np.isnan(found[name].sel(cut="middle")).all()
        assert set(reasons(found, name).sel(cut="middle").values.ravel()) == {"something passes beside the cut"}
    np.testing.assert_array_equal(found["prediction"].sel(cut="first"), mixed(run, net, ("first",), ("middle", "last")))
    more = recorded(tmp_path / "more.zarr", Rare())
    kept = analyze(more, "consistency", model=given, cuts=["middle"])
    again = analyze(more, "consistency", model=given, cuts=["middle"])
    np.testing.assert_array_equal(kept["apart"], again["apart"])
    np.testing.assert_array_equal(kept["prediction"], again["prediction"])


@pytest.mark.parametrize("name", ["rewind", "controls", "batchnorm"])
def test_analyses_of_few_pairs_refuse_such_a_cut_before_they_begin(tmp_path, name):
    run = recorded(tmp_path / "r.zarr", Rare())
    with pytest.raises(NetworkError, match=r"at middle the halves of 2 of 4 checkpoints, joined, are not") as said:
        analyze(run, name, model=Rare(), cuts=["middle"])
    assert "\n" not in str(said.value)
    assert analyze(run, name, model=Rare(), cuts=["first"]).sizes
    assert not Run(run.path).results(name)[1:]
