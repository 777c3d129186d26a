"""What plans say of options: features that are read or computed anew, and numbers beyond what there is."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pytest

from featdyn.analysis import analyses
from featdyn.analysis.features.similarity.compute import plan as plan_of_pairs
from tests.engine.test_plans import FIRST, OTHERWISE, planned, record_convolutions

ROWS, SHARDS, STEPS = 16, 3, 11
INPUTS, FEATURES = 4 * 2 * 6 * 6, 4 * (5 * 4 * 4 + 3 * 3 * 3)
"""Bytes of one probe: its input, and its features at both cuts."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return record_convolutions(tmp_path_factory.mktemp("features") / "run.zarr")


@pytest.mark.parametrize("name", [name for name in FIRST if "features" in analyses()[name].options.model_fields])
def test_blocks_are_of_inputs_and_of_what_is_read_and_only_passes_hold_layers_between(recorded: Any, name: str) -> None:
    read, computed = (
        planned(analyses()[name], *recorded, **OTHERWISE | {"features": kind}) for kind in ("stored", "recomputed")
    )
    assert computed.state["blocks"] == ROWS * INPUTS
    assert read.state["blocks"] == ROWS * (INPUTS + FEATURES)
    assert computed.state["weights"] == read.state["weights"] > 0
    assert read.tasks == computed.tasks
    assert sum(read.task.values()) < sum(computed.task.values())
    assert read.result == computed.result
    once = STEPS * SHARDS * ROWS * FEATURES * 45 // 48  # of 45 probes, each checkpoint
    assert (read.reads - computed.reads) % once == 0
    assert read.reads > computed.reads


CAPS = {
    # Draws have one direction less than there are, outputs seven, and the test set has eleven probes.
    "noise directions": 11, "tangent_kernel directions": 7, "averaging window": 11,
    "similarity samples": 11, "similarity block": 33,  # of three layers at eleven checkpoints
} | {f"{name} samples": 30 for name in (  # the largest set; of noise all sets together
    "controls", "batchnorm", "density", "interactions", "layer_interactions", "layer_isotropy", "pattern_shift",
    "representation", "tangent_kernel",
)} | {"noise probes": 45}  # fmt: skip


@pytest.mark.parametrize("what", CAPS)
def test_more_than_there_is_costs_nothing_and_one_less_is_less(recorded: Any, what: str) -> None:
    name, option = what.split()
    less, all_there_is, more = (
        planned(analyses()[name], *recorded, **OTHERWISE | {option: number})
        for number in (CAPS[what] - 1, CAPS[what], 3 * CAPS[what])
    )

    def numbers(plan: Any) -> tuple[Any, ...]:
        return plan.tasks, plan.reads, plan.task, plan.state, plan.result

    assert numbers(more) == numbers(all_there_is)
    assert numbers(less) != numbers(all_there_is)


@pytest.mark.parametrize("block", [1, 2, 5, 17, 33])
def test_similarity_reads_once_what_it_keeps_and_else_each_span_for_each_other(recorded: Any, block: int) -> None:
    run = recorded[0]
    specs, kept = [spec for spec in run.schema.arrays if spec.path.endswith("/activation")], np.arange(11)
    count = len(specs) * run.checkpoints
    spans = [range(i, min(i + block, count)) for i in range(0, count, block)]
    pairs = list(product(spans, spans))
    once, anew = (plan_of_pairs(run, specs, kept, len(pairs), block, 0, once=kept_all) for kept_all in (True, False))
    taken = Counter(span for pair in pairs for span in set(pair))
    assert {times * once.reads for times in taken.values()} == {anew.reads}
    assert (once.tasks, anew.tasks) == (len(pairs) + count, len(pairs))
    assert once.state["features"] == 8 * 11 * run.checkpoints * sum(spec.shape[1] for spec in specs)
    assert anew.state["features"] == 0
    assert once.task == anew.task
