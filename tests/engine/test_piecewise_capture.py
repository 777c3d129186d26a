"""Checkpoints of a network larger than memory: what is recorded has the bits of the whole network's."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save, save_file
from torch import nn

from featdyn.capture import Probes
from featdyn.capture.existing import capture
from featdyn.capture.mapped_checkpoint import MappedCheckpoint
from featdyn.capture.values import tensors_in_parts
from featdyn.cli.main import featdyn as cli
from featdyn.errors import NetworkError
from featdyn.networks import is_skeleton
from featdyn.sizes import size
from featdyn.store import Run, schema
from tests.engine.forked import alone
from tests.engine.memory import peak
from tests.engine.test_prefixes import OVERHEAD, Branches, Images
from tests.engine.test_streamed import LENGTH, WORDS, Words

STEPS = (0, 5, 20)
LAYERS = {"words": ["embed", "blocks.0", "blocks.1"], "images": ["stem.1", "stem", "pool"]}


def probes(kind: str) -> Probes:
    random = torch.Generator().manual_seed(1)
    if kind == "words":
        words = torch.randint(WORDS, (11, LENGTH), generator=random)
        return Probes(words, words.roll(-1, 1))
    return Probes(torch.randn(11, 2, 5, 5, generator=random), torch.arange(11) % 3)


MAKE: dict[str, Callable[[], nn.Module]] = {"words": Words, "images": Images}


def saved(folder: Path, kind: str, form: str) -> dict[int, Path]:
    """Save checkpoints in a form that people have."""
    found, random = {}, torch.Generator().manual_seed(2)
    torch.manual_seed(0)
    model = MAKE[kind]()
    for step in STEPS:
        with torch.no_grad():
            for tensor in (*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())):
                tensor += 0.05 * torch.rand(tensor.shape, generator=random)
        state = {name: value.clone() for name, value in model.state_dict().items()}
        if form == "pt":
            torch.save(
                {"epoch": 1, "model": {f"module.{n}": v for n, v in state.items()}}, path := folder / f"{step}.pt"
            )
        elif form == "one":
            save_file(state, path := folder / f"{step}.safetensors")
        else:
            path = folder / f"checkpoint-{step}"
            path.mkdir()
            names = list(state)
            parts = {f"model-{i}.safetensors": {name: state[name] for name in names[i::2]} for i in range(2)}
            for file, held in parts.items():
                save_file(held, path / file)
            index = {"weight_map": {name: file for file, held in parts.items() for name in held}}
            (path / "model.safetensors.index.json").write_text(json.dumps(index))
        found[step] = path
    return found


@pytest.mark.parametrize(("kind", "form"), [("words", "pt"), ("images", "one"), ("words", "several"), ("images", "pt")])
def test_what_is_recorded_has_the_bits_of_the_whole_network_s(
    tmp_path: Path, kind: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "SHARD_SAMPLES", 4)  # three blocks, of batches of three or fewer
    files, options = (
        saved(tmp_path, kind, form),
        {"layers": LAYERS[kind], "gradients": False, "batch": 3, "dtype": "float32"},
    )
    whole = capture(MAKE[kind], probes(kind), files, tmp_path / "whole", said=lambda line: None, **options)
    lines, made = list[str](), list[bool]()

    def make() -> nn.Module:
        made.append(is_skeleton(model := MAKE[kind]()))
        return model

    monkeypatch.setattr("featdyn.capture.existing.HELD", 10**6)  # whatever is free, it is too little
    first = dict(list(files.items())[:2])
    for some in (first, files):  # goes on after the second
        found = capture(make, probes(kind), some, tmp_path / "pieces", said=lines.append, room=2**25, **options)
    assert made == [True, True]
    assert any("piece by piece" in line for line in lines)
    assert whole.checkpoints == found.checkpoints == len(STEPS)
    assert whole.attributes["identity"] == found.attributes["identity"]
    for spec in whole.schema.arrays:
        for t in range(len(STEPS)):
            np.testing.assert_array_equal(found.array(spec.path)[t].values, whole.array(spec.path)[t].values, spec.path)
    for t in range(len(STEPS)):
        one, other = (next(run.path.glob(f"checkpoints/{t:06d}/model.safetensors")) for run in (whole, found))
        assert one.read_bytes() == other.read_bytes()


def test_a_checkpoint_is_read_once_for_its_features_and_once_to_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those checks that come before the first there are five passes of a few probes, whose weights are read too."""
    monkeypatch.setattr("featdyn.capture.existing.HELD", 10**6)
    files, read, counts = saved(tmp_path, "words", "one"), MappedCheckpoint.read, Counter[Path]()

    def counted(self: MappedCheckpoint, name: str) -> torch.Tensor:
        found = read(self, name)
        counts[self._path] += found.nbytes
        return found

    monkeypatch.setattr(MappedCheckpoint, "read", counted)
    options: dict[str, Any] = {"layers": ["blocks.0"], "gradients": False, "batch": 3, "dtype": "float32"}
    capture(Words, probes("words"), files, tmp_path / "run", said=lambda line: None, room=2**25, **options)
    parameters = 4 * sum(tensor.numel() for tensor in Words().state_dict().values())
    assert counts[files[5]] == counts[files[20]] == 2 * parameters


WIDTH, DEPTH = 800, 24  # 62 MB


def taken(tmp_path: Path) -> tuple[int, list[str]]:
    """Capture in half of what the network takes; return the bytes that that takes, and what is said."""
    width, layers = WIDTH, DEPTH

    def make() -> nn.Module:
        return nn.Sequential(*(nn.Linear(width, width) for _ in range(layers)))

    torch.manual_seed(0)
    for step in (0, 1):
        torch.save(make().state_dict(), tmp_path / f"{step}.pt")
    files, given = {step: tmp_path / f"{step}.pt" for step in (0, 1)}, Probes(torch.randn(64, width), None)
    lines, number = list[str](), iter(range(9))
    options: dict[str, Any] = {"layers": ["3", "20"], "gradients": False, "batch": 32, "room": 2**25}

    def call() -> None:
        capture(make, given, files, tmp_path / f"{next(number)}.zarr", said=lines.append, **options)

    call()  # libraries and kernels are loaded
    return min(peak(call) for _ in range(3)), lines


def test_the_plan_is_the_memory_that_is_taken(tmp_path: Path) -> None:
    found, lines = alone(taken, tmp_path)
    (said,) = {line.partition(": ")[2] for line in lines}
    planned = float(re.findall(r"at most (\S+) MiB of memory", said)[0]) * 2**20
    assert found <= planned + OVERHEAD
    assert planned <= 2**25 < 4 * DEPTH * WIDTH**2
    assert f"{size(4 * DEPTH * (WIDTH + 1) * WIDTH)} to read" in said  # of weights, and nothing else


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"gradients": True},
            r"gradients need a pass backwards .*: gradients=False \(--no-gradients\), or more memory",
        ),
        ({"layers": ["blocks.0.qkv"]}, r"layer blocks.0.qkv: .* separate it in two and are modules: there are embed, "),
        ({"layers": ["nothing"]}, "no layer 'nothing'; there are embed, "),
        ({"model": Words()}, "weights do not fit into memory: give a function that makes it"),
        ({"room": 1000}, r"needs .* of memory beside libraries, and 1000 B are left: raise --memory-limit"),
        ({"forward": lambda model, x: model(x)}, r"is called as model\(inputs\): leave forward"),
        ({"model": lambda: Branches()}, "its weights do not fit into memory, and without them only torch.fx takes it"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    tmp_path: Path, changed: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featdyn.capture.existing.HELD", 10**6)
    files = saved(tmp_path, "words", "one")
    model = changed.pop("model", Words)
    if model is not Words and not isinstance(model, nn.Module):
        torch.save(Branches().state_dict(), files[0].with_suffix(".pt"))
        files = {0: files[0].with_suffix(".pt")}
    options = {"layers": ["blocks.0"], "gradients": False, "room": 2**25} | changed
    with pytest.raises(NetworkError, match=said):
        capture(model, probes("words"), files, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_file_is_that_of_all_tensors_at_once() -> None:
    kinds = (torch.float32, torch.float64, torch.int64, torch.float16, torch.bfloat16, torch.uint8, torch.bool)
    tensors = {f"{i}.\u00e4": (10 * torch.rand(i, 3)).to(kind) for i, kind in enumerate(kinds)}
    assert b"".join(tensors_in_parts(tensors, tensors.__getitem__)) == save(tensors)


def test_by_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featdyn.capture.existing.HELD", 10**9)
    saved(tmp_path, "words", "one")
    monkeypatch.chdir(tmp_path)
    source = "from tests.engine.test_piecewise_capture import Words as Net, probes\ngiven = probes('words')\n"
    (tmp_path / "words_to_capture.py").write_text(source)
    done = CliRunner().invoke(
        cli, ["capture", "--model", "words_to_capture:Net", "--probes", "words_to_capture:given", "--checkpoints",
              "*.safetensors", "--store", "run.zarr", "--no-gradients", "--memory-limit", "64GB"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "piece by piece" in done.output
    assert Run("run.zarr").checkpoints == len(STEPS)
