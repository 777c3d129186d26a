"""Runs killed with SIGKILL at random moments lose nothing that was committed, and end with the same bits."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
import xarray as xr

from featdyn.store import Run, verify
from tests.engine.forked import start
from tests.engine.test_training import TINY, files_of

RECIPE = (*TINY, "training.epochs=6", "checkpoints.first_epoch=3")


def go(store: str) -> None:
    import torch

    from featdyn.training import load
    from featdyn.training.stage import train

    torch.set_num_threads(1)
    train(load("digits", RECIPE), store)


def check_prefix(store: Path, whole: dict[str, bytes], steps: list[int]) -> int:
    """Check that a store holds exactly its committed checkpoints, bit for bit; return how many."""
    if not (store / "zarr.json").exists():
        return 0
    run = Run(store)
    assert run.values("step").tolist() == steps[: run.checkpoints]
    assert verify(store).sound
    tree = xr.open_datatree(store, engine="zarr")
    assert tree.sizes["checkpoint"] == run.checkpoints
    tree.load()
    for commit in run.commits:
        for record in commit.files(store):
            assert (store / record.path).read_bytes() == whole[record.path], record.path
    return run.checkpoints


def soak(folder: Path, kills: int) -> None:
    undisturbed = folder / "whole.zarr"
    first = start(go, str(undisturbed))
    first.join()
    begun = time.monotonic()  # the fork server is warm now: time a second run
    second = start(go, str(folder / "timed.zarr"))
    second.join()
    duration = time.monotonic() - begun
    whole = files_of(undisturbed)
    assert whole == files_of(folder / "timed.zarr")
    steps = Run(undisturbed).values("step").tolist()
    rng, seen, done, number = random.Random(0), set(), 0, 0
    while done < kills:
        store = folder / f"{number}.zarr"
        number += 1
        while True:
            process = start(go, str(store))
            process.join(rng.uniform(0, duration) if done < kills else None)
            if process.exitcode is not None:
                assert process.exitcode == 0
                break
            process.kill()
            process.join()
            done += 1
            seen.add(check_prefix(store, whole, steps))
        assert files_of(store) == whole
        assert verify(store).sound
    assert kills < 20 or len(seen) > 3  # the kills did fall at different moments


def test_two_kills(tmp_path):
    soak(tmp_path, 2)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_fifty_kills(tmp_path):
    soak(tmp_path, 50)


def test_a_flipped_byte_in_any_file_is_named(tmp_path, small_store):
    import shutil

    store = tmp_path / "copy.zarr"
    shutil.copytree(small_store, store)
    records = [record for commit in Run(store).commits for record in commit.files(store)]
    rng = random.Random(1)
    for record in rng.sample(records, 25):
        path = store / record.path
        content = path.read_bytes()
        place = rng.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :])
        problems = verify(store).problems
        assert len(problems) == 1
        assert problems[0].startswith(record.path)
        path.write_bytes(content)
    assert verify(store).sound
