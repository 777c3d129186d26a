"""Does what the study of richness says hold here? ``python -m bench.richness_runs FOLDER --data-dir D --cifar10 D``.

Trains what ``richness_runs.toml`` lists, three seeds each, asks the analyses, and gives verdicts by the rules that
stand there, or with ``--plan`` in another such file: ``richness_fitted.toml`` is a second round, of networks that have
learned what they are compared at. Runs lie in FOLDER; started again, it goes on where it stopped. The file of results
is written after every run, so that a stopped bench leaves what it has; runs that stand in it are not measured again.
"""

from __future__ import annotations

import argparse
import json
import math
import tomllib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

import featdyn
from bench import harness
from featdyn.data import Dataset
from featdyn.data import load as load_data
from featdyn.statistics.repeats import Estimate, mean_difference, mean_estimate
from featdyn.store import Run, exists
from featdyn.training import Recipe, load
from featdyn.training.stage import finished, train

PLAN = Path(__file__).with_suffix(".toml")
JUMP = 0.5
"""Test accuracy below which a network has not grokked yet."""


def recipe(plan: dict[str, Any], name: str, group: str, seed: int, places: dict[str, str | None]) -> Recipe:
    """Return the recipe of one run."""
    what = plan["experiment"][name]
    own = [f"training.seed={seed}", f"labels.seed={seed}"]
    if what.get("data") == "cifar10":
        own.append(f"data.name='imagefolder:{places['cifar10']}'")
    elif places["data_dir"]:
        own.append(f"data.data_dir='{places['data_dir']}'")
    return load(what["recipe"], [*plan["common"], *what["changes"], *what["groups"][group], *own])


def jobs(plan: dict[str, Any]) -> Iterator[tuple[str, str, int]]:
    """Yield (experiment, group, seed), experiment by experiment."""
    for name, what in plan["experiment"].items():
        for seed in plan["seeds"]:
            for group in what["groups"]:
                yield name, group, seed


def measured(run: Run, layer: str) -> dict[str, Any]:
    """Return what rules ask of one run: name to values, by set or by checkpoint."""
    found: dict[str, Any] = {
        name: run.values(name).tolist() for name in ("step", "train_accuracy", "test_accuracy", "train_loss")
    }
    asked = featdyn.analyze(run, "richness", layers=[layer], leading=1)
    collapse = featdyn.analyze(run, "collapse", layers=[layer])
    found["parameter_norm"] = asked["parameter_norm"].values.tolist()
    for s in ("train", "test"):
        mine = {"set": s, "layer": layer}
        for name in ("low_rank", "low_rank_isotropic", "kernel_deviation", "effective_dimension"):
            found[f"{name}/{s}"] = asked[name].sel(mine).values.tolist()
        found[f"nc1/{s}"] = collapse["nc1"].sel(mine).values.tolist()
    if f"layers/{layer}/gradient" in run.nodes:
        shift = featdyn.analyze(run, "pattern_shift", layers=[layer])
        found |= _shifts(shift.sel(layer=layer))
    return found


def _shifts(shift: xr.Dataset) -> dict[str, Any]:
    names = {"shift_over_samples": "loss_correlation", "shift_over_classes": "class_correlation"}
    found = {f"{ours}/test": shift[name].sel(set="test").values.tolist() for ours, name in names.items()}
    return found | {"shift_over_checkpoints/test": [float(shift["gap_correlation"].sel(set="test"))]}


def number(run: dict[str, Any], quantity: str, probes: str, when: str = "last") -> float:
    """Return one number of a run; NaN where it is not there, or the run never jumps."""
    logged, name = quantity.startswith("log10_"), quantity.removeprefix("log10_")
    values = run[name if name in run else f"{name}/{probes}"]
    at = len(values) - 1
    if when == "first":
        at = 0
    elif when == "before_jump":
        jumped = np.flatnonzero(np.array(run["test_accuracy"]) >= JUMP)
        if not len(jumped) or not jumped[0]:
            return math.nan
        at = int(jumped[0]) - 1
    value = math.nan if values[at] is None else float(values[at])
    return math.log10(value) if logged else value


def judged(rule: dict[str, Any], runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the verdict of a rule over runs by group, with the numbers that it rests on."""
    quantity, probes, contrast = rule["quantity"], rule.get("set", "train"), rule["contrast"]
    (least, most), needs = rule["within"], rule.get("needs")
    values: dict[str, list[float]]
    if contrast[-1] in runs:
        values = {group: [number(run, quantity, probes) for run in runs[group]] for group in contrast}
        parts = [np.array(values[group]) for group in contrast]
        parts = [part[np.isfinite(part)] for part in parts]
        if not all(map(len, parts)):
            found = Estimate(math.nan, math.nan, math.nan, 0, "no run has the number")
        else:
            found = mean_difference(*parts) if len(parts) == 2 else mean_estimate(parts[0])
    else:  # two times of each run
        [group] = runs
        values = {when: [number(run, quantity, probes, when) for run in runs[group]] for when in contrast}
        difference = np.subtract(*(values[when] for when in contrast))
        difference = difference[np.isfinite(difference)]
        found = mean_estimate(difference) if len(difference) else Estimate(math.nan, math.nan, math.nan, 0, "no jump")
    verdict = "undecided"
    if least <= found.low and found.high <= most:
        verdict = "holds"
    elif found.low > most or found.high < least:
        verdict = "does not hold"
    lacking = needs and any(
        number(run, needs["quantity"], probes) < needs["least"] for group in needs["groups"] for run in runs[group]
    )
    if lacking:
        verdict = "undecided"
    said = {key: rule[key] for key in ("claim", "experiment", "quantity", "contrast", "within", "published")}
    return {**said, "set": probes, "values": values, "estimate": asdict(found), "lacking": bool(lacking)} | {
        "verdict": verdict
    }


def verdicts(plan: dict[str, Any], found: dict[str, Any]) -> list[dict[str, Any]]:
    """Judge every rule whose experiment is there for all seeds."""
    every = []
    for rule in plan["rule"]:
        groups = plan["experiment"][rule["experiment"]]["groups"]
        names = {group: [f"{rule['experiment']}/{group}/{seed}" for seed in plan["seeds"]] for group in groups}
        if all(name in found for some in names.values() for name in some):
            runs = {group: [found[name]["measured"] for name in some] for group, some in names.items()}
            every.append(judged(rule, runs))
    return every


def before(path: str | None) -> dict[str, Any]:
    """Return the runs that a file of results holds already."""
    if path is None or not Path(path).exists():
        return {}
    found: dict[str, Any] = json.loads(Path(path).read_text())["runs"]
    return found


def write(path: str | None, plan: dict[str, Any], found: dict[str, Any]) -> None:
    """Write what there is so far."""
    if path is not None:
        document = {
            "what": __doc__,
            "environment": harness.environment("cpu"),
            "verdicts": verdicts(plan, found),
            "runs": found,
        }
        Path(path).write_text(json.dumps(harness.plain(document), indent=1, allow_nan=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.richness_runs", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the runs lie")
    parser.add_argument("--data-dir", help="folder of MNIST, as torchvision has it")
    parser.add_argument("--cifar10", help="folder with {train,test}/<class>/<images>")
    parser.add_argument("--plan", type=Path, default=PLAN, help="what is trained, and the rules")
    parser.add_argument("--only", nargs="*", help="these experiments")
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args()
    torch.set_num_threads(1)
    plan = tomllib.loads(given.plan.read_text())
    places = {"data_dir": given.data_dir, "cifar10": given.cifar10}
    held: dict[Any, Dataset] = {}
    found = before(given.json)
    for name, group, seed in jobs(plan):
        if given.only and name not in given.only:
            continue
        wanted, store = recipe(plan, name, group, seed, places), given.folder / name / group / f"{seed}.zarr"
        if found.get(f"{name}/{group}/{seed}", {}).get("recipe") == harness.plain(_said(wanted)):
            continue
        if not (exists(store) and finished(Run(store))):
            if wanted.data not in held:
                held[wanted.data] = load_data(**dict(wanted.data))
            store.parent.mkdir(parents=True, exist_ok=True)
            train(wanted, store, dataset=held[wanted.data])
        values = measured(Run(store), plan["experiment"][name]["layer"])
        found[f"{name}/{group}/{seed}"] = {"recipe": _said(wanted), "measured": values}
        last = {key: values[key][-1] for key in ("train_accuracy", "test_accuracy", "low_rank/train", "nc1/train")}
        print(f"{name} {group} {seed}: " + "  ".join(f"{key} {value:.3f}" for key, value in last.items()), flush=True)
        write(given.json, plan, found)
    write(given.json, plan, found)
    for verdict in verdicts(plan, found):
        at = verdict["estimate"]
        print(f"{verdict['verdict']:14s} {verdict['claim']}: {at['value']:.3f} [{at['low']:.3f}, {at['high']:.3f}]")


def _said(wanted: Recipe) -> dict[str, Any]:
    """Return a recipe without this machine's folders."""
    values = wanted.identity
    values["data"]["name"] = values["data"]["name"].partition(":")[0]
    return {key: values[key] for key in ("data", "labels", "network", "training", "intervention")}


if __name__ == "__main__":
    main()
