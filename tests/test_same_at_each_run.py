"""What tests draw does not depend on what ran before them."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import TORCH_SEED


def examples() -> list[str]:
    found: list[str] = []

    @settings(max_examples=200)
    @given(st.tuples(st.integers(), st.floats(), st.text()))
    def drawn(value: tuple[int, float, str]) -> None:
        found.append(repr(value))

    drawn()
    return found


@pytest.mark.skipif("not settings().derandomize", reason="other examples at each run were asked for")
def test_examples_are_the_same_whatever_has_been_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = examples()
    file = tmp_path / "imported_meanwhile.py"
    file.write_text("\n".join(f"a{n}, b{n}, c{n} = {n}, {n}.5, 'word{n}'" for n in range(1000, 1010)))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    monkeypatch.setitem(sys.modules, file.stem, importlib.util.module_from_spec(spec))
    assert examples() == before


@pytest.mark.parametrize("again", range(2))
def test_random_numbers_are_those_of_a_new_process(again: int) -> None:
    assert random.random() == random.Random(0).random()
    assert np.random.random() == np.random.RandomState(0).random_sample()  # noqa: NPY002
    assert torch.initial_seed() == TORCH_SEED
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(TORCH_SEED)))
