"""Outputs and labels as classes, for analyses that ask whether predictions are right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from featdyn.analysis.inputs.no_classes import not_classes, stray_label, tells_loss
from featdyn.analysis.inputs.positions import has_positions, mask_of
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.analysis.inputs.targets import GIVEN
from featdyn.classes import predicted_classes
from featdyn.errors import FeatdynError
from featdyn.store import Run


def output_positions(run: Run) -> int:
    """Return how many predictions a probe has: one, or with outputs ``(sample, position, class)`` one a position."""
    spec = run.schema["outputs/logits"] if "outputs/logits" in run.nodes else None
    return spec.shape[1] if spec is not None and len(spec.shape) == 3 and has_positions(spec) else 1


def class_count(run: Run, *, by_position: bool = False) -> int:
    """Return how many classes the recorded outputs tell apart; one logit tells two.

    They must be (sample, class), or ``by_position`` (sample, position, class).
    """
    if not any(node.startswith("outputs/") for node in run.nodes):
        raise FeatdynError(f"{run.path}: holds no outputs, by which predictions would be known")
    if "outputs/logits" not in run.nodes:
        raise FeatdynError(
            f"{run.path}: of its outputs the largest logits at each position are stored, and only (sample, class) "
            "predict classes"
        )
    shape = run.schema["outputs/logits"].shape
    if by_position and output_positions(run) > 1:
        return shape[2]
    if len(shape) != 2:
        raise FeatdynError(f"{run.path}: its outputs have shape {shape}, and only (sample, class) predict classes")
    return max(2, shape[1])


def labelled(run: Run, sets: ProbeSets) -> tuple[ProbeSets, NDArray[np.int64]]:
    """Return sets of those probes whose label is a class of the network, and the labels ``(probe,)``.

    Other labels, such as the -100 that losses leave out, are given as 0 and their probes are in no set. A set without
    any other probe is left out; where none is left, or labels are no classes, :class:`FeatdynError` says so.
    """
    classes = class_count(run)
    if flaw := not_classes(run, classes):
        raise FeatdynError(f"{run.path}: {flaw}: no prediction is right or wrong")
    given = run.values("label")
    known = (given >= 0) & (given < classes)
    held = ((name, member & known) for name, member in zip(sets.names, sets.members, strict=True))
    kept = {name: member for name, member in held if member.any()}
    if not kept:
        raise FeatdynError(f"{run.path}: no probe has a label from 0 to {classes - 1}, the network's classes")
    return replace(sets, names=list(kept), members=list(kept.values())), np.where(known, given, 0).astype(np.int64)


def grouping_labels(run: Run, name: str) -> NDArray[np.int64]:
    """Return by which class ``(probe,)`` probes are grouped, where no prediction is asked for; -1 is none.

    Integers of this name, without negative ones and what losses leave out: no class of the network, and without a
    loss. Those that have one, or of which no loss was recorded, are classes of their own, as an encoder's are.
    """
    given = run.values(name) if name in run.paths("sample") else np.zeros(0)
    if given.dtype.kind not in "iub":
        return np.full(run.schema.samples, -1)
    labels = given.astype(np.int64)
    shape = run.schema["outputs/logits"].shape if "outputs/logits" in run.nodes else ()
    if len(shape) == 2 and "label" in run.paths("sample") and tells_loss(run):
        classes = max(2, shape[1])
        if stray_label(run, classes) is None:
            labels[labels >= classes] = -1
    return np.where(labels >= 0, labels, -1)


def predictions_labelled(run: Run, sets: ProbeSets) -> tuple[ProbeSets, NDArray[np.int64]]:
    """Return sets of predictions and their labels: of probes as :func:`labelled`, of outputs by position each position.

    Positions ``(probe * position,)`` have the targets of the recording and their probe's set and origin; those that are
    padding, or whose target does not count, are in no set.
    """
    positions = output_positions(run)
    if positions == 1:
        return labelled(run, sets)
    given = run.values(GIVEN) if GIVEN in run.nodes else np.zeros(0)
    if given.shape != (run.schema.samples, positions) or given.dtype.kind not in "iu":
        raise FeatdynError(f"{run.path}: its outputs are by position, and no class at each position is recorded")
    mask = mask_of(run)
    labels = given if mask is None else np.where(mask, given, -1)
    known = ((labels >= 0) & (labels < class_count(run, by_position=True))).ravel()
    each = {n: np.repeat(m, positions) & known for n, m in zip(sets.names, sets.members, strict=True)}
    kept = {name: member for name, member in each.items() if member.any()}
    if not kept:
        raise FeatdynError(f"{run.path}: no position has a target that counts")
    found = replace(sets, names=list(kept), members=list(kept.values()), origins=np.repeat(sets.origins, positions))
    return found, np.where(known, labels.ravel(), 0).astype(np.int64)


def recorded_classes(run: Run, t: int) -> NDArray[np.int64]:
    """Return the classes that the recorded network of a checkpoint predicts, ``(probe,)`` or of each position."""
    blocks = range(run.schema.blocks)
    return np.concatenate([predicted_classes(run.block("outputs/logits", t, block)).ravel() for block in blocks])


def recorded_accuracy(run: Run, name: str) -> NDArray[np.float64]:
    """Return the share of a set's predictions that each checkpoint's recorded network has right, ``(checkpoint,)``.

    NaN where the set has none with a label; :class:`FeatdynError` where labels are no classes.
    """
    sets, labels = predictions_labelled(run, ProbeSets.of(run))
    member = sets.member(name)
    if not member.any():
        return np.full(run.checkpoints, np.nan)
    return np.array([(recorded_classes(run, t) == labels)[member].mean() for t in range(run.checkpoints)])
