"""Requests and bytes of each command on a run in a bucket, and how they grow: ``python -m bench.requests --json FILE``.

The object store is a server of this process that counts; the run is one of small layers, and nothing is timed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import harness
from featdyn.cli.info import describe
from featdyn.query import query
from featdyn.report.page import write_report
from featdyn.store import Run, verify
from tests.engine.counted import counted_bucket, upload
from tests.engine.synthetic_run import make_run

COMMANDS: dict[str, Callable[[str], Any]] = {
    "open": Run,
    "info": lambda url: describe(Run(url)),
    "query step": lambda url: query(Run(url), "step"),
    "query a row of the cube": lambda url: query(Run(url), "cube.activation_norm", where=["layer=stem"]),
    "query a layer": lambda url: query(Run(url), "layers.stem.activation"),
    "report": lambda url: write_report(Run(url), "/dev/null"),
    "verify": verify,
}


def measure(checkpoints: list[int]) -> list[dict[str, Any]]:
    """Return a row for each command: requests and bytes at each number of checkpoints, and what a checkpoint adds."""
    folder = Path(tempfile.mkdtemp(prefix="featdyn-bench-"))
    rows: dict[str, dict[str, Any]] = {name: {"command": name} for name in COMMANDS}
    try:
        with counted_bucket() as (bucket, counter):
            for count in checkpoints:
                make_run(folder / f"{count}.zarr", checkpoints=count)
                url = f"{bucket}/{count}.zarr"
                upload(folder / f"{count}.zarr", url)
                for name, command in COMMANDS.items():
                    requests, size = counter.count(lambda command=command, url=url: command(url))
                    rows[name][str(count)] = {"requests": requests, "bytes": size}
    finally:
        shutil.rmtree(folder)
    first, last = str(checkpoints[0]), str(checkpoints[-1])
    for row in rows.values():
        more = checkpoints[-1] - checkpoints[0]
        row["each checkpoint adds"] = {k: (row[last][k] - row[first][k]) / more for k in ("requests", "bytes")}
    return list(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.requests", description=__doc__)
    parser.add_argument("--checkpoints", type=int, nargs="+", default=[20, 200, 2000])
    parser.add_argument("--json", metavar="FILE", help="also write the table and the environment here")
    options = parser.parse_args()
    rows = measure(options.checkpoints)
    columns = [key for key in rows[0] if key != "command"]
    print(f"{'requests, bytes':<24}" + "".join(f"{column:>24}" for column in columns))
    for row in rows:
        cells = (f"{row[c]['requests']:>8.3g} {row[c]['bytes'] / 1024:>9.4g} KiB" for c in columns)
        print(f"{row['command']:<24}" + "".join(f"{cell:>24}" for cell in cells))
    if options.json:
        document = {"environment": harness.environment("cpu"), "results": rows}
        Path(options.json).write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
