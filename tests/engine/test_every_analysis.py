"""Every analysis on runs of every kind: each cell is a number that float64 confirms, or missing with a reason."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import HealthCheck, Phase, given, settings
from torch import nn

from featdyn.analysis import analyses
from featdyn.analysis.context import Context
from featdyn.analysis.declaration import Analysis
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.analysis.status import reasons
from featdyn.capture import Probes
from featdyn.errors import FeatdynError
from featdyn.store import Run
from tests.strategies import Recipe, recipes

SMALL = {"cuts": ("default",), "permutations": 19, "samples": 64, "features": "recomputed", "players": 4}
"""Options that keep any analysis small, where it has them."""


class Truth:
    """What float64 says of a run."""

    def __init__(self, run: Run, model: nn.Module, cuts: list[str]) -> None:
        self.run, self.model, self.cuts = run, model.double(), cuts
        self.inputs = torch.from_numpy(run.values("inputs/input")).double()
        self.labels = run.values("label")
        split = run.values("split") if "split" in run.paths("sample") else np.full(len(self.labels), "probes")
        self.sets = {name: np.flatnonzero(split == name) for name in dict.fromkeys(split.tolist())}
        self.states = [run.state(t) for t in range(run.checkpoints)]
        self.features = [self._features(state) for state in self.states]

    def _load(self, state: dict[str, torch.Tensor]) -> None:
        self.model.load_state_dict({name: value.double() for name, value in state.items()})

    def _features(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        self._load(state)
        kept: dict[str, torch.Tensor] = {}
        handles = [
            self.model.get_submodule(cut).register_forward_hook(lambda m, a, o, cut=cut: kept.update({cut: o}))
            for cut in self.cuts
        ]
        with torch.no_grad():
            self.model(self.inputs)
        for handle in handles:
            handle.remove()
        return kept

    def flat(self, cut: str, t: int, name: str) -> np.ndarray:
        return self.features[t][cut].flatten(1).numpy()[self.sets[name]]

    def composite(self, cut: str, t1: int, t2: int) -> torch.Tensor:
        """Return the logits of t2's network on t1's features."""
        self._load(self.states[t2])
        own = self.features[t1][cut]
        handle = self.model.get_submodule(cut).register_forward_hook(lambda m, a, o: own)
        with torch.no_grad():
            logits = self.model(self.inputs)
        handle.remove()
        return logits


def check_composites(found: xr.Dataset, truth: Truth) -> None:
    for cut in found["cut"].values:
        for t1, t2 in {(0, found.sizes["t1"] - 1), (found.sizes["t1"] - 1, 0)}:
            mixed, plain = truth.composite(cut, t1, t2), truth.composite(cut, t2, t2)
            top = torch.stack([m.topk(2).values.diff(dim=1).abs()[:, 0] for m in (mixed, plain)]).amin(0)
            if float(top.min()) < 1e-4:  # a tie, which float32 may decide in another way
                continue
            said, own = mixed.argmax(1).numpy(), plain.argmax(1).numpy()
            for name, members in truth.sets.items():
                cell = found.sel(cut=cut, set=name).isel(t1=t1, t2=t2)
                assert float(cell["accuracy"]) == pytest.approx((said == truth.labels)[members].mean())
                assert float(cell["agreement"]) == pytest.approx((said == own)[members].mean())


def check_drift(found: xr.Dataset, truth: Truth) -> None:
    alike = found.attrs["cka_set"]
    last = found.sizes["t"] - 1
    for cut in found["cut"].values:
        for name in truth.sets:
            x, y = truth.flat(cut, 0, name), truth.flat(cut, last, name)
            size = np.linalg.norm(x, axis=1)
            moved = (np.linalg.norm(y - x, axis=1)[size > 0] / size[size > 0]) if last else np.zeros(len(x))
            cell = float(found["motion"].sel(cut=cut, set=name)[0, last])
            assert len(moved) == 0 if np.isnan(cell) else cell == pytest.approx(moved.mean(), rel=1e-3, abs=1e-6)
        x, y = (truth.flat(cut, t, alike) for t in (0, last))
        x, y = x - x.mean(0), y - y.mean(0)
        cell = float(found["cka"].sel(cut=cut, cut2=cut)[0, last])
        if not np.isnan(cell) and found.attrs["cka_used"] == len(x):  # else of one probe of each image, at random
            hsic = [np.linalg.norm(a.T @ b) for a, b in ((x, y), (x, x), (y, y))]
            assert cell == pytest.approx(hsic[0] ** 2 / hsic[1] / hsic[2], abs=2e-3)
        check_linear_probe(found, truth, cut, last)


def check_linear_probe(found: xr.Dataset, truth: Truth, cut: str, t: int) -> None:
    """Ridge regression in the primal, with the penalty that was chosen."""
    penalty = float(found["linear_penalty"].sel(cut=cut)[t])
    if np.isnan(penalty) or "test" not in truth.sets:
        return
    x, labels = truth.flat(cut, t, "train"), truth.labels[truth.sets["train"]]
    wanted = (labels[:, None] == np.unique(labels)).astype(float)
    unit = penalty * ((x - x.mean(0)) ** 2).sum(1).mean()
    origin, rows = ProbeSets.of(truth.run).origins, []
    for place, new in zip(truth.sets["test"], truth.flat(cut, t, "test"), strict=True):
        kept = origin[truth.sets["train"]] != origin[place]  # no copy of its image
        if not kept.any():
            return
        z, y = x[kept] - x[kept].mean(0), wanted[kept] - wanted[kept].mean(0)
        weights = np.linalg.solve(z.T @ z + unit * np.eye(x.shape[1]), z.T @ y)
        rows.append((new - x[kept].mean(0)) @ weights + wanted.mean(0))
    scores = np.array(rows)
    top = np.sort(scores, 1)
    if (top[:, -1] - top[:, -2] > 1e-3).all():
        right = (np.unique(labels)[scores.argmax(1)] == truth.labels[truth.sets["test"]]).mean()
        assert float(found["linear_accuracy"].sel(cut=cut, set="test")[t]) == pytest.approx(right)


def check_density(found: xr.Dataset, truth: Truth) -> None:
    for cut in found["cut"].values if found.sizes["pair"] else ():
        for name in truth.sets:
            cell = found["statistic"].sel(measure="energy", cut=cut, set=name).isel(pair=0)
            if np.isnan(cell):
                continue
            x, y = (truth.flat(cut, int(cell[t]), name) for t in ("t1", "t2"))
            n = len(x)
            apart = lambda a, b: np.linalg.norm(a[:, None] - b[None], axis=-1).sum()  # noqa: E731
            within = (apart(x, x) + apart(y, y)) / (n * (n - 1))
            scale = np.abs(np.concatenate([x, y])).max()
            assert float(cell) == pytest.approx(2 * apart(x, y) / n**2 - within, rel=2e-3, abs=1e-4 * scale)


def check_spectra(found: xr.Dataset, truth: Truth) -> None:
    for layer in found["layer"].values:
        stored = truth.run.array(f"layers/{layer}/activation")
        for name, members in truth.sets.items():
            x = np.asarray(stored[-1].values, np.float64)[members]
            x = np.moveaxis(x, 1, -1) if x.ndim == 4 else x
            cell = found["effective_rank"].sel(layer=layer, set=name)[-1]
            if np.isnan(cell):
                continue
            values = np.maximum(
                np.linalg.eigvalsh(np.cov(x.reshape(-1, x.shape[-1]).T, bias=True).reshape(x.shape[-1], -1)), 0
            )
            share = values[values > 0] / values.sum()
            assert float(cell) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=2e-3)


def check_isotropy(found: xr.Dataset, truth: Truth) -> None:
    """Shares of the variance of all probes' gradients, where all of them were draws."""
    if "gradient_share" not in found:
        return
    for layer in found["layer"].values:
        for name, members in truth.sets.items():
            cell = found["gradient_share"].sel(layer=layer, set=name).isel(t=-1)
            if np.isnan(cell).all() or int(found["gradient_draws"].sel(layer=layer, set=name)[-1]) < len(members):
                continue
            x = np.asarray(truth.run.array(f"layers/{layer}/gradient")[-1].values, np.float64)[members]
            values = np.linalg.svd((x - x.mean(0)).reshape(len(x), -1), compute_uv=False) ** 2
            for k, share in zip(cell["k"].values.tolist(), cell.values, strict=True):
                assert np.isnan(share) or share == pytest.approx(values[:k].sum() / values.sum(), rel=1e-3)


def check_richness(found: xr.Dataset, truth: Truth) -> None:
    """Against the N x N kernels, of positions' means."""
    logits = np.asarray(truth.run.array("outputs/logits")[-1].values, np.float64)
    for layer in found["layer"].values:
        stored = np.asarray(truth.run.array(f"layers/{layer}/activation")[-1].values, np.float64)
        for name, members in truth.sets.items():
            cell = float(found["low_rank"].sel(layer=layer, set=name)[-1])
            if np.isnan(cell):
                continue
            x, f = stored[members].reshape(len(members), stored.shape[1], -1).mean(2), logits[members]
            x, f = x - x.mean(0), f - f.mean(0)
            u, sizes, _ = np.linalg.svd(f, full_matrices=False)
            kept = sizes > 1e-6 * sizes[0]
            k, projection = x @ x.T, u[:, kept] @ u[:, kept].T
            wanted = 1 - np.trace(k @ projection) / np.linalg.norm(k) / np.linalg.norm(projection)
            assert cell == pytest.approx(wanted, abs=1e-8 + 1e-15 / (sizes[kept][-1] / sizes[0]) ** 2)


def check_collapse(found: xr.Dataset, truth: Truth) -> None:
    for layer in found["layer"].values:
        stored = np.asarray(truth.run.array(f"layers/{layer}/activation")[-1].values, np.float64)
        for name in found["set"].values:
            cell = float(found["nc1"].sel(layer=layer, set=name)[-1])
            if np.isnan(cell):
                continue
            x, y = stored[truth.sets[name]], truth.labels[truth.sets[name]]
            x = x.reshape(len(x), x.shape[1], -1).mean(2)
            means = np.stack([x[y == label].mean(0) if (y == label).any() else x[0] * np.nan for label in range(3)])
            apart = means[~np.isnan(means[:, 0])]
            between = np.cov(apart.T, bias=True).reshape(x.shape[1], -1)
            within = (x - means[y]).T @ (x - means[y]) / len(x)
            wanted = np.trace(within @ np.linalg.pinv(between, rcond=1e-10, hermitian=True)) / len(apart)
            assert cell == pytest.approx(wanted, rel=1e-4)


def recorded_vectors(truth: Truth, layer: str, of: str, t: int, name: str) -> np.ndarray:
    return every_vector(truth, layer, of, t)[truth.sets[name]]


def single_vectors(truth: Truth, layer: str, t: int, name: str) -> np.ndarray:
    """Of one probe of each image."""
    sets = ProbeSets.of(truth.run)
    chosen = sets.choose(truth.run, len(truth.labels), 0, per_origin=True)
    return every_vector(truth, layer, "activation", t)[chosen[sets.names.index(name)]]


def every_vector(truth: Truth, layer: str, of: str, t: int) -> np.ndarray:
    stored = np.asarray(truth.run.array(f"layers/{layer}/{of}")[t].values, np.float64)
    return stored.reshape(*stored.shape[:2], -1).mean(2)


def check_representation(found: xr.Dataset, truth: Truth) -> None:
    for layer in found["layer"].values:
        for name in truth.sets:
            x = single_vectors(truth, layer, -1, name)
            cell = found.sel(layer=layer, set=name).isel(t=-1)
            if np.isnan(cell["effective_rank"]):
                continue
            s = np.linalg.svd(x - x.mean(0), compute_uv=False)
            q = s[s > 0] / s.sum()
            assert float(cell["effective_rank"]) == pytest.approx(np.exp(-(q * np.log(q)).sum()), rel=1e-6)
            assert float(cell["stable_rank"]) == pytest.approx((s**2).sum() / s[0] ** 2, rel=1e-6)


def check_similarity(found: xr.Dataset, truth: Truth) -> None:
    name = found.attrs["similarity_set"]
    for one, other in product(found["layer"].values, repeat=2):
        cell = float(found["procrustes"].sel(layer=one, layer2=other).isel(t1=0, t2=-1))
        if not np.isnan(cell):
            x, y = single_vectors(truth, one, 0, name), single_vectors(truth, other, -1, name)
            x, y = (z - z.mean(0) for z in (x, y))
            common = np.linalg.svd(x.T @ y, compute_uv=False).sum() / np.linalg.norm(x) / np.linalg.norm(y)
            assert cell == pytest.approx(2 - 2 * common, abs=1e-6)


def check_patterns(found: xr.Dataset, truth: Truth) -> None:
    """By loops over probes; images are those of the coordinate origin."""
    origin = truth.run.values("origin")
    for layer, name in product(found["layer"].values, truth.sets):
        cell = float(found["shift"].sel(layer=layer, set=name)[-1])
        if np.isnan(cell):
            continue
        every = {
            of: recorded_vectors(truth, layer, "gradient", -1, of)
            * recorded_vectors(truth, layer, "activation", -1, of)
            for of in ("train", name)
        }
        shifts = []
        for i, place in enumerate(truth.sets[name]):
            members = [
                j
                for j, other in enumerate(truth.sets["train"])
                if truth.labels[other] == truth.labels[place] and origin[other] != origin[place]
            ]
            mean, own = every["train"][members].sum(0), every[name][i]
            if members and np.linalg.norm(own) > 0 and np.linalg.norm(mean) > 0:
                shifts.append(1 - own @ mean / np.linalg.norm(own) / np.linalg.norm(mean))
        assert len(shifts) == len(truth.sets[name]) - int(found["undefined"].sel(layer=layer, set=name)[-1])
        assert cell == pytest.approx(np.mean(shifts), abs=1e-6)


REFERENCES: dict[str, Callable[[xr.Dataset, Truth], None]] = {
    "consistency": check_composites,
    "drift": check_drift,
    "density": check_density,
    "spectra": check_spectra,
    "richness": check_richness,
    "collapse": check_collapse,
    "representation": check_representation,
    "similarity": check_similarity,
    "pattern_shift": check_patterns,
    "layer_isotropy": check_isotropy,
}


def every_cell_has_a_reason(analysis: Analysis, found: xr.Dataset) -> None:
    for name in map(str, found.data_vars):
        variable = found[name]
        if variable.dtype.kind != "f":
            continue
        values = variable.values
        declared = analysis.variable(name)
        spoken = declared is not None and "infinite" in declared.long_name
        assert spoken or not np.isinf(values).any(), f"{analysis.name}: {name} is infinite"
        if not np.isnan(values).any() or (declared is not None and declared.missing):
            continue
        words = reasons(found, name)
        assert words is not None, f"{analysis.name}: {name} is missing without a word"
        said = (
            set(np.broadcast_to(words, variable.shape)[np.isnan(values)])
            if words.dims == variable.dims
            else set(words.broadcast_like(variable).transpose(*variable.dims).values[np.isnan(values)])
        )
        assert not said & {"", "not defined"}, f"{analysis.name}: {name} is missing, reasons {said}"
        if declared is not None and declared.valid_range is not None:
            low, high = declared.valid_range
            kept = values[~np.isnan(values)]
            assert ((kept >= low - 1e-5) & (kept <= high + 1e-5)).all(), f"{analysis.name}: {name} leaves its range"


def ask(analysis: Analysis, run: Run, model: nn.Module) -> xr.Dataset | None:
    """Return the result of an analysis, whose tasks are as many as it said; None where it refuses in one line."""
    asked: dict[str, Any] = {k: v for k, v in SMALL.items() if k in analysis.options.model_fields}
    contexts: list[Context[Any]] = []
    admit = Context.admit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Context, "admit", lambda self, plan: (contexts.append(self), admit(self, plan))[1])
        try:
            found = analysis(run, model=model, **asked)
        except FeatdynError as error:
            refusal = str(error)
        else:
            refusal = ""
    if refusal:
        assert "\n" not in refusal
        assert "unexpected" not in refusal
        return None
    for context in contexts:
        assert context._done == context._total, f"{analysis.name} counts {context._done} of {context._total} tasks"
    return found


EACH = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "phases": (Phase.explicit, Phase.generate),  # recipes are small as they are, and each takes seconds
}


@settings(max_examples=6, **EACH)
@given(recipe=recipes())
def test_each_cell_is_a_number_or_missing_with_a_reason(recipe: Recipe) -> None:
    check_every_analysis(recipe)


@pytest.mark.slow
@pytest.mark.timeout(1200)  # some seconds for each run
@settings(max_examples=60, **EACH)
@given(recipe=recipes())
def test_each_cell_of_many_runs(recipe: Recipe) -> None:
    check_every_analysis(recipe)


def check_every_analysis(recipe: Recipe) -> None:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        run, model = recipe.record(Path(folder, "r.zarr"))
        truth: Truth | None = None
        for name, analysis in analyses().items():
            before = {key: value.clone() for key, value in model.state_dict().items()}
            model.train()
            found = ask(analysis, run, model)
            assert model.training
            assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
            if found is None:
                continue
            every_cell_has_a_reason(analysis, found)
            if name in REFERENCES:
                if truth is None:
                    truth = Truth(run, recipe.model(), [n for n, _ in model.named_modules() if n])
                REFERENCES[name](found, truth)


def test_any_order_of_probes_gives_the_same_numbers(tmp_path: Path) -> None:
    """Grouped, and with sets that alternate: the same probes and weights."""
    recipe = Recipe("mlp", (40, 40), False, True, False, 3, "mixed", True, "float32", 5)
    probes, n = recipe.probes(), 80
    turns = np.arange(n).reshape(2, -1).T.ravel()
    found: dict[str, list[xr.Dataset]] = {}
    for order in (np.arange(n), turns):
        mixed = Probes(
            probes.inputs[order], probes.labels[order], {k: np.asarray(v)[order] for k, v in probes.coords.items()}
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Recipe, "probes", lambda self, mixed=mixed: mixed)
            run, model = recipe.record(tmp_path / f"{order[1]}.zarr")
        for name in ("drift", "density", "spectra"):
            result = ask(analyses()[name], run, model)
            assert result is not None
            found.setdefault(name, []).append(result)
    names = [("drift", v) for v in ("motion", "motion_low", "cka_debiased", "linear_accuracy", "linear_accuracy_low")]
    names += [("density", "statistic"), ("spectra", "effective_rank")]
    for name, variable in names:
        one, other = (result[variable] for result in found[name])
        if name == "density":  # halves of samples are drawn by place
            one, other = (of.sel(measure=["mmd", "energy"]) for of in (one, other))
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5, err_msg=variable)
    assert found["drift"][0]["linear_accuracy"].sel(set="test").max() > 0.5
