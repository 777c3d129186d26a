"""The grid of composites of resnet20: T = 16 checkpoints, N = 1,000 samples, the three default cuts.

What is timed is a 64th of the grid: one checkpoint's prefix with the suffixes of all 16 at all cuts, on 250 samples.
The parts cost the same and share nothing, in ours as in the peers, so ratios of parts are ratios of grids. Ours
computes the features with the plain module, as the peers do, and hands them to the banks.

On a GPU float32 is IEEE's for all, but for the plain loop that the bfloat16 case is measured by: there torch rounds to
TF32, as it does by default. The better loops run in the case's own type.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from bench.harness import Case, sized
from featdyn.networks import build, cuts, features_at, resolve
from featdyn_kernels import stitch
from tests.kernels.peers import stitch as peers

CHECKPOINTS, SAMPLES = 16, 250
NO_FIGURE = "no GPU figure exists yet"


def digits() -> tuple[Tensor, Tensor]:
    """Return scikit-learn's digits as images (1797, 3, 32, 32), shuffled, and their labels."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = torch.from_numpy(data.images[order] / 8 - 1).float()[:, None]
    images = F.interpolate(images, size=(32, 32), mode="bilinear").expand(-1, 3, -1, -1).contiguous()
    return images, torch.from_numpy(data.target[order])


def train(x: Tensor, y: Tensor, device: str) -> tuple[nn.Module, list[dict[str, Tensor]]]:
    """Train resnet20 for 150 steps; return it and its states at 16 steps, from the first weights on."""
    steps, width = sized((150, 16), (3, 4))
    torch.manual_seed(0)
    network = build("resnet20", classes=10, shape=(3, 32, 32), width=width).to(device)
    optimizer = torch.optim.SGD(network.parameters(), 0.05, 0.9, weight_decay=1e-4)
    kept, states = np.unique(np.geomspace(1, steps + 1, 28).astype(int))[-CHECKPOINTS:], []
    for step in range(1, steps + 2):
        if step in kept:
            states.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        rows = torch.randint(len(x), (64,), device=device)
        optimizer.zero_grad()
        F.cross_entropy(network(x[rows]), y[rows]).backward()
        optimizer.step()
    return network.eval(), states


class Row:
    """A part of one row of the grid: the last checkpoint's prefix with the suffixes of all checkpoints, at all cuts."""

    def __init__(self, device: str) -> None:
        x, y = (tensor.to(device) for tensor in digits())
        samples = sized(SAMPLES, 6)
        self.x = x[:samples]
        network, self.states = train(x[samples:], y[samples:], device)
        self.cuts = resolve(cuts(network, x[:1]), "default")
        self.prefixes = [peers.load(cut.prefix, self.states[-1]) for cut in self.cuts]
        self.suffixes = [[peers.load(cut.suffix, state) for state in self.states] for cut in self.cuts]
        self.features = peers.load(features_at(network, self.cuts), self.states[-1])
        macs = self.cuts[-1].prefix_macs + len(self.states) * sum(cut.suffix_macs for cut in self.cuts)
        self.macs = samples * macs
        self.expected = peers.shared(self.features, self.suffixes, self.x, 250)().cpu()

    def ours(self, dtype: torch.dtype, batch: int) -> Callable[[], Tensor]:
        """Return our way."""
        banks = [stitch.SuffixBank.from_states(cut.suffix, self.states, dtype=dtype) for cut in self.cuts]

        def run() -> Tensor:
            with torch.inference_mode():
                parts = zip(*(self.features(part) for part in self.x.split(batch)), strict=True)
                return torch.stack([b.run(torch.cat(z)).predictions for b, z in zip(banks, parts, strict=True)])

        return run

    def best_plain(self, batches: tuple[int, ...]) -> tuple[int, Callable[[], Tensor]]:
        """Return the plain loop at the batch size that is fastest for two pairs."""
        times = {}
        for batch in batches:
            some = peers.plain(self.prefixes[:1], [self.suffixes[0][:2]], self.x, batch)
            some()
            start = time.perf_counter()
            some().cpu()
            times[batch] = time.perf_counter() - start
        best = min(times, key=lambda batch: times[batch])
        return best, peers.plain(self.prefixes, self.suffixes, self.x, best)

    def check(self, agreement: float) -> Callable[[Tensor], None]:
        """Return the check that this fraction of predictions equals those of the plain modules, for every cut."""

        def check(found: Tensor) -> None:
            equal = (found.cpu() == self.expected).float().mean((1, 2))
            # Of few predictions one is more than that share.
            least = min(agreement, 1 - (agreement < 1) / self.expected[0].numel())
            assert (equal >= least).all(), f"predictions equal to the plain modules', per cut: {equal.tolist()}"

        return check


def good_peers(row: Row, device: str, dtype: torch.dtype, batch: int) -> dict[str, peers.Row]:
    """Return the better loops; on the CPU they run in float32, which is faster there."""
    if device == "cpu":
        dtype = torch.float32
    features, suffixes = copy.deepcopy((row.features, row.suffixes))
    features, suffixes, x = features.to(dtype), [[s.to(dtype) for s in bank] for bank in suffixes], row.x.to(dtype)
    folded = peers.folded(features), [[peers.folded(suffix) for suffix in bank] for bank in suffixes]
    found = {"folded, shared": peers.shared(*folded, x, batch)}
    if device == "cuda":
        found |= {
            "torch.compile, shared": peers.compiled(features, suffixes, x, batch),
            "CUDA graph, folded, shared": peers.captured(*folded, x, batch),
            "vmap, shared": peers.vmapped(features, suffixes, x, batch),
        }
    return found


def cases(device: str) -> Iterator[Case]:
    """Yield the cases of one device."""
    with peers.precision("ieee"):
        row = Row(device)
        size, plain = row.best_plain((32, 64, 128, 256) if device == "cpu" else (50, 125, 250))
        batch = 50 if device == "cpu" else 250
        targets = {torch.float32: 5, torch.bfloat16: 15} if device == "cpu" else {torch.float32: 10, torch.bfloat16: 10}
        for dtype, target in targets.items():
            name = str(dtype).removeprefix("torch.")
            wanted = {"plain": target, "ceiling": 0.8} if device == "cpu" else {"plain": target, "best": 1.5}
            usual = plain if dtype == torch.float32 else peers.rounding(plain, "tf32")
            yield Case(
                name=f"resnet20 T={CHECKPOINTS} N=1000 {'+'.join(cut.name for cut in row.cuts)} {name}, "
                "a 64th of the grid",
                ours=row.ours(dtype, batch),
                peers={"plain": usual, **good_peers(row, device, dtype, batch)},
                check=row.check(1 - 1e-4 if dtype == torch.float32 else 0.995),
                ceiling=f"matmul-{name}",
                amount=row.macs,
                target=wanted,
                repeats=3,
                notes=f"plain in batches of {size}, the others of {batch}; multiply-adds are those of the direct sum "
                "with prefixes shared; "
                + ("peers in float32" if device == "cpu" else f"plain in float32, other peers in {name}; {NO_FIGURE}"),
            )
