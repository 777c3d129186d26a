"""What is said of the isotropy of draws, cell by cell: the variables that analyses of noise and of layers share."""

from __future__ import annotations

from typing import Any, TypeAlias

from featdyn.analysis.declaration import SHARE, Variable

Table: TypeAlias = dict[str, tuple[str, str, dict[str, Any]]]
"""Name to the dimension that it has beside those of the cells, what it is, and more of its declaration."""

SHARES = (1, 5, 10)
"""Numbers of leading directions, the coordinate ``k``: our own choice."""
UNTESTED = "the test asks for other numbers of draws and coordinates, or see the status"
FEW_DIRECTIONS = "draws, or half of them, do not hold so many directions, or see the status"
ALL_DIRECTIONS = "these are all directions there are, or see the status"
ASSUMED = (
    "Tests take draws as independent and of a spherical law, with tails of any weight; whether neighbours, a known "
    "centre and fourth powers agree with that is checked, and where they do not the verdict is 'undecided'. Shares "
    "stand beside those of isotropic noise with the lengths of the draws, and beside held-out halves: one half of the "
    "draws along the directions of the other. Adjusted p-values are over all cells of a test; those of the exact test "
    "are at least 0.001, so that over more than 50 cells Holm's cannot reject."
)

_P: dict[str, Any] = {"valid_range": SHARE, "missing": UNTESTED}
_K: dict[str, Any] = {"valid_range": SHARE, "missing": FEW_DIRECTIONS}

TESTED: Table = {
    "statistic": ("test", "statistic", {"missing": UNTESTED}),
    "pvalue": ("test", "p-value", _P),
    "valid": ("test", "whether the p-value holds for these draws", {}),
    "holm": ("test", "p-value adjusted over all cells by Holm", _P),
    "benjamini_hochberg": ("test", "p-value adjusted over all cells by Benjamini and Hochberg", _P),
    "verdict": ("", "isotropic, anisotropic or undecided", {}),
    "reason": ("", "why, in a sentence", {}),
    "directions": ("", "directions that stand out; -1: too many to count", {}),
    "order_pvalue": ("", "p-value of neighbouring draws being independent", {"missing": "fewer than 8 draws"} | _P),
    "centre_pvalue": (
        "",
        "p-value of draws being symmetric about the known centre",
        _P | {"missing": "no known centre"},
    ),
    "fourth_excess": ("", "standard deviations by which fourth powers exceed a spherical law's", {}),
    "variance_pvalue": ("", "p-value of isotropy with the variance of products estimated", {"valid_range": SHARE}),
    "participation_ratio": ("", "directions of equal variance, unbiased; infinite where draws are too few to tell", {}),
    "effective_rank": ("", "exponential of the entropy of the spectrum of the covariance", {}),
    "stable_rank": ("", "variance over that of the largest direction", {}),
    "share": ("k", "share of the variance along the largest directions", _K),
    "share_isotropic": ("k", "the same for isotropic noise with these lengths, mean", _K),
    "share_isotropic_high": ("k", "the same for isotropic noise with these lengths, 95 % quantile", _K),
    "held_out": ("k", "share of the variance of a half along the directions of the other", _K),
    "held_out_isotropic": ("k", "the same for isotropic noise, mean", _K),
    "held_out_isotropic_high": ("k", "the same for isotropic noise with these lengths, 95 % quantile", _K),
    "half_overlap": ("k", "mean squared cosine of the directions of two halves", _K),
}
_DRIFT: dict[str, Any] = {"valid_range": SHARE, "status": "drift_status"}
_PERMUTED = _DRIFT | {"status": "drift_permuted_status"}
DRIFT: Table = {
    "drift_share": ("k", "share of the drift along the largest directions", _DRIFT),
    "drift_share_halves": ("k", "the same along the directions of half of the draws", _DRIFT),
    "drift_share_permuted": ("k", "the same along the directions of draws with permuted labels", _PERMUTED),
    "drift_share_permuted_halves": ("k", "the same along the directions of half of those", _PERMUTED),
    "drift_share_random": ("k", "the same in a random subspace, mean", _DRIFT),
    "drift_pvalue": ("k", "p-value against a random subspace", _DRIFT | {"missing": ALL_DIRECTIONS}),
}


def isotropy_variables(prefix: str, cell: str, *tables: Table) -> dict[str, Variable]:
    """Return the declarations of ``<prefix>_<name>`` over the dimensions ``cell``."""
    found = {}
    for name, (inner, long_name, more) in [item for table in tables or (TESTED,) for item in table.items()]:
        status = f"{prefix}_{more.get('status', 'status')}"
        found[f"{prefix}_{name}"] = Variable(f"{inner} {cell}".strip(), long_name, **more | {"status": status})
    return found
