"""Freezing, thawing, reinitialising, stored features, the lazy control, and the variants of a recipe."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn.errors import NetworkError, RecipeError, TrainingError
from featdyn.networks import build, cuts
from featdyn.store import Run
from featdyn.training import load
from featdyn.training.intervention import mapped
from featdyn.training.loop import Loop
from featdyn.training.stage import Events, finished, train
from tests.engine.test_training import TINY, Stop, files_of

LOOP = (
    "training.epochs=4",
    "training.batch_size=32",
    "training.learning_rate=0.05",
    "training.weight_decay=0.01",
    "training.schedule=constant",
    "data.train_size=100",
    "network.options.width=4",
)
FREEZE = ("intervention.cut=s1b3", "intervention.freeze_at=1")
PER_EPOCH = 3


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small are slower on several threads, far slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def loop_of(*changes):
    return Loop(load("digits", [*LOOP, *changes]))


def in_float64(loop):
    """Let a loop compute in float64 (but for the loss), where training enlarges no order of sums to a difference."""
    for tensor in (*loop.model.parameters(), *loop.model.buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.double()  # in place, for what shares it
    inputs = loop.batches._normalised
    loop.batches._normalised = lambda pixels: inputs(pixels).double()
    return loop


def run(loop, stop, start=0):
    return [loop.step(step)[0] for step in range(start, stop)]


def tensors(loop):
    return {name: value.clone() for name, value in loop.model.state_dict().items()}


def prefix_of(loop):
    """The names of the tensors before s1b3, by the network's own names."""
    return {name for name in loop.model.state_dict() if name.split(".")[0] in {"stem", "s1b1", "s1b2", "s1b3"}}


def same(one, other, names):
    return all(torch.equal(one[name], other[name]) for name in names)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("batchnorm", ["frozen", "running"])
def test_what_is_frozen_keeps_every_bit_and_the_rest_trains(optimizer, batchnorm):
    loop = loop_of(*FREEZE, f"intervention.batchnorm={batchnorm}", f"training.optimizer={optimizer}")
    run(loop, PER_EPOCH)
    before = tensors(loop)
    run(loop, 4 * PER_EPOCH, PER_EPOCH)
    after, frozen = tensors(loop), prefix_of(loop)
    parameters = {name for name, _ in loop.model.named_parameters()}
    assert same(before, after, frozen & parameters)
    assert not any(torch.equal(before[name], after[name]) for name in parameters - frozen)
    moved = {name for name in frozen - parameters if not torch.equal(before[name], after[name])}
    assert moved == (frozen - parameters if batchnorm == "running" else set())
    assert {n for n, p in loop.model.named_parameters() if p in loop.optimizer.state} == parameters - frozen


@pytest.mark.parametrize("batchnorm", ["frozen", "running"])
@pytest.mark.parametrize("augment", [False, True])
def test_a_frozen_step_is_the_plain_one_with_gradients_and_statistics_held(batchnorm, augment):
    """Against the loop that one would write: requires_grad and eval on the modules before the cut."""
    changes = [*FREEZE, f"intervention.batchnorm={batchnorm}", f"training.augment={str(augment).lower()}"]
    ours, plain = in_float64(loop_of(*changes)), in_float64(loop_of(f"training.augment={str(augment).lower()}"))
    assert run(ours, PER_EPOCH) == run(plain, PER_EPOCH)  # before it freezes, the twin to the bit
    frozen = [plain.model.get_submodule(name) for name in ("stem", "s1b1", "s1b2", "s1b3")]
    for module in frozen:
        module.requires_grad_(False)
    options = plain.options
    trained = [p for p in plain.model.parameters() if p.requires_grad]
    for step in range(PER_EPOCH, 3 * PER_EPOCH):
        plain.model.train()
        if batchnorm == "frozen":
            for module in frozen:
                module.eval()
        inputs, labels = plain.batches[step]
        assert torch.equal(labels, ours.batches.labels(step))  # the order of the unfrozen twin
        loss = F.cross_entropy(plain.model(inputs), labels)
        for p, gradient in zip(trained, torch.autograd.grad(loss, trained), strict=True):
            state = plain.optimizer.state[p]
            d = gradient + options.weight_decay * p.detach()
            state["momentum_buffer"] = options.momentum * state["momentum_buffer"] + d
            p.data -= options.learning_rate * state["momentum_buffer"]
        assert ours.step(step)[0] == pytest.approx(float(loss.detach()), rel=1e-6)
    for name, value in tensors(plain).items():
        torch.testing.assert_close(tensors(ours)[name], value, rtol=1e-6, atol=1e-7)


def test_stored_features_give_what_computing_them_gives():
    stored, computed = in_float64(loop_of(*FREEZE)), in_float64(loop_of(*FREEZE, "intervention.stored=0"))
    size = 100 * 4 * 8 * 8 * 4
    assert (stored.intervention.stored, computed.intervention.stored) == (size, 0)
    calls = []
    stored.intervention._prefix.register_forward_hook(lambda *_: calls.append(1))
    # Features may differ in the last bits, as a sample's place in its batch differs.
    assert run(stored, 4 * PER_EPOCH) == pytest.approx(run(computed, 4 * PER_EPOCH), rel=1e-6)
    assert len(calls) == 4  # each sample once, in batches of 32
    for name, value in tensors(computed).items():
        torch.testing.assert_close(tensors(stored)[name], value, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "change", ["training.augment=true", "intervention.batchnorm=running", "intervention.stored=1e-5",
               "intervention.thaw_at=2"]
)  # fmt: skip
def test_features_are_not_stored_where_they_change_or_do_not_fit_or_are_seen_once(change):
    assert loop_of(*FREEZE, change).intervention.stored == 0


def test_features_are_stored_up_to_so_many_bytes_and_what_is_done_is_said():
    size = 100 * 4 * 8 * 8 * 4
    for room, stored in ((size, size), (size - 1, 0)):
        assert loop_of(*FREEZE, f"intervention.stored={room / 2**30!r}").intervention.stored == stored
    assert str(loop_of(*FREEZE).intervention) == (
        "frozen up to s1b3 from epoch 1 to 4; its features: 0.1 MiB in a temporary file"
    )
    changes = [*FREEZE, "intervention.freeze_at=0.34", "intervention.thaw_at=1"]
    assert str(loop_of(*changes).intervention) == "frozen up to s1b3 from epoch 0.3333 to 1"
    assert str(loop_of(*FREEZE, "intervention.freeze_at=4").intervention) == "never frozen"


def test_a_full_temporary_folder_is_one_line(monkeypatch):
    loop = loop_of(*FREEZE)

    def full(pieces):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("featdyn.training.intervention.mapped", full)
    run(loop, PER_EPOCH)
    with pytest.raises(TrainingError, match=r"features at s1b3 .*No space left.* intervention.stored=0"):
        loop.step(PER_EPOCH)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.sampled_from([torch.float32, torch.bfloat16]))
def test_mapped_rows_are_what_was_given(rows, dtype):
    pieces = [torch.randn(3, n, 2).to(dtype).transpose(0, 1) for n in [*rows, 1]]  # not contiguous
    found = mapped(pieces)
    assert found.dtype == dtype
    assert torch.equal(found, torch.cat(pieces))


def test_thawed_it_trains_again_from_no_momentum():
    loop = loop_of(*FREEZE, "intervention.freeze_at=0", "intervention.thaw_at=1")
    first = tensors(loop)
    run(loop, PER_EPOCH)
    assert same(first, tensors(loop), prefix_of(loop))
    loop.step(PER_EPOCH)
    parameter = loop.model.get_parameter("stem.conv.weight")
    step = loop.options.learning_rate * loop.optimizer.state[parameter]["momentum_buffer"]
    torch.testing.assert_close(first["stem.conv.weight"] - parameter.detach(), step, rtol=1e-4, atol=1e-7)


def test_reinitialised_the_suffix_is_fresh_and_seeded_and_the_prefix_kept():
    one, again, other = (loop_of(*FREEZE, "intervention.reinitialise=true", f"training.seed={s}") for s in (0, 0, 1))
    for loop in (one, again, other):
        run(loop, PER_EPOCH)
        before = tensors(loop)
        loop.intervention.begin(PER_EPOCH, loop.optimizer)
        after, frozen = tensors(loop), prefix_of(loop)
        assert same(before, after, frozen)
        assert not same(before, after, {"fc.weight"})
        assert not loop.optimizer.state
        assert all(bool((after[n] == 0).all()) for n in after if n.endswith("running_mean") and n not in frozen)
    rest = tensors(one).keys() - prefix_of(one)
    assert same(tensors(one), tensors(again), rest)
    assert not same(tensors(one), tensors(other), {"fc.weight"})
    fresh = build("resnet20", classes=10, shape=(1, 8, 8), width=4)
    assert tensors(one)["s2b1.conv1.weight"].std() == pytest.approx(fresh.s2b1.conv1.weight.std().item(), rel=0.2)


def test_at_the_end_or_beyond_is_never():
    twin = run(loop_of("training.epochs=2"), 2 * PER_EPOCH)
    for change in ("intervention.freeze_at=2", "intervention.freeze_at=7.5"):
        assert run(loop_of("training.epochs=2", *FREEZE, change), 2 * PER_EPOCH) == twin
    assert list(loop_of(*FREEZE, "intervention.freeze_at=1.4", "intervention.thaw_at=99").intervention.steps) == [
        *range(4, 12)
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["intervention.cut=s1b3"], "cut and freeze_at go together"),
        (["intervention.freeze_at=1"], "cut and freeze_at go together"),
        (["intervention.reinitialise=true"], "need cut and freeze_at"),
        ([*FREEZE, "intervention.thaw_at=0.5"], "thaw_at must be later"),
        ([*FREEZE, "intervention.batchnorm=none"], "intervention.batchnorm"),
    ],
)
def test_what_makes_no_sense_is_refused_by_the_recipe(changes, message):
    with pytest.raises(RecipeError, match=message) as caught:
        load("digits", changes)
    assert "\n" not in str(caught.value)


def test_a_cut_that_is_not_there_or_not_one_is_named():
    with pytest.raises(NetworkError, match="no cut 's9'"):
        loop_of(*FREEZE, "intervention.cut=s9")
    with pytest.raises(NetworkError, match="matches s1b1, s1b2, s1b3: name one"):
        loop_of(*FREEZE, "intervention.cut=s1*")


@pytest.mark.parametrize("name", ["resnet20", "mlp", "cnn", "transformer", "resnet18", "vgg16_bn", "vit"])
def test_parts_train_like_the_whole(name):
    """In training mode, a prefix and a suffix do to statistics and dropout what the module does."""
    if name not in {"resnet20", "mlp", "cnn"}:
        pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model = build(name, classes=10, shape=(3, 32, 32)).train()
    inputs = torch.randn(4, 3, 32, 32)
    found = cuts(model, inputs)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(1)
    expected = model(inputs).detach()
    statistics = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict(state)
    cut = found[len(found) // 2]
    torch.manual_seed(1)
    assert torch.equal(cut.suffix.train()(cut.prefix.train()(inputs)), expected)
    assert same(model.state_dict(), statistics, statistics)


def stopped_and_resumed(tmp_path, changes, stop):
    recipe = load("digits", changes)
    whole, parts = tmp_path / "whole.zarr", tmp_path / "parts.zarr"
    train(recipe, whole)

    def interrupt(step, steps, loss):
        if step == stop:
            raise Stop

    with pytest.raises(Stop):
        train(recipe, parts, Events(step=interrupt))
    train(recipe, parts)
    expected, found = files_of(whole), files_of(parts)
    assert expected.keys() == found.keys()
    assert [name for name in expected if expected[name] != found[name]] == []
    return Run(whole)


VARIANTS = {
    "frozen": ("intervention.cut=hidden1", "intervention.freeze_at=1"),
    "frozen early": ("intervention.cut=hidden1", "intervention.freeze_at=0.2"),
    "thawed": ("intervention.cut=hidden1", "intervention.freeze_at=0", "intervention.thaw_at=1.4"),
    "reinitialised": ("intervention.cut=hidden1", "intervention.freeze_at=1", "intervention.reinitialise=true"),
    "running": (
        *("network.name=resnet20", "network.options.width=2", "data.train_size=300", "training.batch_size=64"),
        *("intervention.cut=s1b3", "intervention.freeze_at=1", "intervention.batchnorm=running"),
    ),
    "adam": ("training.optimizer=adam", "training.learning_rate=0.001"),
    "squared error": ("training.loss=squared_error", "training.target_scale=0.5", "training.optimizer=adamw"),
    "last layer": ("intervention.cut=hidden2", "intervention.freeze_at=0"),
    "shortcut": ("data.shortcut=0.9", "training.optimizer=muon"),
    "batch size": ("training.batch_size=301",),
    "augmented": ("training.augment=true", "training.mirror=false"),
    "constant rate": ("training.schedule=constant",),
    "lazy": ("network.options.alpha=100", "training.weight_decay=0"),
    "channels last": (
        *("network.name=cnn", "network.options.widths=[4,4]", "training.channels_last=true"),
        *("training.precision=bfloat16", "intervention.cut=pool1", "intervention.freeze_at=0.5"),
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_works_and_resumes_exactly(tmp_path, name):
    changes = [*TINY, "capture.layers=['default']", *VARIANTS[name]]
    run = stopped_and_resumed(tmp_path, changes, stop=7)
    assert np.isfinite(run.values("test_loss")).all()


def test_random_labels_are_fitted_without_augmentation_and_weight_decay_and_training_ends_there(tmp_path):
    changes = [*TINY, "labels.noise=1", "training.weight_decay=0", "training.until=0.99", "training.epochs=400"]
    changes += ["training.batch_size=64", "training.schedule=constant", "data.train_size=256", "checkpoints.every=20"]
    store = tmp_path / "r.zarr"
    run = train(load("digits", changes), store)
    accuracy = run.values("train_accuracy")
    assert accuracy[-1] >= 0.99
    assert (accuracy[1:-1] < 0.99).all()
    assert run.checkpoints < len(run.attributes["checkpoint_steps"])
    assert run.values("test_accuracy")[-1] < 0.5
    assert finished(run)
    assert train(load("digits", changes), store).checkpoints == run.checkpoints


@pytest.mark.parametrize("name", ["mlp", "cnn"])
@pytest.mark.parametrize("alpha", [1, 50])
def test_a_lazy_network_is_zero_at_first_and_its_halves_are_equal(name, alpha):
    torch.manual_seed(0)
    inputs = torch.randn(7, 1, 8, 8)
    network = build(name, classes=3, shape=(1, 8, 8), widths=[6, 8], alpha=alpha)
    assert float(network(inputs).detach().abs().max()) <= 1e-5 * alpha
    hidden = network[:-2](inputs).detach()
    torch.testing.assert_close(hidden[:, :4], hidden[:, 4:])
    gradients = torch.autograd.grad(network(inputs)[:, 0].sum(), list(network.parameters()))
    assert all(bool(gradient.any()) for gradient in gradients)
    with pytest.raises(NetworkError, match="even widths, not 7"):
        build(name, classes=3, shape=(1, 8, 8), widths=[6, 7], alpha=alpha)


def test_lazy_features_move_as_one_over_alpha_while_the_function_learns_the_same():
    moved, losses = [], []
    for alpha in (30, 300):
        loop = loop_of(
            *("network.name=mlp", "network.options={widths=[64, 64]}", f"network.options.alpha={alpha}"),
            *("training.weight_decay=0", "training.momentum=0", "training.epochs=10"),
            *("training.batch_size=128", "data.train_size=400"),
        )
        inputs, _ = loop.batches[0]
        first = loop.model[:3](inputs).detach()
        losses.append(run(loop, loop.steps))
        moved.append(float((loop.model[:3](inputs).detach() - first).norm() / first.norm()))
        assert loop.rate(0) == pytest.approx(0.05 / alpha**2)
    assert moved[0] / moved[1] == pytest.approx(10, rel=0.05)
    assert losses[0] == pytest.approx(losses[1], abs=2e-3)
    assert losses[0][0] == pytest.approx(np.log(10), abs=1e-4)
    assert losses[0][-1] < losses[0][0] - 0.1


def test_what_cannot_be_lazy_is_refused():
    for value, message in (("0", "positive number"), ("true", "positive number")):
        with pytest.raises(NetworkError, match=message):
            loop_of("network.name=mlp", "network.options={}", f"network.options.alpha={value}")
    with pytest.raises(NetworkError, match="resnet20 has no option 'alpha'; it has width"):
        loop_of("network.options.alpha=2")
    with pytest.raises(RecipeError, match=r"needs training\.optimizer sgd"):
        loop_of("network.name=mlp", "network.options={alpha=2}", "training.optimizer=adam")


def test_a_store_made_before_a_field_existed_still_resumes(tmp_path, monkeypatch):
    store, recipe = tmp_path / "r.zarr", load("digits", TINY)
    older = recipe.identity
    del older["intervention"], older["training"]["until"], older["data"]["train_size"]

    def interrupt(step, steps, loss):
        if step == 6:
            raise Stop

    with monkeypatch.context() as patched:
        patched.setattr(type(recipe), "identity", older)
        with pytest.raises(Stop):
            train(recipe, store, Events(step=interrupt))
    assert Run(store).attributes["recipe"] == older
    with pytest.raises(RecipeError, match=r"another recipe \(training.until: None there, 0.5 here\)"):
        train(load("digits", [*TINY, "training.until=0.5"]), store)
    assert finished(train(recipe, store))
