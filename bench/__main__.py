"""Run benchmarks: ``python -m bench [operation ...] [--device cpu|cuda] [--json FILE]``."""

from __future__ import annotations

import argparse

import torch

from bench import ceilings, harness


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "operation", nargs="*", help=f"one or more of {', '.join(harness.operations())}; all by default"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", metavar="FILE", help="also write results and environment here")
    parser.add_argument("--repeats", type=int, help="timed calls of each contender, instead of each case's own number")
    options = parser.parse_args()
    unknown = set(options.operation) - set(harness.operations())
    if unknown:
        parser.error(f"unknown operation {', '.join(sorted(unknown))}; there are {', '.join(harness.operations())}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device here: no GPU figure exists yet for this machine")
    print("what this machine can do at best:", flush=True)
    found = ceilings.measure(options.device)
    print("  " + "  ".join(f"{kind} {rate:.3g}/s" for kind, rate in found.items()), flush=True)
    results: dict[str, list[dict[str, object]]] = {}
    for operation in options.operation or harness.operations():
        results[operation] = []
        for result in harness.run(operation, options.device, found, options.repeats):
            results[operation].append(result)
            print(harness.show(operation, result), flush=True)
            if options.json:
                harness.save(options.json, options.device, found, results)


if __name__ == "__main__":
    main()
