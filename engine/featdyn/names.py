"""What coordinates and variables that many share are called in words, and their units: one list for all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMES: dict[str, tuple[str, str]] = {
    # What is recorded.
    "checkpoint": ("number of the checkpoint", "1"),
    "step": ("training steps", "step"),
    "epoch": ("passes over the training data", "epoch"),
    "learning_rate": ("learning rate", "1"),
    "train_loss": ("mean training loss since the checkpoint before", "1"),
    "train_accuracy": ("share of right training samples since the checkpoint before", "1"),
    "test_loss": ("mean test loss", "1"),
    "test_accuracy": ("share of right test samples", "1"),
    "sample": ("id of the probe", "1"),
    "label": ("label of the probe", "1"),
    "true_label": ("label of the probe before label noise", "1"),
    "split": ("set of the probe", "1"),
    "origin": ("image or document that the probe was made from", "1"),
    "dataset_index": ("place of the probe in its data set", "1"),
    "dataset": ("data set of the probe", "1"),
    "corruption": ("how the probe was corrupted", "1"),
    "severity": ("how much it was corrupted", "1"),
    "layer": ("recorded layer", "1"),
    "loss": ("loss of the sample", "1"),
    "logits": ("outputs of the network", "1"),
    "activation": ("what the layer returns", "1"),
    "gradient": ("gradient of the sample's loss", "1"),
    "activation_norm": ("Euclidean norm of the sample's activation", "1"),
    "activation_mean": ("mean of the sample's activation", "1"),
    "activation_sparsity": ("share of the sample's activation that is exactly zero", "1"),
    "activation_cosine": (
        "cosine between the sample's activation here and at the checkpoint before (NaN at the first)",
        "1",
    ),
    "gradient_norm": ("Euclidean norm of the gradient of the sample's loss", "1"),
    "sketch": (
        "random projection of the sample's activation to a common width; keeps inner products on average",
        "1",
    ),
    "token_loss": ("loss at a position", "1"),
    "top_logits": ("largest logits at a position", "1"),
    "top_classes": ("classes of the largest logits at a position", "1"),
    "target_logit": ("logit of the target at a position", "1"),
    "input": ("what the network is given", "1"),
    "target": ("what the outputs are compared with", "1"),
    "mask": ("whether a position is no padding", "1"),
    # Axes and coordinates of results.
    "cut": ("the last module before the cut", "1"),
    "cut2": ("the last module before the second cut", "1"),
    "layer2": ("second recorded layer", "1"),
    "set": ("set of probes", "1"),
    "set_size": ("probes of the set", "1"),
    "t": ("checkpoint", "1"),
    "t1": ("checkpoint of the prefix (shallow half), or the earlier one", "1"),
    "t2": ("checkpoint of the suffix (deep half), or the later one", "1"),
    "step1": ("training steps at t1", "step"),
    "step2": ("training steps at t2", "step"),
    "rate1": ("learning rate at t1", "1"),
    "rate2": ("learning rate at t2", "1"),
    "probe": ("id of the probe", "1"),
    "prefix_macs": ("multiply-adds of a sample up to the cut", "1"),
    "suffix_macs": ("multiply-adds of a sample behind the cut", "1"),
    "prefix_params": ("parameters up to the cut", "1"),
    "source": ("where features at the cut came from", "1"),
    "test": ("test of isotropy", "1"),
    "k": ("number of leading directions", "1"),
    "class": ("label", "1"),
    "width": ("variables of a layer", "1"),
    "observations": ("observations behind a covariance", "1"),
    "rank": ("number of a principal direction, largest variance first", "1"),
    "lag": ("checkpoints from the prefix's to the suffix's", "1"),
    "path": ("which way the composites were evaluated", "1"),
    "kind": ("what takes the place of the drift", "1"),
    "policy": ("what is done with BatchNorm statistics", "1"),
    "segment": ("layer that is put back", "1"),
    "average": ("what is averaged", "1"),
    "window": ("checkpoints in the average", "1"),
    "measure": ("distance between distributions", "1"),
    "component": ("principal axis that all checkpoints share", "1"),
    "rate": ("learning rate at t", "1"),
    "draw": ("number of a mini-batch", "1"),
    "player": ("number of a player: a patch, a word, ... that is masked", "1"),
    "subset": ("players that are kept: bit i is player i", "1"),
    "order": ("players of an interaction", "1"),
    "reference": ("kind of the networks beside which interactions are labelled", "1"),
    "compared": ("two kinds of labels", "1"),
    "criterion": ("by what phases are told: a kind of labels, the decay's share, or the mean order", "1"),
    "role": ("probes that the network was trained on, or not", "1"),
    "used": ("probes of the set that were looked at", "1"),
}
"""Long names and units, by the name that an array has in every group and result."""

RANGES: dict[str, tuple[float, float]] = {
    "train_accuracy": (0.0, 1.0),
    "test_accuracy": (0.0, 1.0),
    "confidence": (0.0, 1.0),
    "correct": (0.0, 1.0),
    "activation_sparsity": (0.0, 1.0),
    "activation_cosine": (-1.0, 1.0),
}
"""Smallest and largest value that are possible of what is recorded; variables of results say their own."""


def described(name: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a variable with the long name and units of this list, where it has none of its own."""
    known = dict(zip(("long_name", "units"), NAMES.get(name, ()), strict=False))
    return known | dict(attributes)
