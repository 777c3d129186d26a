"""Checkpoints that exist, of every usual form, against the network that they were saved from."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from featdyn.capture import Probes, Recorder
from featdyn.capture.checkpoint_files import state_in
from featdyn.capture.checkpoint_steps import by_step
from featdyn.capture.existing import capture
from featdyn.errors import FeatdynError, NetworkError
from featdyn.store import Run

STEPS = (0, 5, 10, 100)


class Net(nn.Module):
    """With batch statistics, and a weight that two layers share."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second, self.head = (
            nn.Linear(6, 4),
            nn.BatchNorm1d(4),
            nn.Linear(6, 4),
            nn.Linear(4, 3),
        )
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.first(x)).relu() + self.second(x))


def at(step: int) -> Net:
    torch.manual_seed(step)
    net = Net()
    net.norm(torch.randn(32, 4))
    return net


def probes() -> Probes:
    return Probes(torch.randn(12, 6, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3)


def states(step: int, prefix: str = "") -> dict[str, Tensor]:
    return {prefix + name: value.clone() for name, value in at(step).state_dict().items()}


def write(form: str, folder: Path, step: int) -> Path:
    """Save the network of a step in a form that people have."""
    if form == "state_dict":
        torch.save(states(step), path := folder / f"step{step}.pt")
    elif form == "wrapped":  # by DDP and torch.compile, beside an optimizer
        held = {"epoch": 1, "model": states(step, "module._orig_mod."), "optimizer": {"state": {0: torch.zeros(2)}}}
        torch.save(held, path := folder / f"net-{step:06d}.pth")
    elif form == "lightning":
        held = {"state_dict": {**states(step, "model."), "metric.total": torch.zeros(1)}, "global_step": step}
        torch.save(held, path := folder / f"epoch={step // 5}-step={step}.ckpt")
    elif form == "safetensors":  # which keeps a shared tensor once
        save_file(
            {n: v for n, v in states(step).items() if n != "second.weight"}, path := folder / f"{step}.safetensors"
        )
    else:
        path = folder / f"checkpoint-{step}"
        path.mkdir()
        parts = {f"model-{i}.safetensors": dict(list(states(step).items())[i::2]) for i in range(2)}
        for name, held in parts.items():
            save_file(held, path / name)
        index = {"weight_map": {name: part for part, held in parts.items() for name in held}}
        (path / "model.safetensors.index.json").write_text(json.dumps(index))
    return path


FORMS = ("state_dict", "wrapped", "lightning", "safetensors", "sharded")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_store_of_the_networks_themselves(tmp_path, form):
    with Recorder(net := Net(), probes(), tmp_path / "own.zarr", layers=["*"], dtype="float32") as recorder:
        for step in STEPS:
            net.load_state_dict(states(step))
            recorder.record(step=step)
    (folder := tmp_path / form).mkdir()
    found = by_step([write(form, folder, step) for step in reversed(STEPS)])
    assert list(found) == list(STEPS)
    one, two = Run(tmp_path / "own.zarr"), tmp_path / "two.zarr"
    first = {step: found[step] for step in STEPS[:2]}
    capture(Net(), probes(), first, two, layers=["*"], dtype="float32")
    seen: list[tuple[int, int]] = []
    run = capture(Net(), probes(), found, two, layers=["*"], dtype="float32", progress=lambda *n: seen.append(n))
    assert seen == [(3, 4), (4, 4)]  # the rest of them
    for spec in one.schema.arrays:
        np.testing.assert_array_equal(run.values(spec.path), one.values(spec.path), err_msg=spec.path)
    for t in range(len(STEPS)):
        assert all(torch.equal(run.state(t)[name], value) for name, value in one.state(t).items())


def test_what_does_not_hold_the_network_is_named_and_what_was_before_is_kept(tmp_path):
    paths = {step: write("state_dict", tmp_path, step) for step in STEPS}
    torch.save(states(5) | {"head.weight": torch.zeros(2, 4)}, paths[10])
    with pytest.raises(
        NetworkError, match=r"step10.pt: does not hold this network: head.weight has shape \(2, 4\), not"
    ):
        capture(Net(), probes(), paths, tmp_path / "r.zarr", layers=["first"])
    assert Run(tmp_path / "r.zarr").values("step").tolist() == [0, 5]
    torch.save(states(5), paths[10])
    said: list[str] = []
    capture(Net(), probes(), paths, tmp_path / "r.zarr", layers=["first"], said=said.append)
    assert said == []  # the one before was recorded by an earlier call
    capture(Net(), probes(), paths, tmp_path / "s.zarr", layers=["first"], said=said.append)
    assert said == [f"{paths[10]}: equals the checkpoint before"]


def test_a_revision_of_a_cache_is_that_which_its_name_says(tmp_path):
    one, other = (tmp_path / "snapshots" / (letter * 40) for letter in "ab")
    refs = tmp_path / "refs"
    for folder, step in ((one, 1), (other, 2)):
        folder.mkdir(parents=True)
        save_file(states(step), folder / "model.safetensors")
    refs.mkdir()
    for commit, step in ((one.name, 1), (other.name + "\n", 2)):
        (refs / "main").write_text(commit)
        assert torch.equal(state_in(refs / "main", Net())["head.weight"], states(step)["head.weight"])
    for commit in ("", "c" * 40):
        (refs / "main").write_text(commit)
        with pytest.raises(NetworkError, match=f"refs/main: names the revision {commit}, which was not downloaded"):
            state_in(refs / "main", Net())


def test_a_folder_holds_its_weights_in_one_file_the_usual_one_first(tmp_path):
    torch.save(states(6), tmp_path / "x.ckpt")
    (tmp_path / "notes.txt").write_text("no weights")
    for file, step in (("x.ckpt", 6), ("pytorch_model.bin", 7), ("model.safetensors", 8)):
        save_file(states(step), tmp_path / file) if step == 8 else torch.save(states(step), tmp_path / file)
        assert torch.equal(state_in(tmp_path, Net())["head.weight"], states(step)["head.weight"])
    several = tmp_path / "several"
    several.mkdir()
    for count in (0, 2):
        for i in range(count):
            torch.save(states(0), several / f"{i}.pt")
        with pytest.raises(NetworkError, match=f"several: holds {count} files of weights and no index: name one"):
            state_in(several, Net())


@pytest.mark.parametrize(("depth", "found"), [(1, True), (2, True), (3, True), (4, False)])
def test_a_file_is_searched_three_dicts_deep(depth, found):
    content: Any = states(3)
    for _ in range(depth - 1):
        content = {"inner": content, "other": 5}
    if found:
        assert torch.equal(state_in(Path("a.pt"), Net(), content=content)["head.weight"], states(3)["head.weight"])
    else:
        with pytest.raises(NetworkError, match=r"a\.pt: does not hold this network: no tensors of its names"):
            state_in(Path("a.pt"), Net(), content=content)


WEIGHT, STEPPED = "head.weight", "norm.num_batches_tracked"


@pytest.mark.parametrize(
    ("name", "change", "flaw"),
    [
        (WEIGHT, lambda t: t.double(), ""),
        (WEIGHT, lambda t: t.bfloat16(), ""),
        (STEPPED, lambda t: t.to(torch.int16), ""),
        (WEIGHT, lambda t: t.to(torch.float8_e4m3fn), "is torch.float8_e4m3fn, which is not what the network has"),
        (WEIGHT, lambda t: t.long(), "is torch.int64, which is not what the network has, torch.float32"),
        (WEIGHT, lambda t: t.to(torch.complex64), "is torch.complex64, which is not"),
        (WEIGHT, lambda t: t > 0, "is torch.bool, which is not"),
        (STEPPED, lambda t: t.float(), "is torch.float32, which is not what the network has, torch.int64"),
        (STEPPED, lambda t: t.to(torch.int8), "is torch.int8, which is not"),
        (WEIGHT, lambda t: t.to("meta"), r"has no values \(device meta\)"),
        (WEIGHT, lambda t: t.to_sparse(), "is torch.sparse_coo: save it as a plain tensor"),
        (WEIGHT, lambda t: t[:, :3], r"has shape \(3, 3\), not \(3, 4\)"),
        ("second.weight", lambda t: t.clone(), ""),
        ("second.weight", lambda t: t + 1, "second.weight and first.weight are one tensor in the network, and differ"),
    ],
)
def test_numbers_are_taken_where_they_mean_the_same(name, change, flaw):
    content = states(3)
    content[name] = change(content[name])
    if flaw:
        with pytest.raises(NetworkError, match=f"does not hold this network: ({name} )?{flaw}"):
            state_in(Path("a.pt"), Net(), content=content)
    else:
        assert torch.equal(state_in(Path("a.pt"), Net(), content=content)[name], content[name])


def test_a_weight_of_two_layers_is_found_by_either_name_and_holds_nan_twice():
    for left_out in ("first.weight", "second.weight"):
        content = states(3)
        del content[left_out]
        found = state_in(Path("a.pt"), Net(), content=content)
        assert torch.equal(found["first.weight"], found["second.weight"])
    content = states(3)
    for name in ("first.weight", "second.weight"):
        content[name][0, 0] = torch.nan
    assert state_in(Path("a.pt"), Net(), content=content)["second.weight"][0, 0].isnan()


def test_a_network_passes_whole_where_its_weights_fit_five_times(tmp_path):
    paths = {step: write("state_dict", tmp_path, step) for step in STEPS[:2]}
    room = 5 * sum(t.nbytes for t in Net().state_dict().values())
    run = capture(Net(), probes(), paths, tmp_path / "r.zarr", layers=["first"], room=room, said=lambda line: None)
    assert run.values("step").tolist() == [0, 5]
    with pytest.raises(NetworkError, match="weights do not fit into memory: give a function that makes it"):
        capture(Net(), probes(), paths, tmp_path / "s.zarr", layers=["first"], room=room - 1)
    assert not (tmp_path / "s.zarr").exists()


def test_a_checkpoint_that_was_overwritten_is_named(tmp_path):
    paths = {step: write("state_dict", tmp_path, step) for step in STEPS}
    said: list[str] = []

    def again() -> list[str]:
        said.clear()
        capture(Net(), probes(), paths, tmp_path / "r.zarr", layers=["first"], said=said.append)
        return said

    assert again() == []
    torch.save(states(5), paths[5])  # the same anew
    os.utime(paths[10], (2_000_000_000, 2_000_000_000))
    assert again() == []
    torch.save(states(6), paths[5])
    (paths[100]).write_bytes(b"cut")
    before = {t: Run(tmp_path / "r.zarr").state(t) for t in range(len(STEPS))}
    changed, cut = again()
    assert changed == f"{paths[5]}: holds other weights than those recorded of step 5, which stay: take another store"
    assert cut.startswith(f"{paths[100]}: ")
    assert cut.endswith("; what is recorded of it stays")
    for t, state in before.items():
        assert all(torch.equal(Run(tmp_path / "r.zarr").state(t)[name], value) for name, value in state.items())


def test_a_checkpoint_with_nan_is_named(tmp_path):
    paths = {step: write("state_dict", tmp_path, step) for step in (0, 5)}
    torch.save(states(5) | {"head.weight": torch.full((3, 4), torch.nan), "head.bias": torch.tensor([0, torch.nan, 1])},
               paths[5])  # fmt: skip
    with pytest.raises(NetworkError, match=r"step5.pt: head.weight is not finite: leave this checkpoint out$"):
        capture(Net(), probes(), paths, tmp_path / "r.zarr", layers=["first"])
    assert Run(tmp_path / "r.zarr").values("step").tolist() == [0]
    with pytest.raises(NetworkError, match=r"step5.pt: head.weight is not finite"):
        capture(Net(), probes(), {5: paths[5]}, tmp_path / "s.zarr", layers=["first"])


def test_a_checkpoint_that_came_too_late_is_named(tmp_path):
    paths = {step: write("state_dict", tmp_path, step) for step in STEPS}
    early = {step: path for step, path in paths.items() if step != STEPS[1]}
    capture(Net(), probes(), early, tmp_path / "r.zarr", layers=["first"])
    said: list[str] = []
    run = capture(Net(), probes(), paths, tmp_path / "r.zarr", layers=["first"], said=said.append)
    assert said == [
        f"{paths[STEPS[1]]}: step {STEPS[1]} is not recorded, as the store is at {STEPS[-1]}: take another store"
    ]
    assert run.values("step").tolist() == list(early)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"some words", "cannot be read as a checkpoint: it is no file of torch.save"),
        (b"PK\x03\x04 cut", "cannot be read as a checkpoint"),
        ({"model": Net()}, "holds more than tensors, which is not loaded: save model.state_dict"),
        ({"a": torch.zeros(2)}, "no tensors of its names"),
        ({"first.weight": torch.zeros(4, 6)}, "first.bias is missing"),
        (
            states(1) | {"head.bias": torch.zeros(3, dtype=torch.int8)},
            "head.bias is torch.int8, which is not what",
        ),
        (
            states(1) | {"head.bias": torch.zeros(3, dtype=torch.bool)},
            "head.bias is torch.bool, which is not",
        ),
        (
            states(1) | {"head.bias": torch.zeros(3, dtype=torch.cfloat)},
            "head.bias is torch.complex64, which is not",
        ),
        (
            states(1) | {"head.bias": torch.zeros(3).to(torch.float8_e5m2)},
            "head.bias is torch.float8_e5m2, which is not",
        ),
        (
            states(1) | {"norm.num_batches_tracked": torch.tensor(1.5)},
            "tracked is torch.float32, which is",
        ),
        (
            states(1) | {"head.weight": torch.zeros(3, 4).to_sparse()},
            "head.weight is torch.sparse_coo: save it",
        ),
        (states(1) | {"head.weight": torch.zeros(3, 4, device="meta")}, r"head.weight has no values \(device meta"),
        (states(1) | {"second.weight": torch.zeros(4, 6)}, "second.weight and first.weight are one tensor"),
        ({"now": states(1), "ema": states(2)}, "holds this network 2 times, below 'now/', 'ema/': choose a prefix"),
    ],
)
def test_a_file_without_the_network_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "step1.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(NetworkError, match=message) as caught:
        state_in(path, Net())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("index", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"first.weight": 5}}'])
def test_a_damaged_index_is_named(tmp_path, index):
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(index)
    why = "cannot be read as a checkpoint" if index == "{" else "index.json: has no weight_map of names to files"
    with pytest.raises(NetworkError, match=why) as caught:
        state_in(folder, Net())
    assert "\n" not in str(caught.value)


def test_of_two_networks_in_a_file_one_is_chosen(tmp_path):
    torch.save({"now": states(1), "ema": states(2, "module.")}, tmp_path / "1.pt")
    torch.save({**states(1, "now."), **states(2, "ema.")}, tmp_path / "3.pt")
    for file, prefix in (("1", "ema/module."), ("1", "ema/module"), ("3", "ema."), ("3", "ema")):
        found = state_in(tmp_path / f"{file}.pt", Net(), prefix)
        assert torch.equal(found["first.bias"], states(2)["first.bias"])
    for prefix in ("", "em", "emaa"):
        with pytest.raises(NetworkError, match="does not hold this network"):
            state_in(tmp_path / "3.pt", Net(), prefix)
    torch.save({**states(1, "student."), **states(1, "teacher.")}, tmp_path / "2.pt")  # equal ones are one
    assert torch.equal(state_in(tmp_path / "2.pt", Net())["first.bias"], states(1)["first.bias"])
    for name, made in (("empty", []), ("two", ["a.pt", "b.pt"])):
        (tmp_path / name).mkdir()
        for part in made:
            torch.save(states(1), tmp_path / name / part)
        with pytest.raises(NetworkError, match=rf"holds {len(made)} files of weights and no index"):
            state_in(tmp_path / name, Net())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_taken(tmp_path, dtype):
    held = {name: value.to(dtype) if value.is_floating_point() else value.int() for name, value in states(1).items()}
    torch.save(held, tmp_path / "1.pt")
    run = capture(Net(), probes(), {1: tmp_path / "1.pt"}, tmp_path / "r.zarr", layers=["first"])
    for name, value in run.state(0).items():
        assert torch.equal(value, held[name].to(value.dtype)), name


@pytest.mark.parametrize(
    ("names", "steps"),
    [
        (["v2_1e3.pt", "v2_2e3.pt"], [1000, 2000]),
        (["v2_1e3.pt"], [1000]),
        (["v2_500.pt", "v2_1e3.pt", "v2_1.5k.pt", "v2_2M.pt"], [500, 1000, 1500, 2_000_000]),
        (["a1-it_100-e1.pt", "a1-it_200-e2.pt"], [100, 200]),
        (["iter_100_1.pt", "iter_200_2.pt"], [100, 200]),
        (["iterations-5-x2.pt", "iterations-6-x3.pt"], [5, 6]),
        (["unit_7_10.pt", "unit_8_20.pt"], [10, 20]),
        (["lr1e-3/7.pt", "lr1e-3/8.pt"], [7, 8]),
        (["step1.0.pt", "step2.0.pt"], [1, 2]),
        (["epoch=3-loss=0.25.ckpt", "epoch=4-loss=0.5.ckpt", "epoch=5-loss=1.ckpt"], [3, 4, 5]),
        (["v1.2.3/7.pt", "v1.2.3/9.pt"], [7, 9]),
        (["step1.pt", "step2.ckpt", "step3.safetensors"], [1, 2, 3]),
    ],
)
def test_steps_as_people_write_them(names, steps):
    assert list(by_step([Path(name) for name in names])) == steps


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=6, unique=True), st.sampled_from([
    "runs/3/step{}.pt", "epoch={e}-step={}.ckpt", "epoch={e}-step={}-v1.ckpt", "a{e}/checkpoint-{}", "{:09d}.pt",
]))  # fmt: skip
def test_steps_are_the_number_that_differs(steps, name):
    paths = [Path(name.format(step, e=i // 2)) for i, step in enumerate(steps)]
    assert list(by_step(paths).items()) == sorted(zip(steps, paths, strict=True))


@pytest.mark.parametrize(
    ("names", "pattern", "message"),
    [
        (["last.pt"], None, "no number in it tells its step"),
        (["step1.pt", "best1.pt"], None, "differ in more than a number"),
        (["step1.pt", "step01.pt"], None, r"^step1.pt and step01.pt have the same numbers, .*: leave one out$"),
        (["step1.pt", "step2.pt", "step02.pt"], None, r"^step2.pt and step02.pt have the same numbers"),
        (["step1.pt", "step1.safetensors"], None, r"^step1.pt and step1.safetensors have the same numbers"),
        (["a1.pt", "b1.pt"], r"(\d+)", "are both of step 1"),
        (["a1.pt"], r"\d+", "one group"),
        (["a1.pt"], r"(", "one group"),
        (["a1.pt"], r"step(\d+)", "does not match"),
        (["a1.pt"], r"(a)", "one group"),
        (["a.pt"], r"a(\d)?", "one group"),
        (["step1.5e0.pt"], None, "1.5 is no whole number"),
        (["step1.5.pt"], None, "1.5 is no whole number"),
        (["step1.5.pt", "step2.5.pt"], None, "1.5 is no whole number"),
        (["epoch0.1.pt", "epoch0.2.pt"], None, "0.1 is no whole number"),
        ([f"step{10**20}.pt", "step1.pt"], None, "no whole number from 0 to"),
    ],
)
def test_names_without_steps_are_refused_in_one_line(names, pattern, message):
    with pytest.raises(FeatdynError, match=message) as caught:
        by_step([Path(name) for name in names], pattern)
    assert "\n" not in str(caught.value)
    assert by_step([Path("a1.pt"), Path("b2.pt")], r"(\d)\.pt") == {1: Path("a1.pt"), 2: Path("b2.pt")}


def test_tensors_that_the_network_has_not_are_said_once(tmp_path):
    for step in (0, 5, 10, 15):
        more = {"deeper.weight": torch.zeros(3)} if step > 0 else {}
        more |= {"deeper.bias": torch.zeros(3)} if step == 15 else {}
        torch.save({"state_dict": {**states(step, "net."), **{f"net.{k}": v for k, v in more.items()},
                                   "loss.weight": torch.ones(2)}}, tmp_path / f"step{step}.pt")  # fmt: skip
    lines: list[str] = []
    capture(Net(), probes(), by_step(sorted(tmp_path.glob("*.pt"))), tmp_path / "r.zarr", said=lines.append)
    assert [line.rpartition("/")[2] for line in lines] == [
        "step5.pt: the network has no deeper.weight, left out here: is it of another version?",
        "step15.pt: the network has no deeper.weight and 1 more, left out here: is it of another version?",
    ]


def test_axes_are_given_on_the_command_line(tmp_path, monkeypatch):
    from featdyn.cli.capture import command

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "turned.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Turned(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.up, self.down = nn.Linear(3, 5), nn.Linear(5, 2)\n"
        "    def forward(self, x):\n        return self.down(self.up(x.transpose(0, 1)).transpose(0, 1)).mean(1)\n"
        "probes = (torch.arange(72.0).view(6, 4, 3), [0, 1, 0, 1, 0, 1])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    turned = importlib.import_module("turned")
    net = turned.Turned()
    torch.save(net.state_dict(), tmp_path / "step1.pt")

    def run(layers: str, store: str) -> Any:
        return CliRunner().invoke(
            command, ["--model", "turned:Turned", "--probes", "turned:probes", "--store", store, "--checkpoints",
                      "step*.pt", "--layers", layers, "--dtype", "float32"],
        )  # fmt: skip

    done = run("up:sample=1:pool=mean,down", "r.zarr")
    assert done.exit_code == 0, done.exception
    with torch.no_grad():
        wanted = net.up(turned.probes[0]).mean(1)
    np.testing.assert_allclose(Run("r.zarr").values("layers/up/activation")[0], wanted, rtol=1e-5)
    assert Run("r.zarr").schema["layers/up/activation"].attrs == {"sample_axis": 1, "pool": "mean"}
    assert Run("r.zarr").schema["layers/down/activation"].shape == (6, 4, 2)
    for layers, words in (
        ("up:sample", "'sample' says no axis: write sample=1"),
        ("up:sample=x", "sample must be a whole number of at least 0, got 'x'"),
        ("up:axis=1", "'axis=1' says no axis"),
        ("up:pool=max", "pool must be one of none, mean, last, cls, got 'max'"),
        ("up", r'write layers={"up": Axis(sample=1)}'),
    ):
        done = run(layers, "s.zarr")
        assert isinstance(done.exception, FeatdynError), (layers, done.exception)
        assert words in str(done.exception)
        assert "\n" not in str(done.exception)
        assert not Path("s.zarr").exists()


def test_the_command_records_and_goes_on(tmp_path, monkeypatch):
    from featdyn.cli.capture import command

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "those_nets.py").write_text(
        "import torch\nfrom tests.engine.test_capture_checkpoints import Net, probes\n"
        "data = (torch.zeros(4, 6), [0, 1, 2, 0])\nfar = (torch.zeros(4, 6), [0, 1, 2, 9])\none = torch.zeros(4, 6)\n"
        "def broken():\n    raise KeyError('x')\n\ndef loss(outputs, labels):\n    return outputs.square().sum(1)\n"
    )

    def run(*arguments: str) -> Any:
        given_ = ["--model", "those_nets:Net", "--store", "r.zarr", "--checkpoints", "step*.pt", *arguments]
        return CliRunner().invoke(command, given_)

    write("state_dict", tmp_path, 0)
    write("state_dict", tmp_path, 5)
    done = run("--probes", "those_nets:probes", "--layers", "first,head", "--no-gradients")
    assert done.output == "r.zarr: 2 checkpoints, steps 0 to 5\n", done.output
    write("state_dict", tmp_path, 10)
    assert run("--probes", "those_nets:probes", "--layers", "first,head", "--no-gradients").exit_code == 0
    assert Run("r.zarr").values("step").tolist() == [0, 5, 10]
    assert [a.path for a in Run("r.zarr").schema.arrays if a.path.startswith("layers")] == [
        "layers/first/activation", "layers/head/activation",
    ]  # fmt: skip
    done = run("--probes", "those_nets:data", "--loss", "those_nets:loss", "--store", "s.zarr", "--layers", "head")
    assert done.exit_code == 0, done.exception
    for wrong, message in (
        (["--probes", "those_nets:nothing"], "has no attribute 'nothing'"),
        (["--probes", "no_such_module:x"], "No module named 'no_such_module'"),
        (["--probes", "those_nets"], "write module:name"),
        (["--probes", "those_nets:one"], "gives Tensor, not Probes or (inputs, labels)"),
        (["--probes", "those_nets:broken"], "those_nets:broken: KeyError: 'x'"),
        (
            ["--probes", "those_nets:far", "--store", "far.zarr"],
            "labels must lie in 0..2 for outputs of width 3",
        ),
        (["--probes", "those_nets:data", "--model", "those_nets:loss.__name__"], "not a torch.nn.Module"),
        (["--probes", "those_nets:data", "--checkpoints", "none*"], ""),
    ):
        done = run(*wrong)
        if message:
            assert message in str(done.exception)
            assert isinstance(done.exception, FeatdynError)
    alone = CliRunner().invoke(
        command, ["--model", "m:x", "--probes", "m:y", "--store", "t.zarr", "--checkpoints", "none*"]
    )
    assert "no checkpoints at none*" in str(alone.exception)
