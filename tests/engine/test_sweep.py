"""Grids of runs."""

from __future__ import annotations

import pytest

from featdyn.errors import FeatdynError, RecipeError
from featdyn.store import Run
from featdyn.training import load
from featdyn.training.stage import Events, train
from featdyn.training.sweep import Sweep, points
from tests.engine.test_cli import one_line
from tests.engine.test_training import TINY, Stop, files_of

SHORT = (*TINY, "training.epochs=1", "checkpoints.first_epoch=0", "capture.layers=['hidden1']")
SET = [part for change in SHORT for part in ("--set", change)]


def names(*sweeps, seeds=None, changes=()):
    return [point.store.name for point in points("digits", "grid", sweeps, changes, seeds)]


def test_points_are_named_plainly_and_sweeps_multiply():
    assert names("labels.noise=0,0.5,1") == [f"labels.noise={v}.zarr" for v in ("0", "0.5", "1")]
    assert names("training.optimizer=sgd, adam", seeds=2) == [
        f"training.optimizer={o},seed={s}.zarr" for o in ("sgd", "adam") for s in (0, 1)
    ]
    assert names(seeds=3) == ["seed=0.zarr", "seed=1.zarr", "seed=2.zarr"]
    assert names("data.name=digits,imagefolder:/a b/c") == ["data.name=digits.zarr", "data.name=imagefolder_a_b_c.zarr"]
    lists = names("training.milestones=[0.5, 0.75],[0.3]")
    assert lists == ["training.milestones=[0.5,_0.75].zarr", "training.milestones=[0.3].zarr"]
    nested = "network.options={widths=[8, 4], alpha=2},{}"
    assert [p.recipe.network.options for p in points("digits", "grid", [nested])] == [
        {"widths": [8, 4], "alpha": 2},
        {},
    ]


def test_points_hold_their_values_and_seeds_are_those_of_training_and_labels():
    grid = points("digits", "grid", ["labels.noise=0,1", "training.batch_size=32,64"], ["training.epochs=3"], 2)
    assert len(grid) == 8
    for point in grid:
        recipe, seed = point.recipe, int(point.values["seed"])
        assert (recipe.training.seed, recipe.labels.seed, recipe.probes.seed) == (seed, seed, 0)
        assert recipe.labels.noise == float(point.values["labels.noise"])
        assert recipe.training.batch_size == int(point.values["training.batch_size"])
        assert recipe.training.epochs == 3
    assert len({str(point.recipe) for point in grid}) == 8


@pytest.mark.parametrize(
    ("sweeps", "message"),
    [
        (["labels.noise"], "write field=value,value"),
        (["labels.noise=0,,1"], "write field=value,value"),
        (["labels.noise=0,1,0"], "labels.noise=0 is there twice"),
        (["labels.noise=0", "labels.noise=1"], "a field is given twice"),
        (["labels.noise=0,2"], r"labels.noise: .*got 2"),
        (["labels.noises=0"], "no field labels.noises"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_in_one_line(sweeps, message):
    with pytest.raises(RecipeError, match=message) as caught:
        names(*sweeps)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("network.name=mlp,nope", "network.name=nope.zarr: unknown network"),
        ("capture.layers=['hidden1'],['hidden9']", "hidden9"),
        ("training.batch_size=64,4000", "batch_size 4000"),
        ("probes.test=5,100000", "probes.test=100000"),
        ("data.name=digits,nope", "unknown data set"),
        ("intervention.cut=hidden1,hidden7", "no cut 'hidden7'"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_starts(tmp_path, sweep, message):
    grid = points(
        "digits", tmp_path / "grid", [sweep], [*SHORT, "intervention.freeze_at=0"] if "cut" in sweep else SHORT
    )
    with pytest.raises(FeatdynError, match=message) as caught:
        Sweep(grid)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "grid").exists()


def test_a_store_of_another_recipe_and_a_folder_that_is_a_store_are_refused(tmp_path):
    train(load("digits", SHORT), tmp_path / "seed=1.zarr")
    with pytest.raises(RecipeError, match=r"seed=1.zarr.* another recipe \(labels.seed: 0 there, 1 here, and 1 more"):
        Sweep(points("digits", tmp_path, [], SHORT, 2))
    with pytest.raises(RecipeError, match="is a store; give a folder"):
        points("digits", tmp_path / "seed=1.zarr", [], SHORT, 2)


def test_a_sweep_goes_on_where_it_stands(tmp_path):
    grid = Sweep(points("digits", tmp_path / "a", ["labels.noise=0,1"], SHORT, 2))
    whole = {point.store.name: files_of(grid.run(point).path) for point in grid.points}
    assert len({content["checkpoints/000001/model.safetensors"] for content in whole.values()}) == 4
    grid = Sweep(points("digits", tmp_path / "b", ["labels.noise=0,1"], SHORT, 2))
    grid.run(grid.points[0])

    def interrupt(step, steps, loss):
        if step == 3:
            raise Stop

    with pytest.raises(Stop):
        grid.run(grid.points[1], Events(step=interrupt))
    again = Sweep(points("digits", tmp_path / "b", ["labels.noise=0,1"], SHORT, 2))
    done = (grid.points[0].store / "zarr.json").stat().st_mtime_ns
    for point in again.points:
        steps = []
        again.run(point, Events(step=lambda step, total, loss, steps=steps: steps.append(step)))
        assert bool(steps) == (point is not again.points[0])
        assert files_of(point.store) == whole[point.store.name]
    assert (grid.points[0].store / "zarr.json").stat().st_mtime_ns == done


def test_the_command_makes_a_store_per_point_and_a_table(featdyn, tmp_path):
    arguments = ["train", "digits", "--store", tmp_path, *SET, "--sweep", "labels.noise=0,1", "--seeds", "2"]
    code, out, err = featdyn(*arguments)
    assert (code, err) == (0, "")
    stores = sorted(p.name for p in tmp_path.iterdir())
    assert stores == [f"labels.noise={n},seed={s}.zarr" for n in (0, 1) for s in (0, 1)]
    table = [line.split() for line in out[out.index("labels.noise  ") :].splitlines()]
    assert table[0] == [
        "labels.noise",
        "seed",
        "checkpoints",
        "step",
        "train_accuracy",
        "test_loss",
        "test_accuracy",
        "state",
    ]
    for row, name in zip(table[1:5], stores, strict=True):
        run = Run(tmp_path / name)
        assert row[:4] == [name[13], name[20], "2", "5"]
        assert float(row[6]) == pytest.approx(run.values("test_accuracy")[-1], rel=1e-4)
        assert row[7] == "done"
    assert "over 2 seeds" in out
    assert featdyn(*arguments)[1].endswith(out[out.index("labels.noise  ") :])  # again: the same table
    one_line(featdyn(*arguments[:-2], "--sweep", "labels.noise=7"), "a field is given twice")
    one_line(featdyn(*arguments[:4], "--sweep", "labels.noise=0,7"), "labels.noise")


def test_a_run_that_diverges_does_not_stop_the_others(featdyn, tmp_path):
    sweep = ("--sweep", "training.learning_rate=1e20,0.01", "--set", "training.schedule=constant")
    code, out, err = featdyn("train", "digits", "--store", tmp_path, *SET, *sweep)
    assert code == 1
    assert err.startswith("featdyn: 1 of 2 runs did not finish")
    assert "the training loss is" in out
    assert Run(tmp_path / "training.learning_rate=0.01.zarr").checkpoints == 2
