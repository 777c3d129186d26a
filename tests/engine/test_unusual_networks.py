"""Networks of unusual kinds: recorded, stitched and asked for noise, beside plain PyTorch in float64."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from featdyn import analyze
from featdyn.capture import Probes, Recorder
from featdyn.errors import FeatdynError, NetworkError
from featdyn.store import Run

N, STEPS = 12, 2
Y = torch.arange(N) % 3
SPLIT = np.array(["train", "test"] * (N // 2), dtype=object)


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), dtype=dtype)


class Packed(nn.Module):
    """Sequences of their own lengths, which PyTorch packs."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(11, 5), nn.GRU(5, 6, batch_first=True)
        self.mid, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        given = nn.utils.rnn.pack_padded_sequence(self.embed(ids), lengths, batch_first=True, enforce_sorted=False)
        return self.head(torch.relu(self.mid(self.rnn(given)[1][-1])))


class Routed(nn.Module):
    """A mixture of experts: each sample takes two of three."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.head = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 3)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        z = torch.tanh(self.first(x))
        weights, chosen = self.gate(z).softmax(-1).topk(2, -1)
        total = z
        for number, expert in enumerate(self.experts):
            rows, slot = (chosen == number).nonzero(as_tuple=True)
            if len(rows):
                total = total.index_add(0, rows, expert(z[rows]) * weights[rows, slot][:, None])
        return self.head(total)


class Spectral(nn.Module):
    """Complex weights in the frequency domain."""

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.mid, self.head = nn.Linear(1, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.filter = nn.Parameter(0.3 * drawn(5, 4, 4, dtype=torch.cfloat))

    def forward(self, x: Tensor) -> Tensor:
        z = self.lift(x[..., None])
        changed = torch.einsum("bkc,kcd->bkd", torch.fft.rfft(z, dim=1), self.filter)
        return self.head(torch.tanh(self.mid(z + torch.fft.irfft(changed, n=x.shape[1], dim=1))).mean(1))


class Counting(nn.Module):
    """A buffer that each pass moves, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return self.head(torch.relu(self.first(x)))


class Adapted(nn.Module):
    """Frozen weights, and small ones beside them that are trained."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.base.requires_grad_(False)
        self.down, self.up = nn.Parameter(0.3 * drawn(2, 6)), nn.Parameter(0.3 * drawn(8, 2, 1)[..., 0])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.base(x) + x @ self.down.T @ self.up.T))


class Recomputed(nn.Module):
    """Blocks whose features are computed again on the way back, with batch statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.block, self.head = (
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Sequential(nn.Linear(8, 8), nn.Tanh()), nn.Linear(8, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        z = self.norm(self.first(x))
        return self.head(z + checkpoint(self.block, z, use_reentrant=False))


class Single(nn.Module):
    """Its code says float32, as embeddings of time do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.first(x.float())))


def record(path: Path, net: nn.Module, given: Any, **options: Any) -> tuple[Run, nn.Module]:
    """Record a network at checkpoints that differ in all weights; return the run, and the network as it was."""
    torch.manual_seed(0)
    first = copy.deepcopy(net)
    options = {"layers": ["default"], "dtype": "float32", "batch": 5, **options}
    with Recorder(net, Probes(given, Y, {"split": SPLIT}), path, coords=("learning_rate",), **options) as recorder:
        for step in range(STEPS):
            recorder.record(step=step, learning_rate=0.1)
            with torch.no_grad():
                for p in net.parameters():
                    p += 0.2 * torch.randn(p.shape, dtype=p.dtype)
    return Run(path), first


@pytest.mark.parametrize(
    ("make", "given", "cut", "early"),
    [
        (Packed, {"ids": torch.arange(5 * N).view(N, 5) % 11, "lengths": 1 + torch.arange(N) % 5}, "mid",
         ("embed", "rnn", "mid")),
        (Routed, drawn(N, 6), "first", ("first",)),
        (Spectral, drawn(N, 8), "lift", ("lift",)),
    ],
    ids=["packed", "routed", "complex"],
)  # fmt: skip
def test_composites_are_those_of_mixed_state_dicts(tmp_path, make, given, cut, early):
    run, net = record(tmp_path / "r.zarr", make(), given)
    found, exact = analyze(run, "consistency", model=net, cuts=[cut]), copy.deepcopy(net).eval()
    for t1, t2 in np.ndindex(STEPS, STEPS):
        one = {key: value for key, value in run.state(t1).items() if key.startswith(early)}
        exact.load_state_dict({**run.state(t2), **one})
        logits = exact(**given) if isinstance(given, dict) else exact(given)
        np.testing.assert_array_equal(found["prediction"].isel(cut=0, t1=t1, t2=t2), logits.argmax(1))
    drift = analyze(run, "drift", model=net, cuts=[cut])
    moved = [run.state(t) for t in range(STEPS)]
    half = [k for k, _ in net.named_parameters() if not k.startswith(early)]
    way = sum(float((moved[1][k] - moved[0][k]).abs().double().square().sum()) for k in half)
    size = sum(float(moved[1][k].abs().double().square().sum()) for k in half)
    stored = drift["suffix_distance"].isel(cut=0).values
    assert np.isclose(stored, (way / size) ** 0.5, rtol=1e-4).any()


def test_a_buffer_that_passes_move_stays_as_training_left_it(tmp_path):
    net = Counting()
    net(drawn(N, 6))
    with Recorder(net, Probes(drawn(N, 6), Y), tmp_path / "r.zarr", layers=["first"]) as recorder:
        recorder.record(step=0)
        assert net.passes.item() == 1
        net(drawn(N, 6))
        recorder.record(step=1)
    assert net.passes.item() == 2
    assert [int(Run(tmp_path / "r.zarr").state(t)["passes"]) for t in (0, 1)] == [1, 2]


class Merging(nn.Linear):
    """Low-rank weights that its own eval() adds to the others, and train() takes away again."""

    def __init__(self) -> None:
        super().__init__(6, 8)
        self.down, self.up, self.merged = (
            nn.Parameter(0.3 * drawn(2, 6)),
            nn.Parameter(0.3 * drawn(8, 2, 1)[..., 0]),
            False,
        )

    def train(self, mode: bool = True) -> Merging:
        super().train(mode)
        if mode == self.merged:
            self.weight.data += (-1 if mode else 1) * self.up @ self.down
            self.merged = not mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.merged else super().forward(x) + x @ self.down.T @ self.up.T


class Keeping(nn.Module):
    """Counts its passes, remembers what it gave last, and changes buffers behind autograd's back."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.head, self.passes = Merging(), nn.Dropout(0.5), nn.Linear(8, 3), 0
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("seen", torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        self.last = torch.relu(self.first(x))
        self.mean.data.lerp_(self.last.detach().mean(0), 0.5)
        self.seen = self.seen + 1
        return self.head(self.drop(self.last))


def test_what_a_network_keeps_of_its_passes_is_left_as_training_had_it(tmp_path):
    nets, x = [], drawn(N, 6)
    for recorded in (False, True):
        torch.manual_seed(0)
        net = Keeping()
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        recorder = Recorder(net, Probes(x, Y), tmp_path / "r.zarr", layers=["first"], batch=5) if recorded else None
        for step in range(3):
            loss = F.cross_entropy(net(x), Y)
            if recorder is not None:
                recorder.record(step=step)  # between forward and backward
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        if recorder is not None:
            recorder.close()
        nets.append(net)
    for name, value in nets[0].state_dict().items():
        torch.testing.assert_close(nets[1].state_dict()[name], value, rtol=0, atol=0)
    assert [net.passes for net in nets] == [3, 3]
    assert not nets[1].first.merged
    assert all(module.training for module in nets[1].modules())
    torch.testing.assert_close(nets[1].last, nets[0].last, rtol=0, atol=0)


class Varied(nn.Module):
    """Random in training, by functions and no module of dropout."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.first, self.head, self.kind = nn.Linear(6, 8), nn.Linear(8, 3), kind

    def forward(self, x: Tensor) -> Tensor:
        z = torch.relu(self.first(x))
        if self.kind == "function":
            return self.head(F.dropout(z, 0.5, self.training))
        return self.head(z + torch.randn_like(z) * self.training)


@pytest.mark.parametrize("kind", ["function", "sampled"])
def test_noise_of_networks_that_draw_without_a_module_repeats(tmp_path, kind):
    run, net = record(tmp_path / "r.zarr", Varied(kind), x := drawn(N, 6))
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        how = {"draws": 4, "probes": 1, "every": STEPS, "fresh": True}
        found.append(analyze(run, "noise", model=net, batches=batches(x), **how))
    for name, values in found[0].data_vars.items():
        np.testing.assert_array_equal(found[1][name].values, values.values, err_msg=str(name))
    assert found[0].attrs["center"] == "estimated"
    assert "layers that are random" in found[0].attrs["center_because"]
    assert found[0]["rounding"].isnull().all()
    assert "layers_are_random" in found[0]["rounding_status"].attrs["flag_meanings"]


def test_what_hands_nothing_out_is_refused_in_a_line(tmp_path):
    """TorchScript takes no hooks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that it has other ways now
        compiled = torch.jit.script(Counting())
    for layers in (["first"], ["default"]):
        with pytest.raises(NetworkError, match=r"layer (first|head) is TorchScript, which hands nothing out"):
            Recorder(compiled, Probes(drawn(N, 6), Y), tmp_path / "j.zarr", layers=layers)


class Through(Counting):
    """Goes through NumPy."""

    def forward(self, x: Tensor) -> Tensor:
        sign = torch.from_numpy(np.sign(x.detach().numpy().mean(1, keepdims=True)))
        return self.head(torch.relu(self.first(x)) * sign)


def test_moves_without_forward_derivatives_say_how_they_were_found(tmp_path):
    run, net = record(tmp_path / "r.zarr", Through(), x := drawn(N, 6))
    found = analyze(run, "noise", model=net, batches=batches(x), draws=4, probes=1)
    assert found["feature_mean_square"].notnull().all()
    assert "central differences in float64: " in found.attrs["feature_moves"]


def batches(x: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x.split(4), Y.split(4), strict=True))


def test_noise_is_of_what_is_trained(tmp_path):
    run, net = record(tmp_path / "r.zarr", Adapted(), x := drawn(N, 6))
    found = analyze(run, "noise", model=net, batches=batches(x), draws=4, probes=2, curvature=4, cuts=["relu"])
    exact = copy.deepcopy(net).double()
    for t in range(STEPS):
        exact.load_state_dict(run.state(t))
        loss = F.cross_entropy(exact(x.double()), Y)
        wanted = torch.cat([g.flatten() for g in torch.autograd.grad(loss, [exact.down, exact.up])]).norm()
        np.testing.assert_allclose(found["gradient_norm"].values[0, t], wanted.item(), rtol=1e-5)
    assert found["parameter_p"].values.tolist() == [[12 + 16] * STEPS]
    assert found["noise_curvature"].notnull().all()


def test_curvature_leaves_the_other_numbers_as_they_are(tmp_path):
    """With batch statistics, and features that are computed again on the way back."""
    run, net = record(tmp_path / "r.zarr", Recomputed(), x := drawn(N, 6), layers=["norm"])
    how = {"draws": 4, "probes": 2, "cuts": ["norm"]}
    one, two = (analyze(run, "noise", model=net, batches=batches(x), fresh=True, curvature=c, **how) for c in (0, 4))
    for name, values in one.data_vars.items():
        np.testing.assert_array_equal(two[name].values, values.values, err_msg=str(name))
    assert two["noise_curvature"].notnull().all()
    assert float(two["rounding"].max()) < 1e-5
    assert float(two["feature_rounding"].max()) < 1e-4


def test_what_does_not_run_in_float64_or_is_complex_is_said_in_a_line(tmp_path):
    run, net = record(tmp_path / "s.zarr", Single(), x := drawn(N, 6))
    with pytest.raises(NetworkError, match=r"float64, in which the network does not run .*--probes 0") as said:
        analyze(run, "noise", model=net, batches=batches(x), draws=4)
    assert "\n" not in str(said.value)
    found = analyze(run, "noise", model=net, batches=batches(x), draws=4, probes=0)
    assert found["rounding"].isnull().all()
    assert "the_network_does_not_run_in_float64" in found["rounding_status"].attrs["flag_meanings"]
    assert found["gradient_norm"].notnull().all()
    run, net = record(tmp_path / "c.zarr", Spectral(), x := drawn(N, 8))
    with pytest.raises(FeatdynError, match="the parameter filter is complex"):
        analyze(run, "noise", model=net, batches=batches(x), draws=4)


def test_a_network_made_in_inference_mode_is_refused_in_a_line(tmp_path):
    with torch.inference_mode():
        net = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))
    for gradients in (True, False):
        with pytest.raises(NetworkError, match=r"0\.weight was made in torch.inference_mode"):
            Recorder(net, Probes(drawn(N, 6), Y), tmp_path / "r.zarr", layers=["0"], gradients=gradients)
    assert not (tmp_path / "r.zarr").exists()


class Kept(nn.Module):
    """Returns memory that it keeps: a buffer, or a tensor that its ``state_dict`` does not know."""

    out: Tensor

    def __init__(self, *, buffer: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.head = nn.Linear(4, 8), nn.Linear(8, 3)
        if buffer:
            self.register_buffer("out", torch.zeros(64, 3))
        else:
            self.out = torch.zeros(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.out[: len(x)] = self.head(self.a(x).relu())
        return self.out[: len(x)]


@pytest.mark.parametrize("buffer", [True, False])
def test_a_network_that_returns_memory_that_it_keeps_is_recorded_as_it_answers(tmp_path, buffer):
    given, net = drawn(12, 4), Kept(buffer=buffer)
    expected = net.head(net.a(given).relu()).detach()
    losses = {"loss": lambda outputs, labels: outputs[:, 0]}  # has its memory, too
    for name, options in {"plain": {}, "own": losses}.items():
        path = tmp_path / f"{name}.zarr"
        with Recorder(
            net, Probes(given, torch.arange(12) % 3), path, layers=["a"], gradients=False, batch=5, **options
        ) as recorder:
            recorder.start()
        torch.testing.assert_close(torch.from_numpy(Run(path).values("outputs/logits")[0]), expected)
    torch.testing.assert_close(torch.from_numpy(Run(path).values("outputs/loss")[0]), expected[:, 0])
    with pytest.raises(
        ValueError, match="does not depend on the recorded layers by steps that autograd knows: gradients"
    ):
        Recorder(net, Probes(given, torch.arange(12) % 3), tmp_path / "r.zarr", layers=["a"])
    assert not (tmp_path / "r.zarr").exists()


class Constant(Kept):
    def forward(self, x: Tensor) -> Tensor:
        return self.out[:5] + super().forward(x).sum()


def test_an_output_without_a_row_for_each_sample_is_refused_in_a_line(tmp_path):
    with pytest.raises(NetworkError, match=r"output has shape \(5, 3\) for 2 samples: it must have a row for each"):
        Recorder(Constant(buffer=True), Probes(drawn(12, 4), torch.arange(12) % 3), tmp_path / "r.zarr")
    assert not (tmp_path / "r.zarr").exists()


def test_a_network_without_values_is_refused_in_a_line(tmp_path):
    with pytest.raises(NetworkError, match=r"network's out has no values \(device meta\)"):
        Recorder(Kept(buffer=True).to("meta"), Probes(drawn(12, 4), torch.arange(12) % 3), tmp_path / "r.zarr")
    assert not (tmp_path / "r.zarr").exists()
