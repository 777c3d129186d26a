"""The table of attacks in the store's SPEC.md: what is promised, what was tried against it, how often, what came of it.

``python -m tests.attacks [FILE]`` tries all of them, in minutes, prints the table, and writes it between the marks of a
file; it ends with 1 where a promise was broken. ``--every 40`` tries each fortieth only.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

from featdyn.store import datasets
from tests.engine.attacked_acts import ACTS, Broken, folder_world, power_world, trials
from tests.engine.attacked_writers import signals, stops, takeovers
from tests.engine.worlds import ERRORS, BucketWorld, PowerWorld, World

SPEC = Path(__file__).parents[1] / "engine/featdyn/store/SPEC.md"
MARKS = ("<!-- attacks: python -m tests.attacks engine/featdyn/store/SPEC.md -->\n", "<!-- end of attacks -->\n")


def rows() -> dict[tuple[str, str], Callable[[int], Iterator[Broken]]]:
    """Return what tries each row of the table: its promise and its attack."""
    stays = "what is committed stays, whole; whoever comes next ends with the same bytes"
    durable = f"{stays}; what was reported is there"
    found: dict[tuple[str, str], Callable[[int], Iterator[Broken]]] = {}

    def add(
        promise: str, attack: str, make: Callable[[], World], hows: tuple[str, ...], *, share: bool = False
    ) -> None:
        for act in ACTS:
            found[promise, f"{act.name}, {attack}"] = partial(trials, make, act, hows, share)

    add(stays, "killed at each change of a folder", folder_world, ("kill",))
    some = f"(one of {', '.join(ERRORS)})"
    add(stays, f"each change of a folder fails {some}", folder_world, ERRORS, share=True)
    reading = tuple(f"{code} reading" for code in ERRORS)
    add(stays, f"each look at a file fails {some}", folder_world, reading, share=True)
    kept = "of what was not synced the least is kept, torn files, any part"
    add(durable, f"power lost at each change of a folder ({kept})", power_world, PowerWorld.HOW)
    lost = "not done, its answer lost, repeated, or cut short"
    add(stays, f"each request to a bucket fails ({lost})", BucketWorld, ("error", "lost", "repeated", "short"))
    add(stays, "killed before or after each request to a bucket", BucketWorld, ("kill", "done"))
    asleep = "no committed file is written over or removed by who was thought dead"
    found[asleep, "a bucket's writer sleeps at each request, another takes over, then it goes on"] = partial(
        takeovers, "error"
    )
    found[asleep, "each request is held back until another has taken over and committed"] = partial(takeovers, "late")
    found[stays, "SIGKILL of a process that writes a folder, at random"] = partial(signals, signal.SIGKILL)
    refused = f"a second writer is refused, no reader is; {stays}"
    for act in ACTS:
        found[refused, f"{act.name}, its process stopped (SIGSTOP) at each change of a folder"] = partial(stops, act)
    found[refused, "SIGSTOP of a process that records into a folder, at random"] = partial(signals, signal.SIGSTOP)
    return found


def tried(attack: str, every: int) -> list[Broken]:
    """Return what came of each try of one row."""
    logging.getLogger("featdyn").setLevel(logging.ERROR)  # what may not outlast a power cut is tried here
    (attempts,) = [attempts for (_, name), attempts in rows().items() if name == attack]
    encode, known = datasets.encode, {}

    def encoded(dataset: Any, path: str) -> Any:  # equal runs, over and over
        key = path, str(dataset.attrs)
        if key not in known:
            known[key] = encode(dataset, path)
        return known[key]

    with mock.patch.object(datasets, "encode", encoded):
        return [*attempts(every)]


def table(every: int, only: str = "", processes: int = 1) -> tuple[str, bool]:
    """Return the table in Markdown, and whether every promise was kept."""
    lines, kept = ["| promise | attack | tries | result |\n|---|---|---:|---|\n"], True
    chosen = [row for row in rows() if only in row[1]]
    with get_context("fork").Pool(processes) as pool:
        found = pool.imap(partial(tried, every=every), [attack for _, attack in chosen])
        for (promise, attack), outcomes in zip(chosen, found, strict=True):
            broken = [outcome for outcome in outcomes if outcome]
            result = f"BROKEN {len(broken)} times: {broken[0]}" if broken else "kept"
            lines.append(f"| {promise} | {attack} | {len(outcomes)} | {result} |\n")
            print(lines[-1], end="", file=sys.stderr, flush=True)
            kept &= not broken
    if every > 1:
        lines.append(f"\nOf the calls one in {every} was tried.\n")
    return "".join(lines), kept


def main() -> None:
    """Try all, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--every", type=int, default=1, help="try each so many-th call only")
    parser.add_argument("--only", default="", help="rows whose attack holds this text")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="that try rows at the same time")
    options = parser.parse_args()
    text, kept = table(options.every, options.only, options.processes)
    if options.file:
        inside = re.compile(f"(?<={re.escape(MARKS[0])}).*(?={re.escape(MARKS[1])})", re.DOTALL)
        options.file.write_text(inside.sub(lambda _: text, options.file.read_text()))
    else:
        print(text, end="")
    sys.exit(not kept)


if __name__ == "__main__":
    main()
