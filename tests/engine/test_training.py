from __future__ import annotations

import tomllib
from importlib import resources
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn.capture import Recorder
from featdyn.capture import options as capture_options
from featdyn.data import load as load_data
from featdyn.errors import DataError, RecipeError, TrainingError
from featdyn.store import Run, verify
from featdyn.training import load, shipped
from featdyn.training.batches import Batches, augment
from featdyn.training.loop import Loop, device_of
from featdyn.training.options import CheckpointOptions, TrainingOptions
from featdyn.training.recipe import fields
from featdyn.training.schedule import checkpoint_steps, learning_rate
from featdyn.training.stage import Events, check, train
from tests.strategies import sizes

TINY = (
    "network.name=mlp",
    "training.epochs=2",
    "training.batch_size=256",
    "training.learning_rate=0.05",
    "checkpoints.first_epoch=1",
    "probes.train=10",
    "probes.test=10",
    "probes.corrupted=0",
    "capture.layers=['all']",
)


def test_every_shipped_recipe_is_valid_and_described():
    found = shipped()
    assert {"digits", "mnist", "cifar10"} <= found.keys()
    for name, text in found.items():
        assert text
        assert load(name).description == text


def test_every_field_is_documented():
    listed = list(fields())
    assert all(text for _, _, text in listed)
    names = {name for name, _, _ in listed}
    defaults = {name: default for name, default, _ in listed}
    assert (defaults["network.name"], defaults["network.options"], defaults["data.name"]) == ("", "{}", "'digits'")
    assert {"labels.noise", "training.seed", "capture.dtype", "network.name", "probes.corruptions"} <= names
    assert len(names) == len(listed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("training.lr=3", "no field training.lr; there are epochs"),
        ("trainin.epochs=3", "no field trainin; did you mean training"),
        ("training.epochs=0", "training.epochs: "),
        ("training.optimizer=lion", "training.optimizer: .*'sgd', 'adam', 'adamw' or 'muon'"),
        ("labels.noise=1.5", "labels.noise: "),
        ("training.target_scale=2", "target_scale needs loss squared_error"),
        ("training", "write field=value"),
        ("=3", "write field=value"),
        ("description.x=1", "description is not a table"),
        ("probes.severities=[7]", "probes.severities.0: "),
    ],
)
def test_a_wrong_field_is_named_in_one_line(change, message):
    with pytest.raises(RecipeError, match=message) as caught:
        load("digits", [change])
    assert "\n" not in str(caught.value)


def test_recipes_come_from_files_and_changes_are_toml(tmp_path):
    text = (resources.files("featdyn.training") / "recipes" / "digits.toml").read_text()
    path = tmp_path / "mine.toml"
    path.write_text(text)
    recipe = load(str(path), ["training.milestones=[0.25, 0.5]", "network.options.widths=[8]", "data.name='mnist'"])
    assert recipe.training.milestones == (0.25, 0.5)
    assert recipe.network.options == {"widths": [8]}
    assert recipe.data.name == "mnist"
    assert recipe.description.endswith(
        "; changed: training.milestones=[0.25, 0.5], network.options.widths=[8], data.name='mnist'"
    )
    assert load(str(path), ["description=mine", "data.name='mnist'"]).description == "mine"
    assert recipe.identity.keys() == {*tomllib.loads(text), "labels", "intervention"}
    for source, content in (("no.toml", None), ("bad.toml", "a = "), ("binary.toml", "\x00\xff")):
        if content:
            (tmp_path / source).write_text(content, encoding="latin-1")
        with pytest.raises(RecipeError):
            load(str(tmp_path / source))
    plain = path.rename(tmp_path / "of any ending")
    plain.write_text(text.replace(tomllib.loads(text)["description"], ""))
    assert load(str(plain), ["training.epochs=2"]).description == ""
    with pytest.raises(RecipeError, match=r"no recipe '\./digits'"):  # a path, not the name of a shipped one
        load("./digits")


@pytest.mark.parametrize("length", [99, 100, 101])
def test_of_a_long_name_so_much_is_said_that_a_line_holds(length):
    with pytest.raises(RecipeError) as error:
        load("x" * length)
    said = "x" * length if length <= 100 else "x" * 100 + "..."
    assert str(error.value).startswith(f"no recipe {said!r}: ")


@settings(deadline=None)
@given(st.integers(1, 2000), sizes(1, 50), st.integers(0, 20), sizes(1, 60))
def test_checkpoints_are_at_initialisation_early_and_at_epoch_ends(per_epoch, epochs, first, every):
    steps = checkpoint_steps(per_epoch, epochs, CheckpointOptions(first_epoch=first, every=every))
    assert steps == sorted(set(steps))
    assert steps[0] == 0
    assert steps[-1] == per_epoch * epochs
    late = [s for s in steps if s > per_epoch]
    assert all(s % per_epoch == 0 for s in late)
    assert sum(0 < s < per_epoch for s in steps) <= first


@pytest.mark.parametrize(
    ("per_epoch", "epochs", "first", "every", "steps"),
    [
        (1000, 1, 2, 1, [0, 10, 100, 1000]),
        (16, 3, 3, 3, [0, 2, 4, 8, 48]),
        (10, 5, 0, 2, [0, 20, 40, 50]),
        (7, 2, 1, 3, [0, 3, 14]),
    ],
)
def test_checkpoints_are_log_spaced_in_the_first_epoch_and_then_every_so_many(per_epoch, epochs, first, every, steps):
    assert checkpoint_steps(per_epoch, epochs, CheckpointOptions(first_epoch=first, every=every)) == steps


@settings(deadline=None)
@given(st.sampled_from(["constant", "steps", "cosine"]), sizes(1, 400), st.integers(0, 30))
def test_learning_rate_stays_within_its_bounds(schedule, steps, warmup):
    options = TrainingOptions(learning_rate=0.4, schedule=schedule, warmup=warmup)
    rates = np.array([learning_rate(s, steps, options) for s in range(steps)])
    assert (rates > 0).all()
    assert (rates <= 0.4 + 1e-12).all()
    after = rates[warmup:]
    assert (np.diff(after) <= 1e-12).all()
    if schedule == "steps" and steps >= 4 and not warmup:
        assert rates[-1] == pytest.approx(0.004)


def test_what_stands_beside_a_checkpoint_is_of_the_steps_since_the_last(tmp_path):
    changes = [*TINY, "training.schedule=cosine", "training.warmup=4", "checkpoints.every=doubling"]
    losses: list[float] = []
    counted = []
    events = Events(step=lambda step, steps, loss: (losses.append(loss), counted.append((step, steps))))
    run = train(load("digits", changes), tmp_path / "r.zarr", events=events)
    steps, of_epoch = run.values("step").tolist(), 1437 // 256
    assert counted == [(i + 1, 2 * of_epoch) for i in range(2 * of_epoch)]
    assert steps == [0, 1, 2, 4, 8, 2 * of_epoch]
    last = [max(0, step - 1) for step in steps]  # the step before a checkpoint, counted from 0
    rates = [0.05 * (1 + np.cos(np.pi * i / (2 * of_epoch))) / 2 * min(1, (i + 1) / 4) for i in last]
    np.testing.assert_allclose(run.values("learning_rate"), rates)
    np.testing.assert_allclose(run.values("epoch"), np.array(steps) / of_epoch)
    means = [np.nan, *(np.mean(losses[a:b]) for a, b in pairwise(steps))]
    np.testing.assert_allclose(run.values("train_loss"), means, rtol=1e-6)
    loop = Loop(load("digits", changes))  # a step's right answers are those of the network before it
    right = []
    for step in range(4):
        inputs, labels = loop.batches[step]
        right.append(float((loop.model(inputs).argmax(1) == labels).float().mean()))
        loop.step(step)
    found = [np.nan, right[0], right[1], np.mean(right[2:4])]
    np.testing.assert_allclose(run.values("train_accuracy")[:4], found, rtol=1e-6)


def test_a_run_ends_at_the_accuracy_that_is_asked_for_and_is_tested_on_all_there(tmp_path):
    changes = [*TINY, "training.epochs=1", "checkpoints.every=doubling", "checkpoints.test_samples=50"]
    reached = train(load("digits", changes), tmp_path / "whole.zarr").values("train_accuracy")[1]
    recipe = load("digits", [*changes, f"training.until={reached}"])
    run = train(recipe, tmp_path / "part.zarr")
    assert run.values("step").tolist() == [0, 1]
    assert train(recipe, tmp_path / "part.zarr").checkpoints == 2
    loop = Loop(recipe)
    loop.model.load_state_dict(run.state(1))
    assert run.values("test_loss")[1] == pytest.approx(loop.evaluate()[0], rel=1e-6)


def test_the_images_of_the_other_split_are_tested_once_each():
    loop = Loop(load("digits", [*TINY, "training.split=test"]))
    images = loop.dataset.train
    with torch.no_grad():
        logits = loop.model.eval()(loop.dataset.inputs(images.pixels)).double()
    labels = torch.from_numpy(images.labels)
    loss, accuracy = loop.evaluate()
    assert loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-6)
    assert accuracy == float((logits.argmax(1) == labels).double().mean())


def test_an_epoch_shows_every_sample_once_in_an_order_of_its_own():
    dataset = load_data("digits")
    options = TrainingOptions(batch_size=100)
    numbered = np.arange(len(dataset.train), dtype=np.int64)
    batches = Batches(dataset, numbered, options, torch.device("cpu"))
    orders = [torch.cat([batches[e * batches.per_epoch + i][1] for i in range(batches.per_epoch)]) for e in range(2)]
    for order in orders:
        assert len(order) == len(order.unique()) == batches.per_epoch * 100
    assert not torch.equal(*orders)
    again = Batches(dataset, numbered, options, torch.device("cpu"))
    assert torch.equal(again[batches.per_epoch + 3][1], batches[batches.per_epoch + 3][1])
    with pytest.raises(DataError, match="batch_size 5000"):
        Batches(dataset, numbered, TrainingOptions(batch_size=5000), torch.device("cpu"))


@settings(deadline=None, max_examples=30)
@given(sizes(1, 5), st.sampled_from([1, 3]), sizes(4, 13), st.booleans(), st.integers(0, 99))
def test_augmentation_shifts_and_mirrors_whole_images(n, channels, side, mirror, seed):
    pixels = torch.randint(1, 256, (n, channels, side, side), dtype=torch.uint8)
    out = augment(pixels, mirror, torch.Generator().manual_seed(seed))
    assert out.shape == pixels.shape
    assert out.dtype == torch.uint8
    pad = max(1, side // 8)
    padded = torch.nn.functional.pad(pixels, (pad, pad, pad, pad))
    for before, after in zip(padded, out, strict=True):
        windows = [before[:, r : r + side, c : c + side] for r in range(2 * pad + 1) for c in range(2 * pad + 1)]
        assert any(torch.equal(after, w) or (mirror and torch.equal(after, w.flip(2))) for w in windows)


@pytest.mark.parametrize(
    ("height", "width", "pad"), [(8, 7, 1), (5, 8, 1), (9, 15, 1), (4, 16, 2), (3, 23, 2), (24, 32, 4)]
)
def test_augmentation_shifts_by_an_eighth_of_the_width_at_most(height, width, pad):
    numbered = torch.arange(1, height * width + 1, dtype=torch.int32).view(1, 1, height, width)
    out = augment(numbered.expand(500, 1, height, width), False, torch.Generator().manual_seed(0))[:, 0]
    held = out.flatten(1).max(1).values - 1  # the lowest, rightmost pixel that is left
    rows, columns = held // width, held % width
    places = [(image == value + 1).nonzero()[0].tolist() for image, value in zip(out, held, strict=True)]
    for axis, kept in ((0, rows), (1, columns)):
        shifts = {place[axis] - int(one) for place, one in zip(places, kept, strict=True)}
        assert shifts == set(range(-pad, pad + 1))


def files_of(store):
    """All bytes of a store that do not tell the time."""
    skip = {"zarr.json", "root.json", ".featdyn.lock", ".featdyn.turn"}
    return {str(p.relative_to(store)): p.read_bytes() for p in store.rglob("*") if p.is_file() and p.name not in skip}


class Stop(Exception):
    pass


@pytest.fixture(scope="module", params=["sgd", "adam", "muon"])
def undisturbed(request, tmp_path_factory):
    """A recipe, and the run that nothing stopped."""
    changes = [*TINY, f"training.optimizer={request.param}", "training.learning_rate=0.01", "labels.noise=0.2"]
    recipe, whole = load("digits", changes), tmp_path_factory.mktemp("whole") / "run.zarr"
    train(recipe, whole)
    return recipe, whole


@pytest.mark.parametrize("stop", [1, 4, 5, 7])
def test_a_run_that_was_stopped_ends_with_the_same_bits(tmp_path, undisturbed, stop):
    recipe, whole = undisturbed
    parts = tmp_path / "parts.zarr"

    def interrupt(step, steps, loss):
        if step == stop:
            raise Stop

    with pytest.raises(Stop):
        train(recipe, parts, Events(step=interrupt))
    assert Run(parts).checkpoints >= 1
    train(recipe, parts)
    expected, found = files_of(whole), files_of(parts)
    assert expected.keys() == found.keys()
    assert [name for name in expected if expected[name] != found[name]] == []
    assert verify(parts).sound


def test_a_finished_run_is_left_alone_and_another_recipe_refused(tmp_path):
    store = tmp_path / "r.zarr"
    train(load("digits", TINY), store)
    before = (store / "zarr.json").read_bytes()
    train(load("digits", TINY), store)
    train(load("digits", [*TINY, "description='other words'"]), store)
    assert (store / "zarr.json").read_bytes() == before
    with pytest.raises(RecipeError, match=r"another recipe \(training.seed: 0 there, 1 here\)"):
        train(load("digits", [*TINY, "training.seed=1"]), store)
    with pytest.raises(RecipeError, match=r"\(labels.seed: 0 there, 1 here, and 1 more field\)"):
        train(load("digits", [*TINY, "training.seed=1", "labels.seed=1"]), store)


def test_a_loss_that_is_not_finite_ends_with_one_line_and_a_sound_store(tmp_path):
    store = tmp_path / "r.zarr"
    changes = [*TINY, "training.learning_rate=1e20", "training.schedule=constant", "checkpoints.first_epoch=0"]
    done: list[int] = []
    with pytest.raises(TrainingError, match="1 checkpoints are kept") as error:
        train(load("digits", changes), store, Events(step=lambda step, steps, loss: done.append(step)))
    assert f"at step {len(done) + 1}:" in str(error.value)
    assert verify(store).sound


@pytest.mark.parametrize(("optimizer", "moments"), [("sgd", 1), ("adam", 2), ("adamw", 2), ("muon", 2)])
def test_the_plan_counts_the_moments_of_the_optimizer(tmp_path, monkeypatch, optimizer, moments):
    asked = []

    def plan(self, checkpoints, state=0):
        asked.append((checkpoints, state))
        raise Stop

    monkeypatch.setattr(Recorder, "plan", plan)
    recipe = load("digits", [*TINY, f"training.optimizer={optimizer}"])
    with pytest.raises(Stop):
        train(recipe, tmp_path / "r.zarr")
    size = sum(4 * p.numel() for p in Loop(recipe).model.parameters())
    assert asked == [(4, moments * size)]  # at 0, within the first epoch, and at the end of both


def test_a_recipe_trains_in_one_process_and_where_it_is_told(monkeypatch):
    recipe = load("digits", TINY)
    for size in ("", "1"):
        monkeypatch.setenv("WORLD_SIZE", size)
        check(recipe)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="recipes train in one process"):
        check(recipe)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RecipeError, match="cuda asked for, but no GPU is there"):
        Loop(load("digits", [*TINY, "training.device=cuda"]))
    for device in ("auto", "cpu"):
        assert device_of(TrainingOptions(device=device)) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    wanted = {"auto": "cuda", "cpu": "cpu", "cuda": "cuda"}
    assert {name: device_of(TrainingOptions(device=name)).type for name in wanted} == wanted


def test_what_does_not_fit_the_disk_is_refused_before_anything_is_left(tmp_path, monkeypatch):
    import shutil

    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("featdyn.store.files.shutil.disk_usage", lambda path: usage)
    with pytest.raises(Exception, match="1000 B are free"):
        train(load("digits", TINY), tmp_path / "r.zarr")
    assert not (tmp_path / "r.zarr").exists()


def test_noisy_labels_are_what_the_probes_carry(tmp_path):
    run = train(load("digits", [*TINY, "labels.noise=1.0", "training.epochs=1"]), tmp_path / "r.zarr")
    coords = run.coords.where(run.coords["split"] == "train", drop=True)
    assert (coords["label"] != coords["true_label"]).any()
    test = run.coords.where(run.coords["split"] == "test", drop=True)
    assert (test["label"] == test["true_label"]).all()


def test_bfloat16_and_channels_last_train(tmp_path):
    changes = [*TINY, "network.name=cnn", "training.precision=bfloat16", "training.channels_last=true"]
    run = train(load("digits", [*changes, "training.epochs=1"]), tmp_path / "r.zarr")
    assert np.isfinite(run.coords["test_loss"]).all()
    batches = Loop(load("digits", changes)).batches
    images = torch.zeros(2, 3, 4, 5)
    assert (
        batches.to_device(images).stride() == images.to(memory_format=torch.channels_last).stride() != images.stride()
    )
    assert batches.to_device(torch.zeros(2, 3)).stride() == (3, 1)


def test_capture_options_are_one_definition():
    assert {f"capture.{name}" for name in capture_options.CaptureOptions.model_fields} <= {n for n, _, _ in fields()}


def test_training_leaves_the_random_state_of_the_caller_alone(tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    train(load("digits", [*TINY, "training.epochs=1"]), tmp_path / "r.zarr")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("part", "field", "said"),
    [("train", "pixels", "crc32"), ("test", "pixels", "test_crc32"), ("test", "labels", "labels_crc32")],
)
def test_other_training_data_are_not_gone_on_with(tmp_path, part, field, said):
    recipe = load("digits", [*TINY, "training.epochs=1"])
    train(recipe, tmp_path / "r.zarr")
    data = load_data(**dict(recipe.data))
    getattr(getattr(data, part), field).reshape(-1)[3] ^= 1
    with pytest.raises(DataError, match=f"was trained on other data \\({said} "):
        train(recipe, tmp_path / "r.zarr", dataset=data)


def test_a_baseline_is_trained_on_the_test_images_and_has_the_probes_of_the_others(tmp_path):
    data = load_data("digits")
    usual, baseline = (load("digits", [*TINY, "training.epochs=1", f"training.split={s}"]) for s in ("train", "test"))
    batches = Loop(baseline, data).batches
    assert batches.samples == len(data.test)
    assert torch.equal(batches.of(torch.arange(360), 0)[1], torch.from_numpy(data.test.labels))
    other, own = (train(r, tmp_path / f"{i}.zarr", dataset=data) for i, r in enumerate((usual, baseline)))
    for name in ("sample", "label", "inputs/input"):
        np.testing.assert_array_equal(own.values(name), other.values(name))
    there = other.values("split")
    np.testing.assert_array_equal(own.values("split"), np.where(there == "train", "test", "train"))
    for wrong in ("labels.noise=0.1", "probes.corrupted=5"):
        with pytest.raises(RecipeError, match="baseline"):
            load("digits", [*TINY, "training.split=test", wrong])
