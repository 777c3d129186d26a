"""Feature metrics, neural collapse, and how far kernels and parameters moved, beside definitions written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from featdyn.statistics.representation import class_manifolds
from featdyn.statistics.richness import (
    feature_metrics,
    kernel_deviation,
    kernel_deviation_of_moments,
    neural_collapse,
    of_class_moments,
    parameter_distance,
    parameter_norm,
)
from featdyn.statistics.richness.ntk import empirical_ntk, label_alignment, ntk_deviation
from featdyn_kernels.moments import accumulate
from tests.strategies import sizes


def projection(y):
    u, s, _ = np.linalg.svd(y, full_matrices=False)
    u = u[:, s > 1e-6 * s[0]]
    return u @ u.T


def labelled(seed, n=60, p=9, classes=4):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    labels[:classes] = range(classes)
    x = rng.standard_normal((n, p)) + 2 * rng.standard_normal((classes, p))[labels] + 1
    return x, labels, rng


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 999), p=sizes(1, 20))
def test_metrics_are_those_of_the_eigenfunctions(seed, p):
    """From the N x N kernel, whose eigenvectors are the eigenfunctions at the samples."""
    x, labels, rng = labelled(seed, p=p)
    targets, outputs = np.eye(4)[labels], x @ rng.standard_normal((p, 3))
    found = feature_metrics(x, outputs, targets)
    rho, e = np.linalg.eigh(x @ x.T / 60)
    rho, e = rho[::-1][:p], e[:, ::-1][:, :p]
    np.testing.assert_allclose(found.intensity, rho / rho[0], rtol=1e-8)
    np.testing.assert_allclose(found.utilisation, ((projection(outputs) @ e) ** 2).sum(0), atol=1e-8)
    np.testing.assert_allclose(found.quality, ((projection(targets) @ e) ** 2).sum(0), atol=1e-8)
    share = rho / rho.sum()
    assert found.effective_dimension == pytest.approx(np.exp(-(share * np.log(share)).sum()))
    assert found.cumulative_utilisation[-1] == pytest.approx(1)  # a head without bias
    assert found.output_rank == min(p, 3)
    small = feature_metrics(1e-3 * x, 1e-5 * outputs, 1e-4 * targets)
    np.testing.assert_allclose([small.quality, small.utilisation], [found.quality, found.utilisation], atol=1e-9)
    functions = found.extend(x)
    np.testing.assert_allclose(functions.T @ functions / 60, np.eye(p), atol=1e-7)
    np.testing.assert_allclose(abs(functions[:, 0]), abs(e[:, 0]) * np.sqrt(60), rtol=1e-6, atol=1e-8)


def test_all_quality_is_the_best_linear_fit():
    x, _, rng = labelled(0)
    target = rng.standard_normal(60)
    found = feature_metrics(x, x[:, :2], target)
    fit = x @ np.linalg.lstsq(x, target, rcond=None)[0]
    assert found.cumulative_quality[-1] == pytest.approx((fit**2).sum() / (target**2).sum())
    biased = feature_metrics(x - x.mean(0), x[:, :2] + 100, target)
    assert biased.cumulative_utilisation[-1] < 0.7  # the constant is none of the features


@pytest.mark.parametrize(
    ("share", "tolerance", "counts"), [(1e-3, 1e-2, False), (1e-3, 1e-4, True), (1e-9, 1e-6, False)]
)
def test_directions_below_the_tolerance_count_for_none(share, tolerance, counts):
    """Of two directions of outputs, or of targets, the second is so much weaker."""
    x, _, rng = labelled(4)
    both = np.linalg.qr(rng.standard_normal((60, 2)))[0]
    held = both if counts else both[:, :1]
    weak = (both * [1, share]) @ [[0.6, 0.8], [-0.8, 0.6]]
    strong, rank = rng.standard_normal((60, 3)), 1 + counts
    one = feature_metrics(x, weak, strong, tolerance=tolerance)
    other = feature_metrics(x, strong, weak, tolerance=tolerance)
    wanted = feature_metrics(x, held, strong)
    assert (one.output_rank, other.target_rank, one.target_rank) == (rank, rank, 3)
    np.testing.assert_allclose(one.utilisation, wanted.utilisation, rtol=1e-6)
    np.testing.assert_allclose(other.quality, wanted.utilisation, rtol=1e-6)
    np.testing.assert_allclose(other.cumulative_quality, np.cumsum(wanted.utilisation) / rank, rtol=1e-6)


def test_dead_directions_and_zeros():
    x, labels, _ = labelled(1)
    x[:, 3:] = 0
    assert len(feature_metrics(x, x[:, :2], labels + 1.0).quality) == 3
    for features, outputs, targets, name in (
        (0 * x, x, labels + 1.0, "features"), (x, 0 * x, labels + 1.0, "outputs"), (x, x, 0.0 * labels, "targets"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"{name} must not all be zero"):
            feature_metrics(features, outputs, targets)
    with pytest.raises(ValueError, match=r"features must have shape \(M, 9\)"):
        feature_metrics(x, x, labels + 1.0).extend(np.ones((4, 10)))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 999), p=sizes(2, 12))
def test_collapse_is_that_of_its_formulas(seed, p):
    x, labels, rng = labelled(seed, p=p)
    w, b = rng.standard_normal((4, p)), rng.standard_normal(4)
    found = neural_collapse(x, labels, outputs=x @ w.T + b, weight=w)
    means = np.stack([x[labels == c].mean(0) for c in range(4)])
    m = means - means.mean(0)
    within = (x - means[labels]).T @ (x - means[labels]) / 60
    assert found.within == pytest.approx(np.trace(within @ np.linalg.pinv(m.T @ m / 4, rcond=1e-9)) / 4, rel=1e-6)
    lengths = np.linalg.norm(m, axis=1)
    assert found.norms == pytest.approx(lengths.std() / lengths.mean())
    cosines = [m[i] @ m[j] / lengths[i] / lengths[j] for i in range(4) for j in range(4) if i != j]
    assert found.angles == pytest.approx(np.mean(np.abs(np.array(cosines) + 1 / 3)))
    simplex = (np.eye(4) - 1 / 4) / np.sqrt(3)
    assert found.simplex == pytest.approx(np.linalg.norm(m @ m.T / np.linalg.norm(m @ m.T) - simplex))
    assert found.read_out == pytest.approx(np.linalg.norm(w @ m.T / np.linalg.norm(w @ m.T) - simplex))
    assert found.duality == pytest.approx(np.square(w / np.linalg.norm(w) - m / np.linalg.norm(m)).sum())
    nearest = np.linalg.norm(x[:, None] - means, axis=2).argmin(1)
    assert found.nearest == pytest.approx((nearest != (x @ w.T + b).argmax(1)).mean())


def test_a_simplex_has_collapsed():
    rng = np.random.default_rng(0)
    turned = np.linalg.qr(rng.standard_normal((12, 5)))[0]
    m = (np.eye(5) - 1 / 5) @ turned.T
    labels = np.arange(35) % 5
    found = neural_collapse(m[labels] + 3, labels, outputs=m[labels] @ m.T, weight=m)
    for value in (found.within, found.norms, found.angles, found.simplex, found.read_out, found.duality):
        assert value == pytest.approx(0, abs=1e-12)
    assert found.nearest == 0
    longer = neural_collapse(m[labels] * (1 + (labels == 0))[:, None], labels)
    assert longer.within == pytest.approx(0, abs=1e-12)
    assert longer.norms > 0.1


def test_absent_classes_are_left_out_and_one_class_is_refused():
    x, labels, rng = labelled(2)
    outputs, w, gap = rng.standard_normal((60, 9)), rng.standard_normal((9, 9)), np.array([0, 3, 5, 8])
    some = neural_collapse(x, labels, outputs=outputs[:, gap], weight=w[gap])
    spread = neural_collapse(x, gap[labels], outputs=outputs, weight=w)
    assert vars(spread) == pytest.approx(vars(some))
    assert vars(neural_collapse(x, gap[labels])) == pytest.approx(vars(neural_collapse(x, labels)), nan_ok=True)
    assert np.isnan(neural_collapse(x, labels, weight=0 * w).duality)
    with pytest.raises(ValueError, match="two classes at least, got 1"):
        neural_collapse(x, 0 * labels)
    same = neural_collapse(np.ones((6, 3)), np.arange(6) % 2)
    assert np.isnan([same.within, same.norms, same.angles, same.simplex]).all()


def test_collapse_of_moments_and_of_means_that_have_no_direction():
    x, labels, rng = labelled(5)
    outputs = rng.standard_normal((60, 4))
    whole = vars(neural_collapse(x, labels, outputs=outputs))
    first, second = (accumulate(x[at], outputs[at], labels[at], classes=4) for at in (slice(20), slice(20, None)))
    found = vars(of_class_moments(first + second))
    for name in ("within", "norms", "angles", "simplex", "read_out"):
        assert found[name] == pytest.approx(whole[name]), name
    few = of_class_moments(accumulate(x, outputs[:, :3], labels))
    assert np.isnan(few.read_out), "not a column for each class"
    assert np.isnan(of_class_moments(accumulate(x, labels=labels)).read_out)
    for count in (1, 2):
        some = labels < count
        if count < 2:
            with pytest.raises(ValueError, match="two classes at least, got 1"):
                of_class_moments(accumulate(x[some], labels=labels[some]))
        else:
            assert of_class_moments(accumulate(x[some], labels=labels[some])).angles == pytest.approx(0), "of two"
    middle = neural_collapse([[-1.0, 0], [-1, 0], [0, 0], [0, 0], [1, 0], [1, 0]], [0, 0, 1, 1, 2, 2])
    assert np.isnan(middle.angles)
    assert middle.norms == pytest.approx(np.std([1, 0, 1]) / (2 / 3))
    one_point = np.ones((6, 2)) * 3, np.arange(6) % 3
    apart = neural_collapse(*one_point, outputs=np.eye(3)[one_point[1]])
    assert np.isnan([apart.within, apart.angles]).all()
    assert apart.read_out == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="first network's features as their outputs"):
        kernel_deviation_of_moments(accumulate(x))


@pytest.mark.parametrize(("step", "seen"), [(1e-9, True), (1e-11, True), (1e-15, False)])
def test_class_means_that_differ_by_rounding_alone_are_one_point(step, seen):
    labels = np.arange(12) % 3
    found = neural_collapse(1 + step * np.eye(3)[labels], labels)
    assert np.isfinite(found.simplex) == seen


@pytest.mark.parametrize(("height", "dimensions"), [(1.0, 2), (1e-4, 2), (1e-6, 1)])
def test_class_means_span_what_is_above_a_share_of_the_largest(height, dimensions):
    """Of their squared singular values: the spread within classes along others is none of between."""
    means = np.array([[0, 0], [1, 0], [0, height]])
    spread = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
    labels = np.repeat([0, 1, 2], 4)
    found = neural_collapse(means[labels] + np.tile(spread, (3, 1)), labels)
    m = means - means.mean(0)
    values = np.linalg.eigvalsh(m.T @ m / 3)
    within = sum(0.5 / v for v in values[2 - dimensions :])  # spread is 1/2 along every direction
    assert found.within == pytest.approx(within / 3, rel=1e-5)


def test_eigenfunctions_that_rounding_may_make_are_dropped():
    rng = np.random.default_rng(7)
    x = (rng.standard_normal((90, 3)) @ rng.standard_normal((3, 20)) + 4).astype(np.float16)
    assert len(feature_metrics(x, x[:, :2], x[:, :1]).quality) == 4
    assert len(feature_metrics(x.astype(np.float64), x[:, :2], x[:, :1]).quality) == 20
    one = feature_metrics(np.outer(np.arange(1.0, 9), [1.0, 2.0]), np.ones((8, 1)), np.arange(8.0))
    assert len(one.quality) == 1
    assert one.extend([[1.0, 2.0]]).shape == (1, 1)


def test_the_tangent_kernel_leaves_out_what_is_not_trained():
    torch.manual_seed(1)
    network, inputs = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double(), torch.randn(3, 3).double()
    network[0].weight.requires_grad_(False)
    hidden = torch.tanh(network[0](inputs))
    rows = []
    for out in network[2](hidden).flatten():
        mine = [p for p in network.parameters() if p.requires_grad]
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(out, mine, retain_graph=True)]))
    jacobian = torch.stack(rows).numpy()
    np.testing.assert_allclose(empirical_ntk(network, inputs), jacobian @ jacobian.T, rtol=1e-10, atol=1e-12)
    network.requires_grad_(False)
    for directions, side in ((None, 6), (torch.eye(2), 3)):
        np.testing.assert_array_equal(empirical_ntk(network, inputs, directions), np.zeros((side, side)))


def test_kernels_that_turn():
    x, _, rng = labelled(3)
    y = np.hstack([x[:, :5], rng.standard_normal((60, 3))])
    found = kernel_deviation(x, y)
    h = np.eye(60) - 1 / 60
    k0, k1 = x @ x.T, y @ y.T
    assert found.cosine == pytest.approx((k0 * k1).sum() / np.linalg.norm(k0) / np.linalg.norm(k1))
    k0, k1 = h @ k0 @ h, h @ k1 @ h
    assert found.similarity == pytest.approx((k0 * k1).sum() / np.linalg.norm(k0) / np.linalg.norm(k1))
    assert found.deviation == 1 - found.similarity
    merged = accumulate(y[:7], x[:7]) + accumulate(y[7:], x[7:])
    assert kernel_deviation_of_moments(merged).similarity == pytest.approx(found.similarity, abs=1e-10)
    assert kernel_deviation_of_moments(merged).cosine == pytest.approx(found.cosine, abs=1e-10)
    assert kernel_deviation(x, 3 * x).deviation == pytest.approx(0, abs=1e-12)
    still = kernel_deviation(np.ones((60, 2)), x)
    assert np.isnan(still.similarity)
    assert 0 < still.cosine < 1


def test_the_tangent_kernel_is_that_of_autograd(monkeypatch):
    from featdyn.statistics.richness import ntk

    torch.manual_seed(0)
    network, inputs = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double(), torch.randn(5, 3).double()
    rows = []
    for out in network(inputs).flatten():
        gradients = torch.autograd.grad(out, list(network.parameters()), retain_graph=True)
        rows.append(torch.cat([g.flatten() for g in gradients]))
    jacobian = torch.stack(rows).numpy()
    found = empirical_ntk(network, inputs)
    np.testing.assert_allclose(found, jacobian @ jacobian.T, rtol=1e-10, atol=1e-12)
    apart, signs = jacobian.reshape(5, 2, -1), torch.tensor([[1.0, 1.0], [1.0, -1.0]]).double() / 2**0.5
    each = np.einsum("icp,jcp->ij", apart, apart) / 2
    for ways in (torch.eye(2), signs):  # of all signs the mean is that of the outputs themselves
        np.testing.assert_allclose(empirical_ntk(network, inputs, ways), each, rtol=1e-6)
    summed = apart.sum(1) / 2**0.5
    np.testing.assert_allclose(empirical_ntk(network, inputs, signs[:1]), summed @ summed.T, rtol=1e-10, atol=1e-12)
    other = {name: 2 * tensor for name, tensor in network.state_dict().items()}
    moved = empirical_ntk(network, inputs, state=other)
    network.load_state_dict(other)
    np.testing.assert_allclose(empirical_ntk(network, inputs), moved, rtol=1e-10)
    for block in (1, 16 * 10 * 7):  # a number after the other, and parts of parameters
        monkeypatch.setattr(ntk, "BLOCK", block)
        np.testing.assert_allclose(empirical_ntk(network, inputs), moved, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(np.trace(empirical_ntk(network, inputs, signs)), np.trace(moved) / 2, rtol=1e-10)
    assert ntk_deviation(found, 2 * found) == pytest.approx(0, abs=1e-12)
    assert ntk_deviation(np.eye(2), np.ones((2, 2))) == pytest.approx(1 - 2 / np.sqrt(8))
    with pytest.raises(ValueError, match="one shape"):
        ntk_deviation(np.eye(2), np.eye(3))


def test_kernels_are_aligned_with_labels_about_their_means():
    rng = np.random.default_rng(6)
    x, y, h = rng.standard_normal((7, 5)) + 2, np.eye(3)[np.arange(7) % 3], np.eye(7) - 1 / 7
    k, t = h @ x @ x.T @ h, h @ y @ y.T @ h
    wanted = (k * t).sum() / np.linalg.norm(k) / np.linalg.norm(t)
    for scale in (1.0, 1e-3, 1e4):
        assert label_alignment(scale * x @ x.T, scale * y + 5) == pytest.approx(wanted)
    assert label_alignment(t + 3, y) == pytest.approx(1)
    assert label_alignment(t + 3, y) <= 1
    for still in (np.zeros((7, 7)), np.full((7, 7), 0.1)):
        assert np.isnan(label_alignment(still, y))
    assert np.isnan(label_alignment(k, np.ones((7, 2))))
    for kernel, targets in ((k[:6], y), (k[0], y), (k, y[:, 0]), (k, y[:6]), (k[:6, :6], y)):
        with pytest.raises(ValueError, match=r"a kernel \(m, m\) and targets \(m, C\) are needed"):
            label_alignment(kernel, targets)
    assert np.isnan([ntk_deviation(k, 0 * k), ntk_deviation(0 * k, k)]).all()
    assert ntk_deviation(1e-3 * k, k) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="one shape"):
        ntk_deviation(k[0], k[0])


def test_parameters():
    first = {"w": np.array([3.0, 4.0]), "b": torch.zeros(1)}
    second = {"w": torch.tensor([3.0, 0.0]), "b": np.array([3.0])}
    assert parameter_norm(first) == pytest.approx(5)
    assert parameter_distance(first, second) == pytest.approx(5)
    with pytest.raises(ValueError, match="one side only: b"):
        parameter_distance(first, {"w": second["w"]})
    with pytest.raises(ValueError, match="w must have one shape"):
        parameter_distance(first, {**second, "w": np.zeros(3)})


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_no_unit_is_too_small_or_too_large(scale):
    rng, labels = np.random.default_rng(8), np.arange(40) % 4
    x, f = rng.standard_normal((40, 6)) + np.eye(6)[labels], rng.standard_normal((40, 4))
    for measure in (
        lambda c: [*vars(kernel_deviation(c * x[:, :3], c * x)).values()],
        lambda c: [*vars(neural_collapse(c * x, labels, outputs=c * f)).values()],
        lambda c: class_manifolds(c * x, labels).signal_to_noise,
    ):
        np.testing.assert_allclose(measure(scale), measure(1.0), rtol=1e-9)


def test_weights_and_outputs_of_another_width_are_refused():
    x, labels = np.random.default_rng(0).standard_normal((20, 5)), np.arange(20) % 3
    assert np.isfinite(neural_collapse(x, labels, weight=np.ones((3, 5))).duality)
    for weight in (np.ones((3, 4)), np.ones((2, 5)), np.ones((3, 6))):
        with pytest.raises(ValueError, match=r"weight must have shape \(classes, 5\), got"):
            neural_collapse(x, labels, weight=weight)
    with pytest.raises(ValueError, match="a column for each class, got 2 and the label 2"):
        neural_collapse(x, labels, outputs=np.ones((20, 2)))
