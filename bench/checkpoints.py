"""``featdyn capture`` of checkpoints that exist, beside a bare loop that reads them and runs the probes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from bench.harness import Case, sized
from featdyn.capture import Probes
from featdyn.capture.existing import capture
from featdyn.networks import build

BATCH = 64
SIZES = ((16, 6, 256), (64, 20, 64))  # width of the network, checkpoints, probes


def cases(device: str) -> Iterator[Case]:
    folder = Path(tempfile.mkdtemp(prefix="featdyn-bench-"))
    try:
        for size in sized(SIZES, ((2, 2, 6),)):
            for gradients in (False, True):
                yield _case(folder, device, *size, gradients=gradients)
    finally:
        shutil.rmtree(folder)


def _case(folder: Path, device: str, width: int, count: int, probes: int, *, gradients: bool) -> Case:
    torch.manual_seed(0)
    network = build("resnet20", classes=10, shape=(3, 32, 32), width=width).to(device)
    inputs, labels = torch.randn(probes, 3, 32, 32), torch.arange(probes) % 10
    paths = {step: folder / f"step{step}.pt" for step in range(count)}
    for step, path in paths.items():
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(1 + 1e-3 * step)
        torch.save(network.state_dict(), path)
    layers = ("s1b3", "s2b3", "s3b3")
    modules = [network.get_submodule(name) for name in layers]

    def ours() -> Tensor:
        store = folder / "run.zarr"
        shutil.rmtree(store, ignore_errors=True)
        run = capture(network, Probes(inputs, labels), paths, store, layers=layers, gradients=gradients, batch=BATCH)
        return torch.from_numpy(run.block("outputs/logits", count - 1, 0).copy())

    kept: list[Tensor] = []

    def bare() -> Tensor:
        network.eval()
        logits = torch.empty(0)
        for path in paths.values():
            network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
            kept.clear()
            hooks = [module.register_forward_hook(lambda m, a, out: kept.append(out)) for module in modules]
            found = []
            for start in range(0, probes, BATCH):
                x, y = (t[start : start + BATCH].to(device) for t in (inputs, labels))
                with torch.set_grad_enabled(gradients):
                    outputs = network(x.requires_grad_(gradients))
                    if gradients:
                        loss = torch.nn.functional.cross_entropy(outputs, y, reduction="sum")
                        torch.autograd.grad(loss, kept)
                found.append(outputs.detach().cpu())
                kept.clear()
            for hook in hooks:
                hook.remove()
            logits = torch.cat(found)
        return logits

    expected = bare()

    def check(found: Tensor) -> None:
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)

    what = "activations and gradients" if gradients else "activations"
    name = f"resnet20 of width {width}, {count} checkpoints, {probes} probes, 3 layers, {what}"
    return Case(name, ours, {"a bare loop": bare}, check, target={"a bare loop": 0.9}, repeats=3)
