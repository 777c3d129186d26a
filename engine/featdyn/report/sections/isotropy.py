"""Isotropy: is the noise of SGD the same in all directions, and does drift follow it?"""

from __future__ import annotations

from functools import partial

import xarray as xr

from featdyn.report.figure import Axis, Lines
from featdyn.report.figures import chart, line, lines, time_axis
from featdyn.report.findings import NOTHING
from featdyn.report.rounding import percent
from featdyn.report.section import Finding, Grid, Section, cells, choices_of, name_of, panel, word
from featdyn.sizes import counted

TEXT = (
    "Noise is what a mini-batch adds to the gradient of the whole training set, at fixed weights: of the parameters "
    "before a cut, and of the features of probes, which one step of plain SGD with that noise moves. The control moves "
    "features by isotropic noise of the parameters, of the same norm: already that is not isotropic in features, so "
    "feature noise must be judged beside it.",
    "The tests behind a verdict allow for heavy tails; they assume draws that are independent and, whatever their "
    "lengths, equally likely to point anywhere. Where that does not hold, as for skewed or sparse noise, “anisotropic” "
    "need not mean that variances differ between directions.",
)
CAVEAT = (
    "Few draws always have directions of large variance. A share says something only beside that of isotropic noise "
    "with the same lengths, and “held out”, one half of the draws along the directions of the other, is not chosen "
    "after the fact. A drift is a sum of gradients and lies where gradients do in any case: its share along the noise "
    "is to be read beside that along gradients with permuted labels; more than in a random subspace is no news."
)
SPACES = {"parameter": "parameters", "feature": "features", "control": "features, isotropic control"}
SHARES = {
    "share": "largest",
    "share_isotropic": "isotropic noise of the same lengths",
    "held_out": "held-out half",
    "held_out_isotropic": "held-out half, isotropic noise",
}
DRIFTS = {
    "drift_share": "drift along the noise",
    "drift_share_permuted": "along gradients with permuted labels",
    "drift_share_random": "in a random subspace",
}
"""Shares, each with what it stands beside, as far as the result holds them."""
DASHES = ("solid", "dash", "dot", "dashdot")


def section(result: xr.Dataset) -> Section:
    """Return the section; figures and columns of what the result does not hold are left out."""
    result = result.load()
    cuts = choices_of(result, "cut")
    axis = time_axis(result)
    spaces = [space for space in SPACES if f"{space}_participation_ratio" in result]

    def ratios(cut: str) -> Lines:
        of_spaces = [result[f"{space}_participation_ratio"].isel(cut=int(cut)) for space in spaces]
        values = [ratio.median("probe") if "probe" in ratio.dims else ratio for ratio in of_spaces]
        return chart(lines(map(SPACES.get, spaces), values), Axis("Participation ratio", "auto"), axis)

    def shares(names: dict[str, str], cut: str) -> Lines:
        of_cut = result.isel(cut=int(cut), k=-1)
        each = [
            line(label, of_cut[f"parameter_{name}"].values, order, dash=dash)
            for order, ((name, label), dash) in enumerate(zip(names.items(), DASHES, strict=False))
            if f"parameter_{name}" in result
        ]
        return chart(each, Axis("Share", share=True), axis)

    panels = []
    if spaces:
        panels.append(
            panel(
                "Participation ratio of the noise (features: median over probes)", cuts, ratios, "participation_ratio"
            )
        )
    for short, names, title in (
        ("variance", SHARES, "Variance of parameter noise along its {} largest directions"),
        ("drift", DRIFTS, "Drift of parameters to the next checkpoint along {} directions"),
    ):
        if f"parameter_{next(iter(names))}" in result:
            panels.append(panel(title.format(result["k"].values[-1]), cuts, partial(shares, names), short))
    columns = {name: title for name, title in _columns(result).items() if name in result}
    rows = [
        [name_of(cell, "cut"), f"{int(cell['step']):,}", *(_show(cell, name) for name in columns)]
        for cell in cells(result, "cut", "t")
    ]
    grid = Grid(("Cut after", "Step", *columns.values()), rows)
    return Section("Noise of SGD", TEXT, panels, cuts, grid=grid, finding=_finding(result), caveat=CAVEAT)


def _finding(result: xr.Dataset) -> Finding:
    if "parameter_verdict" not in result:
        return Finding(NOTHING)
    verdicts = [str(v) for v in result["parameter_verdict"].values.flat if str(v)]
    if not verdicts:
        return Finding(NOTHING)
    counts = {name: verdicts.count(name) for name in dict.fromkeys(verdicts)}
    said = ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda pair: -pair[1]))
    shares = ""
    if {"parameter_held_out", "parameter_held_out_isotropic"} <= set(result):
        held, plain = (float(result[f"parameter_{n}"].isel(k=-1).median()) for n in ("held_out", "held_out_isotropic"))
        shares = (
            f" Its {result['k'].values[-1]} largest directions hold {word(held, percent)} of the variance of "
            f"held-out draws (median; isotropic noise: {word(plain, percent)})."
        )
    return Finding(f"Of {len(verdicts)} places (cut and checkpoint) noise of the parameters is: {said}.{shares}", said)


def _columns(result: xr.Dataset) -> dict[str, str]:
    """Return what the table may show: variable to header."""
    counts = " / ".join(str(k) for k in result["k"].values) if "k" in result.coords else ""
    return {
        "parameter_verdict": "Verdict, parameters",
        "parameter_statistic": "Sign test: statistic",
        "parameter_pvalue": "p",
        "parameter_holm": "p, adjusted",
        "parameter_participation_ratio": "Participation ratio",
        "parameter_share": f"Share of the top {counts}",
        "parameter_share_isotropic": f"Isotropic, same lengths {counts}",
        "parameter_held_out": f"Held out {counts}",
        "parameter_held_out_isotropic": f"Held out, isotropic {counts}",
        "parameter_drift_share": "Drift share of the most directions",
        "parameter_drift_share_permuted": "Permuted labels",
        "parameter_drift_share_random": "Random",
    }


def _show(cell: xr.Dataset, name: str) -> str:
    value = cell[name]
    if name == "parameter_verdict":
        verdict, count = str(value.item()), cell.get("parameter_directions")
        if verdict == "anisotropic" and count is not None and bool(count > 0):
            return f"{verdict}, {counted(int(count), 'direction')}"
        return verdict
    if "test" in value.dims:
        value = value.sel(test="sign_test")
    if "k" in value.dims:
        kept = value.isel(k=[-1]) if "drift" in name else value
        return " / ".join(word(v, lambda share: f"{100 * share:.2g} %") for v in kept.values)
    if name.endswith(("pvalue", "holm")):
        return word(value, lambda p: "< 1e-16" if p < 1e-16 else f"{p:.2g}")
    return word(value)
