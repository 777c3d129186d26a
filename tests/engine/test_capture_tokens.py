"""Tokens: positions and padding in what is recorded, beside float64 loops over samples and positions."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from torch import nn

import featdyn
from featdyn.capture import Axis, Probes, Recorder, before, outputs
from featdyn.capture.again import run_again
from featdyn.capture.call import Call
from featdyn.capture.channels import channels_first
from featdyn.cli.info import describe
from featdyn.errors import NetworkError, StoreError
from featdyn.networks import cuts
from featdyn.store import Run
from tests.engine.token_networks import LAYERS, LENGTH, VOCABULARY, Attending, N, exact, inputs, record

POOLS = ("none", "mean", "last", "cls")


def values_of(run: Run) -> dict[str, np.ndarray]:
    """Return all that checkpoints hold, and nothing of the inputs."""
    return {spec.path: run.values(spec.path) for spec in run.schema.arrays}


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("pool", POOLS)
def test_activations_gradients_and_the_cube_are_those_of_a_loop_over_real_positions(tmp_path, pool, left):
    given, targets = inputs(left=left)
    network = Attending()
    run = record(tmp_path / "r.zarr", network, Probes(given, targets), pool=pool, checkpoints=2)
    real = given["attention_mask"].bool()
    before: dict[str, list[torch.Tensor]] = {}
    for t in range(2):
        for layer in LAYERS:
            z, logits = exact(run, network, t, given, layer)
            for i in range(N):
                there = real[i].nonzero()[:, 0]
                loss = F.cross_entropy(logits[i, there], targets[i, there])
                (slope,) = torch.autograd.grad(loss, z, retain_graph=True)
                own, own_slope = z.detach()[i, there], slope[i, there]
                if pool == "mean":
                    own, own_slope = own.mean(0), own_slope.sum(0)
                elif pool != "none":
                    own, own_slope = (v[-1 if pool == "last" else 0] for v in (own, own_slope))
                stored = [
                    torch.from_numpy(run.values(f"layers/{layer}/{of}")[t, i]) for of in ("activation", "gradient")
                ]
                if pool == "none":
                    assert all(bool(v[~real[i]].isnan().all()) for v in stored)
                    stored = [v[there] for v in stored]
                for found, expected in zip(stored, (own, own_slope), strict=True):
                    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)
                flat, place = own.flatten(), (t, run.layers.index(layer), i)
                before.setdefault(f"{layer}{i}", []).append(flat)
                summaries = {
                    "activation_norm": flat.norm(),
                    "activation_mean": flat.mean(),
                    "activation_sparsity": (flat == 0).double().mean(),
                    "gradient_norm": own_slope.norm(),
                    "activation_cosine": torch.cosine_similarity(flat, before[f"{layer}{i}"][t - 1], dim=0),
                }
                for name, expected in summaries.items():
                    if name != "activation_cosine" or t:
                        found = run.values(f"cube/{name}")[place]
                        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6, err_msg=name)


def test_the_cube_is_the_same_where_the_checkpoint_before_is_read_and_not_kept(tmp_path, monkeypatch):
    kept = record(tmp_path / "kept.zarr", Attending(), Probes(*inputs()))
    monkeypatch.setattr(before, "KEPT_BYTES", 0)
    read = record(tmp_path / "read.zarr", Attending(), Probes(*inputs()))
    np.testing.assert_array_equal(read.values("cube/activation_cosine"), kept.values("cube/activation_cosine"))
    assert np.isfinite(read.values("cube/activation_cosine")[1:]).any()


@pytest.mark.parametrize("pool", POOLS)
def test_what_stands_at_padding_changes_no_recorded_number(tmp_path, pool):
    network = Attending()
    network.up.register_forward_hook(lambda m, a, out: out)  # as the one below, so that both networks are alike
    plain = record(tmp_path / "a.zarr", network, Probes(*inputs()), pool=pool)
    other = copy.deepcopy(network)
    real = inputs()[0]["attention_mask"].bool()

    class Loud(nn.Linear):
        """Puts noise where padding is."""

        def forward(self, x):
            out = super().forward(x)
            known = {tuple(row.tolist()): m for row, m in zip(inputs(other=True)[0]["ids"], real, strict=True)}
            rows = torch.stack([known[tuple(row.tolist())] for row in seen[0]])
            return out.where(rows[:, :, None], 1e3)

    loud, seen = Loud(*reversed(network.up.weight.shape)), []
    loud.load_state_dict(network.up.state_dict())
    other.up = loud
    other.register_forward_pre_hook(
        lambda m, a, k: (seen.clear(), seen.append(k["ids"].detach()))[-1], with_kwargs=True
    )
    changed = record(tmp_path / "b.zarr", other, Probes(*inputs(other=True)), pool=pool)
    found, expected = values_of(changed), values_of(plain)
    assert found.keys() == expected.keys()
    for path, values in expected.items():
        np.testing.assert_array_equal(found[path], values, err_msg=path)


def test_losses_by_token_honour_what_is_ignored_and_are_reduced_as_asked(tmp_path):
    given, targets = inputs()
    targets[:, 0] = torch.where(torch.arange(N) % 5 == 0, targets[:, 0], -100)  # those of one real token keep it
    for reduced in ("mean", "sum"):
        run = record(
            tmp_path / f"{reduced}.zarr", Attending(), Probes(given, targets), checkpoints=1, token_loss=reduced
        )
        _, logits = exact(run, Attending(), 0, given, "up")
        counts = given["attention_mask"].bool() & (targets != -100)
        for i in range(N):
            each = F.cross_entropy(logits[i, counts[i]], targets[i, counts[i]], reduction="none").detach()
            np.testing.assert_allclose(run.values("outputs/token_loss")[0, i][counts[i]], each, rtol=1e-5)
            total = each.mean() if reduced == "mean" else each.sum()
            np.testing.assert_allclose(run.values("outputs/loss")[0, i], total, rtol=1e-5)
        assert np.isnan(run.values("outputs/token_loss")[0][~counts]).all()
        assert np.isnan(run.values("outputs/logits")[0][~given["attention_mask"].bool()]).all()
        assert run.schema["outputs/loss"].attrs["long_name"].startswith(reduced)


def test_of_a_vocabulary_the_largest_and_the_target_are_stored_and_a_run_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(outputs, "VOCABULARY", VOCABULARY - 1)
    monkeypatch.setattr(outputs, "TOP", 3)
    given, targets = inputs()
    run = record(tmp_path / "r.zarr", Attending(), Probes(given, targets), checkpoints=1)
    said = capsys.readouterr().err
    assert "of 11 logits at each position the 3 largest are stored, and the target's logit, not all" in said
    real = given["attention_mask"].bool()
    logits = exact(run, Attending(), 0, given, "up")[1].detach()
    assert "outputs/logits" not in run.nodes
    best = logits[real].topk(3, dim=-1)
    np.testing.assert_allclose(run.values("outputs/top_logits")[0][real], best.values, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(run.values("outputs/top_classes")[0][real], best.indices)
    own = logits.gather(-1, targets[:, :, None])[:, :, 0][real]
    np.testing.assert_allclose(run.values("outputs/target_logit")[0][real], own, rtol=1e-5, atol=1e-6)
    assert (run.values("outputs/top_classes")[0][~real] == -1).all()
    for name in ("top_logits", "target_logit", "token_loss"):
        assert np.isnan(run.values(f"outputs/{name}")[0][~real]).all()
    assert set(describe(run)["outputs"]) == {"loss", "token_loss", "top_logits", "top_classes", "target_logit"}
    network = Attending()
    with Recorder(network, Probes(given, targets), run.path, layers=LAYERS, dtype="float32", resume=True) as recorder:
        recorder.plan(2)  # what a caller does that says itself what is needed
        recorder.record(step=7)
    network.head.forward = lambda x: F.linear(x, network.head.weight * 2, network.head.bias)
    with pytest.raises(StoreError, match="another recording"):
        Recorder(network, Probes(given, targets), run.path, layers=LAYERS, dtype="float32", resume=True)


def test_outputs_that_are_no_classes_are_kept_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, "VOCABULARY", VOCABULARY - 1)
    given, _ = inputs()
    wanted = torch.rand(N, LENGTH, VOCABULARY)
    loss = lambda out, target: ((out - target) ** 2).flatten(1).mean(1)  # noqa: E731
    run = record(tmp_path / "r.zarr", Attending(), Probes(given, wanted), checkpoints=1, loss=loss, layers=["up"])
    assert run.schema["outputs/logits"].dims == ("sample", "position", "feature")


def test_xarray_reads_positions_and_counts_no_padding(tmp_path):
    given, targets = inputs()
    run = record(tmp_path / "r.zarr", Attending(), Probes(given, targets), checkpoints=1)
    tree = xr.open_datatree(run.path, engine="zarr")
    real = given["attention_mask"].bool().numpy()
    np.testing.assert_array_equal(tree["inputs/mask"].values, real)
    found = tree["layers/up/activation"].mean("position").values[0]
    expected = np.nanmean(np.where(real[:, :, None], run.values("layers/up/activation")[0], np.nan), 1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_store_whose_positions_are_called_tokens_goes_on(tmp_path, monkeypatch):
    given, targets = inputs()
    with monkeypatch.context() as older:
        older.setattr(
            "featdyn.capture.arrays.dims",
            lambda shape, positions: ("token", "feature") if len(shape) == 2 else ("feature",),
        )
        run = record(tmp_path / "r.zarr", Attending(), Probes(given, targets), checkpoints=1)
    assert run.schema["layers/up/activation"].dims == ("sample", "token", "feature")
    with Recorder(
        Attending(), Probes(given, targets), run.path, layers=LAYERS, dtype="float32", resume=True
    ) as recorder:
        recorder.record(step=9)
    found = Run(run.path).values("layers/up/activation")
    np.testing.assert_array_equal(found[0], found[1])


def test_tokens_first_are_refused_with_what_to_write_and_then_recorded_samples_first(tmp_path):
    given, targets = inputs()
    network = Attending(first=True)
    advice = r'its samples are axis 1: write layers=\{"mix": Axis\(sample=1\)\}'
    with pytest.raises(NetworkError, match=advice):
        Recorder(network, Probes(given, targets), tmp_path / "a.zarr", layers=["mix"])
    with pytest.raises(NetworkError, match=r'Axis\(sample=1, pool="mean"\)'):
        Recorder(network, Probes(given, targets), tmp_path / "a.zarr", layers={"mix": "mean"})
    assert not (tmp_path / "a.zarr").exists()
    turned = record(
        tmp_path / "b.zarr", network, Probes(given, targets), layers={"mix": featdyn.Axis(sample=1), "up": None}
    )
    plain = record(tmp_path / "c.zarr", Attending(), Probes(given, targets), layers=["mix", "up"])
    assert turned.schema["layers/mix/activation"].attrs == {"sample_axis": 1}
    for path, values in values_of(plain).items():
        np.testing.assert_allclose(values_of(turned)[path], values, rtol=1e-5, atol=1e-5, err_msg=path)
    with pytest.raises(NetworkError, match=r"mix gives .*: its samples are axis 1"):
        Recorder(network, Probes(given, targets), tmp_path / "a.zarr", layers={"mix": Axis(sample=2)})
    with pytest.raises(NetworkError, match="layer up returns 3 axes, so there is no Axis"):
        Recorder(network, Probes(given, targets), tmp_path / "a.zarr", layers={"up": Axis(sample=3)})


def test_an_axis_a_pool_or_a_mask_that_cannot_be_is_one_line(tmp_path):
    given, targets = inputs()
    probes = Probes(given, targets)
    for wrong in ({"sample": -1}, {"sample": True}, {"sample": 1, "position": 1}, {"pool": "max"}):
        with pytest.raises(ValueError, match=r"^Axis: "):
            Axis(**wrong)
    with pytest.raises(TypeError, match=r"'up' takes an Axis\(...\), one of none, mean, last, cls, or None, got 3"):
        Recorder(Attending(), probes, tmp_path / "r.zarr", layers={"up": 3})
    with pytest.raises(NetworkError, match="no known positions to pool"):
        Recorder(Attending(by_token=False), Probes(given, targets[:, 0]), tmp_path / "r.zarr", layers={"head": "mean"})
    with pytest.raises(NetworkError, match="has 5 positions, the mask of the probes 4"):
        Recorder(Attending(), Probes(given, targets, mask=np.ones((N, 4))), tmp_path / "r.zarr", layers=["up"])
    with pytest.raises(
        ValueError, match=r"mask must be \(13, position\) of 0 \(padding\) and 1, got \(13, 5\) with other"
    ):
        Probes(given, targets, mask=np.full((N, LENGTH), 2))
    with pytest.raises(ValueError, match=r"attention_mask: give mask= too, which is .* got \(13, 1, 5\)"):
        Probes({**given, "attention_mask": given["attention_mask"][:, None]}, targets)
    with pytest.raises(ValueError, match=r"mask leaves no position of probe 0 \(13 such\)"):
        Probes(given, targets, mask=np.zeros((N, LENGTH)))
    with pytest.raises(ValueError, match=r"probe 2 has no target that counts"):
        Recorder(
            Attending(), Probes(given, torch.where(torch.arange(N)[:, None] == 2, -100, targets)), tmp_path / "r.zarr"
        )
    with pytest.raises(ValueError, match="takes a logit for each class"):
        Recorder(Attending(1), Probes(given, targets * 0), tmp_path / "r.zarr")
    with pytest.raises(ValueError, match=r"labels of shape \(13, 5\), got \(13,\)"):
        Recorder(Attending(), Probes(given, targets[:, 0]), tmp_path / "r.zarr")
    bad = targets.clone()
    bad[12, 0] = VOCABULARY
    with pytest.raises(ValueError, match=r"labels must lie in 0..10 .* got 11 at probe 12"):
        Recorder(Attending(), Probes(given, bad), tmp_path / "r.zarr")
    assert not (tmp_path / "r.zarr").exists()


def test_a_layer_that_gives_other_rows_in_a_larger_batch_is_refused_and_leaves_no_part(tmp_path):
    class Grows(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x):
            more = torch.cat([x, x]) if len(x) > 5 else x
            return self.head(self.inner(more)[: len(x)])

    probes = Probes(torch.randn(9, 3), torch.arange(9) % 2)
    with Recorder(Grows(), probes, tmp_path / "r.zarr", layers=["inner"], batch=9, gradients=False) as recorder:
        with pytest.raises(featdyn.errors.TrainingError, match="inner/activation has 18 rows for a batch of 9 samples"):
            recorder.record(step=0)
        assert recorder.checkpoints == 0


class Heads(nn.Module):
    """Positions last, as a convolution has them, and third, behind heads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.heads, self.head = nn.Conv1d(3, 6, 1), nn.Identity(), nn.Linear(6, 2)

    def forward(self, x, attention_mask):
        z = torch.relu(self.conv(x.transpose(1, 2)))
        y = self.heads(z.unflatten(1, (2, 3)).transpose(2, 3)).transpose(2, 3).flatten(1, 2).transpose(1, 2)
        weights = attention_mask[:, :, None].to(y.dtype)
        return self.head((y * weights).sum(1) / weights.sum(1))


@pytest.mark.parametrize("pool", POOLS)
def test_positions_on_any_axis_come_second_and_lose_their_padding(tmp_path, pool):
    generator = torch.Generator().manual_seed(4)
    x, mask = torch.randn(N, LENGTH, 3, generator=generator), inputs()[0]["attention_mask"]
    network, probes = Heads(), Probes({"x": x, "attention_mask": mask}, torch.arange(N) % 2)
    with pytest.raises(NetworkError, match=r"layer heads .* write layers=\{\"heads\": Axis\(position=...\)\}"):
        Recorder(network, probes, tmp_path / "r.zarr", layers=["heads"])
    layers = {"conv": Axis(position=2, pool=pool), "heads": Axis(position=2, pool=pool)}
    with Recorder(network, probes, tmp_path / "r.zarr", layers=layers, dtype="float32", batch=4) as recorder:
        recorder.record(step=0)
    run, twin, kept = Run(tmp_path / "r.zarr"), copy.deepcopy(network).double(), {}
    for name in layers:
        getattr(twin, name).register_forward_hook(lambda m, a, out, name=name: kept.__setitem__(name, out))
    twin(x.double(), mask)
    for name, turned in (("conv", kept["conv"].transpose(1, 2)), ("heads", kept["heads"].transpose(1, 2))):
        stored, spec = run.values(f"layers/{name}/activation")[0], run.schema[f"layers/{name}/activation"]
        assert ("position" in spec.dims) == (pool == "none")
        assert spec.attrs["position_axis"] == 2
        for i in range(N):
            own = turned[i, mask[i].bool()].detach()
            expected = {"none": own, "mean": own.mean(0), "last": own[-1], "cls": own[0]}[pool]
            found = stored[i][mask[i].bool().numpy()] if pool == "none" else stored[i]
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
            norm = run.values("cube/activation_norm")[0, run.layers.index(name), i]
            np.testing.assert_allclose(norm, expected.norm(), rtol=1e-5)


class Encoder(nn.Module):
    """Torch's own encoder, whose fused path makes nested tensors of padded ones and hands on shorter ones."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(VOCABULARY, 8), nn.Linear(8, 3)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)

    def forward(self, ids, attention_mask):
        return self.head(self.encoder(self.embed(ids), src_key_padding_mask=attention_mask == 0)[:, 0])


@pytest.mark.parametrize("n", [1, N])
def test_the_fused_path_of_torch_takes_no_positions_away(tmp_path, n):
    given, _ = inputs(n)
    found = []
    for gradients in (True, False):
        options = {"layers": ["encoder", "encoder.layers.0"], "gradients": gradients, "checkpoints": 1}
        found.append(record(tmp_path / f"{gradients}.zarr", Encoder(), Probes(given, torch.arange(n) % 3), **options))
    assert torch.backends.mha.get_fastpath_enabled()
    for layer in ("encoder", "encoder.layers.0"):
        one, two = (run.values(f"layers/{layer}/activation") for run in found)
        np.testing.assert_array_equal(one, two)
        z, _ = exact(found[0], Encoder().train(False), 0, given, layer)
        real = given["attention_mask"].bool()
        np.testing.assert_allclose(one[0][real], z.detach()[real], rtol=1e-4, atol=1e-5)


class Sequences(nn.Module):
    """As many channels as positions: nothing in the shapes tells them apart."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv1d(3, LENGTH, 3, padding=1), nn.BatchNorm1d(LENGTH)
        self.block = nn.Sequential(nn.Conv1d(LENGTH, LENGTH, 1), nn.ReLU(), nn.Dropout(0.5))
        self.vector, self.head = nn.BatchNorm1d(LENGTH), nn.Linear(LENGTH, 2)

    def forward(self, x, attention_mask):
        y, weights = self.block(self.norm(self.conv(x))), attention_mask[:, None].to(x.dtype)
        return self.head(self.vector((y * weights).sum(2) / weights.sum(2)))


@pytest.mark.parametrize("pool", POOLS)
def test_channels_of_a_convolution_are_no_positions(tmp_path, pool):
    x, mask = torch.randn(N, 3, LENGTH, generator=torch.Generator().manual_seed(4)), inputs()[0]["attention_mask"]
    network, probes = Sequences(), Probes({"x": x, "attention_mask": mask}, torch.arange(N) % 2)
    names = ["conv", "norm", "block", "vector"]
    with Recorder(network, probes, tmp_path / "r.zarr", layers=names, pool=pool, dtype="float32", batch=4) as recorder:
        recorder.record(step=0)
    run, twin, kept = Run(tmp_path / "r.zarr"), copy.deepcopy(network).double().eval(), {}
    for name in names:
        getattr(twin, name).register_forward_hook(lambda m, a, out, name=name: kept.__setitem__(name, out.detach()))
    twin(x.double(), mask)
    for name in names[:3]:
        stored = run.values(f"layers/{name}/activation")[0]
        for i in range(N):
            own = kept[name][i].T[mask[i].bool()]
            expected = {"none": own, "mean": own.mean(0), "last": own[-1], "cls": own[0]}[pool]
            found = stored[i][mask[i].bool().numpy()] if pool == "none" else stored[i]
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run.values("layers/vector/activation")[0], kept["vector"], rtol=1e-5, atol=1e-5)


class Signal(nn.Module):
    """Convolutions of sequences of ``length``, activations and sums as functions, then tokens."""

    def __init__(self, length: int, channels: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.act, self.again = nn.Conv1d(3, channels, 1), nn.GELU(), nn.Conv1d(channels, channels, 1)
        self.drop, self.tokens, self.squash = nn.Dropout(0.5), nn.Linear(channels, 4), nn.Tanh()
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.act(self.conv(x))
        z = F.relu(self.drop(self.again(z) + z))
        return self.head(self.squash(self.tokens(F.max_pool1d(z, 2).transpose(1, 2))).mean(1))


def test_channels_are_known_from_what_ran_before(tmp_path, capsys):
    """Of each layer the axes are those that its own values have, whoever returns them."""
    probes = Probes(torch.randn(N, 3, 6, generator=torch.Generator().manual_seed(1)), torch.arange(N) % 2)
    network, named = Signal(6, 5), ["conv", "act", "drop", "relu", "tokens", "squash"]
    with Recorder(network, probes, tmp_path / "r.zarr", layers=named, dtype="float32", pool="mean") as recorder:
        recorder.record(step=0)
    assert "taken for positions" not in capsys.readouterr().err
    run, twin, kept = Run(tmp_path / "r.zarr"), copy.deepcopy(network).double().eval(), {}
    for name in named:
        if name != "relu":
            module = twin.get_submodule(name)
            module.register_forward_hook(lambda m, a, out, name=name: kept.__setitem__(name, out.detach()))
    twin(probes.inputs.double())
    kept["relu"] = kept["drop"].relu()
    for name in named:
        mean = kept[name].mean(1 if name in ("tokens", "squash") else 2)
        np.testing.assert_allclose(run.values(f"layers/{name}/activation")[0], mean, rtol=1e-5, atol=1e-6, err_msg=name)


def test_where_channels_may_be_taken_for_positions_it_is_said(tmp_path, capsys):
    """Nothing tells of a square map what a function has made of it."""
    network, probes = Signal(5, 5), Probes(torch.randn(N, 3, 5), torch.arange(N) % 2)
    network.drop = nn.Identity()
    for layers, told in ((["conv", "drop"], True), ({"conv": None, "drop": Axis(position=2)}, False)):
        with Recorder(network, probes, tmp_path / f"{told}.zarr", layers=layers) as recorder:
            recorder.record(step=0)
        said = 'the second axis of drop is taken for positions: where it is channels, as behind Conv1d, write layers={"'
        err = capsys.readouterr().err
        assert (said in err) == ("taken for positions" in err) == told


class Steps(nn.Module):
    """Some modules, and functions of them: what the last one gives, summed, is the output."""

    def __init__(self, *steps, **modules) -> None:
        super().__init__()
        self.steps, self.head = steps, nn.Linear(1, 2)
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x):
        for step in self.steps:
            x = step(self, x)
        return self.head(x.flatten(1).sum(1, keepdim=True))


def turn(net, x):
    return x.transpose(1, 2)


CONV = {"conv": lambda: nn.Conv1d(3, 4, 1)}


class Told(nn.Module):
    """Gives what a convolution does within a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 1)

    def forward(self, x):
        return {"a": self.conv(x)}


# what: the length of the sequence, steps, modules, the layer and its shape, and whether it has its channels first
TOLD = {
    "a convolution": (6, [lambda n, x: n.conv(x)], CONV, "conv", (4, 6), True),
    "its transpose": (6, [lambda n, x: n.conv(x)], {"conv": lambda: nn.ConvTranspose1d(3, 4, 1)}, "conv", (4, 6), True),
    "before any module": (
        6, [lambda n, x: x * 2, lambda n, x: n.conv(x)], {"conv": lambda: nn.Conv1d(3, 3, 1)}, "mul", (3, 6), None,
    ),
    "in a dict": (6, [lambda n, x: n.wrap(x)["a"]], {"wrap": Told}, "wrap", (4, 6), None),
    "an activation": (
        4, [lambda n, x: n.act(n.conv(x))], CONV | {"act": nn.GELU}, "act", (4, 4), True,
    ),
    "one by name that gives what it is given": (
        4, [lambda n, x: n.act(input=n.conv(x))], CONV | {"act": nn.Dropout}, "act", (4, 4), True,
    ),
    "of another tensor": (
        4, [lambda n, x: n.act(n.conv(x).transpose(1, 2))], CONV | {"act": nn.GELU}, "act", (4, 4), None,
    ),
    "a row of layers": (
        4, [lambda n, x: n.row(x)],
        {"row": lambda: nn.Sequential(nn.Conv1d(3, 4, 1), nn.ReLU())}, "row", (4, 4), True,
    ),
    "pooled by a function": (6, [lambda n, x: F.max_pool1d(n.conv(x), 2)], CONV, "max_pool1d", (4, 3), True),
    "pooled to a square": (8, [lambda n, x: F.max_pool1d(n.conv(x), 2)], CONV, "max_pool1d", (4, 4), None),
    "pooled of a square": (4, [lambda n, x: F.max_pool1d(n.conv(x), 2)], CONV, "max_pool1d", (4, 2), None),
    "other channels": (6, [lambda n, x: torch.cat([n.conv(x)] * 2, 1)], CONV, "cat", (8, 6), None),
    "tokens": (
        6, [lambda n, x: n.conv(x), turn, lambda n, x: n.up(x)], CONV | {"up": lambda: nn.Linear(4, 5)},
        "up", (6, 5), False,
    ),
    "fewer tokens": (
        6, [lambda n, x: n.conv(x), turn, lambda n, x: n.up(x)[:, ::2]], CONV | {"up": lambda: nn.Linear(4, 5)},
        "getitem", (3, 5), False,
    ),
    "tokens turned": (
        6, [lambda n, x: n.conv(x), turn, lambda n, x: n.up(x).transpose(1, 2)],
        CONV | {"up": lambda: nn.Linear(4, 5)}, "transpose_1", (5, 6), None,
    ),
    "tokens of a square": (
        5, [lambda n, x: n.conv(x), turn, lambda n, x: n.up(x)[:, 1:]], CONV | {"up": lambda: nn.Linear(4, 5)},
        "getitem", (4, 5), None,
    ),
    "the first of several": (
        6, [lambda n, x: n.conv(x), turn, lambda n, x: n.rnn(x)[0]],
        CONV | {"rnn": lambda: nn.LSTM(4, 5, batch_first=True)}, "rnn", (6, 5), False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", TOLD)
def test_modules_tell_of_what_follows_them_whether_channels_come_first(what):
    length, steps, modules, layer, shape, first = TOLD[what]
    network, x = Steps(*steps, **{name: make() for name, make in modules.items()}).eval(), torch.randn(2, 3, length)
    found = cuts(network, x, every=True)
    assert layer in [cut.name for cut in found] or layer in dict(network.named_modules())
    asked = {layer: shape, "vector": (4,), "map": (2, 3, 4)}
    assert channels_first(network, x, Call(), asked, found) == {layer: first}


def test_of_a_network_without_convolutions_of_sequences_nothing_is_asked():
    network = Steps(lambda n, x: n.up(x), up=nn.Linear(6, 5))
    assert channels_first(network, torch.randn(2, 3, 6), Call(), {"up": (3, 5)}, []) == {}


class Around(nn.Module):
    """A block around a convolution; one with a weight of its own may have made anything of what that gives."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.inner, self.weight = nn.Conv1d(3, 4, 1), nn.Parameter(torch.ones(4, 1)) if own else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = F.relu(self.inner(x))
        return z if self.weight is None else z * self.weight


@pytest.mark.parametrize("own", [False, True])
def test_a_block_keeps_the_channels_of_what_it_holds_if_it_has_no_weights_of_its_own(tmp_path, capsys, own):
    torch.manual_seed(0)
    network = nn.Sequential(Around(own), nn.Flatten(), nn.Linear(24, 2))
    probes = Probes(torch.randn(N, 3, 6), torch.arange(N) % 2)
    with Recorder(network, probes, tmp_path / "r.zarr", layers=["0"], dtype="float32", pool="mean") as recorder:
        recorder.record(step=0)
    assert ("taken for positions" in capsys.readouterr().err) == own
    made = network[0](probes.inputs).detach().mean(1 if own else 2)
    np.testing.assert_allclose(Run(tmp_path / "r.zarr").values("layers/0/activation")[0], made, rtol=1e-5, atol=1e-6)


class Translating(nn.Module):
    """Words of one sentence and of another, equally long."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.decoder, self.head = nn.Embedding(9, 4), nn.Embedding(9, 4), nn.Linear(4, 3)

    def forward(self, source, source_mask, target, target_mask):
        each = ((self.encoder(source), source_mask), (self.decoder(target), target_mask))
        one, other = ((z * m[:, :, None]).sum(1) / m.sum(1, keepdim=True) for z, m in each)
        return self.head(one * other)


@pytest.mark.parametrize("pool", ["none", "mean", "last"])
def test_encoder_and_decoder_have_masks_of_their_own(tmp_path, pool):
    random = torch.Generator().manual_seed(3)
    source, target = (torch.randint(0, 9, (N, 5), generator=random) for _ in range(2))
    masks = {
        "source": torch.arange(5) < 1 + torch.arange(N)[:, None] % 5,
        "target": torch.arange(5) >= torch.arange(N)[:, None] % 5,
    }
    given = {"source": source, "source_mask": masks["source"], "target": target, "target_mask": masks["target"]}
    probes = Probes(given, torch.arange(N) % 3, mask=masks["source"])
    layers, net = {"encoder": None, "decoder": Axis(mask="target_mask")}, Translating()
    with Recorder(net, probes, tmp_path / "r.zarr", layers=layers, pool=pool, dtype="float32") as recorder:
        for step in range(2):
            recorder.record(step=step)
            with torch.no_grad():
                net.encoder.weight += 1
                net.decoder.weight += 1
    run = Run(tmp_path / "r.zarr")
    for name, of in (("encoder", "source"), ("decoder", "target")):
        stored, z = run.values(f"layers/{name}/activation")[0], run.state(0)[f"{name}.weight"][given[of]]
        for i in range(N):
            own = z[i][masks[of][i]]
            wanted = {"none": own, "mean": own.mean(0), "last": own[-1]}[pool]
            found = stored[i][masks[of][i].numpy()] if pool == "none" else stored[i]
            np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)
            if pool == "none":
                assert np.isnan(stored[i][~masks[of][i].numpy()]).all()
    assert all(each.equal for each in run_again(net, probes, run.path)[2])
    if pool == "none":
        drift = featdyn.analyze(run, "drift")  # every real value moves by 1, and no other
        for name, of in (("encoder", "source"), ("decoder", "target")):
            z, real = run.state(0)[f"{name}.weight"][given[of]].double(), masks[of][:, :, None]
            size = (4.0 * masks[of].sum(1)).sqrt() / (z * real).flatten(1).norm(dim=1)
            moved = drift["motion"].sel(cut=name, t1=0, t2=1).values.ravel()
            np.testing.assert_allclose(moved, size.mean(), rtol=1e-5)
        featdyn.analyze(run, "spectra")
    with pytest.raises(
        ValueError, match="no input is called 'mask'; there are source, source_mask, target, target_mask"
    ):
        Recorder(net, probes, tmp_path / "s.zarr", layers={"decoder": Axis(mask="mask")})
    with pytest.raises(ValueError, match=r"input source must be .* of 0 \(padding\) and 1"):
        Recorder(net, probes, tmp_path / "s.zarr", layers={"decoder": Axis(mask="source")})
    assert not (tmp_path / "s.zarr").exists()
