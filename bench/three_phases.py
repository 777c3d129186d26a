"""Do three phases of generalization show? ``python -m bench.three_phases FOLDER --data-dir DIR [--json FILE]``.

MNIST, or with ``--data cifar10`` CIFAR-10 as a folder of images: 2,000 training images with 1 % label noise, three
seeds. Two networks, a multilayer perceptron and a plain convolutional one (for fewer epochs), each the other's
reference of another architecture; for each a baseline trained on the test images. The sizes were cut once, before any
interaction was computed, as the machine had less to give. Interactions are those of 10 patches of the input (mean as
the masked state) on 30 training and 30 test images. All this is far smaller than the study (arXiv 2505.06993), whose
own numbers, settings and criteria were not at hand.

Rules, written before any of these runs
---------------------------------------
For each network, seed and kind of label (``test``: baseline trained on the test images; ``architecture``: the other
network on the same training set; ``decay``: decay plus spindle, which labels no single interaction), on the test
probes:

1. *First phase*: the random network's interactions go, simple generalizable ones come. Holds where the generalizable
   share H has a maximum between the first and the last checkpoint (verdict "yes" of ``phases.peak``) and the mean
   order of salient interactions falls from the first checkpoint to that maximum (95 % interval below 0). Does not
   hold where that verdict is "no" or the interval of the order lies above 0.
2. *Second phase*: interactions of rising order that generalize less. Holds where the same verdict is "yes" and the
   mean order rises from the maximum to the end (interval above 0). Does not hold where it is "no" or the interval
   lies below 0.
3. *Third phase*: the gap of test over train loss rises, and non-generalizable interactions make it. Holds where
   ``phases.lasting_rise`` of the gap after the maximum of H is "yes" and, at the last checkpoint, taking them out
   narrows the gap (interval of what they explain above 0). Does not hold where the verdict is "no" or that interval
   lies below 0. Of ``decay`` only the lasting rise is asked for.

What neither holds nor does not is undecided. Over seeds a claim *holds* where it does in all three, *does not hold*
where it does not in at least two, else it is *undecided*. How far kinds agree: Cohen's kappa of labels of single
interactions at the last checkpoint, mean of the seeds; of ``decay`` the correlation over orders of its share with H.

Suppression (written before its runs, after those of MNIST's phases had begun): the perceptron is trained again with
``training.suppress=0.3``. That it costs training loss and no test loss *holds* where in all seeds, at the last
checkpoint, the mean training loss is higher than without it and the mean test loss is not; *does not hold* where in at
least two seeds one of both is otherwise; else it is *undecided*.

A second round, written after the first was seen to leave most undecided: the same rules on MNIST with
``--samples 100``, which are 100 training and 100 test images, other seeds (3, 4, 5).
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bench.harness import environment
from featdyn.analysis.driver import analyze
from featdyn.store import Run
from featdyn.training import load
from featdyn.training.stage import train

SEEDS = 3
NETWORKS = {"mlp": "[128, 64]", "cnn": "[8, 16, 32]"}
SUPPRESSED = "mlp"
COMMON = (
    "data.train_size=2000",
    "training.batch_size=64",
    "training.learning_rate=0.05",
    "training.weight_decay=0",
    "training.schedule=constant",
    "training.precision=float32",
    "training.channels_last=false",
    "checkpoints.first_epoch=5",
    "probes.corrupted=0",
    "capture.layers=['fc']",
    "capture.gradients=false",
)
PLAYERS: dict[str, Any] = {"at": "input", "masked": "mean", "players": 10}
KINDS = ("test", "architecture", "decay")
OF_SPLIT = {
    "train": ("labels.noise=0.01",),
    "test": ("training.epochs=8", "checkpoints.every=8", "checkpoints.first_epoch=0"),  # all 10,000 test images
}
EPOCHS = {
    "mlp": ("training.epochs=40", "checkpoints.every=4"),
    "cnn": ("training.epochs=12", "checkpoints.every=4", "checkpoints.first_epoch=3"),
}


@dataclass(frozen=True)
class Place:
    """Where runs lie, or will, and which data they are trained on."""

    folder: Path
    data: str
    data_dir: Path
    samples: int = 30

    def trained(self, network: str, split: str, seed: int, *more: str) -> Run:
        """Return a run, trained if it is not there yet, or not to its end; ``more`` changes its recipe."""
        where = f"data.data_dir={self.data_dir}" if self.data == "mnist" else f"data.name=imagefolder:{self.data_dir}"
        own = (where, f"network.name={network}", f"network.options.widths={NETWORKS[network]}")
        seeds = f"training.seed={seed}", f"labels.seed={seed}", f"training.split={split}"
        times = EPOCHS[network] if split == "train" else ()
        probes = f"probes.train={self.samples}", f"probes.test={self.samples}"
        name = "-".join([network, split, str(seed), *(change.partition("=")[0] for change in more)])
        return train(
            load(self.data, [*COMMON, *probes, *times, *OF_SPLIT[split], *own, *seeds, *more]),
            self.folder / f"{name}.zarr",
        )


def tables(run: Run, checkpoints: str, samples: int) -> Run:
    """Return a run with the outputs of its masked inputs, computed where they are not there yet."""
    held = [run.result("interactions", path).attrs["options"]["checkpoints"] for path in run.results("interactions")]
    if not {checkpoints, "all"} & set(held):
        analyze(run, "interactions", checkpoints=checkpoints, samples=samples, **PLAYERS)
    return Run(run.path)


def verdict(holds: bool, not_so: bool) -> str:
    return "holds" if holds else "does not hold" if not_so else "undecided"


def claims(result: xr.Dataset, kind: str) -> list[str]:
    """Return what the rules say of the three phases, of one run and kind of label, on its test probes."""
    cell = result.isel(cut=0).sel(set="test", criterion=kind)
    second, third = (str(cell[f"{phase}_verdict"].item()) for phase in ("second_phase", "third_phase"))

    def outside(found: xr.Dataset, name: str) -> int:
        """Return 1 where an interval lies above 0, -1 where below, else 0."""
        return int(found[f"{name}_low"] > 0) - int(found[f"{name}_high"] < 0)

    before, after = (outside(cell, name) for name in ("order_before", "order_after"))
    explained = 1
    if kind != "decay":
        explained = outside(result.isel(cut=0, t=-1).sel(reference=kind), "explained")
    return [
        verdict(second == "yes" and before < 0, second == "no" or before > 0),
        verdict(second == "yes" and after > 0, second == "no" or after < 0),
        verdict(third == "yes" and explained > 0, third == "no" or explained < 0),
    ]


def over_seeds(found: Sequence[str]) -> str:
    return verdict(
        len(found) == SEEDS and set(found) == {"holds"}, found.count("does not hold") >= 2
    )  # fmt: skip


def curves(result: xr.Dataset) -> dict[str, Any]:
    """Return what is plotted of one run: of its test probes, and of both where losses are compared."""
    cell, gap = result.isel(cut=0).sel(set="test"), result.isel(cut=0)
    strength = cell["strength_positive"] - cell["strength_negative"]
    generalizable = cell["generalizable_positive"] - cell["generalizable_negative"]
    phases = ("second_phase", "third_phase", "order_before", "order_after")
    criteria = [f"{name}{end}" for name in phases for end in ("", "_low", "_high")]
    criteria += [f"{name}_{word}" for name in phases[:2] for word in ("support", "verdict", "reason")]
    return {
        "step": result["step"].values.tolist(),
        "used": dict(zip(result["set"].values.tolist(), result["used"].values[0].tolist(), strict=True)),
        "strength by order (t, order)": rounded(strength.transpose("t", "order")),
        "loss (t, train and test)": rounded(gap["loss"].transpose("t", "role")),
        "gap": rounded(gap["gap"]),
        "decay share": bounds(cell, "decay_share"),
        "decay R2": rounded(cell["decay_r2"]),
        "by kind of label": {
            kind: {
                "H": bounds(cell.sel(reference=kind), "power"),
                "H by chance": rounded(cell["chance"].sel(reference=kind)),
                "H by order at the last checkpoint": rounded(cell["power_by_order"].sel(reference=kind).isel(t=-1)),
                "generalizable strength by order (t, order)": rounded(
                    generalizable.sel(reference=kind).transpose("t", "order")
                ),
                "gap without the others": bounds(gap.sel(reference=kind), "gap_without"),
                "explained": bounds(gap.sel(reference=kind), "explained"),
                "correlation of H by order with the decay, last": rounded(
                    cell["decay_correlation"].sel(reference=kind).isel(t=-1)
                ),
            }
            for kind in result["reference"].values.tolist()
        },
        "kappa of test and architecture, last": {
            end or "value": rounded(cell[f"kappa{end}"].isel(t=-1, compared=0)) for end in ("", "_low", "_high")
        },
        "phases": {
            kind: {name: said(cell[name].sel(criterion=kind)) for name in criteria}
            for kind in result["criterion"].values.tolist()
        },
        "claims": {kind: claims(result, kind) for kind in KINDS},
    }


def rounded(values: xr.DataArray) -> Any:
    """Return numbers with 4 digits, None where they are missing."""
    if values.ndim:
        return [rounded(value) for value in values]
    return float(f"{float(values):.4g}") if np.isfinite(float(values)) else None


def bounds(result: xr.Dataset, name: str) -> dict[str, Any]:
    return {end or "value": rounded(result[f"{name}{end}"]) for end in ("", "_low", "_high")}


def said(value: xr.DataArray) -> Any:
    return rounded(value) if value.dtype.kind == "f" else str(value.item())


def asked(place: Place, network: str, seed: int) -> dict[str, Any]:
    """Return what is seen of one run beside its baselines, all of which are trained first."""
    other = next(name for name in NETWORKS if name != network)
    run = tables(place.trained(network, "train", seed), "all", place.samples)
    test = tables(place.trained(network, "test", seed), "last", place.samples)
    # Of the other network only its last checkpoint is asked for here, and all where it is asked itself.
    reference = tables(place.trained(other, "train", seed), "last", place.samples)
    kinds = {"test": test, "architecture": reference}
    result = analyze(run, "generalization", baselines=[f"{name}={other.path}" for name, other in kinds.items()])
    accuracy = {name: rounded(xr.DataArray(run.values(name)[-1])) for name in ("train_accuracy", "test_accuracy")}
    return {"network": network, "seed": seed, **accuracy, **curves(result)}


def suppressed(place: Place, seed: int) -> dict[str, Any]:
    """Return the losses of one seed with and without suppression at the last checkpoint."""
    with_it = place.trained(SUPPRESSED, "train", seed, "training.suppress=0.3")
    runs = {"without": place.trained(SUPPRESSED, "train", seed), "with": with_it}
    names = "train_loss", "test_loss", "train_accuracy", "test_accuracy"
    return {name: {which: rounded(xr.DataArray(run.values(name)[-1])) for which, run in runs.items()} for name in names}


def of_suppression(found: Sequence[dict[str, Any]]) -> str:
    """Return the verdict over seeds."""
    up = [each["train_loss"]["with"] > each["train_loss"]["without"] for each in found]
    level = [each["test_loss"]["with"] <= each["test_loss"]["without"] for each in found]
    holds = [a and b for a, b in zip(up, level, strict=True)]
    return verdict(len(holds) == SEEDS and all(holds), holds.count(False) >= 2)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.three_phases", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the runs lie, or will")
    parser.add_argument("--data", choices=["mnist", "cifar10"], default="mnist")
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder that holds the data")
    parser.add_argument("--samples", type=int, default=30, help="images of each set")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--json", type=Path, help="where to write what is found, after each run")
    options = parser.parse_args()
    place = Place(options.folder, options.data, options.data_dir, options.samples)
    runs: list[dict[str, Any]] = []
    losses = [suppressed(place, seed) for seed in options.seeds] if SUPPRESSED in options.networks else []
    if losses:
        print("suppression", of_suppression(losses), losses, flush=True)
    for network, seed in product(options.networks, options.seeds):
        runs.append(asked(place, network, seed))
        print(network, seed, runs[-1]["claims"], flush=True)
        of = [run for run in runs if run["network"] == network]
        if len(of) == SEEDS:
            for kind in KINDS:
                print(network, kind, summary(of, kind), flush=True)
        if options.json:
            names = dict.fromkeys(run["network"] for run in runs)
            each = {name: [run for run in runs if run["network"] == name] for name in names}
            verdicts = {name: {kind: summary(of, kind) for kind in KINDS} for name, of in each.items()}
            held = {
                "environment": environment("cpu"),
                "data": options.data,
                "samples": options.samples,
                "rules": __doc__,
                "verdicts": verdicts,
            }
            if losses:
                held["suppression"] = {"verdict": of_suppression(losses), "seeds": losses}
            held["runs"] = runs
            # Innermost lists, which are rows of numbers, are a line each.
            text = re.sub(r"\[[^\[\]{}]*\]", lambda row: " ".join(row[0].split()), json.dumps(held, indent=1))
            options.json.write_text(text + "\n")


def summary(runs: Sequence[dict[str, Any]], kind: str) -> dict[str, str]:
    return {f"phase {i + 1}": over_seeds([run["claims"][kind][i] for run in runs]) for i in range(3)}


if __name__ == "__main__":
    main()
