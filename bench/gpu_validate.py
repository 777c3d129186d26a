"""All that a GPU is needed for, within a limit of time: ``python -m bench.gpu_validate --json FILE``.

Kernels beside the CPU's, the tests for a GPU, the grid of ResNet-20, recording while the card is busy, and every
kernel beside its peers and ceilings, in ten minutes on one card (``--seconds``). Each part runs in a process of its own
and has its share of the time; a part that ends early leaves the rest to the last. One that would run on, or hangs, is
killed, and what it found is kept: what was not reached is said. It ends with a verdict for each part, and exits with 0
where nothing is wrong. ``--interpret`` tries the same without a GPU, under Triton's interpreter, on tiny shapes.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

PARTS = {  # module of bench.gpu: its share of the time; the last one has what the others leave, too
    "agreement": 0.14,
    "suite": 0.26,
    "grid": 0.16,
    "load": 0.10,
    "timings": 0.34,
}
RESERVE = 8.0
"""Seconds at the end, to stop what runs and to write."""
ROOT = Path(__file__).parents[1]
Row = dict[str, Any]


def child(part: str, interpret: bool, seconds: float, path: str, skip: list[str]) -> None:
    """Do one part in this process; rows go into a file as they come, so that none is lost with the process."""
    if interpret:
        os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton
        importlib.import_module("bench.harness").TINY = True
    device = "cpu" if interpret else "cuda"
    more = {"skip": skip} if skip else {}
    with open(path, "a", encoding="utf-8") as file:
        for row in importlib.import_module(f"bench.gpu.{part}").rows(device, seconds, **more):
            file.write(json.dumps(row, default=str) + "\n")
            file.flush()
        file.write('{"finished": true}\n')


OURS = [sys.executable, "-m", "bench.gpu_validate"]


def part(name: str, seconds: float, interpret: bool = False, command: list[str] = OURS) -> list[Row]:
    """Do one part within so many seconds; return its rows, and one for what stopped it."""
    end, skip = time.monotonic() + seconds, list[str]()
    with tempfile.TemporaryDirectory(prefix="featdyn-gpu-") as folder:
        path, log = Path(folder) / "rows", Path(folder) / "log"
        path.touch()
        more: list[Row] = []
        while (left := end - time.monotonic()) > 0:
            call = [*command, "--child", name, "--seconds", str(left), "--json", str(path)]
            ended = run([*call, *(["--interpret"] if interpret else []), *skip], left, log)
            if ended == 0 or any("finished" in row for row in read(path)):
                break
            if ended is None:
                more.append({"what": f"{name}: the rest", "ok": None, "note": f"not reached in {seconds:.0f} s"})
                break
            lost = begun(read(path), skip)
            why = last(log) or f"exit code {ended}"
            more.append({"what": lost or name, "ok": False, "note": f"its process ended: {why}"})
            if lost is None:
                break
            skip = [*done(read(path)), *skip, lost]  # the others are still to be tried, by a new process
        return [row for row in read(path) if "what" in row] + more


def run(call: list[str], seconds: float, log: Path) -> int | None:
    """Run a command; return its exit code, or None where it took longer and was killed, with all that it started."""
    with open(log, "wb") as file:
        process = subprocess.Popen(call, stdout=file, stderr=file, start_new_session=True, cwd=ROOT)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                with suppress(subprocess.TimeoutExpired):  # a driver may hold it: nobody waits for that
                    process.wait(RESERVE / 2)


def read(path: Path) -> list[Row]:
    """Return the rows of a file; the last may be half written."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def done(rows: list[Row]) -> list[str]:
    """Return the operations that ended."""
    return [row["ends"] for row in rows if "ends" in row]


def begun(rows: list[Row], skip: list[str]) -> str | None:
    """Return the operation that began and has not ended."""
    open_ = [row["begins"] for row in rows if "begins" in row]
    return next((name for name in open_ if name not in (*done(rows), *skip)), None)


def last(log: Path) -> str:
    """Return the last line of what a process said."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""


def verdict(rows: list[Row]) -> str:
    """Return what rows come to: ``wrong``, ``right``, or ``right so far`` where something is undecided."""
    decided = [row["ok"] for row in rows if row.get("ok") is not None]
    if not all(decided):
        return "wrong"
    if not decided:
        return "not reached"
    return "right" if len(decided) == len(rows) else "right so far"


def validate(names: list[str], end: float, interpret: bool) -> Iterator[tuple[str, list[Row], float]]:
    """Yield each part with its rows and seconds; all are done, or stopped, at ``end``."""
    seconds, whole = end - time.monotonic(), sum(PARTS[name] for name in names)
    for name in names:
        began = time.monotonic()
        share = end - began if name == names[-1] else min(seconds * PARTS[name] / whole, end - began)
        rows = part(name, share, interpret)
        yield name, rows, time.monotonic() - began


def show(row: Row) -> str:
    """Return a row as a line."""
    mark = {True: "right", False: "WRONG", None: "undecided"}[row["ok"]]
    return f"  {mark:<10} {row['what']}" + (f": {row['note']}" if row.get("note") else "")


def environment(device: str) -> Row:
    """Return machine and versions, asked of another process: this one stays light, and able to stop others."""
    code = f"import json; from bench import harness; print(json.dumps(harness.environment({device!r})))"
    call = [sys.executable, "-c", code]
    asked = subprocess.run(call, capture_output=True, text=True, cwd=ROOT, check=False, timeout=60)
    if asked.returncode:
        return {"unknown": asked.stderr.strip().splitlines()[-1]}
    found: Row = json.loads(asked.stdout.splitlines()[-1])
    return found


def main() -> None:
    start = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_validate", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="all that it may take; 600 by default")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="all by default")
    parser.add_argument("--json", metavar="FILE", help="also write all rows, the verdicts and the environment here")
    parser.add_argument("--interpret", action="store_true", help="without a GPU, by Triton's interpreter, tiny")
    parser.add_argument("--child", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("skip", nargs="*", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.interpret, given.seconds, given.json, given.skip)
        return
    found = environment("cpu" if given.interpret else "cuda")
    if "unknown" in found:
        parser.error(f"no CUDA device here, or something is missing ({found['unknown']}); --interpret needs none")
    document: Row = {"environment": found, "seconds": given.seconds, "interpreted": given.interpret, "parts": {}}
    for name, rows, taken in validate(given.parts, start + given.seconds - RESERVE, given.interpret):
        document["parts"][name] = {"verdict": verdict(rows), "seconds": taken, "rows": rows}
        print(f"{name} ({taken:.0f} s)", flush=True)
        said = rows if name != "suite" else [row for row in rows if row["ok"] is not True]
        print("\n".join(map(show, said)), flush=True)
        if given.json:
            Path(given.json).write_text(json.dumps(document, indent=1) + "\n")
    for name, part in document["parts"].items():
        right = sum(row["ok"] is True for row in part["rows"])
        print(f"{name:<10} {part['verdict']} ({right} of {len(part['rows'])})")
    print(f"in {time.monotonic() - start:.0f} s of {given.seconds:.0f}")
    sys.exit(any(part["verdict"] == "wrong" for part in document["parts"].values()))


if __name__ == "__main__":
    main()
