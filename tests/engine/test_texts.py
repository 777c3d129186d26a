"""Texts: data that libraries ship, a classifier by recipe, and the interactions of its words."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import featdyn
from featdyn.data import docstrings
from featdyn.data import load as load_data
from featdyn.errors import DataError, NetworkError
from featdyn.networks import build
from featdyn.store import Run
from featdyn.training import load
from featdyn.training.loop import Loop
from featdyn.training.stage import train

SMALL = ("training.epochs=3", "probes.train=6", "probes.test=6", "checkpoints.first_epoch=1", "checkpoints.every=2")


@pytest.fixture(scope="module")
def data():
    return load_data("docstrings")


def test_sentences_are_balanced_and_apart(data) -> None:
    assert data.texts
    assert data.shape == (12,)
    assert np.bincount(data.train.labels).tolist() == [450] * 4
    assert np.bincount(data.test.labels).tolist() == [150] * 4
    for part in (data.train, data.test):
        assert part.pixels.dtype == np.int64
        assert 1 <= part.pixels.min() <= part.pixels.max() < 1000
    assert set(np.unique(data.train.pixels)) == set(range(1, 1000))  # 1 is all that are rarer
    assert torch.equal(data.inputs(data.test.pixels[:3]), torch.from_numpy(data.test.pixels[:3]))


def test_a_text_is_the_first_words_of_a_sentence_that_has_so_many(tmp_path, monkeypatch) -> None:
    package, words = (
        tmp_path / "documented" / "inner",
        "Alpha beta gamma delta epsilon zeta eta theta iota kappa lambda",
    )
    (package / "tests").mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    doc = '"""{} mu nu. {}.\n\n{} mu. {} mu rho: {} mu = 3. Zeta {} pi.\n"""'.format(*[words] * 5, words.lower())
    (package / "a.py").write_text(doc + doc)
    (package / "tests" / "b.py").write_text(f'"""Omega {words.lower()}."""')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(docstrings, "FOLDERS", {"documented": ("inner",)})
    monkeypatch.setattr(docstrings, "PER_CLASS", 2)
    monkeypatch.setattr(docstrings, "TEST", 1)
    found = load_data("docstrings")
    assert (len(found.train), len(found.test)) == (1, 1)  # of two: one with twelve words or more, and that with Zeta
    assert sorted(map(len, (set(found.train.pixels[0]), set(found.test.pixels[0])))) == [11, 12]  # Zeta is there twice
    monkeypatch.setattr(docstrings, "PER_CLASS", 3)
    with pytest.raises(DataError, match="documented has 2 sentences of 12 words, 3 are needed"):
        load_data("docstrings")
    monkeypatch.setattr(docstrings, "FOLDERS", {"documented_nowhere": ("inner",)})
    with pytest.raises(DataError, match="documented_nowhere is not installed"):
        load_data("docstrings")


def test_a_recipe_learns_them_and_its_words_interact(data, tmp_path) -> None:
    run = train(load("docstrings", SMALL), tmp_path / "run.zarr", dataset=data)
    assert run.values("test_accuracy")[-1] > 0.4  # of four classes, after three epochs
    test = train(load("docstrings", [*SMALL, "training.split=test"]), tmp_path / "test.zarr", dataset=data)
    for each, which in ((run, "all"), (test, "last")):
        featdyn.analyze(each, "interactions", at="input", kind="words", players=5, samples=6, checkpoints=which)
    found = featdyn.analyze(Run(run.path), "generalization", baselines=[f"test={test.path}"], in_a_row=1)
    assert found["used"].values.tolist() == [[6, 6]]
    assert np.isfinite(found["power"].isel(t=-1)).all()
    held = Run(run.path).result("interactions")
    network, inputs = build("words", classes=4, shape=(12,)).eval(), run.values("inputs/input")
    network.load_state_dict(run.state(run.checkpoints - 1))
    row = run.values("sample").tolist().index(held["probe"].values[3])
    tokens = torch.from_numpy(inputs[row]).clone()
    tokens[held["region"].values[0, 3, 1:]] = 0
    with torch.no_grad():
        logits = network(tokens[None])[0].double()
    label = int(held["label"][3])
    others = torch.cat([logits[:label], logits[label + 1 :]]).logsumexp(0)
    assert float(held["v"][0, -1, 3, 1]) == pytest.approx(float(logits[label] - others), abs=1e-4)


def test_what_is_of_images_is_refused_in_one_line(data) -> None:
    for change, message in (
        ("training.augment=true", "of images"),
        ("training.suppress=0.1", "of images"),
    ):
        with pytest.raises(DataError, match=message):
            Loop(load("docstrings", [change]), data)
    for change in ("probes.corrupted=5", "probes.shifted=digits"):
        with pytest.raises(DataError, match="of images"):
            featdyn.training.stage.check(load("docstrings", [change]), data)
    with pytest.raises(DataError, match="of images"):
        load_data("docstrings", image_size=8)
    with pytest.raises(NetworkError, match="words takes texts"):
        build("words", classes=2, shape=(1, 8, 8))
    with pytest.raises(NetworkError, match="channels, height, width"):
        build("mlp", classes=2, shape=(12,))
