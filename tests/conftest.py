"""All tests: the same examples and random numbers at each run, in any order: what passes here passes elsewhere."""

from __future__ import annotations

import random
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants

TORCH_SEED = 67280421310721
"""With which torch begins (its ``default_rng_seed_val``)."""

# A busy machine is no fault of what is tested.
settings.register_profile("fixed", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("exploring", settings.get_profile("fixed"), derandomize=False)
settings.load_profile("fixed")


@pytest.hookimpl(trylast=True)
def pytest_configure() -> None:
    """Keep from the examples what else the process has imported: Hypothesis draws numbers that stand in its files."""
    if settings().derandomize:
        providers._get_local_constants = Constants


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Begin each test with the random numbers of a new process, whatever was drawn in this one."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  what libraries draw from
    if torch := sys.modules.get("torch"):
        torch.manual_seed(TORCH_SEED)
