"""Functions of arrays return what was approved, by their defaults."""

from __future__ import annotations

import json
import warnings

import pytest

from tests.engine.approved_results import agree
from tests.engine.statistics import approved
from tests.engine.statistics.approved import CALLS, PAGE, found


@pytest.mark.parametrize("name", CALLS)
def test_a_call_returns_what_was_approved(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mine = found(name)
    wanted = json.loads(PAGE.read_text())[name]
    assert mine.keys() == wanted.keys()
    other = {
        path: (mine[path], value)
        for path, value in wanted.items()
        if not (agree(path, mine[path], value, 1e-5) if isinstance(value, dict) else mine[path] == value)
    }
    assert not other, approved.__doc__
