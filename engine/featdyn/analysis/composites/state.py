"""A composite as one state dict: layers up to a cut of one checkpoint, those behind it of another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from featdyn.analysis.inputs.stitchable import FEW, SAME, Stitchable, cut_network
from featdyn.capture.call import Call
from featdyn.errors import FeatdynError, NetworkError
from featdyn.functional import functional_call
from featdyn.networks import segments, state_for
from featdyn.networks.twin import eval_twin
from featdyn.store import Run


def composite_state(
    run: Run,
    cuts: Sequence[str],
    checkpoints: Sequence[int],
    model: nn.Module | None = None,
    call: Call | None = None,
) -> dict[str, Tensor]:
    """Return parameters and buffers of a composite, which load into the network that was recorded.

    That they give the composite's outputs is checked on some probes.

    Parameters
    ----------
    cuts
        Names of cuts, in the order of the network.
    checkpoints
        One more than cuts: of the part up to the first cut, between the first and the second, ..., behind the last;
        -1 is the last checkpoint.
    model, call
        The network, where it is not one of featdyn's, and how it is asked.

    Raises
    ------
    FeatdynError
        An unknown cut or checkpoint, cuts in another order, or tensors that two parts share and checkpoints have
        differently: these no state dict can hold.
    """
    if not cuts or len(checkpoints) != len(cuts) + 1:
        raise FeatdynError(f"{len(cuts)} cuts part a network into {len(cuts) + 1}: give as many checkpoints")
    times = [_checkpoint(run, t) for t in checkpoints]
    parts = cut_network(run, model, cuts, "recomputed", call=call or Call())
    names = [cut.name for cut in parts.cuts]
    if names != list(cuts):
        raise FeatdynError(f"give cuts by their names and in the order of the network: {', '.join(names)}")
    pieces, states = segments(parts.cuts), [run.state(t) for t in times]
    owner = dict.fromkeys(states[-1], len(cuts))  # what no piece uses is of the last
    for place, piece in reversed(list(enumerate(pieces))):
        owner |= dict.fromkeys(piece.state_dict(), place)
    _refuse_shared(parts.model, pieces, states)
    found = {key: states[place][key] for key, place in owner.items() if key in states[place]}
    _check(run, parts, pieces, times, found)
    return found


def _checkpoint(run: Run, t: int) -> int:
    if not -run.checkpoints <= t < run.checkpoints:
        raise FeatdynError(f"{run.path}: no checkpoint {t}, there are {run.checkpoints}")
    return t % run.checkpoints


def _refuse_shared(model: nn.Module, pieces: Sequence[nn.Module], states: Sequence[dict[str, Tensor]]) -> None:
    """Refuse a tensor that two pieces use, under one name or two, and that is not the same in their checkpoints."""
    held = model.state_dict(keep_vars=True)
    users: dict[int, list[tuple[str, int]]] = {}
    for place, piece in enumerate(pieces):
        for key in piece.state_dict():
            if key in held:
                users.setdefault(id(held[key]), []).append((key, place))
    for found in users.values():
        values = [states[place][key] for key, place in found if key in states[place]]
        if any(not torch.equal(values[0], value) for value in values[1:]):
            raise FeatdynError(
                f"{found[0][0]} is used on both sides of a cut: no one state dict holds it of two checkpoints"
            )


def _check(
    run: Run, parts: Stitchable, pieces: Sequence[nn.Module], times: Sequence[int], state: dict[str, Tensor]
) -> None:
    """Refuse a state dict that does not give the composite's outputs on some probes."""
    inputs = parts.features.batches[0].inputs[:FEW]
    own = {key: value.to(inputs.device) for key, value in state.items()}
    with torch.inference_mode():
        values = inputs
        for place, (piece, t) in enumerate(zip(pieces, times, strict=True)):
            handed = parts.cuts[place - 1].handed(values, lambda: inputs) if place else values
            values = functional_call(piece, state_for(piece, parts.states[t]), (handed,))
        found = functional_call(eval_twin(parts.model), own, (inputs.clone(),))
    most = SAME * float(values.double().abs().max())
    if not torch.allclose(found.double(), values.double(), rtol=0, atol=most, equal_nan=True):
        raise NetworkError(
            f"{run.path}: loaded into the network, these tensors do not give the composite's outputs: something passes "
            "beside the cut; choose another"
        )
