from __future__ import annotations

import copy
import threading
import time
import zlib

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from featdyn.capture import Probes, Recorder, before, cube, tap
from featdyn.capture.blocks import Block, BlockWriter
from featdyn.capture.layers import select
from featdyn.capture.probes import batch_of
from featdyn.errors import NetworkError, RecipeError, StoreError, TrainingError
from featdyn.store import ArraySpec, Run, RunWriter, Schema, reader
from featdyn_kernels.summaries import summarise
from tests.engine.runs import tree


def make_net() -> nn.Sequential:
    """Everything a probe pass could disturb: batch statistics, dropout, an in-place step."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(4 * 25, 3),
    )


def make_probes(n: int = 11, shape: tuple[int, ...] = (1, 5, 5), classes: int = 3) -> Probes:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(n, *shape, generator=generator)
    labels = torch.randint(0, classes, (n,), generator=generator)
    return Probes(inputs, labels)


def train_steps(net: nn.Module, recorder: Recorder | None, steps: int = 4) -> dict[str, Tensor]:
    torch.manual_seed(5)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    net.train()
    for _ in range(steps):
        inputs, labels = torch.randn(8, 1, 5, 5), torch.randint(0, 3, (8,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(inputs), labels).backward()
        if recorder:
            recorder.step()  # between backward and step: gradients are there to be disturbed
        optimizer.step()
    return {**net.state_dict(), "random": torch.rand(3), "training": torch.tensor(net.training)}


def test_recording_leaves_training_untouched(tmp_path):
    plain = train_steps(make_net(), None)
    net = make_net()
    with Recorder(net, make_probes(), tmp_path / "r.zarr", layers=["*"], batch=4) as recorder:
        recorded = train_steps(net, recorder)
        recorder.wait()
        assert recorder.checkpoints == 4
    assert plain.keys() == recorded.keys()
    for name in plain:
        assert torch.equal(plain[name], recorded[name]), name


def test_mixed_modes_are_restored():
    net = make_net()
    net[1].eval()
    before = [m.training for m in net.modules()]
    tap.run(net, torch.randn(2, 1, 5, 5), torch.tensor([0, 1]), ["0"], gradients=True)
    assert [m.training for m in net.modules()] == before


def test_activations_and_gradients_match_a_float64_reference():
    net, probes = make_net(), make_probes()
    found = tap.run(net, probes.inputs, probes.labels, ["0", "1", "2", "5"], gradients=True)
    reference = copy.deepcopy(net).double().eval()
    for i, label in enumerate(probes.labels):
        x = probes.inputs[i : i + 1].double().requires_grad_()
        conv = reference[0](x)
        norm = reference[1](conv)
        relu = torch.relu(norm)
        logits = reference[5](relu.flatten(1))
        loss = -torch.log_softmax(logits, 1)[0, label]
        kept = {"0": conv, "1": norm, "2": relu, "5": logits}
        gradients = torch.autograd.grad(loss, list(kept.values()))
        for (name, value), gradient in zip(kept.items(), gradients, strict=True):
            torch.testing.assert_close(found.activations[name][i].double(), value[0].detach(), rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(found.gradients[name][i].double(), gradient[0], rtol=1e-4, atol=1e-7)
        assert found.loss[i].item() == pytest.approx(loss.item(), rel=1e-5)


def test_frozen_layers_have_gradients_too():
    net = make_net().requires_grad_(False)
    found = tap.run(net, torch.randn(3, 1, 5, 5), torch.tensor([0, 1, 2]), ["0"], gradients=True)
    assert found.gradients["0"].abs().sum() > 0
    assert all(p.grad is None for p in net.parameters())


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.unused, self.pair = nn.Linear(3, 3), nn.Linear(3, 3), Pair()

    def forward(self, x: Tensor) -> Tensor:
        return self.pair(self.inner(self.inner(x)))[0]


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


@pytest.mark.parametrize(
    ("layer", "message"), [("inner", "runs twice"), ("unused", "does not run"), ("pair", "returns tuple")]
)
def test_layers_that_cannot_be_recorded(layer, message):
    with pytest.raises(NetworkError, match=message):
        tap.run(Twice(), torch.randn(2, 3), torch.tensor([0, 1]), [layer], gradients=False)


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        return self.second(-hidden if hidden.isnan().any() else hidden)


def test_a_module_that_cannot_be_traced_is_recorded_at_its_cuts(tmp_path):
    probes = make_probes(shape=(6,))
    with Recorder(Untraceable(), probes, tmp_path / "r.zarr") as recorder:
        recorder.record(step=0)
        assert list(recorder.layers) == ["first"]


def test_layers_come_in_the_order_in_which_they_run():
    probes = make_probes()
    found, _ = select(make_net(), probes.inputs, probes.labels, ["5", "0", "[12]"])
    shapes = {name: layer.shape for name, layer in found.items()}
    assert shapes == {"0": (4, 5, 5), "1": (4, 5, 5), "2": (4, 5, 5), "5": (3,)}
    with pytest.raises(NetworkError, match="no layer 'conv'"):
        select(make_net(), probes.inputs, probes.labels, ["conv"])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_store_holds_what_passed_the_network(tmp_path, dtype):
    net, probes = make_net(), make_probes()
    store = tmp_path / "r.zarr"
    with Recorder(net, probes, store, layers=["0", "5"], dtype=dtype, batch=4, coords=["loss"], sketch=7) as recorder:
        recorder.record(step=0, loss=1.5)
        expected = [tap.run(net, probes.inputs, probes.labels, ["0", "5"], gradients=True)]
        train_steps(net, None)
        recorder.record(step=4, loss=0.5)
        expected.append(tap.run(net, probes.inputs, probes.labels, ["0", "5"], gradients=True))
    tree = xr.open_datatree(store, engine="zarr")
    assert tree["loss"].values.tolist() == [1.5, 0.5]
    tolerance = {"float32": 1e-5, "float16": 2e-3}[dtype]
    for t, passed in enumerate(expected):
        for layer in ("0", "5"):
            node = tree[f"layers/{layer}"]
            activation = passed.activations[layer].numpy()
            np.testing.assert_allclose(node["activation"][t], activation, rtol=tolerance, atol=1e-6)
            gradient = passed.gradients[layer].numpy()
            np.testing.assert_allclose(node["gradient"][t], gradient, rtol=tolerance, atol=1e-8)
        np.testing.assert_allclose(tree["outputs/logits"][t], passed.logits, rtol=1e-5, atol=1e-6)
    state = Run(store).state(1)
    assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())


def test_cube_follows_from_the_stored_arrays(tmp_path):
    net, probes, store = make_net(), make_probes(), tmp_path / "r.zarr"
    with Recorder(net, probes, store, layers=["2", "5"], batch=4) as recorder:
        recorder.record(step=0)
        train_steps(net, None)
        recorder.record(step=4)
    tree = xr.open_datatree(store, engine="zarr")
    assert tree["cube/activation_norm"].dims == ("checkpoint", "layer", "sample")
    for position, layer in enumerate(("2", "5")):
        values = tree[f"layers/{layer}/activation"].values.astype(np.float64).reshape(2, 11, -1)
        gradient = tree[f"layers/{layer}/gradient"].values.astype(np.float64).reshape(2, 11, -1)
        norm = np.linalg.norm(values, axis=-1)
        cosine = (values[0] * values[1]).sum(-1) / (norm[0] * norm[1])
        cell = tree["cube"].isel(layer=position)
        np.testing.assert_allclose(cell["activation_norm"], norm, rtol=1e-5)
        np.testing.assert_allclose(cell["activation_mean"], values.mean(-1), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(cell["activation_sparsity"], (values == 0).mean(-1), atol=1e-6)
        np.testing.assert_allclose(cell["activation_cosine"][1], cosine, rtol=1e-4)
        assert cell["activation_cosine"][0].isnull().all()
        np.testing.assert_allclose(cell["gradient_norm"], np.linalg.norm(gradient, axis=-1), rtol=1e-4)


@settings(deadline=None, max_examples=30)
@given(features=st.integers(1, 70), width=st.integers(1, 40))
def test_sketch_is_a_linear_map_with_one_sign_per_feature(features, width):
    sketch = cube.Sketch("layer", features, width)
    matrix = projected(sketch, torch.eye(features))
    assert torch.equal(matrix.abs().sum(1), torch.ones(features))  # each feature lands in one component, once
    assert matrix.abs().sum(0).max() <= -(-features // width)  # balanced
    x = torch.randn(3, features)
    torch.testing.assert_close(projected(sketch, x), x @ matrix)


def projected(sketch, x):
    return summarise(x, slots=sketch.slots, width=sketch.width).sketch.float()


@pytest.mark.parametrize(("layer", "features", "width"), [("s1b3", 130, 64), ("stem", 7, 16)])
def test_the_projection_is_the_one_of_stores_that_are_there(layer, features, width):
    generator = torch.Generator().manual_seed(zlib.crc32(layer.encode()))
    order = torch.randperm(features, generator=generator)
    signs = torch.randint(0, 2, (features,), generator=generator) * 2.0 - 1
    x = torch.randn(4, features)
    signed = nn.functional.pad(x[:, order] * signs, (0, -features % width))
    torch.testing.assert_close(projected(cube.Sketch(layer, features, width), x), signed.view(4, -1, width).sum(1))


def test_sketch_keeps_inner_products_on_average():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 200, generator=generator, dtype=torch.float32)
    estimates = [
        (a * b).sum().item()
        for a, b in (projected(cube.Sketch(str(i), 200, 50), torch.stack([x, y])) for i in range(400))
    ]
    spread = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - (x * y).sum().item()) < 4 * spread


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_is_kept_of_the_checkpoint_before_is_what_would_be_read(tmp_path, monkeypatch, dtype):
    read = []

    def run(name):
        net = make_net()
        with Recorder(net, make_probes(), tmp_path / name, layers=["2", "5"], batch=4, dtype=dtype) as recorder:
            for step in (0, 1):
                recorder.record(step=step)
                train_steps(net, None)
            broken = net[0].weight.detach().clone()
            with torch.no_grad():
                net[0].weight.fill_(torch.nan)
            recorder.record(step=2)
            with pytest.raises(TrainingError, match="not finite"):
                recorder.wait()
            with torch.no_grad():
                net[0].weight.copy_(broken)
            count = len(read)
            recorder.record(step=2)  # what was kept is of a checkpoint that was given up
            recorder.wait()
            assert len(read) > count
            recorder.record(step=3)
        return Run(tmp_path / name).values("cube/activation_cosine")

    monkeypatch.setattr(before, "read_block", lambda *a: read.append(a) or reader.read_block(*a))
    kept, reads = run("kept.zarr"), len(read)
    monkeypatch.setattr(before, "KEPT_BYTES", 0)
    assert np.array_equal(kept, run("read.zarr"), equal_nan=True)
    assert len(read) - reads > reads > 0
    assert np.isfinite(kept[1:]).all()


@pytest.mark.parametrize(("samples", "rows"), [(3, 3), (4, 4), (9, 4)])
def test_activations_are_kept_up_to_half_a_gibibyte_for_all_blocks(samples, rows):
    def kept(blocks, width):
        axes, lengths = ("sample", "feature"), (samples, width)
        found = [ArraySpec(f"layers/a/{of}", axes, lengths, "float32") for of in ("activation", "gradient")]
        found.append(ArraySpec("layers/b/activation", axes, (samples, 2), "float16"))
        return before.kept_bytes(Schema(tuple(found), samples, 4), blocks)

    assert kept(1, 7) == rows * (7 * 4 + 4)  # gradients are compared with nothing
    assert kept(3, 7) == 3 * rows * (7 * 4 + 4)
    assert kept(8 // rows, 2**24 - 1) == 8 // rows * rows * 2**26
    assert kept(8 // rows + 1, 2**24 - 1) == 0
    assert rows < 4 or kept(2, 2**24) == 0


def test_a_batch_fills_all_arrays_of_a_block_and_no_others():
    def block():
        return Block({"a": torch.zeros(4, 2)}, {"a": torch.zeros(4, dtype=torch.float64)})

    values = torch.arange(4.0).view(2, 2)
    filled = block()
    filled.fill(2, {"a": values})
    assert filled.rows == 4
    assert filled.arrays["a"].tolist() == [[0, 0], [0, 0], [0, 1], [2, 3]]
    assert filled.largest["a"].tolist() == [0, 0, 1, 3]
    for batch, said in (
        ({}, "a is not in a batch, unlike at first"),
        ({"a": values, "b": values}, "b is in a batch, unlike at first"),
        ({"a": values[:, :1]}, r"a has shape \(2, 1\) in a batch, not \(2, 2\)"),
    ):
        with pytest.raises(TrainingError, match=said):
            block().fill(0, batch)


def test_float16_overflow_and_nan_are_refused_and_nothing_is_committed(tmp_path):
    net = make_net()
    with Recorder(net, make_probes(), tmp_path / "r.zarr", layers=["0"]) as recorder:
        recorder.record(step=0)
        with torch.no_grad():
            net[0].weight.mul_(1e7)
        recorder.record(step=1)
        with pytest.raises(TrainingError, match="does not fit float16"):
            recorder.wait()
        with torch.no_grad():
            net[0].weight.fill_(float("nan"))
        recorder.record(step=1)
        with pytest.raises(TrainingError, match="not finite"):
            recorder.record(step=2)
        assert recorder.checkpoints == 1
    assert Run(tmp_path / "r.zarr").checkpoints == 1


def test_failure_before_the_first_commit_leaves_nothing(tmp_path):
    net = make_net()
    with torch.no_grad():
        net[0].weight.fill_(float("nan"))
    with (
        pytest.raises(TrainingError),
        Recorder(net, make_probes(), tmp_path / "r.zarr", layers=["0"]) as recorder,
    ):
        recorder.record(step=0)
    assert not (tmp_path / "r.zarr").exists()


def test_wrong_options_leave_nothing(tmp_path):
    for options, error in (({"layers": ["nope"]}, NetworkError), ({"dtype": "bfloat16"}, RecipeError)):
        with pytest.raises(error):
            Recorder(make_net(), make_probes(), tmp_path / "r.zarr", **options)
    assert not (tmp_path / "r.zarr").exists()


def test_recording_goes_on_in_the_same_store_and_refuses_another(tmp_path):
    net, store = make_net(), tmp_path / "r.zarr"
    with Recorder(net, make_probes(), store, layers=["0"]) as recorder:
        recorder.record(step=0)
        with pytest.raises(StoreError, match="is being written"):
            Recorder(net, make_probes(), store, layers=["0"])
    with Recorder(net, make_probes(), store, resume=True, layers=["0"]) as recorder:
        recorder.record(step=1)
    assert Run(store).checkpoints == 2
    with pytest.raises(StoreError, match="another recording"):
        Recorder(net, make_probes(), store, resume=True, layers=["5"])
    other = make_probes()
    other.coords["sample"][0] = "another"
    with pytest.raises(StoreError, match="another recording"):
        Recorder(net, other, store, resume=True, layers=["0"])
    with (
        Recorder(net, make_probes(), store, resume=True, layers=["0"]) as recorder,
        pytest.raises(ValueError, match="coords must be"),
    ):
        recorder.record(step=2, loss=1.0)


def test_steps_are_recorded_when_due(tmp_path):
    with Recorder(make_net(), make_probes(), tmp_path / "r.zarr", layers=["5"], every=3) as recorder:
        assert [recorder.step() for _ in range(7)] == [False, False, True, False, False, True, False]
    assert Run(tmp_path / "r.zarr").coords["step"].values.tolist() == [3, 6]


def test_a_checkpoint_is_committed_behind_training_and_holds_what_was_there(tmp_path, monkeypatch):
    net, go, order = make_net(), threading.Event(), []
    publish = RunWriter._publish

    def slow(self, *arguments, **options):
        assert go.wait(240)
        order.append("committed")
        publish(self, *arguments, **options)

    monkeypatch.setattr(RunWriter, "_publish", slow)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    logits = net.eval()(make_probes().inputs).detach()
    with Recorder(net, make_probes(), tmp_path / "r.zarr", layers=["0"], dtype="float32") as recorder:
        recorder.record(step=0)
        assert recorder.checkpoints == 0
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.zero_()
        order.append("trained")
        threading.Timer(0.1, go.set).start()
        recorder.record(step=1)  # waits for the one before
        assert order[:2] == ["trained", "committed"]
        recorder.wait()
        assert recorder.checkpoints == 2
    run = Run(tmp_path / "r.zarr")
    assert all(torch.equal(run.state(0)[name], value) for name, value in before.items())
    np.testing.assert_allclose(run.array("outputs/logits")[0].values, logits.numpy(), rtol=1e-5, atol=1e-6)
    assert not run.array("outputs/logits")[1].values.any()


def test_a_probe_pass_that_fails_takes_its_files_away(tmp_path, monkeypatch):
    net = make_net()
    with Recorder(net, make_probes(), tmp_path / "r.zarr", layers=["0"]) as recorder:
        recorder.record(step=0)
        recorder.wait()
        committed = tree(tmp_path / "r.zarr")
        with monkeypatch.context() as patched:
            patched.setattr("featdyn.capture.tap.run", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                recorder.record(step=1)
        assert tree(tmp_path / "r.zarr") == committed
        recorder.record(step=1)
    assert Run(tmp_path / "r.zarr").checkpoints == 2


def results(futures):
    for future in futures:
        future.result()


def test_blocks_wait_for_the_writer_and_report_its_errors():
    schema = Schema((ArraySpec("a", ("sample", "feature"), (64, 1000), "float32"),), 64, 16)
    writer = BlockWriter(schema, list(schema.arrays), torch.device("cpu"))
    seen, inside, most = [], 0, 0
    guard = threading.Lock()

    def slow(block):
        nonlocal inside, most
        with guard:
            inside += 1
            most = max(most, inside)
        time.sleep(0.005)
        assert (block.arrays["a"] == block.index).all()  # nobody fills a block that is being written
        seen.append(block.index)
        with guard:
            inside -= 1

    for index in range(40):
        block = writer.empty(index)
        for start in range(0, 16, 4):
            block.fill(start, {"a": torch.full((4, 1000), float(index))})
        writer.submit(block, slow)
    writer.then(results).result()
    assert seen == list(range(40))
    assert most == 1

    def fail(block):
        raise OSError("no room")

    writer.submit(writer.empty(0), fail)
    with pytest.raises(OSError, match="no room"):
        writer.then(results).result()
    writer.close()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_asynchronous_copies_are_complete_before_they_are_read():
    rows, features = 256, 400_000  # large and repeated: small copies pass by luck
    schema = Schema((ArraySpec("a", ("sample", "feature"), (rows * 2, features), "float16"),), rows * 2, rows)
    writer = BlockWriter(schema, list(schema.arrays), torch.device("cuda"))

    def check(block):
        assert (block.arrays["a"] == block.index % 1000).all()

    for index in range(30):
        block = writer.empty(index)
        for start in range(0, rows, 64):
            block.fill(start, {"a": torch.full((64, features), float(index % 1000), device="cuda")})
        writer.submit(block, check)
    writer.then(results).result()
    writer.close()


def test_probes_check_their_coordinates():
    inputs, labels = torch.randn(3, 2), torch.tensor([0, 1, 0])
    with pytest.raises(ValueError, match="labels must have shape"):
        Probes(inputs, labels[:2])
    with pytest.raises(ValueError, match="unique"):
        Probes(inputs, labels, {"sample": np.array(["a", "a", "b"], dtype=object)})
    with pytest.raises(ValueError, match="split must have length 3"):
        Probes(inputs, labels, {"split": np.array(["a"], dtype=object)})
    batch, _ = Probes(inputs, labels).rows(batch_of(2, 3, 4), torch.device("cpu"))
    assert torch.equal(batch, inputs[[2, 2, 2, 2]])
