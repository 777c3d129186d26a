"""What the engine takes at a limit, and what it refuses one beyond: of data, recipes, runs, questions and files."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featdyn.analysis.composites.state import _checkpoint
from featdyn.analysis.options import Suffixes
from featdyn.capture import Axis
from featdyn.capture.checkpoint_steps import _step
from featdyn.capture.values import whole
from featdyn.compute.address import check
from featdyn.data import Dataset, Images, corrupt, noisy_labels, probe_set
from featdyn.data import load as load_data
from featdyn.errors import ComputeError, FeatdynError
from featdyn.networks import build
from featdyn.query import query, values
from featdyn.reproduce.study import Claim
from featdyn.store import ArraySpec, Run, Schema, verify
from featdyn.store.schema import NAME_BYTES, check_name
from featdyn.training import load
from featdyn.training.batches import Batches
from featdyn.training.options import InterventionOptions, TrainingOptions
from tests.engine.limits import check_limits
from tests.engine.synthetic_run import make_run

digits = cache(lambda: load_data("digits"))
CPU = torch.device("cpu")
REFUSED = (FeatdynError, ValueError)


def images(labels: list[int], side: int = 4) -> Images:
    pixels = np.zeros((len(labels), 1, side, side), np.uint8)
    return Images(pixels, np.array(labels, np.int64), "made", "train")


def dataset(highest: int) -> Dataset:
    return Dataset("made", images([0, highest]), images([0, 1]), tuple("abc"))


def batches(size: int) -> Batches:
    return Batches(digits(), digits().train.labels, TrainingOptions(batch_size=size), CPU)


def claim(low: float, high: float) -> Claim:
    said = dict.fromkeys(("id", "statement", "source", "experiment", "quantity"), "a")
    return Claim(**said, groups=("a",), at_least=low, at_most=high, effect=0.1)


def spec(length: int) -> ArraySpec:
    return ArraySpec("layers/a", ("sample", "feature"), (4, length), "float32")


def answers(address: str) -> None:
    """Ask for a scheduler where none is; what is refused before anything is asked names how addresses are written."""
    try:
        check(address, 1.0)
    except ComputeError as error:
        if "not a host and its port" in str(error):
            raise


TRAIN, TEST = 1437, 360
"""Images of digits."""
LIMITS: dict[str, tuple[Callable[[Any], Any], list[Any], list[Any]]] = {
    # what: a call, what it takes at its limits, and what is refused beyond them
    "train_size": (lambda n: load_data("digits", train_size=n), [TRAIN], [TRAIN + 1]),
    "batch_size": (batches, [TRAIN], [TRAIN + 1]),
    "probes of training": (lambda n: probe_set(digits(), train=n), [TRAIN], [TRAIN + 1]),
    "probes of test": (lambda n: probe_set(digits(), test=n), [TEST], [TEST + 1]),
    "corrupted probes": (lambda n: probe_set(digits(), test=5, corrupted=n), [5], [6]),
    "labels of a data set": (dataset, [0, 2], [-1, 3]),
    "labels with noise": (
        lambda n: noisy_labels(np.array([0, n], np.int64), 0.5, 0, 3), [0, 2], [-1, 3],
    ),
    "noise of labels": (lambda share: noisy_labels(np.zeros(3, np.int64), share, 0, 3), [0.0, 1.0], [-0.01, 1.01]),
    "severity of a corruption": (
        lambda s: corrupt(np.zeros((1, 1, 4, 4), np.uint8), "contrast", s, indices=np.arange(1), seed=0),
        [1, 5],
        [0, 6],
    ),
    "thaw_at": (lambda at: InterventionOptions(cut="a", freeze_at=1.0, thaw_at=at), [1.01], [1.0]),
    "margins of a claim": (lambda low: claim(low, 0.5), [0.49], [0.5]),
    "whole numbers": (lambda n: whole("n", n, 1), [1, 2**63 - 1], [0, 2**63]),
    "64 bits of options": (lambda n: TrainingOptions(seed=n), [0, 2**63 - 1], [-1, 2**63]),
    "steps of checkpoints": (lambda n: _step(n), [0, 2**63 - 1], [-1, 2**63]),
    "axes of samples": (lambda n: Axis(sample=n, position=7), [0, 1], [-1]),
    "axes of positions": (lambda n: Axis(position=n), [1], [-1]),
    "widths of a network": (lambda n: build("mlp", classes=2, shape=(1, 1, 1), widths=[n]), [1], [0]),
    "64 bits of a change": (lambda n: TrainingOptions(weight_decay=n), [2**63 - 1], [2**63, -(2**63) - 1]),
    "ports": (lambda port: answers(f"tcp://localhost:{port}"), [1, 2**16 - 1], [0, 2**16]),
    "classes of a network": (lambda n: build("mlp", classes=n, shape=(1, 2, 2)), [1], [0]),
    "sides of images of a network": (lambda n: build("mlp", classes=2, shape=(1, n, 1)), [1], [0]),
    "alpha of a network": (lambda a: build("mlp", classes=2, shape=(1, 1, 1), alpha=a), [1e-3], [0.0, float("inf")]),
    "bytes of a name": (lambda n: check_name("a" * n, "layer"), [1, NAME_BYTES], [0, NAME_BYTES + 1]),
    "lengths of arrays": (spec, [1], [0]),
    "samples": (lambda n: Schema.build([], n), [1], [0]),
    "samples of shards": (lambda n: Schema((), 4, n), [1, 2, 64], [0, 3, 6]),
}  # fmt: skip


@pytest.mark.parametrize("what", LIMITS)
def test_what_is_at_a_limit_is_taken_and_what_is_beyond_refused(what: str) -> None:
    check_limits(*LIMITS[what], REFUSED)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("limits") / "run.zarr", checkpoints=4)


def test_commits_checkpoints_and_blocks_are_those_that_there_are(run: Run) -> None:
    commits, blocks = len(run.commits), run.schema.blocks
    calls: list[tuple[Callable[[int], Any], list[int], list[int]]] = [
        (lambda n: Run(run.path, commit=n), [1, commits], [0, commits + 1, -1]),
        (lambda n: run.block("layers/stem/activation", 0, n), [0, blocks - 1], [-1, blocks]),
        (lambda n: run.block("layers/stem/activation", n, 0), [0, 3], [-1, 4]),
        (lambda n: Suffixes(t2=n).suffixes(run), [0, 3], [4]),
        (lambda t: _checkpoint(run, t), [-4, 3], [-5, 4]),
        (lambda share: verify(run.path, sample=share), [1], [0, 2]),
    ]
    for each in calls:
        check_limits(*each, REFUSED)
    assert Suffixes(t2=3).suffixes(run) == [3]
    assert Suffixes(t2="last").suffixes(run) == [3]
    assert Suffixes(t2="all").suffixes(run) == [0, 1, 2, 3]


def test_an_answer_may_have_as_many_rows_as_are_allowed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = len(query(run, "label"))
    monkeypatch.setattr(values, "ROWS", rows)
    assert len(query(run, "label")) == rows
    for name in ("limit", "top"):
        options: dict[str, Any] = {name: 1}
        query(run, "label", **options)
        with pytest.raises(FeatdynError, match=f"the {name} must be at least 1"):
            query(run, "label", **options | {name: 0})
    monkeypatch.setattr(values, "ROWS", rows - 1)
    with pytest.raises(FeatdynError, match=f"{rows} rows"):
        query(run, "label")


def test_a_recipe_may_have_a_million_characters(tmp_path: Path) -> None:
    path, text = tmp_path / "a.toml", '[network]\nname = "mlp"\n#'
    path.write_text(text.ljust(10**6))
    load(str(path))
    path.write_text(text.ljust(10**6 + 1))
    with pytest.raises(FeatdynError, match="more than 1,000,000 characters"):
        load(str(path))
