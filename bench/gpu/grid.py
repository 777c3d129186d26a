"""The whole grid of composites of ResNet-20: T = 30 checkpoints, N = 10,000 samples, three cuts, row by row.

Samples are digits with noise, the network is trained on the card. Of the first row a hundred samples are predicted by
plain modules on the CPU too. bfloat16 comes first: it is the faster, and the whole grid is the more likely to fit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch

from bench import stitch as bench
from bench.harness import sized
from featdyn.networks import build, cuts, features_at, resolve
from featdyn_kernels import stitch
from tests.kernels.peers import stitch as peers

BATCH = 250
CHECKED = 100
AGREEMENT = {torch.float32: 1 - 1e-4, torch.bfloat16: 0.995}


def samples(count: int) -> torch.Tensor:
    """Return so many images, each a digit with noise of its own."""
    x, _ = bench.digits()
    noise = torch.randn(count, *x.shape[1:], generator=torch.Generator().manual_seed(0))
    return x[torch.arange(count) % len(x)] + 0.1 * noise


def trained(device: str, checkpoints: int) -> tuple[Any, list[dict[str, torch.Tensor]]]:
    """Return the network and as many of its states, from the first weights on."""
    x, y = (tensor.to(device) for tensor in bench.digits())
    steps, width = sized((10, 16), (1, 4))
    torch.manual_seed(0)
    network = build("resnet20", classes=10, shape=(3, 32, 32), width=width).to(device)
    optimizer = torch.optim.SGD(network.parameters(), 0.05, 0.9, weight_decay=1e-4)
    states = []
    for _ in range(checkpoints):
        states.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        for _ in range(steps):
            chosen = torch.randint(len(x), (64,), device=device)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(x[chosen]), y[chosen]).backward()
            optimizer.step()
    return network.eval(), states


def rows(device: str, seconds: float) -> Iterator[dict[str, Any]]:
    """Yield a row for each dtype: of the grid as much as there is time for, and whether it is the CPU's."""
    end = time.monotonic() + seconds
    checkpoints, count = sized((30, 10_000), (2, 3))
    x = samples(count)
    network, states = trained(device, checkpoints)
    at = resolve(cuts(network, x[:1].to(device)), "default")
    deep = [[peers.load(cut.suffix, state).cpu() for state in states] for cut in at]
    first = peers.load(features_at(network, at), states[-1]).cpu()
    expected = peers.shared(first, deep, x[:CHECKED], BATCH)()
    x = x.to(device)
    for dtype, wanted in reversed(AGREEMENT.items()):
        # Of few predictions one is more than that share.
        least = min(wanted, 1 - 1 / expected[0].numel())
        yield grid(network, states, at, x, expected, dtype, end, least)


def grid(
    network: Any, states: list[Any], at: Any, x: torch.Tensor, expected: Any, dtype: Any, end: float, least: float
) -> dict[str, Any]:
    """Stitch row by row until the end; a row is one checkpoint's shallow parts with the deep parts of all."""
    name, gpu = str(dtype).removeprefix("torch."), x.is_cuda
    banks = [stitch.SuffixBank.from_states(cut.suffix, states, dtype=dtype, backend="gpu") for cut in at]
    start, done, agreement = time.monotonic(), 0, 0.0
    with torch.inference_mode():
        for state in reversed(states):
            features = peers.load(features_at(network, at), state)
            parts = list(zip(*(features(part) for part in x.split(BATCH)), strict=True))
            found = torch.stack([bank.run(torch.cat(z)).predictions for bank, z in zip(banks, parts, strict=True)])
            if not done:
                agreement = float((found[..., :CHECKED].cpu() == expected).float().mean())
            if gpu:
                torch.cuda.synchronize()
            done += 1
            if time.monotonic() >= end:
                break
    taken, whole = time.monotonic() - start, done == len(states)
    macs = len(x) * done * (at[-1].prefix_macs + len(states) * sum(cut.suffix_macs for cut in at))
    size = f"ResNet-20, T={len(states)} N={len(x)} {'+'.join(cut.name for cut in at)} {name}"
    note = f"{done} of {len(states)} rows in {taken:.2f} s, compiling with them, {macs / taken:.3g} multiply-adds/s"
    plain = [bank.path for bank in banks if bank.path.name != "fused"]
    note += f"; {agreement:.4%} of predictions are the CPU's (wanted {least:.2%})"
    return {
        "what": size,
        "ok": False if plain or agreement < least else (True if whole else None),
        "note": note + "".join(f"; not fused: {path.why}" for path in plain),
        "rows": done, "seconds": taken, "multiply-adds per second": macs / taken, "agreement": agreement,
        "paths": [bank.path.why for bank in banks],
    }  # fmt: skip
