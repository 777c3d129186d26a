"""What README shows is what runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    shlex.split(part, comments=True)[1:]
    for language, block in BLOCKS
    for line in ("" if language else block).splitlines()
    for part in re.split(r"; (?=featdyn)|&& ", line)
    if part.startswith("featdyn ")
]
SMALLER = {"grid/*.zarr": "run.zarr", "0.99": "0.9", "epoch=5,6": "epoch=1,2"}  # a run of two epochs
READS = [c for c in COMMANDS if c[0] in ("info", "query", "report", "verify", "gc", "sql", "compare")]


def test_there_are_commands_of_every_kind():
    assert len(COMMANDS) > 30
    assert {command[0] for command in COMMANDS} >= {
        "train",
        "capture",
        "import",
        "analyze",
        "reproduce",
        "replay",
        "export",
    }
    assert len(READS) >= 14


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_each_command_is_one(command):
    """Its options are known, and its recipe's fields."""
    from featdyn.cli.main import featdyn
    from featdyn.training import load

    group, arguments = featdyn, list(command)
    with group.make_context("featdyn", arguments) as context:
        _, found, rest = group.resolve_command(context, arguments)
        with found.make_context(command[0], rest, parent=context) as inner:
            if command[0] == "analyze":
                name, analysis, rest = found.resolve_command(inner, [*inner._protected_args, *inner.args])
                with analysis.make_context(name, rest, parent=inner):
                    pass
            if command[0] == "train" and inner.params["recipe"]:
                swept = tuple(sweep.split(",")[0] for sweep in inner.params["sweeps"])
                load(inner.params["recipe"], (*inner.params["changes"], *swept))


@pytest.mark.parametrize("command", READS, ids=" ".join)
def test_each_command_that_reads_runs(featdyn, small_store, tmp_path, monkeypatch, command):
    if command[0] == "sql":
        pytest.importorskip("duckdb")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.zarr").symlink_to(small_store)
    code, _, err = featdyn(*(SMALLER.get(part, part) for part in command))
    assert code == 0, err


def test_blocks_of_python_are_python():
    for language, block in BLOCKS:
        if language == "python":
            compile(block, "README.md", "exec")


def test_the_first_look_and_the_training_loop_run(small_store, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "run.zarr").symlink_to(small_store)
    look, loop = (
        next(block for language, block in BLOCKS if language == "python" and word in block)
        for word in ("xr.open_datatree", "recorder.start()")
    )
    names: dict[str, object] = {}
    exec(look.replace("norms.to_pandas().plot()", "table = norms.to_pandas()"), names)
    assert names["table"].shape == (5, 11)
    layers = {"layer1": torch.nn.Linear(3, 4), "layer2": torch.nn.Linear(4, 2)}
    model = torch.nn.Sequential()
    for name, layer in layers.items():
        model.add_module(name, layer)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train_on(inputs, labels):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        return loss

    inputs, labels = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 2
    names = {
        "model": model,
        "inputs": inputs,
        "labels": labels,
        "train_on": train_on,
        "batches": [(inputs, labels)] * 3,
    }
    exec(loop, names)
    from featdyn import open_run

    run = open_run("run.zarr")
    assert run.layers == ["layer1", "layer2"]
    assert run.values("step").tolist() == [0, 3]
    assert np.isfinite(run.values("train_loss")[1])
