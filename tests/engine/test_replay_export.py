"""A stored result computed again, and a composite as a file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torch.func import functional_call

from featdyn import Probes, Recorder, analyze
from featdyn.analysis.composites.state import composite_state
from featdyn.analysis.inputs.weights import network
from featdyn.analysis.replay import _compared, replay
from featdyn.errors import FeatdynError
from featdyn.networks import cuts, segments, state_for
from featdyn.store import Run, RunWriter, commit_result
from tests.engine.runs import tree

Cli = Callable[..., tuple[int, str, str]]


def test_a_result_comes_out_the_same_and_nothing_is_written(featdyn: Cli, small_store: Path) -> None:
    before = tree(small_store)
    code, out, _ = featdyn("replay", f"{small_store}/results/consistency")
    assert code == 0, out
    path = Run(small_store).results("consistency")[0]
    assert out.startswith(f"{small_store}/{path}: the same, bit for bit, in ")
    short = f"results/consistency/{int(path.rpartition('/')[2])}"  # a number needs no zeros before it
    assert replay(small_store, short).path == f"{small_store}/{path}"
    assert {k: v for k, v in tree(small_store).items() if "lock" not in k} == {
        k: v for k, v in before.items() if "lock" not in k
    }


def test_what_came_out_otherwise_is_told_by_variable(featdyn: Cli, small_store: Path, tmp_path: Path) -> None:
    store = tmp_path / "run.zarr"
    shutil.copytree(small_store, store)
    result = Run(store).result("consistency").load()
    changed = result.copy(deep=True)
    changed["loss"][0, 0, 0, 0] += 0.5
    changed["prediction"].values[0, 0, 0, :3] += 2
    changed["agreement"][0, 1, 1, 0] = np.nan
    commit_result(store, "consistency", changed.drop_vars("horizon"))
    code, out, _ = featdyn("replay", f"{store}/results/consistency")
    assert code == 1
    assert "4 of " in out
    assert f"loss by up to 0.5 in 1 of {result['loss'].size:,} cells" in out
    assert f"prediction by up to 2 in 3 of {result['prediction'].size:,} cells" in out
    assert "agreement by up to 0 in 1 of" in out
    assert "1 missing in one only" in out
    assert "horizon is new" in out


def test_what_cannot_be_computed_again_gets_one_line(small_store: Path, featdyn: Cli, tmp_path: Path) -> None:
    for path, message in (
        ("results/nothing", "no result results/nothing; there are results/consistency"),
        ("results/consistancy", "no result results/consistancy; did you mean consistency"),
        ("results/consistency/999999", "no result .*; there are results/consistency/0"),
        ("cube", "name a result as"),
    ):
        with pytest.raises(FeatdynError, match=message):
            replay(small_store, path)
    code, _, err = featdyn("replay", small_store)
    assert code == 1
    assert "name a result as STORE/results/ANALYSIS" in err
    store = tmp_path / "run.zarr"
    shutil.copytree(small_store, store)
    commit_result(store, "mine", Run(store).result("consistency").load().drop_attrs())
    with pytest.raises(FeatdynError, match="does not say how it was computed"):
        replay(store, "results/mine")


def stitched(run: Run, names: list[str], times: list[int], inputs: torch.Tensor) -> torch.Tensor:
    found = [cut for cut in cuts(network(run), inputs[:1]) if cut.name in names]
    values = inputs
    for piece, t in zip(segments(found), times, strict=True):
        values = functional_call(piece, state_for(piece, run.state(t)), (values,))
    return values


@pytest.mark.parametrize(("names", "times"), [(["s2b3"], [1, -1]), (["s1b3"], [-1, 0]), (["s1b3", "s3b1"], [0, 2, 1])])
def test_a_composite_loads_into_the_network_and_gives_its_outputs(
    featdyn: Cli, small_store: Path, tmp_path: Path, names: list[str], times: list[int]
) -> None:
    run = Run(small_store)
    flags = [word for name, t in zip(names, times, strict=False) for word in ("--cut", name, "--from", t)]
    code, out, err = featdyn("export", small_store, *flags, "--to", times[-1], "-o", tmp_path / "c.safetensors")
    assert code == 0, err
    assert "wrote" in out
    model = network(run)
    model.load_state_dict(load_file(tmp_path / "c.safetensors"))
    inputs = torch.from_numpy(run.values("inputs/input"))
    whole = [t % run.checkpoints for t in times]
    with torch.inference_mode():
        torch.testing.assert_close(model(inputs), stitched(run, names, whole, inputs), rtol=0, atol=1e-4)
        assert not torch.allclose(model(inputs), stitched(run, names, whole[::-1], inputs), atol=1e-2)
    with safe_open(tmp_path / "c.safetensors", "pt") as file:
        assert str(whole) == file.metadata()["checkpoints"]


def test_what_no_state_dict_can_hold_is_refused(small_store: Path, featdyn: Cli, tmp_path: Path) -> None:
    run = Run(small_store)
    for names, times, message in (
        (["s2b3"], [0, 99], "no checkpoint 99"),
        (["s2b3"], [run.checkpoints, 0], f"no checkpoint {run.checkpoints}, there are {run.checkpoints}"),
        (["s2b3"], [0, -run.checkpoints - 1], f"no checkpoint -{run.checkpoints + 1}"),
        (["s2b3"], [0], "give as many checkpoints"),
        (["s2b3"], [0, 1, 2], "1 cuts part a network into 2: give as many checkpoints"),
        ([], [0], "give as many checkpoints"),
        (["s3b1", "s1b3"], [0, 1, 2], "in the order of the network: s1b3, s3b1"),
        (["s9"], [0, 1], "no cut 's9'"),
    ):
        with pytest.raises(FeatdynError, match=message):
            composite_state(run, names, times)
    first, same = (
        composite_state(run, ["s2b3"], times) for times in ([0, -1], [-run.checkpoints, run.checkpoints - 1])
    )
    assert first.keys() == same.keys()
    assert all(torch.equal(first[key], same[key]) for key in first)
    code, _, err = featdyn("export", small_store, "--cut", "s2b3", "--from", 0, "--from", 1, "--to", 2)
    assert (code, err) == (1, "featdyn: give a --from for each --cut: there are 2 for 1\n")


def test_a_result_of_a_network_that_was_given_asks_for_it(tmp_path: Path, featdyn: Cli) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    probes = Probes(torch.randn(24, 6), torch.arange(24) % 3)
    with Recorder(net, probes, tmp_path / "r.zarr", layers=["1"]) as recorder:
        recorder.record(step=0)
        with torch.no_grad():
            net[0].weight.mul_(1.1)
        recorder.record(step=1)
    analyze(tmp_path / "r.zarr", "drift", model=net)
    code, _, err = featdyn("replay", tmp_path / "r.zarr" / "results" / "drift")
    assert code == 1
    assert "was computed with a network of your own: give it with --model MODULE:FACTORY" in err
    assert replay(tmp_path / "r.zarr", "results/drift", model=net).same


@pytest.fixture
def asked(tmp_path: Path) -> tuple[Path, xr.Dataset]:
    """A run of two checkpoints, with a result that took other options than its own, and a third checkpoint since."""
    torch.manual_seed(0)
    net, store = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), tmp_path / "r.zarr"
    probes = Probes(torch.randn(24, 6), torch.arange(24) % 3)
    for step in range(3):
        with Recorder(net, probes, store, layers=["1", "2"], gradients=False) as recorder, torch.no_grad():
            recorder.record(step=step)
            net[0].weight.mul_(1.1)
        if step == 1:
            analyze(store, "spectra", layers=["2"])
    return store, Run(store).result("spectra").load()


def test_it_is_asked_as_it_was_of_the_commit_that_it_was_of(asked: tuple[Path, xr.Dataset]) -> None:
    store, result = asked
    found = replay(store, "/results/spectra/")
    assert found.same
    assert (found.variables, found.notes) == (len(result.variables), ())
    assert (result.sizes["t"], list(result["layer"].values)) == (2, ["2"])
    assert "spectra/000003: the same, bit for bit, in " in str(found)
    newest = commit_result(store, "spectra", result)
    assert replay(store, "results/spectra").path == f"{store}/{newest}"
    assert replay(store, "results/spectra/3").path == f"{store}/results/spectra/000003"
    for path in ("results", "spectra/000003", "results/spectra/3/more", "results/spectra/newest", "result/spectra"):
        with pytest.raises(
            FeatdynError, match=r"name a result as|no result results/spectra/newest; there are results/"
        ):
            replay(store, path)


def test_every_kind_of_difference_has_its_words() -> None:
    """``before`` and ``after`` as results hold them: numbers of all types, words, axes in any order."""

    def said(before: Any, after: Any, dims: tuple[str, ...] = ("a", "b"), others: tuple[str, ...] = ("a", "b")) -> str:
        one, two = xr.Dataset({"x": (dims, before)}), xr.Dataset({"x": (others, after)})
        count, found = _compared(one, two)
        assert count == 1
        return found.get("x", "")

    x = np.array([[1.0, 2.0, np.nan], [-np.inf, 0.0, 6.0]])
    assert said(x, x) == said(x, x.T, others=("b", "a")) == ""
    assert said(x, x.T, others=("b", "c")).startswith("is of {'b': 3, 'c': 2}, was of {'a': 2, 'b': 3}")
    assert said(x, x[:, :2]) == "is of {'a': 2, 'b': 2}, was of {'a': 2, 'b': 3}"
    assert said(x, x.astype(np.float32)) == "is float32, was float64"
    assert said(np.uint8([[1]]), np.int16([[1]])) == "is int16, was uint8"
    assert said(np.array([["a", "bb"]]), np.array([["a", "bb"]], object)) == ""
    assert said(np.array([["a", "b"]]), np.array([["a", "c"]])) == "in 1 of 2 cells"
    assert said(np.array([[1, 2]]), np.array([["1", "2"]])) == "in 2 of 2 cells"
    y = x + np.array([[0, 0.5, 0], [0, -0.25, 0]])
    assert said(x, y) == "by up to 0.5 in 2 of 6 cells"
    y[0, 0], y[0, 2] = np.nan, 3.0
    assert said(x, y) == "by up to 0.5 in 4 of 6 cells, 2 missing in one only"
    assert said(x, np.where(np.isfinite(x), x, np.inf)) == "by up to inf in 2 of 6 cells, 1 missing in one only"
    assert said(np.uint8([[0, 3]]), np.uint8([[255, 3]])) == "by up to 255 in 1 of 2 cells"
    assert said(np.array([[True, False]]), np.array([[False, False]])) == "by up to 1 in 1 of 2 cells"
    assert said(x + 3j, x - 1j) == "by up to 4 in 5 of 6 cells"
    both = xr.Dataset({"x": ("a", [1]), "gone": ("a", [1])}), xr.Dataset({"x": ("a", [1]), "more": ("a", [1])})
    assert _compared(*both) == (3, {"gone": "is not there any more", "more": "is new"})


def test_what_else_is_not_as_it_was_is_noted(asked: tuple[Path, xr.Dataset]) -> None:
    store, result = asked

    def committed(**attributes: Any) -> str:
        with RunWriter.open(store) as writer:
            return writer.result("spectra", result.assign_attrs(attributes))

    def notes(**attributes: Any) -> tuple[str, ...]:
        found = replay(store, committed(**attributes))
        assert found.same
        assert [note in str(found) for note in found.notes] == [True] * len(found.notes)
        return found.notes

    own, made = result.attrs["identity"], result.attrs["provenance"]
    version = own["version"]
    others = made | {"versions": made["versions"] | {"numpy": "1.0", "gone": "2.0"}}
    assert notes(identity=own | {"version": version + 7, "weights": [1, 2], "no more": 3}, provenance=others) == (
        f"its version was {version + 7}, is {version}",
        "weights are others",
        f"numpy was 1.0, is {made['versions']['numpy']}",
    )
    assert notes(identity={}, provenance=made | {"versions": {}}) == notes(identity=None, provenance=None) == ()
    for lacking in ("options", "input_commit"):
        with pytest.raises(FeatdynError, match="does not say how it was computed"):
            replay(store, committed(**{lacking: None}))
    with pytest.raises(FeatdynError, match="was computed with gone, old, which spectra has no more"):
        replay(store, committed(options=result.attrs["options"] | {"old": 1, "gone": 2}))
