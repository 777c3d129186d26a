"""A small study, and the same with one thing changed."""

from __future__ import annotations

from pathlib import Path

from featdyn.reproduce.load import load
from featdyn.reproduce.study import Study

TEXT = """
title = "A small study"
source = "nobody"
written = 2026-11-30

[scales.quick]
about = "digits"
seeds = 2
changes = ["training.device=cpu"]

[experiments.fit]
about = "clean labels beside random ones"
groups = { clean = [], random = ["labels.noise=1.0"] }
analyses = [{ name = "consistency", options = { cuts = ["hidden1"] } }]

[experiments.fit.at.quick.digits]
recipe = "digits"
changes = ["data.train_size=100", "network={name='mlp', options={widths=[16, 8]}}", "training.epochs=10",
  "checkpoints.every=2",
  "training.batch_size=20", "probes.train=40", "probes.test=40", "probes.corrupted=0", "checkpoints.first_epoch=0"]
minutes = 0.1
gigabytes = 0.01

[times]
t2 = { reaches = 0.4 }
half = { reaches = 0.2 }

[quantities.gain]
about = "accuracy gained over t1's own network"
kind = "composite"
options = { measure = "gain", cuts = ["hidden1"], sets = ["train", "test"], t1 = ["half"], t2 = "t2" }

[quantities.fitted]
about = "training probes right at the end"
kind = "stored"
options = { path = "results.consistency.plain_accuracy", where = { set = "train", t1 = "@last" } }

[[claims]]
id = "stable"
statement = "composites keep what t1's network had right"
source = "here"
experiment = "fit"
quantity = "gain"
groups = ["clean"]
at_least = -0.02
effect = 0.05
needs = [{ quantity = "fitted", groups = ["clean"], at_least = 0.9, why = "the network is not fitted" }]

[[claims]]
id = "fit"
statement = "clean labels fit sooner"
source = "here"
experiment = "fit"
quantity = "fitted"
groups = ["clean", "random"]
at_least = 0.0
effect = 0.1
"""


def written(path: Path, *changes: tuple[str, str], text: str = TEXT) -> Path:
    """Write the study with each first text replaced by the second."""
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    path.write_text(text)
    return path


def study(path: Path, *changes: tuple[str, str], text: str = TEXT) -> Study:
    return load(str(written(path, *changes, text=text)))
