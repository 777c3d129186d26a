"""Examples in docstrings of the public front give what they show."""

from __future__ import annotations

import doctest
import importlib
import shutil
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

pytest.importorskip("torch")

import featdyn
import featdyn.statistics

FRONT = [getattr(featdyn, name) for name in featdyn.__all__]
MAIN = (
    "isotropy", "sphericity.sign_test", "alignment.participation_ratio", "alignment.explained_shares",
    "two_sample.mmd", "two_sample.energy", "two_sample.sliced_wasserstein", "two_sample.kde_total_variation",
    "multiplicity.holm", "multiplicity.benjamini_hochberg", "repeats.mean_estimate", "resampling.share_interval",
    "representation.two_nn", "similarity.svcca", "similarity.procrustes", "similarity.rsa", "richness.low_rank_measure",
    "richness.neural_collapse", "interactions.and_or", "interactions.indices.shapley_values",
    "interactions.sparse_interactions",
)  # fmt: skip


@pytest.mark.parametrize("thing", [*FRONT, *(attrgetter(name)(featdyn.statistics) for name in MAIN)])
def test_there_is_an_example(thing):
    examples = doctest.DocTestParser().get_examples(thing.__doc__)
    assert any(example.want for example in examples)
    assert not any(doctest.SKIP in example.options for example in examples)


def modules() -> list[str]:
    """Return the modules that hold examples."""
    root = Path(featdyn.__path__[0])
    files = (file for file in sorted(root.rglob("*.py")) if ">>> " in file.read_text(encoding="utf-8"))
    names = (file.relative_to(root.parent).with_suffix("").parts for file in files)
    return [".".join(name).removesuffix(".__init__") for name in names]


@pytest.mark.parametrize("name", modules())
def test_examples_give_what_they_show(name, store_folder, monkeypatch):
    monkeypatch.chdir(store_folder)
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder().find(module, extraglobs={"featdyn": featdyn, "np": np, "xr": xr}):
        runner.run(test)
    assert runner.tries
    assert not runner.failures


@pytest.fixture(scope="module")
def store_folder(small_store, tmp_path_factory):
    """A folder with a run."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(small_store, folder / "run.zarr")
    return folder
