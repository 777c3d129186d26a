"""Outputs and labels as classes, for analyses that ask whether predictions are right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.errors import FeatdynError
from featdyn.networks import predicted_classes
from featdyn.store import Run


def class_count(run: Run) -> int:
    """Return how many classes the recorded outputs tell apart; one logit tells two. They must be (sample, class)."""
    if "outputs/logits" not in run.nodes:
        raise FeatdynError(
            f"{run.path}: of its outputs the largest logits at each position are stored, and only (sample, class) "
            "predict classes"
        )
    shape = run.schema["outputs/logits"].shape
    if len(shape) != 2:
        raise FeatdynError(f"{run.path}: its outputs have shape {shape}, and only (sample, class) predict classes")
    return max(2, shape[1])


def class_logits(logits: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return logits ``(..., class)`` of two classes at least: one logit z, of class 1 against class 0, is (0, z)."""
    return np.concatenate([np.zeros_like(logits), logits], -1) if logits.shape[-1] == 1 else logits


def labelled(run: Run, sets: ProbeSets) -> tuple[ProbeSets, NDArray[np.int64]]:
    """Return sets of those probes whose label is a class of the network, and the labels ``(probe,)``.

    Other labels, such as the -100 that losses leave out, are given as 0 and their probes are in no set. A set without
    any other probe is left out; where none is left, or labels are no classes, :class:`FeatdynError` says so.
    """
    given = run.coords["label"].values
    if given.dtype.kind not in "iu":
        raise FeatdynError(f"{run.path}: its labels are {given.dtype}, no classes: no prediction is right or wrong")
    known = (given >= 0) & (given < class_count(run))
    held = ((name, member & known) for name, member in zip(sets.names, sets.members, strict=True))
    kept = {name: member for name, member in held if member.any()}
    if not kept:
        raise FeatdynError(f"{run.path}: no probe has a label from 0 to {class_count(run) - 1}, the network's classes")
    return replace(sets, names=list(kept), members=list(kept.values())), np.where(known, given, 0).astype(np.int64)


def recorded_classes(run: Run, t: int) -> NDArray[np.int64]:
    """Return the classes ``(probe,)`` that the recorded network of a checkpoint predicts."""
    blocks = range(run.schema.blocks)
    return np.concatenate([predicted_classes(run.block("outputs/logits", t, block)) for block in blocks])
