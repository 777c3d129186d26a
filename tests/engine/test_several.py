"""Several analyses in one call: the same bits as one after the other, from fewer reads and passes."""

from __future__ import annotations

import logging
import shutil
from collections import Counter

import pytest

import featdyn
from featdyn.analysis import analyses, several
from featdyn.analysis.inputs import features_at_cuts
from featdyn.errors import FeatdynError
from featdyn.store import Run, reader

READ, COMPUTED = ("spectra", "layer_isotropy"), ("drift", "density")
"""Analyses of what was recorded, and of features at cuts, which this test has them compute."""


@pytest.fixture
def counted(monkeypatch):
    """Count reads of blocks, by what they are of, and passes of prefixes."""
    found = Counter()
    read, called = reader.read_block, features_at_cuts.functional_call

    def read_block(place, schema, path, checkpoint, block, *rest):
        found[path, checkpoint, block] += 1
        return read(place, schema, path, checkpoint, block, *rest)

    def functional_call(*args):
        found["passes"] += 1
        return called(*args)

    monkeypatch.setattr(reader, "read_block", read_block)
    monkeypatch.setattr(features_at_cuts, "functional_call", functional_call)
    return found


@pytest.fixture
def store(small_store, tmp_path):
    return shutil.copytree(small_store, tmp_path / "run.zarr")


def features_read(counted):
    return {key: n for key, n in counted.items() if key[0].startswith("layers/")}


def recomputing(monkeypatch):
    """Let drift and density compute their features, which they would read where that is cheaper."""
    monkeypatch.setattr(features_at_cuts, "measure_rates", None)  # nobody asks
    from featdyn.analysis.inputs import stitchable

    monkeypatch.setattr(stitchable.source, "stored_layers", lambda *_, **__: set())


def test_what_two_analyses_read_is_read_once_with_the_same_bits(store, counted):
    alone = {name: featdyn.analyze(store, name, fresh=True, of="activation") for name in READ}
    twice = features_read(counted)
    assert min(twice.values()) > 1
    counted.clear()
    together = featdyn.analyze(store, list(READ), fresh=True, of="activation")
    once = features_read(counted)
    assert once.keys() == twice.keys()
    assert set(once.values()) == {1}
    for name in READ:
        assert together[name].identical(alone[name].assign_attrs(together[name].attrs))
    assert Run(store).results("spectra") == [alone["spectra"].attrs["path"], together["spectra"].attrs["path"]]


def test_what_two_analyses_compute_is_computed_once_with_the_same_bits(store, counted, monkeypatch):
    recomputing(monkeypatch)
    alone, passes = {}, []
    for name in COMPUTED:
        alone[name] = featdyn.analyze(store, name, fresh=True, samples=20)
        passes.append(counted.pop("passes"))
    together = featdyn.analyze(store, list(COMPUTED), fresh=True, samples=20)
    assert counted["passes"] < passes[0] < sum(passes)
    for name in COMPUTED:
        assert together[name].identical(alone[name].assign_attrs(together[name].attrs))

    monkeypatch.setattr(several, "KEPT", 0)
    counted.clear()
    without = featdyn.analyze(store, list(COMPUTED), fresh=True, samples=20)
    assert counted["passes"] == sum(passes)
    assert without["density"].identical(alone["density"].assign_attrs(without["density"].attrs))


def test_what_is_kept_stays_within_its_bound_and_is_in_the_plan(store, monkeypatch, caplog):
    monkeypatch.setattr(several, "KEPT", 100_000)
    run = Run(store)
    with several.keeping(run), caplog.at_level(logging.INFO, "featdyn"):
        featdyn.analyze(run, "spectra", fresh=True)
        assert 0 < run.kept.nbytes <= run.kept.room == 100_000
    assert run.kept is None
    assert "97.7 KiB kept for other analyses" in caplog.text


def test_a_name_or_an_option_that_none_has_is_refused_before_anything_runs(store):
    before = len(Run(store).commits)
    with pytest.raises(FeatdynError, match="did you mean spectra"):
        featdyn.analyze(store, ["drift", "spektra"])
    with pytest.raises(FeatdynError, match="drift, spectra: none has an option 'sampels': did you mean samples"):
        featdyn.analyze(store, ["drift", "spectra"], sampels=3)
    assert len(Run(store).commits) == before


def test_what_reads_a_result_comes_after_it():
    known = analyses()
    order = [one.name for one in several._ordered([known[name] for name in ("isotropy", "drift", "noise", "drift")])]
    assert order == ["drift", "noise", "isotropy"]


def test_the_command_line_takes_several_and_all(store, featdyn, monkeypatch):
    code, out, err = featdyn("analyze", store, "spectra", "layer_isotropy", "--sets", "test", "--layers", "pooled")
    assert code == 0, err
    assert out.count("committed") == 2
    assert Run(store).result("spectra")["set"].values.tolist() == ["test"]

    code, _, err = featdyn("analyze", store, "spectra", "isotropy")
    assert code == 1
    assert "isotropy reads a result of noise" in err
    assert err.endswith("1 of 2 analyses failed\n")

    code, _, err = featdyn("analyze", store, "spectra", "isotropi")
    assert code == 2
    assert "did you mean isotropy" in err

    asked = []
    monkeypatch.setattr(several, "several", lambda _, chosen, **__: asked.extend(one.name for one in chosen) or [])
    code, _, err = featdyn("analyze", store, "--all")
    assert code == 0, err
    assert {"drift", "noise", "isotropy"} <= set(asked)
