"""What composites of networks larger than memory read, write and hold in each order, counted by going through it."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from featdyn.analysis.composites import order as orders
from featdyn.analysis.composites.order import Order, Sizes
from featdyn.compute import Limits, Plan

EVEN = Sizes(
    steps=4, cuts=3, blocks=6, batches=12, of_block=2, unit=11, at_cuts=5, prefix=101, suffixes=(1009, 503, 211),
    behind=7, piece=31, stored=13, logits=17, outputs=(19, 23), threads=1,
)  # fmt: skip
ODD = replace(EVEN, blocks=3, batches=10, of_block=4)
"""The last block has fewer batches."""


def split(values: list[Any], size: int) -> list[list[Any]]:
    """Return runs of so many values, or all of them for 0."""
    return [values[i : i + (size or len(values))] for i in range(0, len(values), size or len(values))]


def gone_through(sizes: Sizes, order: Order) -> tuple[int, int]:
    """Return the bytes that are read and moved in all, and the most that lie in temporary files."""
    moved = most = 0
    for first in range(0, order.blocks, order.group):
        blocks = range(first, min(first + order.group, order.blocks))
        batches = [batch for batch in range(sizes.batches) if batch // sizes.of_block in blocks]
        units = list(product(range(sizes.cuts), range(sizes.steps), batches))
        at_cuts = sizes.steps * len(batches) * sizes.at_cuts * order.disk
        for _ in range(sizes.steps):  # a t1
            moved += sizes.prefix * len(split(batches, order.chunk))
        moved += at_cuts  # put there once
        for _ in range(sizes.steps):  # a t2
            for chunk in split(units, order.chunk):
                moved += max(sizes.suffixes[cut] for cut, _, _ in chunk)
                # What goes on to a next piece is written and read again.
                moved += 0 if order.chunk else 2 * (sizes.behind - 1) * sizes.unit * len(chunk)
            moved += at_cuts
        most = max(most, at_cuts + (0 if order.chunk else len(units) * sizes.unit))
    return moved + sizes.steps * (sizes.stored + sizes.logits), most


@pytest.mark.parametrize(("group", "disk"), [*product((1, 2, 3, 6), (False, True))])
@pytest.mark.parametrize("chunk", [0, 1, 2, 4, 8, 24, 72, 144, 288, 500])
def test_what_an_order_reads_and_moves_is_what_going_through_it_does(group: int, disk: bool, chunk: int) -> None:
    order = Order(EVEN.blocks, EVEN.steps, group, chunk, disk)
    moved, most = gone_through(EVEN, order)
    assert EVEN.on_disk(order) == most
    units = 3 * 4 * 2 * group
    if chunk >= units or (units // 3) % (chunk or 1) == 0:  # no chunk holds features of two cuts, or one holds all
        assert EVEN.moved(order) == moved
    else:
        assert EVEN.moved(order) >= moved


@pytest.mark.parametrize(("group", "chunk", "disk"), [*product((1, 2, 3), (0, 1, 3, 7, 40, 1000), (False, True))])
def test_blocks_and_chunks_that_do_not_come_out_even_are_not_counted_too_low(
    group: int, chunk: int, disk: bool
) -> None:
    order = Order(ODD.blocks, ODD.steps, group, chunk, disk)
    moved, most = gone_through(ODD, order)
    assert ODD.moved(order) >= moved
    assert ODD.on_disk(order) == most
    if group == 3 and chunk == 0:
        assert ODD.moved(order) == moved


@pytest.mark.parametrize("old", [0, 1, 3, 4])
@pytest.mark.parametrize("group", [1, 2, 3, 5])
def test_tasks_are_all_pairs_that_are_not_known_of_all_blocks_once(old: int, group: int) -> None:
    order = Order(5, 4, group, 1, False)
    items = order.items(old)
    found = [each for blocks, t1s, t2s in items for each in product(blocks, t1s, t2s)]
    assert len(found) == len(set(found))
    assert set(found) == {(b, t1, t2) for b in range(5) for t1 in range(4) for t2 in range(4) if max(t1, t2) >= old}
    assert all(len(blocks) <= group and len(t1s) and len(t2s) == 1 for blocks, t1s, t2s in items)
    assert EVEN.tasks(order, old) == len(items)


@pytest.mark.parametrize("group", [1, 2, 3])
@pytest.mark.parametrize("chunk", [0, 1, 2, 7, 200])
def test_a_task_holds_its_chunk_what_threads_work_on_and_outputs(group: int, chunk: int) -> None:
    def task(threads: int) -> dict[str, int]:
        return replace(ODD, threads=threads).task(Order(3, 4, group, chunk, False))

    one = replace(ODD, threads=1).task(Order(3, 4, 1, 0, False))["features"]  # what one at work takes
    assert one > ODD.unit
    at_most = chunk or 3 * 4 * min(4 * group, 10)  # no more are at work than pass together
    for threads in (1, 2, 3, 1000):
        working = min(threads, at_most)
        assert task(threads) == {"features": chunk * 11 + working * one, "logits": group * 23 + working * 19}


def test_what_stays_is_a_piece_and_features_at_cuts_that_are_not_on_disk() -> None:
    for group, batches in ((1, 4), (2, 8), (3, 10)):
        for disk, kept in ((False, 4 * batches * 5), (True, 0)):
            order = Order(3, 4, group, 1, disk)
            assert ODD.state(order) == {"a piece": 31, "features at cuts": kept}


def test_there_are_orders_of_few_blocks_and_of_all_with_few_units_and_all() -> None:
    found = list(ODD.orders())
    assert {order.group for order in found} == {1, 2, 3}
    for group, units in ((1, 48), (2, 96), (3, 120)):
        chunks = {order.chunk for order in found if order.group == group}
        assert {0, 1, 2, 4, 8, 16, 32, units} <= chunks
        assert max(chunks) == units
    assert len(found) == len(set(found)) == 2 * len({(order.group, order.chunk) for order in found})


def test_the_plan_of_an_order_is_that_of_whole_networks_but_for_what_differs() -> None:
    whole = Plan("all", 1, 2, {"x": 3}, {"y": 4}, {"predictions": 40})
    for old, tasks in ((0, 4), (3, 4), (4, 0)):
        order, plan = orders.cheapest(ODD, old, Limits(None, 0, 1, True), whole, {"network": 9})
        assert (plan.work, plan.tasks, plan.reads) == ("all, piece by piece", tasks, ODD.moved(order))
        assert (order.group, order.chunk) == (3, 120)  # nothing is read twice
        assert plan.state == {"network": 9} | ODD.state(order)
        assert (plan.task, plan.result) == (ODD.task(order), {"predictions": 40})
    for disk in (0, 719, 720):  # features at cuts of one block take 80 on disk, what goes on 528 of it
        order, _ = orders.cheapest(ODD, 0, Limits(1, 0, 1, True), whole, {}, disk=disk)
        assert ODD.on_disk(order) <= disk
