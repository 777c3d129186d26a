"""The loops that stitching is measured by give what plain composites give."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.kernels.peers import stitch as peers
from tests.kernels.test_stitch import Residual, head


@pytest.fixture
def parts() -> tuple:
    """Two cuts of a small network, three checkpoints of it, and 7 images."""
    torch.manual_seed(0)
    networks = [nn.Sequential(nn.Conv2d(3, 8, 3), Residual(8, 8), Residual(8, 16, 2), *head(16)) for _ in range(3)]
    states = [network.state_dict() for network in networks]
    prefixes = [peers.load(networks[0][:cut], states[0]) for cut in (1, 2)]
    suffixes = [[peers.load(networks[0][cut:], state) for state in states] for cut in (1, 2)]
    return prefixes, suffixes, torch.randn(7, 3, 8, 9)


class Features(nn.Module):
    def __init__(self, prefixes: list[nn.Module]) -> None:
        super().__init__()
        self.prefixes = nn.ModuleList(prefixes)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(prefix(x) for prefix in self.prefixes)


def test_all_loops_agree(parts: tuple) -> None:
    prefixes, suffixes, x = parts
    features = Features(prefixes).eval()
    wanted = peers.plain(prefixes, suffixes, x, 4)()
    assert wanted.shape == (2, 3, 7)
    folded = [[peers.folded(suffix) for suffix in bank] for bank in suffixes]
    loops = {
        "shared": peers.shared(features, suffixes, x, 4),
        "folded": peers.shared(peers.folded(features), folded, x, 4),
        "compiled": peers.compiled(features, suffixes, x, 7, backend="eager"),
        "vmapped": peers.vmapped(features, suffixes, x, 4),
    }
    for name, loop in loops.items():
        assert torch.equal(loop(), wanted), name


def test_precision_comes_back() -> None:
    switch = torch.backends.cudnn.conv
    before, seen = switch.fp32_precision, []
    with peers.precision("ieee"):
        peers.rounding(lambda: seen.append(switch.fp32_precision) or torch.zeros(()), "tf32")()
        seen.append(switch.fp32_precision)
    assert seen == ["tf32", "ieee"]
    assert switch.fp32_precision == before
