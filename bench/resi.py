"""Which similarity measures pass the six tests of ReSi? ``python -m bench.resi --data-dir DIR --json FILE``.

Klabunde et al., "ReSi: a comprehensive benchmark for representational similarity measures" (ICLR 2025) asks of a
measure that networks that behave alike are alike to it, and those that were trained alike too. Its six tests are put
here to ours, over checkpoints and seeds of small runs (MLPs on 1,000 images of MNIST), as spread allows. Scores are
ReSi's: a rank correlation for accuracy and outputs, the area under the precision-recall curve for groups, the share of
layer pairs in order for monotonicity. When a score passes is our own choice: its 95 % interval, leaving out one seed
after the other, lies above what chance gives.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from scipy.special import rel_entr
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

from bench import harness
from featdyn.analysis.features.similarity.prepared import Ready, compared
from featdyn.data import DataOptions, Dataset, normalise
from featdyn.data import load as load_data
from featdyn.statistics.cka import Grams
from featdyn.statistics.jackknife import jackknife_interval
from featdyn.training import load
from featdyn.training.loop import Loop

DISTANCES = ("procrustes", "angular", "imbalance")
"""Measures that are small for what is alike."""
MEASURES = ("cka", "cka_debiased", "cca", "svcca", "pwcca", *DISTANCES, "rsa", "jaccard")
SEEDS = range(5)
SAMPLES, WIDTHS, EPOCHS = 400, (64, 64, 64, 64), (3, 6, 12, 24)
BASE = (
    "data.train_size=1000", "data.shortcut=0.0", f"network.options.widths={list(WIDTHS)}", "training.batch_size=50",
    f"training.epochs={EPOCHS[-1]}", "training.learning_rate=0.05", "training.loss=cross_entropy",
    "training.schedule=constant", "training.device=cpu",
)  # fmt: skip
GROUPS: dict[str, dict[str, tuple[str, ...]]] = {
    "label randomization": {f"{100 * share:.0f} %": (f"labels.noise={share}",) for share in (0.0, 0.5, 1.0)},
    "shortcut affinity": {f"{100 * share:.0f} %": (f"data.shortcut={share}",) for share in (0.0, 0.5, 1.0)},
    "augmentation affinity": {
        "none": (),
        "shifted": ("training.augment=true", "training.mirror=false"),
        "shifted and mirrored": ("training.augment=true",),
    },
}
Values: TypeAlias = np.ndarray[Any, Any]
Score: TypeAlias = Callable[[int | None], float]
"""A score without one seed, or of all."""


@dataclass(frozen=True, eq=False)
class Network:
    """One network at one checkpoint, on the same test images as all others."""

    seed: int
    layers: list[Ready]
    grams: list[Values]
    accuracy: float
    probabilities: Values


@cache
def read(options: DataOptions) -> Dataset:
    """Return a data set, which several networks share."""
    return load_data(**dict(options))


def trained(changes: Sequence[str], seed: int, data_dir: str, epochs: Sequence[int]) -> list[Network]:
    """Train one network and return it at the end of these epochs."""
    own = (f"training.seed={seed}", f"labels.seed={seed}", f"data.data_dir='{data_dir}'")
    recipe = load("mnist-shortcut", [*BASE, *changes, *own])
    loop = Loop(recipe, read(recipe.data))
    plain = read(load("mnist-shortcut", [*BASE, *own]).data)  # a written label tells nothing of its test images
    inputs = normalise(plain.test.pixels[:SAMPLES], plain.mean, plain.std)
    found = []
    for step in range(loop.steps):
        loop.step(step)
        epoch, rest = divmod(step + 1, loop.batches.per_epoch)
        if not rest and epoch in epochs:
            found.append(looked(loop, inputs, plain.test.labels[:SAMPLES], seed))
    return found


def looked(loop: Loop, inputs: torch.Tensor, labels: Values, seed: int) -> Network:
    """Return what a network makes of the test images."""
    layers, x = [], inputs
    with torch.inference_mode():
        for name, part in loop.model.eval().named_children():
            x = part(x)
            if name.startswith("hidden"):
                layers.append(x.double().numpy())
    logits = x.double()
    right = float((logits.argmax(1).numpy() == labels).mean())
    ready = [Ready.of(z, 0, 2**-24) for z in layers]
    return Network(seed, ready, [z @ z.T for z in layers], right, logits.softmax(1).numpy())


def similarities(ready: Sequence[Ready], grams: Sequence[Values]) -> dict[str, Values]:
    """Return ``(m, m)`` of every measure, larger for more alike; where the order counts, the mean of both ways."""
    m = len(ready)
    found = {name: np.full((m, m), np.nan) for name in MEASURES}
    for a, b in product(range(m), repeat=2):
        if a != b:
            for name, value in compared(ready[a], ready[b])[0].items():
                if name in found:
                    found[name][a, b] = -value if name in DISTANCES else value
    held = Grams(m, len(grams[0]))
    for k, gram in enumerate(grams):
        held.put(k, gram)
    aligned = held.alignment(bounds=False)
    found |= {"cka": aligned.biased, "cka_debiased": aligned.debiased}
    return {name: (values + values.T) / 2 for name, values in found.items()}


def divergence(p: Values, q: Values) -> float:
    """Return the mean Jensen-Shannon divergence of predictions ``(n, classes)``, in nats."""
    middle = (p + q) / 2
    return float(((rel_entr(p, middle) + rel_entr(q, middle)).sum(1) / 2).mean())


def behaviour(networks: Sequence[Network], kind: str) -> Callable[[Values], Score]:
    """Return the score of a measure by what networks do: are those alike that are right as often, or answer alike?"""
    pairs = [(a, b) for a, b in combinations(range(len(networks)), 2) if networks[a].seed != networks[b].seed]
    if kind == "accuracy":
        apart = [abs(networks[a].accuracy - networks[b].accuracy) for a, b in pairs]
    else:
        apart = [divergence(networks[a].probabilities, networks[b].probabilities) for a, b in pairs]

    def score(values: Values) -> Score:
        def of(out: int | None) -> float:
            kept = [k for k, (a, b) in enumerate(pairs) if out not in (networks[a].seed, networks[b].seed)]
            return float(spearmanr([values[pairs[k]] for k in kept], [-apart[k] for k in kept]).statistic)

        return of

    return score


def grouped(groups: Sequence[str], seeds: Sequence[int]) -> Callable[[Values], Score]:
    """Return the score of a measure by how networks were trained: are pairs of one group the most alike?"""

    def score(values: Values) -> Score:
        def of(out: int | None) -> float:
            kept = [k for k, seed in enumerate(seeds) if seed != out]
            pairs = list(combinations(kept, 2))
            found = [values[pair] for pair in pairs]
            if not np.isfinite(found).all():
                return np.nan
            return float(average_precision_score([groups[a] == groups[b] for a, b in pairs], found))

        return of

    return score


def monotone(networks: Sequence[Network], each: Sequence[dict[str, Values]], name: str) -> Score:
    """Return the share of nested pairs of layers of which the inner one is the more alike."""

    def of(out: int | None) -> float:
        order = []
        for network, found in zip(networks, each, strict=True):
            if network.seed != out:
                v = found[name]
                for i, j, k in combinations(range(len(WIDTHS)), 3):
                    order += [v[i, j] >= v[i, k], v[j, k] >= v[i, k]]
        return float(np.mean(order))

    return of


def judged(score: Score, chance: float) -> dict[str, Any]:
    """Return a score with its interval over seeds, and whether it passes."""
    found = jackknife_interval(score(None), [score(seed) for seed in SEEDS])
    passes = bool(found.low > chance) if np.isfinite(found.low) else bool(found.estimate > chance)
    return {"score": found.estimate, "low": found.low, "high": found.high, "chance": chance, "passes": passes}


def tested(data_dir: str) -> dict[str, dict[str, Any]]:
    """Put the six tests to all measures: test to measure to what came out."""
    base = [network for seed in SEEDS for network in trained((), seed, data_dir, EPOCHS)]
    table: dict[str, dict[str, Any]] = {}
    last = similarities([n.layers[-1] for n in base], [n.grams[-1] for n in base])
    for kind in ("accuracy", "outputs"):
        of = behaviour(base, kind)
        table[kind] = {name: judged(of(values), 0.0) for name, values in last.items()}
        print(kind, flush=True)
    for test, variants in GROUPS.items():
        networks, names = [], []
        for (group, changes), seed in product(variants.items(), SEEDS):
            networks += trained(changes, seed, data_dir, EPOCHS[-1:])
            names.append(group)
        found = similarities([n.layers[-1] for n in networks], [n.grams[-1] for n in networks])
        of = grouped(names, [n.seed for n in networks])
        chance = (len(SEEDS) - 1) / (len(names) - 1)  # the share of pairs that are of one group
        table[test] = {name: judged(of(values), chance) for name, values in found.items()}
        table[test]["accuracy of networks"] = dict(zip(variants, _means(networks, len(SEEDS)), strict=True))
        print(test, flush=True)
    each = [similarities(n.layers, n.grams) for n in base]
    table["layer monotonicity"] = {name: judged(monotone(base, each, name), 0.5) for name in MEASURES}
    return table


def _means(networks: Sequence[Network], count: int) -> list[float]:
    return np.reshape([n.accuracy for n in networks], (-1, count)).mean(1).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.resi", description=__doc__)
    parser.add_argument("--data-dir", required=True, help="folder of MNIST, as torchvision has it")
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args()
    torch.set_num_threads(1)
    table = tested(given.data_dir)
    for test, of in table.items():
        passed = [name for name in MEASURES if of[name]["passes"]]
        print(f"{test}: {len(passed)} of {len(MEASURES)} pass; not {', '.join(set(MEASURES) - set(passed)) or 'one'}")
    if given.json:
        sizes = {"seeds": len(SEEDS), "test images": SAMPLES, "widths": WIDTHS, "epochs": EPOCHS, "changes": BASE}
        document = {"what": __doc__, "environment": harness.environment("cpu"), "sizes": sizes, "tests": table}
        Path(given.json).write_text(json.dumps(harness.plain(document), indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
