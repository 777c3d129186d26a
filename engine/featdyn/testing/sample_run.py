"""A run of a few small files a commit, which can be recorded, and continued, at any place."""

from __future__ import annotations

import numpy as np
import xarray as xr

from featdyn.store import ArraySpec, CheckpointWriter, Run, RunWriter, Schema, exists
from featdyn.store.locate import Store

PLAN = "ccr"  # the commits of a run: checkpoints and results
SAMPLES = 3
SCHEMA = Schema(
    (
        ArraySpec("checkpoint", (), (), "int64"),
        ArraySpec("layers/a/activation", ("sample", "feature"), (SAMPLES, 2), "float32"),
        ArraySpec("norm", ("sample",), (SAMPLES,), "float32", span=2),
    ),
    SAMPLES,
    2,
)
NAMES = np.array([f"s{i}" for i in range(SAMPLES)], dtype=object)
STATIC = {"": xr.Dataset(coords={"sample": NAMES})}
RESULT = xr.Dataset({"value": ("probe", np.arange(3.0))})


def fill(checkpoint: CheckpointWriter) -> None:
    """Write one checkpoint, whose number is in each of its files and rows."""
    t = checkpoint.index
    checkpoint.write("checkpoint", np.array(t))
    for block in range(SCHEMA.blocks):
        rows = range(SAMPLES)[SCHEMA.block_slice(block)]
        checkpoint.write("layers/a/activation", np.array([[t, row] for row in rows], np.float32), block)
        checkpoint.write("norm", np.array([norm(t, row) for row in rows], np.float32), block)
    checkpoint.put(f"checkpoints/{t:06d}/model.safetensors", [b"weights", b" %d" % t])


def norm(checkpoint: int, row: int) -> float:
    """Return a value of the array whose chunks hold several checkpoints."""
    return 100.0 * (checkpoint + 1) + row


def check(run: Run) -> None:
    """Check that a run holds its checkpoints whole: each number in each array, and nothing beyond.

    Raises
    ------
    AssertionError
        It does not.
    """
    t = np.arange(run.checkpoints)
    np.testing.assert_array_equal(run.values("checkpoint"), t)
    np.testing.assert_array_equal(run.values("layers/a/activation")[:, 2], np.stack([t, np.full(len(t), 2)], axis=1))
    for checkpoint in t.tolist():
        for block, rows in enumerate(([0, 1], [2])):
            found = run.block("layers/a/activation", checkpoint, block)
            np.testing.assert_array_equal(found, [[checkpoint, row] for row in rows])
            np.testing.assert_array_equal(run.block("norm", checkpoint, block), [norm(checkpoint, row) for row in rows])
    np.testing.assert_array_equal(run.values("norm"), [[norm(s, row) for row in range(SAMPLES)] for s in t.tolist()])
    for name in run.results("r"):
        np.testing.assert_array_equal(run.values(f"{name}/value"), RESULT["value"])


def record(store: Store, plan: str = PLAN) -> None:
    """Record, or go on recording, until the commits are those of the plan: the whole life of a small run.

    Parameters
    ----------
    plan
        A letter for each commit: ``c`` a checkpoint, ``r`` a result.
    """
    begun = exists(store)
    with (
        RunWriter.open(store)
        if begun
        else RunWriter.create(store, SCHEMA, static=STATIC, attributes={"n": 1}) as writer
    ):
        for kind in plan[len(Run(store).commits) if begun else 0 :]:
            if kind == "r":
                writer.result("r", RESULT)
            else:
                with writer.checkpoint() as checkpoint:
                    fill(checkpoint)
