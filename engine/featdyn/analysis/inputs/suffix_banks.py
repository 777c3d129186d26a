"""The suffixes of checkpoints at each cut, laid out for the kernel that runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from featdyn.analysis.inputs.stitchable import Stitchable
from featdyn.networks import state_for
from featdyn_kernels.stitch import SuffixBank

BANK = 6
"""A suffix takes at most so many times its weights: kernels go from 3x3 to 6x6, and twins are kept."""


def suffixes(parts: Stitchable, states: Sequence[Mapping[str, Tensor]], positions: int = 1) -> list[SuffixBank]:
    """Return the suffixes of some checkpoints at each cut.

    What only prefixes use is not theirs, so that what passes beside a cut shows where t1 is joined with itself.
    """
    banks = []
    for cut in parts.cuts:
        held = nn.Module.state_dict(cut.suffix)
        own = [held | state_for(cut.suffix, state) for state in states]
        banks.append(SuffixBank.from_states(cut.suffix, own, positions=positions))
    return banks


def bank_bytes(parts: Stitchable) -> int:
    """Return the bytes of one checkpoint's suffixes, at most."""
    return BANK * 4 * sum(cut.suffix_params for cut in parts.cuts) or 1
