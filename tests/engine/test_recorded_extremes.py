"""Analyses of recorded layers where numbers are extreme, missing or of one kind: a reason in each cell, no warning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from featdyn.analysis import analyses
from featdyn.analysis.status import reasons
from featdyn.capture import Probes, Recorder
from featdyn.store import Run
from tests.engine.test_every_analysis import every_cell_has_a_reason

NAMES = ("richness", "collapse", "representation", "similarity", "pattern_shift")
N = 24


class Scaled(nn.Module):
    """Features are the inputs times a factor, or a map of them; the head gives outputs of ordinary size."""

    def __init__(self, factor: float, width: int, outputs: int, masked: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.held, self.factor, self.masked = nn.Identity(), factor, masked
        self.head = nn.Linear(width, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.head(self.held(x * self.factor).nan_to_num(posinf=0.0) / self.factor)
        return found.index_fill(1, torch.tensor([0]), -torch.inf) if self.masked else found


def record(
    path: Path, x: Any, *, factor: float = 1.0, outputs: int = 3, labels: Any = None, masked: bool = False
) -> Run:
    split = np.repeat(np.array(["train", "test"], dtype=object), N // 2)
    given = np.arange(N) % min(3, max(outputs, 2)) if labels is None else labels
    probes = Probes(torch.as_tensor(x).float(), torch.as_tensor(given), {"split": split})
    with Recorder(
        Scaled(factor, x.shape[1], outputs, masked), probes, path, layers=["held"], dtype="float32"
    ) as recorder:
        for t in range(2):
            recorder.record(step=t)
    return Run(path)


def plain(width: int = 5) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal((N, width)) + (np.arange(N) % 3)[:, None]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("factor", [2.0**90, 2.0**-90])
def test_a_scale_changes_nothing(name: str, factor: float, tmp_path: Path) -> None:
    one, other = (
        analyses()[name](record(tmp_path / f"{i}.zarr", plain(), factor=f)) for i, f in enumerate((1.0, factor))
    )
    every_cell_has_a_reason(analyses()[name], other)
    for variable in one.data_vars:
        if one[variable].dtype.kind == "f" and not str(variable).startswith(("margin", "parameter")):
            np.testing.assert_allclose(other[variable], one[variable], rtol=1e-4, atol=1e-5, err_msg=str(variable))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "kind", ["infinite", "masked", "one feature", "one output", "copies", "a zero probe", "one label"]
)
def test_odd_features(name: str, kind: str, tmp_path: Path) -> None:
    x, outputs, labels = plain(1 if kind == "one feature" else 5), 3, None
    if kind == "infinite":
        x[13, 2] = np.inf
    if kind == "masked":
        labels = 1 + np.arange(N) % 2
    if kind == "one output":
        outputs = 1
    if kind == "copies":
        x[1::2] = x[::2]
    if kind == "a zero probe":
        x[4] = 0
    if kind == "one label":
        labels = np.ones(N, np.int64)
    found = analyses()[name](record(tmp_path / "r.zarr", x, outputs=outputs, labels=labels, masked=kind == "masked"))
    every_cell_has_a_reason(analyses()[name], found)
    if name != "similarity" and kind == "infinite":
        first = next(v for v in found.data_vars if found[v].dtype.kind == "f" and "t" in found[v].dims)
        assert np.isnan(found[first].sel(set="test")).all()
        assert np.isfinite(found[first].sel(set="train")).any() or name == "pattern_shift"


@pytest.mark.parametrize("name", [*NAMES, "spectra"])
def test_what_most_probes_of_a_set_have_lost_in_float16_has_no_measure(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = record(tmp_path / "r.zarr", plain())
    for lost in (N // 4, N // 4 + 1):  # half of the test set, and one probe more, at the second checkpoint

        def vanished(run: Run, spec: Any, lost: int = lost) -> Any:
            found = np.zeros((2, N), bool)
            found[1, N // 2 : N // 2 + lost] = True
            return found

        monkeypatch.setattr(f"featdyn.analysis.features.{name}.compute.vanished", vanished)
        found = analyses()[name](run)
        first = {"similarity": "cca", "pattern_shift": "shift", "spectra": "effective_rank"}.get(name)
        first = first or next(str(v) for v in found.data_vars if found[v].dims == ("layer", "set", "t"))
        said = reasons(found, first)
        assert said is not None
        gone = (said == "vanished in float16").squeeze()
        at = gone.isel(t1=1) if name == "similarity" else gone.sel(set="test").isel(t=1)
        assert (at.values == (lost > N // 4)).all()
        assert int(gone.sum()) == (lost > N // 4) * (3 if name == "similarity" else 1)
