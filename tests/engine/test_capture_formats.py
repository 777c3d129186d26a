"""Twenty checkpoints of a ResNet-18 in five formats, through the command line: five equal stores."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from featdyn.capture import Probes
from featdyn.store import Run

STEPS = tuple(range(0, 2000, 100))
FORMS = ("state_dict", "lightning", "safetensors", "index", "revisions")
LAYERS = "layer1,layer4,fc"


class Block(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        around = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        self.downsample = around if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        around = x if self.downsample is None else self.downsample(x)
        return (self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())) + around).relu()


class ResNet18(nn.Module):
    """The names and the form of torchvision's, an eighth and less as wide."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4)
        widths = (4, 4, 6, 8, 10)
        for i in range(1, 5):
            before, after = widths[i - 1], widths[i]
            setattr(self, f"layer{i}", nn.Sequential(Block(before, after, 1 + (i > 1)), Block(after, after, 1)))
        self.fc = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        for i in range(1, 5):
            x = getattr(self, f"layer{i}")(x)
        return self.fc(x.mean((2, 3)))


def small() -> nn.Module:
    return ResNet18()


def torchvisions() -> nn.Module:
    from torchvision.models import resnet18

    return resnet18(num_classes=10)


def probes() -> Probes:
    return Probes(torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(5) % 5)


def states(make: Callable[[], nn.Module], steps: tuple[int, ...]) -> dict[int, dict[str, Tensor]]:
    """Return the tensors of a network that moves from step to step, statistics and counters of batches too."""
    torch.manual_seed(0)
    net, found = make().train(), {}
    with torch.no_grad():
        for step in steps:
            for parameter in net.parameters():
                parameter += 0.01 * torch.randn(parameter.shape)
            net(torch.randn(4, 3, 16, 16))
            found[step] = {name: value.clone() for name, value in net.state_dict().items()}
    return found


def write(form: str, folder: Path, step: int, state: dict[str, Tensor]) -> None:
    """Save a checkpoint as its tool does."""
    if form == "state_dict":
        torch.save(state, folder / f"resnet18_step{step}.pt")
    elif form == "lightning":
        held = {
            "epoch": step // 500, "global_step": step, "pytorch-lightning_version": "2.5.0",
            "state_dict": {f"model.{name}": value for name, value in state.items()},
            "optimizer_states": [{"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}],
            "lr_schedulers": [], "loops": {}, "callbacks": {}, "hyper_parameters": {"width": 4},
        }  # fmt: skip
        torch.save(held, folder / f"epoch={step // 500}-step={step}.ckpt")
    elif form == "safetensors":
        save_file(state, folder / f"step-{step:06d}.safetensors")
    elif form == "index":
        (inner := folder / f"checkpoint-{step}").mkdir()
        parts = [f"model-{i + 1:05d}-of-00003.safetensors" for i in range(3)]
        for i, part in enumerate(parts):
            save_file(dict(list(state.items())[i::3]), inner / part, metadata={"format": "pt"})
        where = {name: parts[i % 3] for i, name in enumerate(state)}
        content = {"metadata": {"total_size": sum(v.nbytes for v in state.values())}, "weight_map": where}
        (inner / "model.safetensors.index.json").write_text(json.dumps(content))
    else:  # as a download of several revisions leaves them
        commit = hashlib.sha1(str(step).encode()).hexdigest()
        for inner in ("refs", "blobs", f"snapshots/{commit}"):
            (folder / "models--us--resnet18" / inner).mkdir(parents=True, exist_ok=True)
        blob = folder / "models--us--resnet18" / "blobs" / commit
        save_file(state, blob, metadata={"format": "pt"})
        snapshot = folder / "models--us--resnet18" / "snapshots" / commit
        os.symlink(os.path.relpath(blob, snapshot), snapshot / "model.safetensors")
        (snapshot / "config.json").write_text("{}")
        (folder / "models--us--resnet18" / "refs" / f"step{step}").write_text(commit)


PATTERNS = dict(
    zip(FORMS, ("*.pt", "*.ckpt", "*.safetensors", "checkpoint-*", "models--us--resnet18/refs/*"), strict=True)
)


def captured(featdyn, folder: Path, form: str, network: str, of: dict[int, dict[str, Tensor]]) -> Run:
    (folder / form).mkdir()
    for step in sorted(of, key=str):
        write(form, folder / form, step, of[step])
    code, out, err = featdyn(
        "capture", "--model", f"{__name__}:{network}", "--probes", f"{__name__}:probes", "--layers", LAYERS,
        "--checkpoints", folder / form / PATTERNS[form], "--store", folder / f"{form}.zarr", "--dtype", "float32",
        "--no-gradients",
    )  # fmt: skip
    assert code == 0, err
    assert out == f"{folder}/{form}.zarr: {len(of)} checkpoints, steps {min(of)} to {max(of)}\n"
    return Run(folder / f"{form}.zarr")


def equal(one: Run, other: Run) -> None:
    """Assert that two stores hold the same, value by value."""
    assert one.schema == other.schema
    for path, node in one.nodes.items():
        if node["node_type"] == "array":
            first, second = one.values(path), other.values(path)
            assert first.dtype == second.dtype
            np.testing.assert_array_equal(first, second, err_msg=path)
    for t in range(one.checkpoints):
        first, second = one.state(t), other.state(t)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def held() -> dict[int, dict[str, Tensor]]:
    return states(small, STEPS)


def test_a_folder_of_twenty_checkpoints_in_five_formats_gives_five_equal_stores(featdyn, tmp_path, held):
    first = captured(featdyn, tmp_path, FORMS[0], "small", held)
    assert first.values("step").tolist() == list(STEPS)
    net = small()
    net.load_state_dict(held[STEPS[7]])
    with torch.no_grad():  # the network itself, asked plainly
        expected = net.eval()(probes().inputs).numpy()
    np.testing.assert_allclose(first.values("outputs/logits")[7], expected, rtol=1e-5, atol=1e-6)
    assert len(np.unique(first.values("layers/fc/activation")[:, 0, 0])) == len(STEPS)
    for form in FORMS[1:]:
        equal(first, captured(featdyn, tmp_path, form, "small", held))


@pytest.mark.slow
def test_torchvisions_own_resnet18_too(featdyn, tmp_path):
    pytest.importorskip("torchvision")
    of = states(torchvisions, STEPS[:4])  # 45 MB each
    first = captured(featdyn, tmp_path, FORMS[0], "torchvisions", of)
    for form in FORMS[1:]:
        equal(first, captured(featdyn, tmp_path, form, "torchvisions", of))


def test_a_revision_that_was_not_downloaded_is_one_line(featdyn, tmp_path, held):
    (tmp_path / "refs").mkdir()
    (tmp_path / "refs" / "step5").write_text("0" * 40)
    code, _, err = featdyn(
        "capture", "--model", f"{__name__}:small", "--probes", f"{__name__}:probes", "--layers", "fc",
        "--checkpoints", tmp_path / "refs" / "*", "--store", tmp_path / "r.zarr",
    )  # fmt: skip
    assert code == 1
    assert "refs/step5: names the revision 000" in err
    assert not (tmp_path / "r.zarr").exists()
