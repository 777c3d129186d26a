"""Results of every analysis on two small runs are those that were approved.

Slow: processors and versions of torch round in their own ways, and what differs by more than it should is to be looked
at by a person, not to stop whoever changes something else.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import xarray as xr
from torch import nn

from featdyn.analysis import analyses
from featdyn.errors import FeatdynError
from featdyn.store import Run
from featdyn_kernels import set_threads
from tests.engine import approved_results
from tests.engine.test_plans import OTHERWISE, asked, record_convolutions
from tests.engine.test_streamed import Words
from tests.engine.test_streamed import record as record_words

WORDS: dict[str, Any] = OTHERWISE | {"cuts": ("blocks.0", "blocks.1"), "players": 3, "k": (1, 2)}
"""What networks of words are asked, in which each position has a prediction of its own."""
CHOICES: dict[str, Any] = OTHERWISE | {
    "seed": 7, "features": "stored", "samples": 25, "train": "test", "test": "corrupted", "t2": 4, "window": 1,
    "batchnorm": "reestimated", "phase": "constant", "pairs": "consecutive", "components": 3, "permutations": 19,
    "permuted": True, "kind": "patches", "masked": "zero", "players": 4, "at": "input", "checkpoints": "last",
    "slack": 0.1, "need": "majority", "sign": False, "amount": "shared", "centring": "projector", "leading": 5,
    "tolerance": 1e-3, "capacity_draws": 5, "power_first": 2, "shuffles": 19, "alpha": 0.2, "block": 8, "folds": 4,
    "statistics": "stored", "replacement": False, "every": 2, "draws": 8, "keep": "gram", "curvature": 0,
}  # fmt: skip
"""What the convolutions are asked once more, so that each option has a second value."""
OPTIONS = {"images": OTHERWISE, "choices": CHOICES, "words": WORDS}
ASKED = {name: list(OPTIONS) for name in analyses()}
ASKED |= {n: ["images", "choices"] for n, a in analyses().items() if "training data" in a.needs}
ASKED |= {n: ["images"] for n, a in analyses().items() if a.results}


def options_of(kind: str, name: str) -> dict[str, Any]:
    """Return what an analysis is asked of a run."""
    other = {"of": {"layer_isotropy": "activation", "spectra": "gradient"}.get(name)}
    return OPTIONS[kind] | (other if kind == "choices" else {})


def record_run(kind: str, path: Path) -> tuple[Run, nn.Module]:
    """Record convolutions, or a language model with its layers and their gradients."""
    if kind == "words":
        return record_words(path, Words, layers=["embed", "blocks.0", "blocks.1"]), Words()
    return record_convolutions(path)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Run, nn.Module]]:
    return cache(lambda kind: record_run(kind, tmp_path_factory.mktemp(kind) / "run.zarr"))


def found(kind: str, name: str, run: Run, model: nn.Module) -> xr.Dataset | str:
    """Return a result, by one thread, or what is said where there is none."""
    set_threads(1)
    try:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)  # of the training data
            result = asked(analyses()[name], run, model, **options_of(kind, name))[0]()
    except FeatdynError as error:
        return str(error).replace(str(run.path), "STORE")
    finally:
        set_threads(None)
    assert isinstance(result, xr.Dataset)
    return result


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), [(kind, name) for name, kinds in ASKED.items() for kind in kinds])
def test_a_result_is_what_was_approved(recorded: Callable[[str], tuple[Run, nn.Module]], kind: str, name: str) -> None:
    approved = json.loads(approved_results.PAGE.read_text())[f"{name} of {kind}"]
    said = approved_results.differences(approved_results.parts(found(kind, name, *recorded(kind))), approved)
    assert not said, "\n".join([approved_results.__doc__ or "", *said])
