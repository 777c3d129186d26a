"""Of how much there must be for a number, and why it is missing with one less: helpers of analyses at their limits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from featdyn.analysis import isotropy_cells
from featdyn.analysis.features import folded_moments
from featdyn.analysis.features.collapse import compute as collapse
from featdyn.analysis.features.drift import cka as similarity_of_features
from featdyn.analysis.features.generalization import GeneralizationOptions, phases
from featdyn.analysis.features.generalization.joined import Joined
from featdyn.analysis.features.generalization.labels import FEW_ORDERS, NO_CUT, NO_PROBE, Labels
from featdyn.analysis.features.layer_interactions.tables import LayerProbe
from featdyn.analysis.features.layer_isotropy import LayerIsotropyOptions
from featdyn.analysis.features.layer_isotropy import compute as layer_isotropy
from featdyn.analysis.features.pattern_shift import compute as pattern_shift
from featdyn.analysis.features.pattern_shift import correlations
from featdyn.analysis.features.representation import cell, margin
from featdyn.analysis.features.representation.margin import Reader
from featdyn.analysis.features.richness import RichnessOptions
from featdyn.analysis.features.richness import cell as richness_cell
from featdyn.analysis.features.richness import compute as richness
from featdyn.analysis.features.richness import weights as richness_weights
from featdyn.analysis.features.similarity import prepared
from featdyn.analysis.features.tangent_kernel import TangentKernelOptions
from featdyn.analysis.features.tangent_kernel import compute as tangent_kernel
from featdyn.analysis.inputs.targets import NO_TARGETS, UNKNOWN, Targets
from featdyn.analysis.status import ALIKE, DEAD, FEW, NO_LABELS, NO_TRAINING_PROBES, NOT_FINITE, ONE_CLASS, ZERO
from featdyn.statistics import Gram
from featdyn.statistics import similarity as alike
from featdyn.statistics.family import FAMILY
from featdyn.statistics.resampling import mean_interval
from featdyn.statistics.richness import ntk
from featdyn_kernels.moments import accumulate

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 6))
OWN = np.arange(40)
ROUNDED = 1e4 + np.float64([[0, 0], [1e-4, 0], [0, 1e-4], [1e-4, 1e-4]] * 3)
"""What float32 cannot tell from what is constant."""


def of_classes(*counts: int) -> Any:
    labels = np.repeat(np.arange(len(counts)), counts)
    x = RNG.standard_normal((len(labels), 3))
    return accumulate(x, outputs=x, labels=labels, classes=len(counts))


def test_measures_of_collapse_need_two_classes_and_two_probes_of_each_on_average() -> None:
    assert collapse._flaw(of_classes(3, 2, 1)) == ""
    assert collapse._flaw(of_classes(3, 1, 1)) == FEW
    assert collapse._flaw(of_classes(2, 2, 0)) == ""
    assert collapse._flaw(of_classes(9, 0, 0)) == ONE_CLASS


def test_features_without_a_measure_say_why() -> None:
    def flaw(x: NDArray[Any]) -> str:
        return folded_moments.flaw(accumulate(np.asarray(x, np.float64)))

    assert flaw(X[:2]) == ""
    assert flaw(X[:1]) == FEW
    assert flaw(np.zeros((5, 2))) == ZERO
    assert flaw(np.ones((5, 2))) == DEAD
    assert flaw(np.full((5, 2), np.nan)) == NOT_FINITE
    one = np.ones((5, 2))
    one[:, 1] = RNG.standard_normal(5)
    assert flaw(one) == ""  # one that varies is enough


def test_an_interval_needs_four_folds_and_is_of_logarithms_where_there_is_no_upper_end() -> None:
    others = [1.0, 1.5, 2.0, 2.5]
    assert folded_moments.bounds(1.7, others[:3])[2] == FEW
    low, high, why = folded_moments.bounds(0.5, [0.4, 0.5, 0.6, 0.45])
    assert why == ""
    assert 0 <= low < 0.5 < high <= 1
    assert folded_moments.bounds(1.7, [*others, np.nan])[2] == FEW
    assert folded_moments.bounds(1.0, [1.0] * 4)[2] == ALIKE
    low, high, _ = folded_moments.bounds(1.7, others, None)
    tenfold = folded_moments.bounds(17.0, [10 * other for other in others], None)[:2]
    assert tenfold == pytest.approx((10 * low, 10 * high))
    assert low > 0
    assert low * high == pytest.approx(1.7**2)  # as far up as down, as ratios


def test_similarity_needs_four_probes_that_vary() -> None:
    assert prepared._flaw(X[:4]) == ""
    assert prepared._flaw(X[:3]) == FEW
    assert prepared._flaw(np.ones((4, 2))) == DEAD
    assert prepared._flaw(ROUNDED) == DEAD
    assert prepared._flaw(np.where(X > 2, np.inf, X)) == NOT_FINITE


def test_representation_needs_two_probes_that_vary_and_two_features_for_sparsity() -> None:
    assert cell._flaw(X[:2]) == ""
    assert cell._flaw(X[:1]) == FEW
    assert cell._flaw(np.zeros((1, 2))) == ZERO
    assert cell._flaw(np.ones((4, 2))) == DEAD
    assert cell._flaw(ROUNDED) == DEAD
    assert cell._sparsity(X[:, :2])[1] == {}
    assert cell._sparsity(X[:, :1])[1] == {"sparsity_status": cell.ONE_FEATURE}
    some = np.vstack([0.1 * X, np.zeros((3, 6))])
    assert cell._sparsity(some) == cell._sparsity(0.1 * X)  # what is zero has none
    assert cell._sparsity(some)[0] == pytest.approx(cell._sparsity(X)[0])


def test_dimensions_of_a_half_and_a_quarter_need_eight_probes_each() -> None:
    names = ("two_nn", "two_nn_half", "two_nn_quarter")
    for count, there in ((32, 3), (31, 2), (16, 2), (15, 1), (8, 1), (7, 0)):
        values, reasons = cell._dimension(X[:count], 0)
        assert [name for name in names if name in values] == list(names[:there])
        assert [reasons.get(f"{name}_status") for name in names] == [None] * there + [FEW] * (3 - there)
    twice = np.repeat(X[:7], 2, axis=0)
    assert cell._dimension(twice, 0)[1]["two_nn_status"] == cell.DUPLICATES
    assert cell._dimension(twice, 0)[0]["duplicates"] == 7


def test_manifolds_need_two_classes_of_two_probes() -> None:
    def reason(*counts: int, unknown: int = 0) -> str:
        labels = np.r_[np.repeat(np.arange(len(counts)), counts), np.full(unknown, -1)]
        return cell._manifolds(X[: len(labels)], labels)[1].get("manifold_radius_status", "") or next(
            iter(cell._manifolds(X[: len(labels)], labels)[1].values()), ""
        )

    assert reason(8, 8) == ""
    assert reason(2, 2, 1) == reason(8, 7) == cell.FEW_IN_CLASS
    assert reason(5, 1) == FEW
    assert reason(5, 0) == ONE_CLASS
    assert reason(unknown=5) == NO_LABELS


def test_a_reader_needs_two_images_and_two_classes() -> None:
    classes = OWN % 2

    def made(x: NDArray[Any], labels: NDArray[Any], origins: NDArray[Any]) -> Any:
        found = Reader.of(x, labels, origins)
        return found if isinstance(found, str) else ""

    assert made(X[:2], classes[:2], OWN[:2]) == ""
    assert made(X[:2], classes[:2], np.zeros(2, int)) == FEW
    assert made(X[:2], np.zeros(2, int), OWN[:2]) == ONE_CLASS
    assert made(X[:3], np.array([0, 1, -1]), OWN[:3]) == ""
    assert made(X[:2], np.array([-1, -1]), OWN[:2]) == NO_LABELS
    assert made(X[:0], classes[:0], OWN[:0]) == NO_TRAINING_PROBES


def test_a_layer_s_probe_needs_two_of_each_class_on_average_and_two_images() -> None:
    def made(labels: list[int], origins: list[int]) -> Any:
        found = LayerProbe.of(torch.from_numpy(X[: len(labels)]), np.array(labels), np.array(origins))
        return found if isinstance(found, str) else ""

    assert made([0, 0, 0, 1], [0, 1, 2, 3]) == ""
    assert made([0, 0, 1], [0, 1, 2]) == FEW
    assert made([0, 0, 1, 1], [0, 0, 0, 0]) == FEW
    assert made([0, 0, 1, 1], [0, 0, 0, 1]) == ""
    assert made([0, 0, 0, 0], [0, 1, 2, 3]) == ONE_CLASS
    nothing = torch.ones(4, 2)
    assert LayerProbe.of(nothing, np.array([0, 0, 1, 1]), np.arange(4)) == DEAD
    nothing[0, 0] = torch.nan
    assert LayerProbe.of(nothing, np.array([0, 0, 1, 1]), np.arange(4)) == NOT_FINITE


def test_correlations_need_five_images_classes_and_checkpoints() -> None:
    shift, loss = X[:, 0], X[:, 1]

    def over_images(images: int) -> str:
        return correlations.with_loss(shift[:9], loss[:9], np.minimum(OWN[:9], images - 1), 0)[1].get("loss_status", "")

    assert (over_images(5), over_images(4)) == ("", FEW)

    def over_classes(classes: int, known: int) -> str:
        means = dict.fromkeys(range(known), 0.5)
        return correlations.over_classes(shift, loss, OWN % classes, means, 0)[1].get("class_status", "")

    assert (over_classes(5, 9), over_classes(4, 9)) == ("", correlations.FEW_CLASSES)
    assert (over_classes(9, 5), over_classes(9, 4)) == ("", correlations.FEW_CLASSES)
    values, _ = correlations.over_classes(shift, loss, OWN % 5, dict.fromkeys(range(5), 0.5), 0)
    of_class = [(shift[c == OWN % 5].mean(), loss[c == OWN % 5].mean() - 0.5) for c in range(5)]
    assert values["class_correlation"] == pytest.approx(np.corrcoef(np.array(of_class).T)[0, 1])

    def over_checkpoints(count: int) -> dict[str, str]:
        mine = OWN % 2 == 0
        curves = (RNG.standard_normal((count, 40)) for _ in range(2))
        return correlations.over_checkpoints(*curves, mine, ~mine, OWN, 0, same=False)[1]

    assert over_checkpoints(5).get("gap_status", "") == ""
    assert over_checkpoints(4)["gap_status"] == correlations.FEW_CHECKPOINTS


@pytest.mark.parametrize("players", [3, 4])
def test_the_decay_needs_four_players(players: int) -> None:
    v = RNG.standard_normal((1, 6, 2**players)).astype(np.float32)
    tables = Joined(v, {}, np.array(["train"] * 6, dtype=object), np.arange(6))
    found = Labels([tables], ["train"], GeneralizationOptions()).at((0, 0)).sets["train"]
    assert (found.decay_reason == FEW_ORDERS) == (players == 3)
    assert ("decay_share" in found.values) == (players == 4)


def test_phases_need_three_checkpoints_two_probes_and_four_players() -> None:
    def reasons(
        steps: int = 5, probes: int = 4, players: int = 4, losses: int = 2, in_a_row: int = 3
    ) -> dict[str, str]:
        strength = RNG.uniform(0.1, 1, (steps, probes, players))
        both = tuple(RNG.uniform(0, 1, (steps, n)) for n in (4, losses))
        origins = (np.arange(4), np.arange(losses))
        curves = phases.Curves(np.arange(steps) * 10.0, strength, {}, np.arange(probes), both, origins)  # type: ignore[arg-type]
        return phases.phases(curves, phases.DECAY, GeneralizationOptions(in_a_row=in_a_row))[1]

    assert set(reasons(steps=2).values()) == {phases.FEW_STEPS}
    assert set(reasons(probes=1).values()) == {phases.FEW_PROBES}
    assert set(reasons(players=3).values()) == {FEW_ORDERS}
    for enough in (reasons(steps=4), reasons(probes=2), reasons()):
        assert {phases.FEW_STEPS, phases.FEW_PROBES, FEW_ORDERS, phases.NO_LOSSES}.isdisjoint(enough.values())
    assert reasons(losses=1)["third_phase_status"] == phases.NO_LOSSES
    assert reasons(steps=3, in_a_row=3)["third_phase_status"] == phases.FEW_STEPS
    assert reasons(steps=3, in_a_row=2)["third_phase_status"] in ("", phases.NO_BOUNDARY)


def test_isotropy_needs_four_draws_of_two_coordinates_that_vary() -> None:
    def why(x: NDArray[Any]) -> str:
        return isotropy_cells.untestable(Gram.of(x), "estimated")

    assert why(X[:4]) == ""
    assert why(X[:3]) == FEW
    assert why(X[:8, :2]) == ""
    assert why(X[:8, :1]) == isotropy_cells.ONE_DIMENSION
    assert why(np.ones((8, 3))) == isotropy_cells.ALIKE


@pytest.mark.parametrize("name", FAMILY)
def test_a_test_s_rules_are_what_its_words_say(name: str) -> None:
    rule = FAMILY[name]
    said = {
        "": lambda m, p: True, "p < m": lambda m, p: p < m, "p > m": lambda m, p: p > m, "m > 3": lambda m, p: m > 3,
        "p at most m / 5": lambda m, p: 5 * p <= m, "p of at least 5 m": lambda m, p: p >= 5 * m,
        "m of at least 10": lambda m, p: m >= 10, "m and p of at least 10": lambda m, p: m >= 10 and p >= 10,
    }  # fmt: skip
    for m in range(2, 61):
        for p in range(2, 61):
            assert bool(rule.possible(m, p)) == said[rule.needs](m, p), (m, p)
            assert bool(rule.accurate(m, p)) == said[rule.regime](m, p), (m, p)


def test_a_spectrum_has_a_power_law_of_variances_that_differ() -> None:
    cross = np.vstack([np.eye(5), -np.eye(5)])  # of one length along each axis
    assert cell._spectrum(cross, 0.2, 0.0, 1)[1] == {"power_status": cell.EQUAL}
    assert cell._spectrum(cross * np.arange(1, 6), 1.0, 0.0, 1)[1] == {}
    assert cell._spectrum(cross[:, :1], 1.0, 0.0, 1)[1] == {"power_status": cell.FEW_DIRECTIONS}
    assert cell._spectrum(cross * np.arange(1, 6), 1.0, 0.0, 5)[1] == {"power_status": cell.FEW_DIRECTIONS}


def test_classes_of_one_point_are_no_manifolds() -> None:
    labels = np.repeat([0, 1], 8)
    apart = np.eye(4)[labels]
    assert cell._manifolds(apart, labels) == ({}, dict.fromkeys(cell.BY_CLASS, cell.POINTS))
    values, reasons = cell._manifolds(apart + 0.1 * X[:16, :4], labels)
    assert reasons == {}
    assert np.isfinite(list(values.values())).all()


def test_a_margin_needs_a_label_that_was_learned_and_rows_that_differ() -> None:
    reader = Reader.of(X[:20], OWN[:20] % 2, OWN[:20])
    assert isinstance(reader, Reader)
    for labels, said in (
        (np.full(5, 3), margin.UNSEEN),
        (np.full(5, -1), NO_LABELS),
        (np.r_[-1, 3, 3, 3, -1], margin.UNSEEN),
    ):
        assert reader.margins(X[20:25], labels, OWN[20:25]) == ({}, said)
    found, said = reader.margins(X[20:25], np.r_[3, 0, -1, 1, 0], OWN[20:25])
    known, _ = reader.margins(X[[21, 23, 24]], np.r_[0, 1, 0], OWN[[21, 23, 24]])
    assert (found, said) == (known, "")
    later = Reader.of(X[:20], OWN[:20] % 2 + 1, OWN[:20])
    assert isinstance(later, Reader)
    assert later.margins(X[20:25], np.zeros(5, int), OWN[20:25]) == ({}, margin.UNSEEN)
    still = Reader.of(np.ones((6, 2)), OWN[:6] % 2, OWN[:6])
    assert isinstance(still, Reader)
    assert still.margins(X[:3, :2], OWN[:3] % 2, OWN[:3]) == ({}, margin.WITHOUT_ROWS)


def test_dissimilarities_that_are_all_equal_have_no_order() -> None:
    equal, other = (prepared.Ready.of(x, 0, 0.0) for x in (np.eye(5), X[:5]))
    for pair in ((equal, other), (other, equal)):
        values, reasons = prepared.compared(*pair)
        assert reasons["rsa_status"] == prepared.NO_ORDER
        assert "rsa" not in values
    assert prepared.compared(other, other)[0]["rsa"] == pytest.approx(1)


def test_a_set_without_finite_tables_and_a_cut_without_baseline_say_so() -> None:
    v = RNG.standard_normal((2, 8, 16)).astype(np.float32)
    v[1, 4:] = np.nan
    splits = np.array(["train", "test"], dtype=object)[OWN[:8] // 4]
    other = RNG.standard_normal((1, 8, 16)).astype(np.float32)
    cuts = [Joined(v, {"near": other, "far": other}, splits, OWN[:8]), Joined(v, {"near": other}, splits, OWN[:8])]
    labels = Labels(cuts, ["train", "test"], GeneralizationOptions())
    assert labels.at((0, 0)).sets["test"].reason == ""
    lost = labels.at((0, 1))
    assert (lost.sets["train"].reason, lost.sets["test"].reason) == ("", NO_PROBE)
    assert np.isnan(lost.loss[4:]).all()
    assert np.isfinite(lost.loss[:4]).all()
    assert lost.losses == ({}, {})  # a gap is between two sets
    alone = labels.at((1, 0)).sets["train"]
    assert {name: why for name, (_, why) in alone.references.items()} == {"near": "", "far": NO_CUT}
    assert alone.pairs == {"near | far": ({}, NO_CUT)}
    assert labels.at((0, 0)).sets["train"].pairs["near | far"][1] != NO_CUT
    curves = phases.Curves(
        np.arange(4.0), np.abs(v[[0] * 4, :, :4]), {}, OWN[:8], (np.abs(v[[0] * 4, :, 0]),) * 2, (OWN[:8],) * 2
    )  # type: ignore[arg-type]
    assert set(phases.phases(curves, "far", GeneralizationOptions())[1].values()) == {NO_CUT}


def test_copies_change_nothing_of_labels_beside_baselines() -> None:
    """Exact copies have the values and limits of their images alone."""
    rng, names = np.random.default_rng(3), np.full(30, "test", dtype=object)
    v, a, b = rng.standard_normal((3, 1, 6, 16)).astype(np.float32)

    def of(places: NDArray[Any]) -> Any:
        taken = Joined(v[:, places], {"a": a[:, places], "b": b[:, places]}, names[: len(places)], places)
        return Labels([taken], ["test"], GeneralizationOptions()).at((0, 0)).sets["test"]

    alone, copied = of(np.arange(6)), of(np.tile(np.arange(6), 5))
    for one, many in ((alone.references, copied.references), (alone.pairs, copied.pairs)):
        for name, (values, why) in one.items():
            assert many[name][1] == why
            for key in values.keys() & {"chance", "beyond_chance_low", "kappa", "kappa_low", "kappa_high"}:
                assert many[name][0][key] == pytest.approx(values[key], abs=1e-6), key
    single = of(np.zeros(5, int))  # one image has nobody to be paired with
    assert np.isnan([single.references["a"][0][key] for key in ("chance", "beyond_chance")]).all()


def test_a_null_without_a_pattern_has_its_reason() -> None:
    shift, loss = np.abs(X[:8, 0]), X[:8, 1]
    assert "null_status" not in pattern_shift._of_set(shift, shift, loss, OWN[:8], 0)[1]
    values, reasons = pattern_shift._of_set(shift, shift * np.nan, loss, OWN[:8], 0)
    assert "shift_shuffled" not in values
    assert reasons["null_status"] == pattern_shift.NONE_DEFINED
    one = pattern_shift._of_set(np.r_[shift[0], np.nan], shift[:2], loss[:2], OWN[:2], 0)
    assert one[0]["undefined"] == 1
    assert one[1]["shift_interval_status"] == FEW
    alike = pattern_shift._of_set(np.full(2, 0.5), shift[:2], loss[:2], OWN[:2], 0)
    assert alike[1]["shift_interval_status"] == ALIKE
    for shifts, end, limit in (([0.0, 0.0, 0.5], "low", 0), ([2.0, 2.0, 1.5], "high", 2)):
        assert pattern_shift._of_set(np.array(shifts), shift[:3], loss[:3], OWN[:3], 0)[0][f"shift_{end}"] == limit


def of_means(means: Any, outputs: Any = None, probes: int = 3, spread: float = 0.1) -> Any:
    means = np.asarray(means, float)
    labels = np.repeat(np.arange(len(means)), probes)
    x = means[labels] + spread * np.tile(np.linspace(-1, 1, probes), len(means))[:, None] * np.ones(means.shape[1])
    f = x if outputs is None else np.asarray(outputs, float)[labels]
    return accumulate(x, outputs=f, labels=labels, classes=len(means))


def test_each_measure_of_collapse_has_its_reason() -> None:
    measures = list(collapse.NAMES.values())
    assert measures == ["nc1", "nc2_norms", "nc2_angles", "nc2", "nc3"]

    def said(moments: Any, width: int = 3) -> list[str]:
        values, reasons = collapse._values(moments, width)
        assert [name for name in measures if not reasons[f"{name}_status"]] == list(values)
        return [reasons[f"{name}_status"] for name in measures]

    simplex = np.eye(3)
    assert said(of_means(simplex)) == [""] * 5
    assert said(of_means(simplex), 1) == ["", "", "", "", collapse.ONE_OUTPUT]
    assert said(of_means(simplex[:2])) == ["", *[collapse.TWO] * 3, ""]
    assert said(of_means(simplex, probes=1)) == [collapse.ALONE, "", "", "", ""]
    assert said(of_means(np.ones((3, 3)), simplex)) == [*[collapse.COINCIDE] * 4, ""]
    assert said(of_means(simplex, np.ones((3, 3)))) == ["", "", "", "", collapse.OUTPUTS_COINCIDE]
    line = of_means([[-1, 0, 0], [0, 0, 0], [1, 0, 0]], simplex, spread=0.0)
    assert said(line) == ["", "", collapse.AT_CENTRE, "", ""]


def test_features_that_vary_by_more_than_their_last_bit_can_be_compared() -> None:
    last = float(np.finfo(np.float32).eps)
    for z, why in (
        ([[1, 5], [1, 5]], DEAD), ([[1, 5], [1 + 2 * last, 5]], DEAD), ([[1.0, 5], [1 + 6 * last, 5]], ""),
        ([[1 + last, 0], [1, 0]], DEAD), ([[1 + 2 * last, 0], [1, 0]], ""), ([[1, np.inf], [1, 2]], NOT_FINITE),
        ([[0, 0], [0, 0]], DEAD), ([[0, 0], [0, 1e-30]], ""),
    ):  # fmt: skip
        assert similarity_of_features._flaw(torch.tensor(z, dtype=torch.float32)) == why


def test_draws_that_rounding_has_left_no_direction_are_left_out() -> None:
    options = LayerIsotropyOptions()

    def found(*rows: Any) -> tuple[str, int]:
        (reason, _), count = layer_isotropy._cell(np.vstack(rows).astype(np.float32), options)
        return reason, count

    longest = np.linalg.norm(X[:8], axis=1).max()
    short = X[8:9] / np.linalg.norm(X[8]) * longest
    assert found(X[:8], 0 * X[:1]) == ("", 8)
    assert found(X[:8], 1.1e-6 * short) == ("", 9)
    assert found(X[:8], 0.9e-6 * short, -0.9e-6 * short) == ("", 8)
    assert found(X[:4], 0 * X[:9]) == ("", 4)
    assert found(X[:3], 0 * X[:9]) == (FEW, 3)
    assert found(X[:8], np.nan * X[:1]) == (NOT_FINITE, 9)
    assert found(0 * X[:9]) == (isotropy_cells.ALIKE, 9)
    assert found(0 * X[:3]) == (FEW, 3)


def test_a_tangent_kernel_is_beside_the_first_the_one_before_and_targets() -> None:
    kernels = [z @ z.T for z in RNG.standard_normal((3, 7, 9))]
    wanted, options = np.eye(3)[np.arange(7) % 3], TangentKernelOptions(shuffles=5, seed=4)

    def said(kernel: Any = kernels[2], first: Any = kernels[0], before: Any = kernels[1], wanted: Any = wanted,
             options: Any = options) -> tuple[dict[str, Any], dict[str, str]]:  # fmt: skip
        values, reasons = tangent_kernel._measured(kernel, first, before, wanted, options)
        for name in tangent_kernel.COMPARED:
            assert (name in values) == (not reasons[f"{name}_status"])
        return values, {name: why for name, why in reasons.items() if why}

    values, reasons = said()
    assert reasons == {}
    measures = {
        "deviation": lambda kept: ntk.ntk_deviation(kernels[0][kept], kernels[2][kept]),
        "change": lambda kept: ntk.ntk_deviation(kernels[1][kept], kernels[2][kept]),
        "alignment": lambda kept: ntk.label_alignment(kernels[2][kept], wanted[kept[0].ravel()]),
    }
    for name, measure in measures.items():
        grids = [np.ix_(kept, kept) for kept in (np.delete(np.arange(7), i) for i in range(7))]
        whole = measure(np.ix_(np.arange(7), np.arange(7)))
        low, high, _ = folded_moments.bounds(whole, [measure(grid) for grid in grids])
        assert [values[f"{name}{end}"] for end in ("", "_low", "_high")] == pytest.approx([whole, low, high])
    assert values["gradient_square"] == pytest.approx(kernels[2].diagonal().mean())
    random = np.random.default_rng(4)
    dealt = [ntk.label_alignment(kernels[2], random.permutation(wanted)) for _ in range(5)]
    assert values["alignment_shuffled"] == pytest.approx(np.mean(dealt))

    def both(name: str, why: str) -> dict[str, str]:
        return {f"{name}_status": why, f"{name}_interval_status": why}

    nothing, lost = 0 * kernels[0], kernels[0] * np.nan
    assert said(before=None)[1] == both("change", tangent_kernel.NO_EARLIER)
    assert said(before=nothing)[1] == both("change", tangent_kernel.ZERO_KERNEL)
    assert said(first=lost)[1] == both("deviation", NOT_FINITE)
    assert said(first=nothing)[1] == both("deviation", tangent_kernel.ZERO_KERNEL)
    for kernel, why in ((nothing, tangent_kernel.ZERO_KERNEL), (lost, NOT_FINITE)):
        assert said(kernel) == ({}, dict.fromkeys(tangent_kernel.STATUSES, why))
    assert said(wanted="none")[1] == both("alignment", "none") | {"shuffled_status": "none"}
    alike = tangent_kernel.ALIKE_TARGETS
    assert said(wanted=np.ones((7, 2)))[1] == both("alignment", alike) | {"shuffled_status": alike}
    without, reasons = said(options=TangentKernelOptions(shuffles=0))
    assert reasons == {"shuffled_status": tangent_kernel.NOT_ASKED}
    assert without == {name: value for name, value in values.items() if name != "alignment_shuffled"}
    one, reasons = said(*[np.ones((1, 1))] * 3, wanted[:1])
    assert one == {"gradient_square": 1.0}
    every = {k: v for name in tangent_kernel.COMPARED for k, v in both(name, FEW).items()}
    assert reasons == every | {"shuffled_status": FEW}
    two = said(*[kernel[:2, :2] for kernel in kernels[::-1]], wanted[:2])
    assert "deviation" in two[0]
    assert two[1]["deviation_interval_status"] == FEW


def test_weights_have_a_length_and_a_way_where_they_were_recorded() -> None:
    states = [{"a": torch.randn(3, 2), "b.running_mean": torch.ones(4), "b.weight": torch.randn(4)} for _ in range(3)]
    states[1] |= {"b.running_var": torch.ones(4), "n": torch.tensor(7), "b.num_batches_tracked": torch.tensor(1.0)}
    states += [
        {"a": torch.randn(3, 2)},
        {**states[0], "a": torch.randn(2, 3)},
        {**states[0], "a": states[0]["a"] * torch.inf},
    ]
    files = [("layers/model.safetensors", 60), ("x/optimizer.safetensors", 9), ("state/model.safetensors", 7)]

    def run(recorded: set[int]) -> Any:
        def listed(t: int) -> Any:
            found = [(path, size) for path, size in files if t in recorded or not path.endswith("/model.safetensors")]
            return lambda place: [SimpleNamespace(path=path, size=size) for path, size in found]

        commits = [SimpleNamespace(kind="result", name="0", files=None)]
        commits += [SimpleNamespace(kind="checkpoint", name=str(t), files=listed(t)) for t in range(len(states))]
        return SimpleNamespace(commits=commits, place=None, state=states.__getitem__)

    every = run(set(range(9)))
    assert richness_weights.weight_bytes(every, 1) == 67
    first, own = (torch.cat([states[t][name].flatten() for name in ("a", "b.weight")]) for t in (0, 1))
    values, why = richness_weights.weights(every, 1)
    assert why == ""
    assert values["parameter_norm"] == pytest.approx(float(own.norm()))
    assert values["parameter_distance"] == pytest.approx(float((own - first).norm()))
    for t, said in ((0, ""), (2, ""), (3, "OTHERS"), (4, "OTHERS"), (5, NOT_FINITE)):
        assert richness_weights.weights(every, t)[1] == getattr(richness_weights, said, said)
    for recorded in ({0}, {1}):
        assert richness_weights.weights(run(recorded), 1) == ({}, richness_weights.NOT_RECORDED)


def test_each_measure_of_similarity_has_its_reason() -> None:
    def said(x: NDArray[Any], y: NDArray[Any]) -> dict[str, str]:
        one, other = (prepared.Ready.of(z, 0, 0.0) for z in (x, y))
        values, reasons = prepared.compared(one, other)
        assert values.keys() & {name.removesuffix("_status") for name in reasons} <= {"cca", "svcca", "pwcca"}
        assert {"procrustes", "angular", "imbalance"} <= values.keys()
        assert values["procrustes"] == pytest.approx(alike.procrustes(x, y), abs=1e-9)
        assert values["angular"] == pytest.approx(alike.angular(x, y), abs=1e-7)
        return {name.removesuffix("_status"): why for name, why in reasons.items()}

    assert said(X[:12, :3], X[:12, 3:]) == {}
    assert said(X[:11, :3], X[:11, 3:]) == {}
    assert said(X[:10, :3], X[:10, 3:]) == {"jaccard": FEW}  # ten neighbours beside oneself
    alone = {"rsa": prepared.EQUAL_FEATURES, "jaccard": prepared.TIED}  # of one feature cosines are 1 or -1
    assert said(X[:12, :1], X[:12, 3:]) == said(X[:12, 3:], X[:12, :1]) == alone
    wide = RNG.standard_normal((12, 13))
    for x, y in ((wide, X[:12]), (X[:12], wide), (wide[:, :11], X[:12]), (wide[:, :12], wide)):
        variables = dict.fromkeys(("cca", "pwcca"), prepared.VARIABLES)
        found = said(x, y)
        assert {name: found[name] for name in variables} == variables
    assert said(wide[:, :4], X[:12]) == {}
    tied = np.vstack([np.repeat(X[:1], 12, 0), X[:4]])
    assert said(tied, X[:16])["jaccard"] == said(X[:16], tied)["jaccard"] == prepared.TIED


def test_folds_have_each_class_in_its_share_where_there_are_equally_many() -> None:
    def planned(*counts: int) -> bool:
        classes = np.r_[np.repeat(np.arange(len(counts)), counts), [7] * 5]
        member = np.arange(len(classes)) < len(classes) - 5
        found = richness._planned(classes, member)
        assert found is None or found is classes
        return found is not None

    assert planned(3, 3, 3)
    assert planned(3, 2, 3)
    assert planned(4)
    assert not planned(4, 2, 3)
    assert not planned()
    assert richness._planned(None, OWN > 3) is None


@pytest.mark.parametrize("scale", [1e-3, 1.0, 37.0])
def test_margins_are_distances_in_the_features_own_unit(scale: float) -> None:
    """Of ridge regression in the primal; probes whose label no training probe has are left out."""
    rng = np.random.default_rng(1)
    names = np.array([2, 3, 5, 9])
    labels, origins = names[rng.integers(0, 4, 60)], rng.integers(0, 25, 60)
    x = scale * (rng.standard_normal((60, 5)) + names.searchsorted(labels)[:, None] * rng.standard_normal(5) + 4)
    train, new = slice(0, 36), slice(36, 60)
    origins[new] += 25  # other images: the regression of each is the same
    given = labels.copy()
    given[[0, 40]], given[41] = -1, 4
    reader = Reader.of(x[train], given[train], origins[train])
    assert isinstance(reader, Reader)
    known, asked = np.flatnonzero(given[train] >= 0), 36 + np.flatnonzero(np.isin(given[new], names))
    z = x[known] - x[known].mean(0)
    y = (given[known, None] == names).astype(float)
    penalty = reader.probe.penalty * np.square(z).sum(1).mean()
    w = np.linalg.solve(z.T @ z + penalty * np.eye(5), z.T @ (y - y.mean(0)))
    scores = (x[asked] - x[known].mean(0)) @ w + y.mean(0)
    wanted = []
    for score, label in zip(scores, names.searchsorted(given[asked]), strict=True):
        rival = max((j for j in range(4) if j != label), key=lambda j: score[j])
        wanted.append((score[label] - score[rival]) / np.linalg.norm(w[:, label] - w[:, rival]))
    found, why = reader.margins(x[new], given[new], origins[new])
    interval = mean_interval(np.array(wanted), groups=origins[asked])
    assert why == ""
    assert [found[f"margin{end}"] for end in ("", "_low", "_high")] == pytest.approx(
        [interval.estimate, interval.low, interval.high], rel=1e-6
    )
    assert found["margin_positive"] == pytest.approx(np.mean(np.array(wanted) > 0))


def test_a_spectrum_is_what_singular_values_say() -> None:
    x = X - X.mean(0)
    s = np.linalg.svd(x, compute_uv=False)
    found, variances = cell._spectrum(x, 1.0, 0.0, 1)[0], s**2
    entropy = lambda q: np.exp(-(q / q.sum() * np.log(q / q.sum())).sum())  # noqa: E731
    wanted = {
        "effective_rank": entropy(s), "effective_rank_variance": entropy(variances),
        "participation_ratio": variances.sum() ** 2 / (variances**2).sum(),
        "stable_rank": variances.sum() / variances[0],
        "proportional_effective_rank": entropy(s) / 6, "rank": 6, "condition_number": s[0] / s[-1],
    }  # fmt: skip
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)
    for first in (1, 3):
        exponent = -np.polyfit(np.log(np.arange(first, 7)), np.log(variances[first - 1 :]), 1)[0]
        assert cell._spectrum(x, 1.0, 0.0, first)[0]["power_law_exponent"] == pytest.approx(exponent)
    thin = x * [1, 1, 1, 1, 1, 1e-4]
    assert cell._spectrum(thin, 1.0, 0.0, 1)[0]["rank"] == 6
    assert cell._spectrum(thin, 1.0, 1e-4, 1)[0]["rank"] == 5  # what rounding to the stored type may leave


def test_richness_needs_features_and_outputs_that_vary_and_more_probes_than_directions() -> None:
    options = RichnessOptions()

    def said(x: NDArray[Any], f: NDArray[Any]) -> str:
        with np.errstate(invalid="ignore"):
            moments = accumulate(np.asarray(x, float), outputs=np.asarray(f, float))
        found, why = richness_cell._low_rank(moments, options, int(moments.count))
        assert (found is None) == bool(why)
        return why

    assert said(X, X[:, :3]) == ""
    assert said(np.ones((9, 3)), X[:9]) == DEAD
    assert said(X[:9] * np.nan, X[:9]) == NOT_FINITE
    assert said(X[:9], np.ones((9, 3))) == said(X[:9], np.zeros((9, 3))) == richness_cell.OUTPUTS_STILL
    assert said(X[:9], np.where(np.eye(9, 3) > 0, np.inf, 1.0)) == NOT_FINITE
    assert said(np.ones((9, 3)), np.full((9, 3), np.nan)) == DEAD  # features come first
    assert (said(X[:5], X[:5, :3]), said(X[:4], X[:4, :3])) == ("", FEW)


def test_the_first_checkpoint_s_features_have_one_reason_or_are_not_finite() -> None:
    def said(first: NDArray[Any]) -> str:
        with np.errstate(invalid="ignore"):
            return richness_cell._first_flaw(accumulate(X[: len(first)], outputs=np.asarray(first, float)))

    assert said(X[:5]) == ""
    assert said(np.ones((5, 2))) == said(np.zeros((5, 2))) == said(X[:1]) == richness_cell.FIRST
    assert said(np.full((5, 2), np.inf)) == NOT_FINITE


def test_targets_that_are_zero_or_that_some_probes_lack_have_their_reason() -> None:
    values, known = np.ones((6, 2)), OWN[:6] > 0
    for goal, member, why in (
        (X[:6], OWN[:6] > 0, ""),
        (X[:6], OWN[:6] >= 0, UNKNOWN),
        (0 * X[:6], OWN[:6] > 1, "zero"),
    ):
        found = richness_cell._target_flaw(Targets(values, known, None), member, accumulate(X[:6], outputs=goal))
        assert found == {"zero": richness_cell.ALL_ZERO}.get(why, why)
    none = Targets(values[:, :0], known, None)
    assert richness_cell._target_flaw(none, known, accumulate(X[:6], outputs=X[:6])) == NO_TARGETS
