"""Which architectures come apart: ``python -m bench.architectures --json FILE [--only PATTERN] [--cifar FOLDER]``.

Public models of torchvision, and of timm, transformers and pytorch-cifar where they are at hand, with random weights
and small inputs: how many cuts, which way, whether each default cut has the bits of the network, and how long it took
of the processor. Each is tried in a process of its own under a time limit, and kept as it is tried: the same command
again tries the rest. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import multiprocessing
import resource
import signal
import sys
import time
from collections.abc import Callable
from fnmatch import fnmatchcase
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.architecture_names import CIFAR, IMAGES, TEXTS, TIMM
from bench.harness import environment
from featdyn.errors import NetworkError
from featdyn.networks import cuts, default_cuts, resolve

SIDES = (64, 224, 299)
"""Image sides that are tried, the smallest first (pixels); of timm's models the first and their own."""
ROWS = 2
_FORK = multiprocessing.get_context("fork")
TARGETS = {"torchvision": 0.95, "timm": 0.9}
"""The share of a source's models that should come apart."""


class Logits(nn.Module):
    """A model of transformers as one of tensors."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits alone."""
        return self.inner(x).logits  # type: ignore[no-any-return]


def names(cifar: str | None) -> list[str]:
    """Return ``source model`` of all that is at hand, sources in turn, of each the smallest first."""
    found: dict[str, list[str]] = {}
    if importlib.util.find_spec("torchvision"):
        from torchvision import models as vision

        sizes = {name: vision.get_model_weights(name).DEFAULT.meta["num_params"] for name in vision.list_models(vision)}
        found["torchvision"] = sorted(sizes, key=lambda name: sizes[name])
    if importlib.util.find_spec("timm"):
        found["timm"] = list(TIMM)
    if importlib.util.find_spec("transformers"):
        found["transformers"] = [*TEXTS, *IMAGES]
    if cifar:
        found["cifar"] = list(CIFAR)
    places = [
        (i / len(models), f"{source} {name}") for source, models in found.items() for i, name in enumerate(models)
    ]
    return [name for _, name in sorted(places)]


def make(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return a model and the inputs to be tried."""
    source, _, model = name.partition(" ")
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)

    def images(*sides: int) -> tuple[Tensor, ...]:
        return tuple(torch.randn(ROWS, 3, side, side, generator=generator) for side in dict.fromkeys(sides))

    if source == "torchvision":
        from torchvision import models as vision

        return vision.get_model(model, weights=None), images(*SIDES)
    if source == "timm":
        import timm

        sides = SIDES[0], timm.get_pretrained_cfg(model).input_size[-1]
        return timm.create_model(model, pretrained=False), images(*sides)
    if source == "cifar":
        import models  # the package of that repository

        return eval(CIFAR[model], vars(models)), images(32)
    import transformers

    task, own = ("Sequence", TEXTS[model]) if model in TEXTS else ("Image", IMAGES[model])
    inner = getattr(transformers, f"{model}For{task}Classification")(getattr(transformers, f"{model}Config")(**own))
    tokens = torch.randint(3, 90, (ROWS, 12), generator=generator)
    return Logits(inner), (tokens,) if task == "Sequence" else images(32, 64, 224)


@torch.no_grad()
def examine(build: Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]) -> dict[str, Any]:
    """Return what becomes of one model."""
    model, inputs = build()
    model.eval()
    x = next((x for x in inputs if _runs(model, x)), None)
    if x is None:
        return {"why": f"it runs on none of {', '.join(str(tuple(x.shape)) for x in inputs)}"}
    start = time.process_time()
    try:
        found = cuts(model, x)
    except NetworkError as error:
        return {"why": str(error)[:400], "seconds": round(time.process_time() - start, 2)}
    seconds, whole = time.process_time() - start, model(x)
    chosen = resolve(found, default_cuts(found))
    same = [torch.equal(cut.suffix(cut.handed(cut.prefix(x), lambda: x)), whole) for cut in chosen]
    return {
        "way": found[0].method.partition(":")[0] if found else "",
        "cuts": len(found),
        "default": [cut.name for cut in chosen],
        "bit equal": all(same) if same else None,
        "input": list(x.shape[1:]),
        "seconds": round(seconds, 2),
        **({} if found else {"why": "no single tensor separates it"}),
    }


def _runs(model: nn.Module, x: Tensor) -> bool:
    try:
        return isinstance(model(x), Tensor)
    except Exception:  # it takes other sizes
        return False


def attempt(name: str, seconds: float) -> dict[str, Any]:
    """Try one model in a process of its own, forked from this one, which has imported what takes long.

    ``seconds`` of the processor's time it may take, and four times that on the clock, as others may use the machine.
    """
    ours, theirs = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=_tried, args=(name, seconds, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(4 * seconds):
            return {"why": f"not done within {4 * seconds:.0f} s"}
        return ours.recv()  # type: ignore[no-any-return]
    except EOFError:
        process.join()
        if process.exitcode == -signal.SIGXCPU:
            return {"why": f"not done within {seconds:.0f} s of the processor"}
        return {"why": f"it could not be tried: its process ended with {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def _tried(name: str, seconds: float, out: Connection) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    try:
        found = examine(lambda: make(name))
    except Exception as error:  # of one model's own code
        found = {"why": f"it could not be tried: {type(error).__name__}: {error}"[:400]}
    out.send(found)


def summary(table: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return, of each source, how many came apart bit for bit, and by which way."""
    counts: dict[str, Any] = {}
    for name, row in table.items():
        count = counts.setdefault(name.partition(" ")[0], {"tried": 0, "bit equal": 0, "ways": {}})
        count["tried"] += 1
        count["bit equal"] += row.get("bit equal") is True
        way = row.get("way") or "none"
        count["ways"][way] = count["ways"].get(way, 0) + 1
    for source, count in counts.items():
        count["share"] = round(count["bit equal"] / count["tried"], 3)
        if source in TARGETS:
            count["target"] = TARGETS[source]
    return counts


def main() -> None:
    """Print the table, and write it."""
    parser = argparse.ArgumentParser(prog="python -m bench.architectures", description=__doc__)
    parser.add_argument("--only", default="*", help="names or a pattern of models, such as 'timm *'")
    parser.add_argument("--minutes", type=float, help="start no model after so many minutes")
    parser.add_argument("--seconds", type=float, default=150, help="of the processor that one model may take")
    parser.add_argument("--cifar", metavar="FOLDER", help="a checkout of kuangliu/pytorch-cifar")
    parser.add_argument("--again", action="store_true", help="try those again that did not come apart")
    parser.add_argument("--json", metavar="FILE", type=Path)
    options = parser.parse_args()
    if options.cifar:
        sys.path.insert(0, options.cifar)
    for package in ("torch._dynamo", "torch.export", "torchvision", "timm", "transformers"):
        if importlib.util.find_spec(package):
            importlib.import_module(package)
    kept = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    table: dict[str, Any] = kept.get("table", {})
    every, start = names(options.cifar), time.monotonic()
    for name in every:
        if options.minutes is not None and time.monotonic() - start > 60 * options.minutes:
            break
        done = name in table and not (options.again and table[name].get("bit equal") is not True)
        if done or not fnmatchcase(name, options.only):
            continue
        found = table[name] = attempt(name, options.seconds)
        print(f"{name:48} {found.get('way', '-'):14} {found.get('cuts', 0):4} cuts  ", end="")
        print(
            f"bit equal {found.get('bit equal')}  {found.get('seconds', 0):7.1f} s  {found.get('why', '')}", flush=True
        )
        if options.json:
            said = {"environment": environment("cpu"), "models": len({*every, *table}), "tried": len(table)}
            rows = {name: table[name] for name in sorted(table)}
            part = options.json.with_suffix(".part")
            part.write_text(json.dumps(said | {"sources": summary(rows), "table": rows}, indent=1) + "\n")
            part.replace(options.json)
    print(json.dumps(summary(table), indent=1))


if __name__ == "__main__":
    main()
