"""Results of every analysis on one small run are those that were approved."""

from __future__ import annotations

import json

import pytest
import torch
import xarray as xr
from torch import nn

from featdyn.analysis import analyses
from featdyn.store import Run
from featdyn_kernels import set_threads
from tests.engine import approved_results
from tests.engine.test_plans import OTHERWISE, asked, record_convolutions


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, nn.Module]:
    return record_convolutions(tmp_path_factory.mktemp("approved") / "run.zarr")


def found(name: str, run: Run, model: nn.Module) -> xr.Dataset:
    """Return a result, by one thread."""
    set_threads(1)
    try:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)  # of the training data
            result = asked(analyses()[name], run, model, **OTHERWISE)[0]()
    finally:
        set_threads(None)
    assert isinstance(result, xr.Dataset)
    return result


@pytest.mark.parametrize("name", analyses())
def test_a_result_is_what_was_approved(recorded: tuple[Run, nn.Module], name: str) -> None:
    approved = json.loads(approved_results.PAGE.read_text())[name]
    said = approved_results.differences(approved_results.parts(found(name, *recorded)), approved)
    assert not said, "\n".join([approved_results.__doc__ or "", *said])
