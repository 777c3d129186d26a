"""The sample axis, and what other people's networks do: each is recorded right, or refused by name in one line."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from featdyn.analysis.driver import analyze
from featdyn.capture import Probes, Recorder, follow, tap
from featdyn.capture.blocks import BlockWriter
from featdyn.capture.call import Call
from featdyn.capture.follow import layer_shapes
from featdyn.capture.layers import select
from featdyn.errors import NetworkError, TrainingError
from featdyn.networks import class_loss, predicted_classes
from featdyn.store import ArraySpec, Run, Schema
from tests.strategies import sizes


class Body(nn.Module):
    """Tokens ``(N, T, 6)`` in, three logits out; what lies between is up to the subclass."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def between(self, x: Tensor) -> Tensor:
        return self.inner(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(x).mean(1))


class Folded(Body):
    def between(self, x):
        return self.inner(x.flatten(0, 1)).view(x.shape)


class TokensFirst(Body):
    def between(self, x):
        return self.inner(x.transpose(0, 1)).transpose(0, 1)


class Table(Body):
    """Adds what a table of positions gives: rows that are no samples."""

    def between(self, x):
        return x + self.inner(torch.eye(6, device="cpu")[: x.shape[1]])


class Sorted(Body):
    def between(self, x):
        order = x.sum((1, 2)).argsort()
        return self.inner(x[order])[order.argsort()]


class Dropping(Body):
    def between(self, x):
        return self.inner(nn.functional.dropout(x, 0.5))


class Centred(Body):
    """Samples meet: each loses the mean of its batch."""

    def between(self, x):
        return self.inner(x - x.mean(0))


def tokens(n: int = 9) -> Probes:
    generator = torch.Generator().manual_seed(3)
    return Probes(torch.randn(n, 5, 6, generator=generator), torch.arange(n) % 3)


@pytest.mark.parametrize("batch", [1, 5, 256])
@pytest.mark.parametrize("n", [1, 4, 5, 9])
@pytest.mark.parametrize("network", [Folded, TokensFirst, Table])
def test_rows_that_are_not_samples_are_refused_by_name(tmp_path, network, n, batch):
    with pytest.raises(NetworkError, match=r"layer inner gives .* rows for") as caught:
        Recorder(network(), tokens(n), tmp_path / "r.zarr", layers=["inner"], batch=batch)
    assert "leave it out" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "r.zarr").exists()
    assert select(network(), *tokens(n).few(torch.device("cpu")), ["head"])[0]["head"].shape == (3,)


class Batched(Body):
    """BatchNorm by batch in eval mode, between layers that are one sample's."""

    def between(self, x):
        return F.batch_norm(self.inner(x).flatten(1), None, None, training=True).view(x.shape)


class Together(Body):
    """Attention over the batch."""

    def between(self, x):
        flat = self.inner(x).flatten(1)
        return ((flat @ flat.T).softmax(1) @ flat).view(x.shape)


class Squeezed(Body):
    """Loses an axis in some batches."""

    def between(self, x):
        held = self.inner(x.transpose(0, 1) if len(x) == 4 else x.transpose(0, 1)[None])
        return held.reshape(x.shape[1], len(x), 6).transpose(0, 1)


def test_an_output_that_loses_an_axis_in_some_batches_is_refused_in_one_line(tmp_path):
    with pytest.raises(NetworkError, match="inner gives 3 or 4 axes, as the batch has it"):
        Recorder(Squeezed(), tokens(), tmp_path / "r.zarr", layers=["inner"], gradients=False)


@pytest.mark.parametrize("network", [Batched, Together])
def test_networks_whose_samples_meet_are_refused(tmp_path, network):
    with pytest.raises(NetworkError, match="samples meet"):
        Recorder(network(), tokens(), tmp_path / "r.zarr", layers=["head"], gradients=False)
    assert not (tmp_path / "r.zarr").exists()


@pytest.mark.parametrize(
    ("network", "message"), [(Sorted, "layer inner gives a sample other values"), (Centred, "output gives a sample")]
)
def test_samples_in_another_order_or_that_meet_are_refused(tmp_path, network, message):
    with pytest.raises(NetworkError, match=message):
        Recorder(network(), tokens(), tmp_path / "r.zarr", layers=["inner"], gradients=False)


def test_dropout_that_never_stops_is_refused_and_the_random_state_is_left(tmp_path):
    before = torch.get_rng_state()
    with pytest.raises(NetworkError, match="random in eval mode"):
        Recorder(Dropping(), tokens(), tmp_path / "r.zarr", layers=["inner"])
    Dropping()  # seeds
    before = torch.get_rng_state()
    with pytest.raises(NetworkError, match="random in eval mode"):
        layer_shapes(model := Dropping(), *tokens().few(torch.device("cpu")), ["inner"])
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loss_of_the_whole_batch_is_refused():
    few = tokens().few(torch.device("cpu"))
    with pytest.raises(ValueError, match=r"one number for each sample, shape \(4,\), got \(\)"):
        layer_shapes(Body(), *few, ["inner"], call=Call(loss=nn.functional.cross_entropy))
    with pytest.raises(NetworkError, match="the loss gives a sample other values"):
        layer_shapes(Body(), *few, ["inner"], call=Call(loss=lambda o, t: class_loss(o - o.mean(0), t)))


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([1e-6, 1.0, 1e4]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_what_follows_the_samples_is_never_refused(seed, scale, dtype):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 3)).to(dtype)
    inputs = (torch.randn(4, 6) * scale).to(dtype)
    found = layer_shapes(net, inputs, torch.tensor([0, 1, 2, 0]), ["0", "1", "2", "3"], gradients=True)
    assert found == {"0": (8,), "1": (8,), "2": (8,), "3": (3,)}


def test_a_fitted_network_passes_though_its_losses_are_rounding():
    net = nn.Sequential(nn.Linear(3, 3))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(3) * 16.5)
        net[0].bias.normal_(std=0.1)
    labels = torch.arange(3)
    assert tap.run(net, torch.eye(3), labels, [], gradients=False).loss.max() < 1e-6
    assert layer_shapes(net, torch.eye(3), labels, ["0"]) == {"0": (3,)}


def test_default_layers_leave_out_what_cannot_be_recorded(tmp_path):
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.cell(x)[0]
            return self.head(x[:, -1] if x.isnan().any() else x[:, -1] * 1)

    assert list(select(Recurrent(), *tokens().few(torch.device("cpu")), ["default"])[0]) == ["head"]
    asked = select(Recurrent(), *tokens().few(torch.device("cpu")), ["cell", "default"])[0]
    assert list(asked) == ["cell", "head"]
    for patterns in (["default"], []):
        with pytest.raises(NetworkError, match="no layer to record: name some in layers=; the network has no modules"):
            Recorder(nn.Linear(6, 3), Probes(torch.randn(4, 6), torch.arange(4) % 3), tmp_path / "r", layers=patterns)


class Spectrum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft(x)


class Size(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


def test_complex_and_integer_layers_are_refused_by_name():
    net = nn.Sequential(Spectrum(), Size(), nn.Linear(4, 3))
    few = torch.randn(4, 6), torch.arange(4) % 3
    with pytest.raises(NetworkError, match=r"layer 0 returns torch.complex64, not real numbers"):
        layer_shapes(net, *few, ["0"])
    assert layer_shapes(net, *few, ["1"], gradients=True) == {"1": (4,)}


def test_no_row_of_a_block_stays_unwritten():
    schema = Schema((ArraySpec("a", ("sample", "feature"), (8, 3), "float32"),), 8, 8)
    writer = BlockWriter(schema, list(schema.arrays), torch.device("cpu"))
    block = writer.empty(0)
    for wrong in (torch.zeros(4, 2), torch.zeros(4, 1), torch.zeros(4)):
        with pytest.raises(TrainingError, match="a has shape"):
            block.fill(0, {"a": wrong})
    writer.close()


def reference(net: nn.Module, head: nn.Module, inputs: Tensor, labels: Tensor) -> np.ndarray:
    """Float64 gradient of each sample's cross-entropy at the output of the first part."""
    at = copy.deepcopy(net).double()(inputs).detach().requires_grad_()
    loss = nn.functional.cross_entropy(copy.deepcopy(head).double()(at), labels, reduction="sum")
    return torch.autograd.grad(loss, at)[0].numpy()


def test_a_frozen_embedding_has_its_gradient(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(10, 6), nn.Flatten(), nn.Linear(24, 3))
    net[0].requires_grad_(False)
    inputs, labels = torch.randint(0, 10, (20, 4)), torch.randint(0, 3, (20,))
    with Recorder(net, Probes(inputs, labels), tmp_path / "r.zarr", layers=["0"], dtype="float32") as recorder:
        recorder.record(step=0)
    found = Run(tmp_path / "r.zarr").block("layers/0/gradient", 0, 0)
    np.testing.assert_allclose(found, reference(net[0], net[1:], inputs, labels), rtol=1e-4, atol=1e-7)


class FrozenBody(Body):
    def between(self, x):
        with torch.no_grad():
            return super().between(x).relu()


class Reentrant(Body):
    def between(self, x):
        return checkpoint(self.inner, x * self.head.weight[0, 0], use_reentrant=True)


class Checkpointed(Body):
    def between(self, x):
        return checkpoint(self.inner, x, use_reentrant=False)


def test_gradients_that_autograd_does_not_know_are_refused_not_zero():
    few = tokens().few(torch.device("cpu"))
    for network, message in (
        (FrozenBody, "layer inner runs where autograd is off"),
        (Reentrant, "use_reentrant=False"),
    ):
        with pytest.raises(NetworkError, match=message):
            layer_shapes(network(), *few, ["inner"], gradients=True)
    assert layer_shapes(FrozenBody(), *few, ["inner"]) == {"inner": (5, 6)}
    plain, kept = (tap.run(n(), *few, ["inner"], gradients=True).gradients["inner"] for n in (Body, Checkpointed))
    torch.testing.assert_close(plain, kept)
    assert plain.any()


class CentredInPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x -= 0.5
        return self.head(x)


@pytest.mark.parametrize("gradients", [False, True])
def test_a_first_operation_in_place_is_recorded_and_leaves_the_batch(gradients):
    torch.manual_seed(0)
    for net, layer in ((nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 3)), "1"), (CentredInPlace(), "head")):
        inputs = torch.randn(5, 6)
        given = inputs.clone()
        found = tap.run(net, inputs, torch.arange(5) % 3, [layer], gradients=gradients)
        assert torch.equal(inputs, given)
        torch.testing.assert_close(found.activations[layer], net(inputs.clone()).detach())


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_recording_works_where_a_loop_has_turned_autograd_off(around):
    few = tokens().few(torch.device("cpu"))
    expected = tap.run(Body(), *few, ["inner"], gradients=True)
    net = Body()
    with around():
        found = tap.run(net, *tokens().few(torch.device("cpu")), ["inner"], gradients=True)
    torch.testing.assert_close(found.gradients, expected.gradients)


def test_another_default_device_changes_nothing(tmp_path):
    stores = [tmp_path / "a.zarr", tmp_path / "b.zarr"]
    for store, device in zip(stores, ("cpu", "meta"), strict=True):
        net, probes = Body(), tokens()
        torch.set_default_device(device)
        try:
            with Recorder(net, probes, store, layers=["inner"]) as recorder:
                recorder.record(step=0)
        finally:
            torch.set_default_device(None)
    one, other = (Run(store) for store in stores)
    for path in ("layers/inner/activation", "layers/inner/gradient", "cube/sketch", "outputs/loss"):
        np.testing.assert_array_equal(one.values(path), other.values(path))


def test_a_bfloat16_network_is_recorded(tmp_path):
    net, probes = Body().bfloat16(), Probes(tokens().inputs.bfloat16(), tokens().labels)
    with Recorder(net, probes, tmp_path / "r.zarr", layers=["inner"]) as recorder:
        recorder.record(step=0)
    run = Run(tmp_path / "r.zarr")
    expected = net.inner(probes.inputs).detach().float().numpy()
    np.testing.assert_allclose(run.values("layers/inner/activation")[0], expected, rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(run.values("inputs/input"), probes.inputs.float().numpy())


def test_extra_state_is_no_part_of_a_checkpoint(tmp_path):
    class Counting(nn.Linear):
        def get_extra_state(self):
            return {"calls": 3}

    net = nn.Sequential(Counting(6, 3))
    with Recorder(net, Probes(torch.randn(4, 6), torch.arange(4) % 3), tmp_path / "r.zarr", layers=["0"]) as recorder:
        recorder.record(step=0)
    assert Run(tmp_path / "r.zarr").state(0).keys() == {"0.weight", "0.bias"}


@pytest.mark.parametrize("kind", [lambda x: x, lambda x: x.numpy()])
@settings(deadline=None, max_examples=30)
@given(width=sizes(1, 4), n=sizes(1, 6), seed=st.integers(0, 10**6))
def test_classes_of_one_logit_and_of_many(kind, width, n, seed):
    logits = torch.randn(n, width, generator=torch.Generator().manual_seed(seed))
    whole = torch.cat([torch.zeros(n, 1), logits], 1) if width == 1 else logits  # one logit stands against 0
    none = torch.rand(n, generator=torch.Generator().manual_seed(seed)) < 0.3
    given = kind(torch.where(none[:, None] & (torch.arange(width) == seed % width), torch.nan, logits))
    assert predicted_classes(given).tolist() == whole.argmax(1).masked_fill(none, -1).tolist()
    found = predicted_classes(kind(logits))
    assert isinstance(found, type(kind(logits)))
    assert found.dtype in (torch.int64, np.dtype("int64"))
    assert found.tolist() == whole.argmax(1).tolist()
    labels = torch.arange(n) % whole.shape[1]
    expected = nn.functional.cross_entropy(whole.double(), labels, reduction="none")
    torch.testing.assert_close(class_loss(logits, labels).double(), expected, rtol=1e-4, atol=1e-6)


def test_a_cut_that_no_module_returns_is_recorded_and_has_its_gradient(tmp_path):
    class Pooling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.conv, self.head = nn.Conv2d(2, 5, 3), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.conv(x)).mean((2, 3)))

    net = Pooling().eval()
    inputs, labels = torch.randn(7, 2, 6, 6, generator=torch.Generator().manual_seed(0)), torch.arange(7) % 3
    with Recorder(net, Probes(inputs, labels), tmp_path / "r.zarr", dtype="float32", batch=7) as recorder:
        recorder.record(step=0)
        with torch.no_grad():
            net.conv.weight.mul_(2)  # trained in place
        recorder.record(step=1)
    run = Run(tmp_path / "r.zarr")
    pooled = [name for name in run.layers if name not in dict(net.named_modules())]
    assert len(pooled) == 1, run.layers
    x = F.relu(net.conv(inputs)).mean((2, 3)).detach().requires_grad_()
    F.cross_entropy(net.head(x), labels, reduction="sum").backward()
    np.testing.assert_allclose(run.values(f"layers/{pooled[0]}/activation")[1], x.detach().numpy(), rtol=1e-6)
    np.testing.assert_allclose(run.values(f"layers/{pooled[0]}/gradient")[1], x.grad.numpy(), rtol=1e-5, atol=1e-8)
    assert not np.allclose(run.values(f"layers/{pooled[0]}/activation")[0], x.detach().numpy())
    again = Recorder(net, Probes(inputs, labels), tmp_path / "named.zarr", layers=[pooled[0], "conv"])
    again.close()


class Skipping(nn.Module):
    """Whose cut behind the sum is no module's output; it depends on a number and a buffer of the network."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.a, self.head, self.alpha = nn.Linear(6, 6), nn.Linear(6, 3), 1.0
        self.register_buffer("flag", torch.zeros(()))

    def joined(self, x: Tensor) -> Tensor:
        return F.relu(self.a(x) * self.alpha + x * (1 + self.flag))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.joined(x))


def test_a_cut_without_a_module_is_that_of_the_network_as_it_is_now(tmp_path):
    net, inputs = Skipping().eval(), torch.randn(7, 6, generator=torch.Generator().manual_seed(0))
    probes = Probes(inputs, torch.arange(7) % 3)
    with Recorder(net, probes, tmp_path / "r.zarr", dtype="float32", batch=7, layers=["all"]) as recorder:
        (name,) = [layer for layer in recorder.layers if layer not in dict(net.named_modules())]
        for step in range(5):
            recorder.record(step=step)
            recorder.wait()
            expected = net.joined(inputs).detach().requires_grad_()
            F.cross_entropy(net.head(expected), probes.labels, reduction="sum").backward()
            run = Run(tmp_path / "r.zarr")
            found = run.values(f"layers/{name}/activation")[step], run.values(f"layers/{name}/gradient")[step]
            np.testing.assert_allclose(found[0], expected.detach().numpy(), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(found[1], expected.grad.numpy(), rtol=1e-4, atol=1e-7)
            net.zero_grad()
            if step == 0:
                net.alpha = 3.0
            elif step == 1:
                net.flag.fill_(1)
            elif step == 2:
                net.load_state_dict({k: v * 2 for k, v in net.state_dict().items()}, assign=True)
            elif step == 3:
                net.a = nn.Linear(6, 6)
        net.a.register_forward_hook(lambda module, given, out: out + 1)
        with pytest.raises(NetworkError, match="is no module's output, and hooks or changes hide it"):
            recorder.record(step=9)
    with pytest.raises(NetworkError, match="hooks or changes hide it"):
        Recorder(net, probes, tmp_path / "hooked.zarr", layers=[name])


def test_a_branch_on_a_buffer_is_not_taken_as_it_is_now(tmp_path):
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.a, self.h, self.h2 = nn.Linear(6, 6), nn.Linear(6, 3), nn.Linear(6, 3)
            self.register_buffer("flag", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            z = torch.tanh(self.a(x))
            return self.h(z) if self.flag > 0.5 else self.h2(z)

    net, inputs = Branch().eval(), torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
    probes = Probes(inputs, torch.arange(12) % 3)
    with Recorder(net, probes, tmp_path / "r.zarr", layers=["a"], dtype="float32") as recorder:
        for step, flag in enumerate((0.0, 1.0, 0.0)):
            net.flag.fill_(flag)
            recorder.record(step=step)
            recorder.wait()
    found = analyze(Run(tmp_path / "r.zarr"), "consistency", model=net, cuts=["a"])
    assert found["diagonal_differences"].values.tolist() == [0]


@pytest.mark.parametrize(
    ("dtype", "largest", "around", "tolerance", "allowed"),
    [
        (torch.float64, 2.0, 0.0, 1e-3, 2e-3),
        (torch.float64, 2.0, 0.0, 1e-5, 2e-5),
        (torch.float32, 3.0, 0.0, 1e-3, 3e-3),  # its own rounding is far finer
        (torch.bfloat16, 1.0, 0.0, 1e-3, 2.0**-3.5),
        (torch.float16, 1.0, 0.0, 1e-3, 2.0**-5),
        (torch.float64, 0.0, 2.0**40, 1e-3, 16 * 2.0**-12),
        (torch.int64, 1000.0, 1e9, 1e-2, 10.0),
    ],
)
def test_values_are_close_up_to_a_share_of_the_largest_and_the_rounding_around(
    dtype, largest, around, tolerance, allowed
):
    one = torch.tensor([0.0, largest]).to(dtype)
    for by, alike in ((0.95, True), (1.05, False)):
        other = one.double() + torch.tensor([by * allowed, 0.0])
        assert follow.close(one, other, around, tolerance) == alike


def test_what_is_not_finite_is_close_to_itself_alone():
    values = torch.tensor([torch.nan, torch.inf, -torch.inf, 1.0])
    assert follow.close(values, values)
    assert not follow.close(values, values + torch.tensor([0, 0, 0, 2e-3]))  # the largest is the finite one
    for place in range(3):
        other = values.clone()
        other[place] = 0.0
        assert not follow.close(values, other)
    assert follow.close(torch.zeros(0, 3), torch.zeros(0, 3))
