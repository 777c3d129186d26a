"""A store of another writer, which SPEC.md allows, is read right by everything, or refused in one clear line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import save

from featdyn.analysis import analyses
from featdyn.store import Run, RunWriter, commit_result, gc, repair, verify
from tests.engine.small_run import RESULT
from tests.engine.spec_reader import SpecReader
from tests.engine.spec_writer import SpecWriter

SAMPLES, CHECKPOINTS = 11, 3
# What featdyn train gives these names, another writer need not.
ATTRIBUTES: dict[str, dict[str, Any]] = {
    "none": {"recipe": "bake at 200 °C", "capture": [1], "dataset": "wiki", "identity": 3, "provenance": None},
    "zstd": {"recipe": {"learning_rate": 0.1, "network": "mine"}, "dataset": {"name": 7}, "capture": {}},
}
Values = dict[str, np.ndarray[Any, Any]]


def values_at(t: int, rng: np.random.Generator) -> dict[str, tuple[list[str], np.ndarray[Any, Any], int]]:
    """Return the arrays of one checkpoint: axes, values, and samples in an inner chunk."""
    deep = rng.standard_normal((3, SAMPLES)).astype("float64")
    deep[:, 4:9] = 0  # whole inner chunks of fill values
    return {
        "checkpoint": ([], np.array(t), 0),
        "step": ([], np.array(10 * t), 0),
        "temperature": (["head"], rng.random(2).astype("float32"), 0),
        "layers/encoder.0/activation": (["sample", "feature"], rng.random((SAMPLES, 4)).astype("float32"), 8),
        "layers/größe 1/activation": (["feature", "sample"], deep, 1),
        "layers/größe 1/alive": (["sample"], rng.random(SAMPLES) < 0.5, 4),
        "layers/encoder.0/tokens": (["sample", "token"], rng.integers(0, 9, (SAMPLES, 3)).astype("uint16"), 2),
    }


@pytest.fixture(params=["none", "zstd"])
def other(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Values]:
    """A store and what is in it; commits are checkpoints 0 and 1, a note, a result, and checkpoint 2."""
    path, rng = tmp_path / "run.zarr", np.random.default_rng(3)
    writer, held = SpecWriter(path, SAMPLES, 8, request.param), {}
    names = [f"wiki/{i} «é»" for i in range(SAMPLES)]
    writer.static("sample", ["sample"], names, [5])
    writer.static("language", ["sample"], ["", "de", "日本語", "?"] + ["?"] * 7, [SAMPLES], missing_value="?")
    for t in range(CHECKPOINTS):
        for name, (dims, array, chunk) in values_at(t, rng).items():
            writer.grow(name, dims, array, chunk)
            held.setdefault(name, []).append(array)
        weights = {"w": torch.full((2,), float(t)), "b": torch.ones(1, dtype=torch.bfloat16)}
        writer.put(f"checkpoints/{t:06d}/model.safetensors", save(weights))
        writer.put(f"checkpoints/{t:06d}/ema.safetensors", save({"w": torch.zeros(1)}))
        writer.commit("checkpoint", str(t), seconds=1.5)
        if t == 1:
            writer.put("notes/000003.txt", b"the loss jumped")
            writer.commit("note", "why")
            writer.group("results/mine/000004", answer=42, description="größer, ✓")
            writer.static("results/mine/000004/score", ["cut", "t1"], rng.random((3, 2)), [2, 2], units="%")
            writer.static("results/mine/000004/cut", ["cut"], ["a", "b", "c"], [3])
            writer.commit("result", "results/mine/000004")
    writer.publish(author="Jürgen «x»", tags=["a", {"b": None}], text="line\nline", **ATTRIBUTES[request.param])
    return path, {name: np.stack(arrays) for name, arrays in held.items()}


def test_it_is_read_right(other: tuple[Path, Values]) -> None:
    path, expected = other
    SpecReader(path).check()
    run, arrays = Run(path), SpecReader(path).arrays()
    tree = xr.open_datatree(path, engine="zarr")
    assert verify(path).sound
    for name, values in expected.items():
        for found in (run.values(name), run.array(name), tree[name], arrays[name]):
            np.testing.assert_array_equal(np.asarray(found), values)
        spec = run.schema[name]
        for t in range(CHECKPOINTS):
            for block in range(run.schema.blocks if spec.sample_axis is not None else 1):
                rows = run.schema.block_slice(block) if spec.sample_axis is not None else slice(None)
                region = (slice(None),) * (spec.sample_axis or 0) + ((rows,) if spec.sample_axis is not None else ())
                np.testing.assert_array_equal(run.block(name, t, block), values[t][region])
    assert run.values("language").tolist() == ["", "de", "日本語", *[None] * 8]
    assert run.attributes["author"] == "Jürgen «x»"
    np.testing.assert_array_equal(run.result("mine")["score"], arrays["results/mine/000004/score"])
    assert run.result("mine").attrs["answer"] == 42
    assert (run.state(2)["w"].tolist(), run.state(0, "ema")["w"].tolist()) == ([2, 2], [0])


def test_every_command_is_right_or_says_one_line(
    other: tuple[Path, Values], featdyn: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    path, expected = other
    code, out, err = featdyn("info", path, "--json")
    assert (code, err, json.loads(out)["checkpoints"]) == (0, "", CHECKPOINTS)
    for array in ("layers.encoder.0.activation", "temperature", "step", "language", "results.mine.score"):
        code, out, err = featdyn("query", path, array, "--format", "json")
        assert (code, err, bool(json.loads(out))) == (0, "", True), array
    code, out, _ = featdyn("query", path, "temperature", "--format", "json")
    found = [row["temperature"] for row in json.loads(out)]
    np.testing.assert_allclose(found, expected["temperature"].ravel(), rtol=1e-6)
    for command in (["info"], ["verify"], ["verify", "--repair"], ["gc"], ["report", "-o", tmp_path / "report.html"]):
        code, _, err = featdyn(command[0], path, *command[1:])
        assert (code, err) == (0, ""), command
    for name in analyses():
        code, _, err = featdyn("analyze", path, name)
        assert (err.count("featdyn: "), "(unexpected" in err) == (code, False), err
    code, _, err = featdyn("analyze", path, "spectra", "--layers", "encoder.0")
    assert (code, "featdyn: " in err) == (0, False)
    for command in (["compare", path], ["train", "digits", "--store", path]):
        code, _, err = featdyn(*command)
        assert (code, err.count("\n"), "(unexpected" in err) == (1, 1, False)
    assert verify(path).sound
    np.testing.assert_array_equal(SpecReader(path).array("temperature"), expected["temperature"])


def test_it_is_gone_on_with_and_what_is_not_known_stays(other: tuple[Path, Values]) -> None:
    path, expected = other
    commit_result(Run(path), "r", RESULT)
    with RunWriter.open(path) as writer, writer.checkpoint() as checkpoint:
        assert checkpoint.index == CHECKPOINTS
        for name, values in expected.items():
            spec = writer.schema[name]
            for block in range(writer.schema.blocks if spec.sample_axis is not None else 1):
                rows = writer.schema.block_slice(block)
                region = (slice(None),) * (spec.sample_axis or 0) + ((rows,) if spec.sample_axis is not None else ())
                checkpoint.write(name, values[0][region], block)
    gc(path)
    run, reader = Run(path), SpecReader(path)
    reader.check()
    assert [commit.kind for commit in run.commits] == ["checkpoint", "checkpoint", "note", "result", *KINDS_AFTER]
    assert (path / "notes/000003.txt").read_bytes() == b"the loss jumped"
    for name, values in expected.items():
        np.testing.assert_array_equal(reader.array(name), np.concatenate([values, values[:1]]))
        np.testing.assert_array_equal(run.values(name), np.concatenate([values, values[:1]]))
    assert verify(path).sound


KINDS_AFTER = ("checkpoint", "result", "checkpoint")


def test_damage_in_what_is_not_known_costs_nothing_else(other: tuple[Path, Values]) -> None:
    path, expected = other
    (path / "notes/000003.txt").write_bytes(b"the loss jumpet")
    assert verify(path).damaged == (3,)
    assert repair(path).changed
    run = Run(path)
    assert (run.checkpoints, run.analyses, verify(path).sound) == (CHECKPOINTS, ["mine"], True)
    np.testing.assert_array_equal(run.values("layers/größe 1/activation"), expected["layers/größe 1/activation"])
