"""Several ranks record one run: the store is that of one process, and nothing that one rank does breaks it."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from featdyn.capture import Probes, Recorder, tap
from featdyn.cli import main
from featdyn.errors import StoreError
from featdyn.store import Run, RunPart, RunWriter, files, schema, verify
from featdyn.store.lock import RANKS
from tests.engine import ranks
from tests.engine.runs import refused


@pytest.fixture(autouse=True)
def _like_the_ranks(monkeypatch):
    """Small blocks, and one thread, on which the bits of a convolution depend."""
    monkeypatch.setattr(schema, "SHARD_SAMPLES", 4)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def content(store: Path) -> dict[str, bytes]:
    """Every file of a store, without what tells the time: the locks, and of the root the provenance."""
    found = {p.relative_to(store).as_posix(): p.read_bytes() for p in store.rglob("*") if p.is_file()}
    found = {name: content for name, content in found.items() if not name.startswith(".featdyn.")}
    for name in {"zarr.json", "commits/root.json"} & found.keys():
        root = json.loads(found[name])
        root["attributes"].pop("provenance")
        root["attributes"]["featdyn"].pop("root_crc32c")
        found[name] = json.dumps(root).encode()
    return found


def equal(store: Path, other: Path) -> None:
    one, two = content(store), content(other)
    assert one.keys() == two.keys()
    assert [path for path in one if one[path] != two[path]] == []
    assert verify(store).sound


def test_two_ranks_write_the_store_of_one_process(tmp_path):
    found = ranks.launch(tmp_path, 2, ranks.train, tmp_path / "two.zarr", 11)
    assert [type(end) for end in found] == [dict, dict]
    ranks.twin(tmp_path / "one.zarr", 2, 11)
    run = Run(tmp_path / "two.zarr")
    assert run.schema.blocks == 3
    assert run.values("step").tolist() == [2, 4, 6]
    equal(tmp_path / "two.zarr", tmp_path / "one.zarr")


@pytest.mark.slow
def test_two_ranks_of_torchrun_write_the_store_of_one_process(tmp_path, monkeypatch):
    monkeypatch.undo()  # blocks as they are
    samples, root = schema.SHARD_SAMPLES + 50, Path(ranks.__file__).parents[2]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", ranks.__file__]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(root), *sys.path]))}
    subprocess.run([*command, tmp_path / "two.zarr", str(samples)], check=True, timeout=120, env=environment)
    ranks.twin(tmp_path / "one.zarr", 2, samples)
    equal(tmp_path / "two.zarr", tmp_path / "one.zarr")


def test_recording_leaves_training_untouched_on_every_rank(tmp_path):
    plain = ranks.launch(tmp_path, 2, ranks.train, None, 40)
    recorded = ranks.launch(tmp_path, 2, ranks.train, tmp_path / "run.zarr", 40)
    for one, two in zip(plain, recorded, strict=True):
        assert one.keys() == two.keys()
        assert [name for name in one if not torch.equal(one[name], two[name])] == []
    assert not torch.equal(plain[0]["1.running_mean"], plain[1]["1.running_mean"])  # they have something to disturb


SHAPES: list[dict[str, Any]] = [
    {"samples": 7, "block": 4, "batch": 3},
    {"samples": 16, "block": 4, "batch": 4, "dtype": "float32"},
    {"samples": 3, "block": 4, "batch": 8, "gradients": False},
    {"samples": 13, "block": 2, "batch": 5, "codec": "zstd", "layers": ["1", "5"]},
    {"samples": 1, "block": 1, "batch": 2},
]


def shapes(rank: int, world: int, folder: Path) -> None:
    for number, shape in enumerate(SHAPES):
        options = dict(shape)
        schema.SHARD_SAMPLES = options.pop("block")
        ranks.drift(rank, world, folder / f"{number}.zarr", last=3, **options)


@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_any_number_of_ranks_and_blocks(tmp_path, world):
    assert ranks.launch(tmp_path, world, shapes, tmp_path) == [None] * world
    (tmp_path / "one").mkdir()
    shapes(0, 1, tmp_path / "one")
    for number in range(len(SHAPES)):
        equal(tmp_path / f"{number}.zarr", tmp_path / "one" / f"{number}.zarr")


def attempt(recorder: Recorder, step: int) -> str | None:
    try:
        recorder.record(step=step)
        recorder.wait()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def failing_disk(rank: int, world: int, store: Path, victim: int) -> list[str | None]:
    """Let each write of one rank's part of a checkpoint fail, one after the other."""
    net, errors, left = ranks.make_net(), [], -1

    def failing(write):
        def fail(place, path, *given):
            nonlocal left
            left -= rank == victim and not path.startswith("commits/")
            if left == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(place, path, *given)

        return fail

    files.Folder.write, files.Folder.rewrite = failing(files.Folder.write), failing(files.Folder.rewrite)
    with Recorder(net, ranks.make_probes(11), store, layers=["0", "5"]) as recorder:
        recorder.record(step=0)
        recorder.wait()
        committed = unchanging(store)
        ranks.set_to(net, 1, rank)
        while not errors or errors[-1] is not None:
            dist.barrier()
            left = len(errors) + 1
            errors.append(attempt(recorder, 1))
            dist.barrier()
            assert recorder.checkpoints == (1 if errors[-1] else 2)
            if errors[-1]:
                assert unchanging(store) == committed
                assert verify(store).sound
    return errors


def unchanging(store: Path) -> dict[str, bytes | None]:
    """Return all but chunks of several checkpoints, which hold a row more that is not committed."""
    return {path: held for path, held in content(store).items() if not re.fullmatch(r".+/\d+(\.\d+)*", path)}


@pytest.mark.parametrize(("victim", "writes"), [(0, 27), (1, 12)])
def test_a_disk_that_fails_on_one_rank_is_one_error_on_all(tmp_path, victim, writes):
    found = ranks.launch(tmp_path, 2, failing_disk, tmp_path / "run.zarr", victim)
    message = f"{tmp_path / 'run.zarr'}: the disk is full; its 1 committed checkpoints are safe"
    for rank, errors in enumerate(found):
        start = f"StoreError: {message}" if rank == victim else f"StoreError: rank {victim}: {message}"
        assert len(errors) == writes + 1, errors
        assert all(error.startswith(start) for error in errors[:-1])
    assert Run(tmp_path / "run.zarr").checkpoints == 2
    assert verify(tmp_path / "run.zarr").sound


def diverging(rank: int, world: int, folder: Path) -> list[str | None]:
    """Overflow in the samples of rank 1 alone; then its probe pass fails; then all is well."""
    net, store = nn.Linear(2, 2), folder / "run.zarr"
    probes = Probes(torch.ones(8, 2), torch.zeros(8, dtype=torch.int64))
    probes.inputs[4:] = 1e4

    def scaled(weight: float) -> None:
        with torch.no_grad():
            net.weight.fill_(weight)

    errors, model = [], nn.Sequential(net)
    scaled(100)
    with Recorder(model, probes, folder / "never.zarr", layers=["0"]) as recorder:
        errors.append(attempt(recorder, 0))
    scaled(1)
    with Recorder(model, probes, store, layers=["0"]) as recorder:
        errors.append(attempt(recorder, 0))
        scaled(100)
        errors.append(attempt(recorder, 1))
        scaled(2)
        run = tap.run
        if rank == 1:
            tap.run = lambda *_, **__: 1 / 0
        errors.append(attempt(recorder, 1))
        tap.run = run
        errors.append(attempt(recorder, 1))
    return errors


def test_what_fails_on_one_rank_fails_on_all_and_leaves_nothing(tmp_path):
    overflow = "layers/0/activation at checkpoint {} does not fit float16 (largest 65504): record with dtype float32"
    zero = "ZeroDivisionError: division by zero"
    texts = [overflow.format(0), None, overflow.format(1), zero, None]
    first = [text and f"TrainingError: rank 1: {text}" for text in texts]
    second = [text and (text if text == zero else f"TrainingError: {text}") for text in texts]
    assert ranks.launch(tmp_path, 2, diverging, tmp_path) == [first, second]
    assert not (tmp_path / "never.zarr").exists()
    assert Run(tmp_path / "run.zarr").checkpoints == 2
    assert verify(tmp_path / "run.zarr").sound
    assert not (tmp_path / "run.zarr" / RANKS).exists()


def disagreeing(rank: int, world: int, folder: Path) -> list[str]:
    """Give rank 1 something else, each time another; return what happens."""
    odd, found = rank == 1, []

    def recorder(store: str, **changes: Any) -> Recorder:
        arguments = {"layers": ["0"], "coords": ("train_loss",), **changes}
        probes = arguments.pop("probes", ranks.make_probes(11))
        return Recorder(arguments.pop("model", ranks.make_net()), probes, folder / store, **arguments)

    def note(work: Callable[[], Any]) -> None:
        try:
            work()
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}")

    shuffled = Probes(ranks.make_probes(11).inputs.flip(0), ranks.make_probes(11).labels)
    note(lambda: recorder("a", probes=shuffled if odd else ranks.make_probes(11)))
    note(lambda: recorder("b", dtype="float32" if odd else "float16"))
    note(lambda: recorder("c", every=3 if odd else 2))
    note(lambda: recorder("d", layers=["nope" if odd else "0"]))
    note(lambda: recorder("elsewhere" if odd else "e"))
    net = ranks.make_net()
    with recorder("f", model=net) as opened:
        note(lambda: opened.record(step=rank, train_loss=0.0))
        note(lambda: opened.record(step=0, **({} if odd else {"train_loss": 0.0})))
        with torch.no_grad():
            net[5].bias[1] += 1e-7 * rank
        note(lambda: opened.record(step=0, train_loss=0.0))
        net.load_state_dict(ranks.make_net().state_dict())
        opened.record(step=0, train_loss=float(rank))
    return found


def test_ranks_that_disagree_are_refused_in_one_line_each(tmp_path):
    found = ranks.launch(tmp_path, 2, disagreeing, tmp_path)
    alike = "make the Recorder with the same arguments on every rank"
    network = "every rank must record the same whole network, as DistributedDataParallel has it, at the same steps"
    expected = [
        f"TrainingError: rank 1 does not have rank 0's probes: {alike}",
        f"TrainingError: rank 1 does not have rank 0's options: {alike}",
        f"TrainingError: rank 1 does not have rank 0's every: {alike}",
        "NetworkError: rank 1: no layer 'nope'; the network has 0, 1, 2, 3, 4, 5 and modules inside them",
        f"StoreError: rank 1: {tmp_path / 'elsewhere'}: {socket.gethostname()} does not see what the first rank writes",
        f"TrainingError: rank 1 does not have rank 0's step: {network}",
        "TrainingError: rank 1: ValueError: coords must be train_loss, got none",
        f"TrainingError: rank 1 does not have rank 0's parameter 5.bias: {network}",
    ]
    own = [text.replace("TrainingError: rank 1: ValueError", "ValueError").replace("rank 1: ", "") for text in expected]
    for texts, start in ((found[0], expected), (found[1], own)):
        assert [text[: len(begin)] for text, begin in zip(texts, start, strict=True)] == start
        assert not any("\n" in text for text in texts)
    assert {p.name for p in tmp_path.iterdir() if p.is_dir()} == {"f"}
    run = Run(tmp_path / "f")
    assert run.values("train_loss").tolist() == [0.0]  # rank 0's


def sharded(rank: int, world: int, store: Path) -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    fully_shard(net, mesh=init_device_mesh("cpu", (world,)))
    probes = Probes(torch.ones(9, 4), torch.zeros(9, dtype=torch.int64))
    Recorder(net, probes, store, layers=["0"])


def test_a_sharded_network_is_refused(tmp_path):
    found = ranks.launch(tmp_path, 2, sharded, tmp_path / "run.zarr")
    text = "NetworkError: parameter 0.weight is sharded over ranks: record a network that each rank has as a whole"
    assert found == [text, text]
    assert not (tmp_path / "run.zarr").exists()


def opening(rank: int, world: int, store: Path) -> None:
    Recorder(ranks.make_net(), ranks.make_probes(11), store, layers=["0"])


def test_a_second_writer_is_refused_on_every_rank(tmp_path):
    store = tmp_path / "run.zarr"
    with Recorder(ranks.make_net(), ranks.make_probes(11), store, layers=["0"]) as recorder:
        text = f"{store} is being written by process {os.getpid()} on {socket.gethostname()}: wait for it or stop it"
        found = ranks.launch(tmp_path, 2, opening, store)
        assert found == [f"HeldError: {text}", f"HeldError: rank 0: {text}"]
        recorder.record(step=0)
    assert verify(store).sound


def test_no_writer_starts_while_a_rank_of_a_killed_one_still_writes(tmp_path):
    store = tmp_path / "run.zarr"
    ranks.drift(0, 1, store, 11, last=1, layers=["0"])
    writer = RunWriter.open(store)
    part = RunPart(store, writer.schema, writer.checkpoints, writer.invite())
    checkpoint = part.checkpoint()
    checkpoint.put("checkpoints/000001/part.safetensors", [b"part"])
    writer.close()  # as the system does when its process is killed
    refused(lambda: RunWriter.open(store), "is being written by a process of a run that was stopped")
    checkpoint.hand_over()
    checkpoint.discard()  # no longer its own to remove
    assert (store / "checkpoints/000001/part.safetensors").exists()
    with RunWriter.open(store) as writer:
        refused(part.checkpoint, "does not see what the first rank writes")
        writer.invite()
        refused(part.checkpoint, "does not see what the first rank writes")
        with pytest.raises(StoreError, match="is committed"):
            checkpoint.write("outputs/loss", np.zeros(4, "float32"), 1)
    assert not (store / RANKS).exists()


def soak(folder: Path, kills: int) -> None:
    last, samples, rng = 16, 11, random.Random(0)
    whole = folder / "whole.zarr"
    ranks.drift(0, 1, whole, samples, last)
    committed = content(whole)

    def begin(store: Path, world: int) -> list[BaseProcess]:
        ready = folder / f"ready-{time.monotonic_ns()}"
        processes = ranks.start(folder, world, ranks.drift, store, samples, last, ready)
        ranks.wait_for([ready.with_name(f"{ready.name}-{rank}") for rank in range(world)])
        return processes

    processes, begun = begin(folder / "timed.zarr", 2), time.monotonic()
    ranks.ends(processes)
    duration = time.monotonic() - begun
    done, number, seen = 0, 0, set()
    while done < kills:
        number += 1
        store = folder / f"{number}.zarr"
        while True:
            processes = begin(store, rng.choice([2, 3]))
            if done < kills:
                time.sleep(rng.uniform(0, duration))
                rng.choice(processes).kill()
            ends = ranks.ends(processes)
            done += None in ends
            # Who was not killed says that the others are gone: in training's own words, or in ours.
            assert all(end in (None, last) or "lost the others" in end or "Connection" in end for end in ends), ends
            if not (store / "zarr.json").exists():
                continue
            run = Run(store)
            seen.add(run.checkpoints)
            assert run.values("step").tolist() == list(range(run.checkpoints))
            assert verify(store).sound
            for commit in run.commits:
                for record in commit.files(store):
                    assert (store / record.path).read_bytes() == committed[record.path]
            if all(end == last for end in ends):
                break
        equal(store, whole)
    assert kills < 20 or len(seen) > 5  # the kills did fall at different moments


@pytest.mark.slow  # one killed process is in test_kill, an error on one rank above
def test_two_killed_ranks(tmp_path):
    soak(tmp_path, 2)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_forty_killed_ranks(tmp_path):
    soak(tmp_path, 40)


def test_recipes_are_refused_under_torchrun(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(sys, "argv", ["featdyn", "train", "digits", "--store", str(tmp_path / "run.zarr")])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert "recipes train in one process" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run.zarr").exists()


def test_ranks_go_on_together_from_a_step_of_their_own(tmp_path):
    store, samples = tmp_path / "r.zarr", 11
    assert ranks.launch(tmp_path, 2, ranks.go_on, store, samples, 4) == [(4, ""), (4, "")]
    behind = ranks.launch(tmp_path, 2, ranks.go_on, store, samples, 2)
    assert [steps for steps, _ in behind] == [4, 4]
    assert all("to step 4, and training goes on from step 2: load" in why for _, why in behind)
    assert ranks.launch(tmp_path, 2, ranks.go_on, store, samples, 4) == [(4, ""), (4, "")]
    assert ranks.launch(tmp_path, 2, ranks.go_on, store, samples, 8) == [(8, ""), (8, "")]
    assert Run(store).values("step").tolist() == [4, 8]
    assert Run(store).changes[0].what["checkpoints"][1] == "none of step 6: never committed"
    assert verify(store).sound
