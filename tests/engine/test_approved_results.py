"""Results of every analysis on two small runs are those that were approved."""

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
ASKED = {name: ["images", "words"] for name, analysis in analyses().items()}
ASKED |= {n: ["images"] for n, analysis in analyses().items() if analysis.results or "training data" in analysis.needs}


def record_run(kind: str, path: Path) -> tuple[Run, nn.Module]:
    """Record convolutions, or a language model with its layers and their gradients."""
    if kind == "images":
        return record_convolutions(path)
    return record_words(path, Words, layers=["embed", "blocks.0", "blocks.1"]), Words()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Run, nn.Module]]:
    return cache(lambda kind: record_run(kind, tmp_path_factory.mktemp(kind) / "run.zarr"))


def found(kind: str, name: str, run: Run, model: nn.Module) -> xr.Dataset | str:
    """Return a result, by one thread, or what is said where there is none."""
    set_threads(1)
    try:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)  # of the training data
            result = asked(analyses()[name], run, model, **(OTHERWISE if kind == "images" else WORDS))[0]()
    except FeatdynError as error:
        return str(error).replace(str(run.path), "STORE")
    finally:
        set_threads(None)
    assert isinstance(result, xr.Dataset)
    return result


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for name, kinds in ASKED.items() for kind in kinds])
def test_a_result_is_what_was_approved(recorded: Callable[[str], tuple[Run, nn.Module]], kind: str, name: str) -> None:
    approved = json.loads(approved_results.PAGE.read_text())[f"{name} of {kind}"]
    said = approved_results.differences(approved_results.parts(found(kind, name, *recorded(kind))), approved)
    assert not said, "\n".join([approved_results.__doc__ or "", *said])
