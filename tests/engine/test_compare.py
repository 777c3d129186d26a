"""Runs side by side: planted differences are read back with the intervals that seeds and probes give them."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from click.testing import CliRunner

from featdyn.across_runs.compare import _images, compare
from featdyn.across_runs.matching import group_names, recipe_fields
from featdyn.cli.main import featdyn
from featdyn.errors import FeatdynError
from featdyn.report.comparison import sections, write
from featdyn.statistics.repeats import mean_estimate
from featdyn.statistics.resampling import wilson
from featdyn.store import ArraySpec, Run, RunWriter, Schema
from tests.engine.planted_pairs import planted
from tests.engine.report_page import Page
from tests.engine.synthetic_run import add_consistency, make_run

AGREEMENT = "results.consistency.agreement"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    found = []
    for seed in range(3):
        found.append(planted(folder / f"clean{seed}.zarr", agreement=0.9 + 0.02 * seed, fits=5, seed=seed))
        found.append(planted(folder / f"random{seed}.zarr", agreement=0.3 + 0.1 * seed, fits=5, noise=1.0, seed=seed))
    return found


def groups(runs):
    return group_names([recipe_fields(run) for run in runs])


def test_groups_are_what_differs_without_seeds(runs, tmp_path):
    assert groups(runs) == ["labels.noise=0.0", "labels.noise=1.0"] * 3
    assert groups(runs[::2]) == ["all runs"] * 3
    frozen = planted(tmp_path / "f.zarr", agreement=0.5, fits=5, noise=1.0, frozen="s1b3")
    assert groups([runs[0], frozen]) == [
        "labels.noise=0.0",
        "labels.noise=1.0, intervention.cut=s1b3, intervention.freeze_at=2.0",
    ]


def test_planted_values_and_their_intervals(runs):
    table = compare(runs, [AGREEMENT], where=["cut=pooled", "set=test"])
    assert table["group"].tolist() == ["labels.noise=0.0", "labels.noise=1.0"]
    assert table["runs"].tolist() == [3, 3]
    for row, values in zip(table.itertuples(), ([0.9, 0.92, 0.94], [0.3, 0.4, 0.5]), strict=True):
        expected = mean_estimate(values)
        assert (row.value, row.low, row.high) == pytest.approx((expected.value, expected.low, expected.high))
        bounds = np.mean([wilson(v, 4) for v in values], axis=0)
        assert (row.probes_low, row.probes_high) == pytest.approx(tuple(bounds))


def test_one_run_has_an_interval_over_probes_only(runs):
    table = compare(runs[:1], [AGREEMENT])
    assert len(table) == 4  # cuts x sets
    assert table[["low", "high"]].isna().all().all()
    assert np.allclose(table["probes_low"], wilson(0.9, 4)[0])


def test_copies_of_an_image_are_no_more_probes():
    """The sets' probes are 20 images: of one copy each, of 15, of unequal numbers; of the last some were used."""
    copies = {
        "one": np.ones(20, int),
        "many": np.full(20, 15),
        "unequal": np.arange(20) % 3 + 1,
        "some": np.full(20, 2),
    }
    images = {name: [f"{name}{i}" for i in np.repeat(np.arange(20), n)] for name, n in copies.items()}
    split = np.repeat(np.array([*copies], object), [len(each) for each in images.values()])
    coords = {"split": ("sample", split), "origin": ("sample", np.concatenate([*images.values()]))}
    coords = {name: xr.DataArray(values, dims=dim) for name, (dim, values) in coords.items()}
    run = SimpleNamespace(path="r.zarr", coords=coords, schema=SimpleNamespace(samples=len(split)))
    used = pd.Series({"one": 12, "many": 300, "unequal": 39, "some": 30})
    found = _images(run, used)
    assert found.round(9).to_dict() | {"some": None} == {
        "one": 12, "many": 20, "unequal": round(39**2 / (7 + 7 * 4 + 6 * 9), 9), "some": None,
    }  # fmt: skip
    assert np.isnan(found["some"])


def test_checkpoints_are_chosen_by_steps_or_by_training_accuracy(runs):
    assert compare(runs, [AGREEMENT], t1=0.0)["value"].max() == 0  # agreement was planted at half of the steps only
    plain = compare(runs[:1], ["results.consistency.plain_accuracy"], where=["set=train"], t1=1.0)
    assert plain["value"].tolist() == [1.0]
    curve = compare(runs, ["train_accuracy", "test_accuracy"], t2=0.0)
    assert curve["quantity"].tolist() == ["train_accuracy"] * 2 + ["test_accuracy"] * 2
    assert curve["value"].isna().tolist() == [True, True, False, False]
    assert curve["runs"].tolist() == [0, 0, 3, 3]


def test_a_recorded_run_at_matched_accuracy(small_store):
    run = Run(small_store)
    logits, train = run.values("outputs/logits"), run.values("split") == "train"
    accuracy = (logits.argmax(-1) == run.values("label"))[:, train].mean(1)
    level = float(np.sort(accuracy)[-2])
    first = int(np.flatnonzero(accuracy >= level)[0])
    table = compare([run], ["results.consistency.accuracy"], where=["cut=pooled", "set=train"], t1=1.0, fit=level)
    result = run.result("consistency").sel(cut="pooled", set="train").isel(t1=first, t2=first)
    assert table["value"].tolist() == [pytest.approx(float(result["accuracy"]))]
    assert table["probes_low"].tolist() == [pytest.approx(float(result["accuracy_low"]))]
    (row,) = compare([run], [AGREEMENT], where=["cut=pooled", "set=corrupted"]).itertuples()
    images = len(set(run.values("origin")[run.values("split") == "corrupted"]))
    assert images == (run.values("split") == "corrupted").sum() / 2
    assert [row.probes_low, row.probes_high] == pytest.approx([*map(float, wilson(row.value, images))])
    with pytest.raises(FeatdynError, match="no checkpoint fits 1 of its training probes"):
        compare([run], ["test_accuracy"], fit=1.0 if accuracy.max() < 1 else 1.0001)


def test_the_page_shows_the_table(runs, tmp_path):
    table = compare(runs, [AGREEMENT, "test_accuracy"])
    shown, curve = sections(table)
    figure = shown.panels[0].figures[""]
    assert [series.name for series in figure.series] == ["labels.noise=0.0", "labels.noise=1.0"]
    for series in figure.series:
        mine = table[(table["group"] == series.name) & (table["quantity"] == "consistency.agreement")]
        for name, values in (("value", series.y), ("low", series.low), ("high", series.high)):
            np.testing.assert_array_equal(values, mine[name])
    assert series.x == ["s1b3 · train", "s1b3 · test", "pooled · train", "pooled · test"]
    assert shown.finding.verdict == "intervals apart in 4 of 4 places"
    assert shown.finding.sentence.endswith(
        "40.0 % (15.2 to 64.8 %) for labels.noise=1.0 and 92.0 % (87.0 to 97.0 %) for labels.noise=0.0."
    )
    assert len(shown.grid.rows) == 8
    assert curve.finding.sentence == "Groups do not differ anywhere."
    page = Page(write(table, tmp_path / "f.html", where="t2: the last checkpoint."))
    for words in ("t2: the last checkpoint.", "Agreement (consistency)", "95 % intervals", "labels.noise=1.0 (3 runs)"):
        assert words in page.text
    with pytest.raises(FeatdynError, match="is a folder"):
        write(table, tmp_path)


def test_quantities_groups_and_places_come_in_the_order_in_which_they_are_asked_for(runs):
    table = compare(runs, ["test_accuracy", AGREEMENT])
    backwards = table.iloc[::-1]
    for given in (table, backwards):
        shown = sections(given)
        quantities, groups = (list(dict.fromkeys(given[name])) for name in ("quantity", "group"))
        assert [section.title for section in shown] == [
            {"test_accuracy": "Test accuracy", "consistency.agreement": "Agreement (consistency)"}[q]
            for q in quantities
        ]
        for quantity, section in zip(quantities, shown, strict=True):
            mine = given[given["quantity"] == quantity]
            assert [series.name for series in section.panels[0].figures[""].series] == groups
            assert [row[-5] for row in section.grid.rows] == mine["group"].tolist()
            for series in section.panels[0].figures[""].series:
                np.testing.assert_array_equal(series.y, mine[mine["group"] == series.name]["value"])


def test_one_run_shows_its_interval_over_probes(runs):
    table = compare(runs[:1], [AGREEMENT])
    (shown,) = sections(table)
    (series,) = shown.panels[0].figures[""].series
    np.testing.assert_array_equal(series.low, table["probes_low"])
    assert {row[-2] for row in shown.grid.rows} == {"probes"}
    assert shown.finding.verdict == ""


def test_names_cannot_harm_the_page(runs, tmp_path):
    table = compare(runs[:2], ["test_accuracy"]).assign(group=["</script><script>alert(1)</script>", "<b>x</b>"])
    write(table, tmp_path / "f.html")
    assert "<script>alert" not in (tmp_path / "f.html").read_text(encoding="utf-8")


def test_command(runs, tmp_path):
    stores = [str(run.path) for run in runs]
    arguments = ["compare", *stores, "--quantity", AGREEMENT, "--where", "set=test", "--format", "json"]
    found = CliRunner().invoke(featdyn, [*arguments, "-o", str(tmp_path / "f.html")])
    assert found.exit_code == 0, found.output
    rows = json.loads(found.stdout)
    assert {row["group"] for row in rows} == {"labels.noise=0.0", "labels.noise=1.0"}
    assert {round(row["value"], 6) for row in rows} == {0.92, 0.4}  # at the defaults of t1 and t2
    ends = {
        (): "t2: the last checkpoint. t1: the last checkpoint at or before 0.5 of t2's steps.",
        (
            "--t2",
            "0.5",
            "--t1",
            "1",
        ): "t2: the last checkpoint at or before 0.5 of all steps. t1: the last checkpoint at "
        "or before 1 of t2's steps.",
        ("--fit", "0.75"): "t2: the first checkpoint with 0.75 of its training probes right. t1: ",
    }
    for more, said in ends.items():
        found = CliRunner().invoke(featdyn, [*arguments, *more, "-o", str(tmp_path / "f.html")])
        assert found.exit_code == 0, found.output
        assert said in Page(tmp_path / "f.html").text


def test_what_cannot_be_compared(runs):
    with pytest.raises(FeatdynError, match=r"clean0\.zarr: no result of drift, there are results of consistency: "):
        compare(runs, ["results.drift.motion"])
    with pytest.raises(FeatdynError, match=r"'results\.consistency\.agreemnt'; did you mean results"):
        compare(runs, ["results.consistency.agreemnt"])
    for name, share in (("t1", 3), ("t1", -0.01), ("t2", 1.01), ("fit", -1), ("fit", 1.01)):
        with pytest.raises(FeatdynError, match=f"{name} must lie between 0 and 1, got {share}"):
            compare(runs, [AGREEMENT], **{name: share})
    for given in (([], [AGREEMENT]), (runs, [])):
        with pytest.raises(FeatdynError, match="at least one run and one quantity"):
            compare(*given)
    with pytest.raises(FeatdynError, match="split: these values are text"):
        compare(runs[:1], ["split"])
    with pytest.raises(FeatdynError, match="of one recipe and seed, which are no independent repeats"):
        compare([runs[0], runs[1], runs[0]], [AGREEMENT])


@pytest.mark.parametrize("unit", [1, 100])  # a share, and in percent
@pytest.mark.parametrize(
    ("name", "least"),
    [("train_accuracy", 0), ("test_accuracy", 0), ("outputs/confidence", 0), ("outputs/correct", 0),
     ("cube/activation_sparsity", 0), ("cube/activation_cosine", -1)],
)  # fmt: skip
def test_intervals_of_what_is_recorded_stay_within_what_is_possible(tmp_path, name, least, unit):
    values = [unit * (least + 0.02), unit * 0.95]
    for seed, value in enumerate(values):
        specs = [ArraySpec(path, (), (), "float64") for path in ("checkpoint", "step", name)]
        static = {"": xr.Dataset(coords={"sample": np.array(["a"], dtype=object)})}
        recipe = {"recipe": {"training": {"seed": seed}}}
        path = tmp_path / f"{seed}.zarr"
        made = RunWriter.create(path, Schema.build(specs, 1), static=static, attributes=recipe)
        with made as writer, writer.checkpoint() as checkpoint:
            for path, number in (("checkpoint", 0), ("step", 0), (name, value)):
                checkpoint.write(path, np.array(number, "float64"))
    row = next(compare([*tmp_path.glob("*.zarr")], [name.replace("/", ".")]).itertuples())
    free = mean_estimate(values)
    assert (row.low, row.high) == ((least, 1) if unit == 1 else pytest.approx((free.low, free.high)))


def test_intervals_stay_within_what_is_possible(tmp_path):
    made = [planted(tmp_path / f"{s}.zarr", agreement=a, fits=5, seed=s) for s, a in enumerate((0.02, 0.95))]
    row = next(compare(made, [AGREEMENT]).itertuples())
    expected = mean_estimate([0.02, 0.95])
    assert expected.low < 0
    assert expected.high > 1
    assert (row.low, row.high) == (0, 1)
    summed = next(compare(made, [AGREEMENT], reduce=["sum:set"]).itertuples())  # which is no share
    assert (summed.low, summed.high) == pytest.approx((2 * expected.low, 2 * expected.high))
    kept = next(compare(made, [AGREEMENT], reduce=["mean:set", "q0.5:cut"]).itertuples())
    assert (kept.low, kept.high) == (0, 1)
    assert compare(made, [AGREEMENT], reduce=["mean:cut"])["probes_low"].isna().all()  # a mean is no share of probes
    sizes = compare(made, ["results.consistency.set_size"])
    assert sizes["value"].tolist() == [4, 4]
    assert sizes["probes_low"].isna().all()
    equal = [planted(tmp_path / f"equal{s}.zarr", agreement=0.9, fits=5, seed=s) for s in range(2)]
    assert compare(equal, [AGREEMENT])[["low", "high"]].isna().all().all()


def test_runs_without_recipe_are_groups_of_their_own(tmp_path):
    made = [make_run(tmp_path / name / "run.zarr", checkpoints=2) for name in ("a", "b")]
    table = compare(made, ["test_accuracy"])
    assert table["group"].tolist() == [f"store={run.path}" for run in made]


def test_a_cell_that_one_run_misses_is_of_the_others(tmp_path):
    made = []
    for seed in range(3):
        run = make_run(tmp_path / f"{seed}.zarr", attributes={"recipe": {"training": {"seed": seed}}})
        made.append(add_consistency(run, missing=seed == 0))
    table = compare(made, ["results.consistency.accuracy"]).query("cut == 's1b3'").set_index("set")
    assert table["runs"].to_dict() == {"train": 2, "test": 3, "corrupted": 3}
    assert table["value"].notna().all()


def test_many_stores_are_read_by_workers(runs, clusters):
    alone = compare(runs, [AGREEMENT, "test_accuracy"])
    for workers in clusters.values():
        found = compare([run.path for run in runs], [AGREEMENT, "test_accuracy"], workers=workers)
        pd.testing.assert_frame_equal(found, alone, check_exact=True)
        with pytest.raises(FeatdynError, match="no result of drift"):
            compare(runs, ["results.drift.motion"], workers=workers)


def test_the_command_line_opens_workers(runs):
    arguments = ["compare", *(str(run.path) for run in runs), "--quantity", AGREEMENT, "--format", "json"]
    found = CliRunner().invoke(featdyn, [*arguments, "--scheduler", "threads"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout) == json.loads(CliRunner().invoke(featdyn, arguments).stdout)


def test_long_names_of_groups_have_the_fields_that_tell_them_apart():
    recipes = [{f"table.field_number_{i}": f"{i}-{run}" for i in range(20)} for run in "ab"]
    assert group_names(recipes) == [f"table.field_number_0=0-{run} and 19 more fields" for run in "ab"]
    named, alone = group_names([recipes[0], {"store": "other.zarr"}])
    assert (named, alone) == ("table.field_number_0=0-a and 19 more fields", "store=other.zarr")
    assert group_names([{"a": 1, "b": 2}, {"a": 2, "b": 1}]) == ["a=1, b=2", "a=2, b=1"]


def test_names_of_groups_are_whole_up_to_a_line_of_80_letters():
    for letters in (80, 81):
        pair = [{"a": run, "b": run * (letters - 7)} for run in "xy"]
        whole = [f"a={one['a']}, b={one['b']}" for one in pair]
        assert {len(name) for name in whole} == {letters}
        assert group_names(pair) == (whole if letters == 80 else ["a=x and 1 more field", "a=y and 1 more field"])
