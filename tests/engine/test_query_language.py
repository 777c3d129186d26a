"""Conditions on values, groups, order, places of extremes, neighbours: beside pandas and numpy on the same numbers."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn.errors import FeatdynError
from featdyn.query import ask, query, render, variables
from featdyn.query import values as values_module
from featdyn.query.where import Condition
from featdyn.store import Run
from tests.engine.runs import CHECKPOINTS, LAYERS, SAMPLES, write_run

NORM, COSINE, LOSS = "cube.activation_norm", "cube.activation_cosine", "outputs.loss"
REDUCTIONS = ("mean", "sum", "min", "max", "count", "median", "std", "norm")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of 4 checkpoints, 3 layers and 11 samples in shards of 4, to be read only."""
    return write_run(tmp_path_factory.mktemp("store") / "run.zarr")


def pandas_reduction(function: str) -> Callable[[pd.Series[float]], float]:
    found: dict[str, Callable[[pd.Series[float]], float]] = {
        "std": lambda s: float(s.std(ddof=0)),
        "norm": lambda s: float(np.sqrt((s**2).sum(min_count=1))),
    }
    return found.get(function, lambda s: float(getattr(s.astype(float), function)()))


def test_several_variables_are_columns_of_one_table(run: Run) -> None:
    found = query(run, "train_loss", NORM, LOSS)
    assert list(found.columns)[-3:] == ["train_loss", "activation_norm", "loss"]
    for name in (NORM, LOSS, "train_loss"):
        alone = query(run, name)
        on = [c for c in ("checkpoint", "layer", "sample") if c in alone]
        last = name.rpartition(".")[2]
        merged = found[on].merge(alone[[*on, last]], on=on)[last]
        np.testing.assert_array_equal(found[last], merged)
    assert list(query(run, "cube.*norm", "~cosine$").columns)[-2:] == ["activation_norm", "activation_cosine"]
    both = query(run, "layers.stem.activation", "layers.s3b1.activation", limit=3)
    assert list(both.columns)[-2:] == ["layers.stem.activation", "layers.s3b1.activation"]


@settings(deadline=None, max_examples=30)
@given(bound=st.floats(-2, 2), other=st.floats(-1, 1), label=st.integers(0, 3), limit=st.none() | st.integers(1, 50))
def test_conditions_on_values_keep_what_pandas_keeps(
    run: Run, bound: float, other: float, label: int, limit: int | None
) -> None:
    everything = query(run, NORM, COSINE, LOSS)
    kept = everything[
        (everything.activation_norm > bound) & (everything.loss <= other) & (everything.label != label)
    ].reset_index(drop=True)
    where = [f"activation_norm>{bound!r}", f"outputs.loss<={other!r}", f"label!={label}"]
    if kept.empty:
        with pytest.raises(FeatdynError, match="selects nothing; activation_norm is"):
            query(run, NORM, COSINE, LOSS, where=where, limit=limit)
        return
    found = query(run, NORM, COSINE, LOSS, where=where, limit=limit)
    pd.testing.assert_frame_equal(found, kept.head(len(kept) if limit is None else limit))


@pytest.mark.parametrize(
    "by", [["label"], ["split", "corruption"], ["layer", "label"], ["epoch"], ["checkpoint"], ["epoch", "label"]]
)
@pytest.mark.parametrize("function", REDUCTIONS)
def test_groups_are_those_of_pandas(run: Run, by: list[str], function: str) -> None:
    table = query(run, COSINE)
    expected = table.groupby(by)["activation_cosine"].apply(pandas_reduction(function))
    found = query(run, COSINE, by=by, reduce=function).set_index(by)["activation_cosine"]
    np.testing.assert_allclose(found.reindex(expected.index), expected, rtol=1e-6, atol=1e-12)
    assert len(found) == len(expected)


def test_an_answer_says_by_what_it_was_reduced(run: Run) -> None:
    for name, asked, said in (
        (LOSS, {"by": "split"}, "loss of the sample (mean)"),
        ("label", {"by": "split"}, "label of the probe (mode)"),
        (LOSS, {"by": "split", "reduce": "median:sample"}, "loss of the sample (median:sample)"),
    ):
        found = ask(run, name, **asked).dataset()
        assert found[name.rpartition(".")[2]].attrs["long_name"] == said
        assert found["split"].attrs == {"long_name": "set of the probe", "units": "1"}
    for how, units in (("max", "step"), ("count", None), (["count:checkpoint", "mean"], None)):
        assert ask(run, "step", reduce=how).dataset()["step"].attrs.get("units") == units


def test_a_reduction_that_names_axes_leaves_all_others(run: Run) -> None:
    assert len(query(run, NORM, by="layer")) == len(LAYERS)
    assert len(query(run, NORM, by="layer", reduce="median")) == len(LAYERS)
    assert len(query(run, NORM, by="layer", reduce="median:sample")) == len(LAYERS) * CHECKPOINTS


def test_names_may_be_in_a_list(run: Run) -> None:
    together = query(run, [NORM, LOSS], where="checkpoint=-1")
    pd.testing.assert_frame_equal(together, query(run, NORM, LOSS, where="checkpoint=-1"))


def test_groups_of_one_axis_with_conditions_on_values(run: Run) -> None:
    table = query(run, NORM, where="activation_norm>0")
    expected = table.groupby(["checkpoint", "label"])["activation_norm"].mean()
    found = query(run, NORM, where="activation_norm>0", by="label", reduce="mean:sample,layer")
    assert list(found.columns) == ["checkpoint", "step", "epoch", "label", "activation_norm"]
    pd.testing.assert_series_equal(
        found.set_index(["checkpoint", "label"])["activation_norm"].sort_index(),
        expected, check_dtype=False, rtol=1e-6,
    )  # fmt: skip


@settings(deadline=None, max_examples=25)
@given(top=st.integers(1, 200), name=st.sampled_from([NORM, COSINE]), down=st.booleans())
def test_the_largest_come_first_as_in_pandas(run: Run, top: int, name: str, down: bool) -> None:
    last = name.rpartition(".")[2]
    everything = query(run, name).sort_values(last, ascending=not down, kind="stable", na_position="last")
    found = query(run, name, top=top) if down else query(run, name, sort=last, limit=top)
    pd.testing.assert_frame_equal(found, everything.head(top).reset_index(drop=True))


@pytest.mark.parametrize("by", [["label"], ["checkpoint", "label"], ["split", "layer"]])
@pytest.mark.parametrize("reductions", [["max"], ["mean"], ["median"]])
def test_groups_without_a_row_are_left_out_as_in_pandas(run: Run, by: list[str], reductions: list[str]) -> None:
    table = query(run, NORM)
    bound = float(table["activation_norm"].quantile(0.98))
    kept = query(run, NORM, where=f"activation_norm>{bound!r}")
    expected = getattr(kept.groupby(by)["activation_norm"], reductions[0])()
    answer = ask(run, NORM, where=f"activation_norm>{bound!r}", by=by, reduce=reductions)
    found = answer.frame().set_index(by)["activation_norm"].sort_index()
    pd.testing.assert_series_equal(found, expected, check_dtype=False, rtol=1e-6)
    assert len(expected) < len(table.groupby(by)) or by == ["label"]
    assert answer.dataset()["activation_norm"].size == len(expected)


def test_groups_that_one_reduction_leaves_the_next_takes_away(run: Run) -> None:
    table = query(run, NORM)
    of_layers = table.groupby(["checkpoint", "label", "sample"], sort=False)["activation_norm"].max()
    of_labels = table.groupby(["checkpoint", "layer", "label"], sort=False)["activation_norm"].mean()
    for steps, expected in (
        (["max:layer", "mean:sample"], of_layers.groupby(["checkpoint", "label"], sort=False).mean()),
        (["mean:sample", "max:sample"], of_labels.groupby(["checkpoint", "layer"], sort=False).max()),
    ):
        found = query(run, NORM, by="label", reduce=steps)
        np.testing.assert_allclose(found["activation_norm"], expected, rtol=1e-6)


def test_a_group_whose_values_are_missing_stays(run: Run) -> None:
    kept = query(run, COSINE, NORM, where="activation_norm>0").groupby("checkpoint")["activation_cosine"].mean()
    found = query(run, COSINE, where=f"{NORM}>0", by="checkpoint").set_index("checkpoint")["activation_cosine"]
    assert kept.isna().any()
    pd.testing.assert_series_equal(found, kept, check_dtype=False, rtol=1e-6)


def test_nothing_counted_is_zero_and_no_error(run: Run) -> None:
    found = query(run, NORM, where="activation_norm>1e9", by="layer", reduce="count")
    assert found["activation_norm"].tolist() == [0, 0, 0]


def test_conditions_on_values_along_one_axis(run: Run) -> None:
    for condition, kept in (("train_loss<0.7", [2, 3]), ("train_loss>=0.5", [1, 2]), ("train_loss!=1", [0, 2, 3])):
        assert query(run, "train_loss", where=condition)["checkpoint"].tolist() == kept
    assert query(run, "train_loss", where="train_loss<=1", top=1)["checkpoint"].tolist() == [1]


def test_a_variable_sorts_by_its_whole_name_too(run: Run) -> None:
    pd.testing.assert_frame_equal(query(run, NORM, sort=f"-{NORM}"), query(run, NORM, sort="-activation_norm"))
    both = ["layers.stem.activation", "layers.s3b1.activation"]
    assert (np.diff(query(run, *both, sort=both[1])[both[1]].to_numpy()) >= 0).all()


def test_a_table_is_sorted_by_any_columns(run: Run) -> None:
    found = query(run, NORM, where="checkpoint=1", sort=["-severity", "layer,-activation_norm"])
    everything = query(run, NORM, where="checkpoint=1").sort_values(
        ["severity", "layer", "activation_norm"], ascending=[False, True, False], kind="stable", ignore_index=True
    )
    pd.testing.assert_frame_equal(found, everything)
    assert query(run, "step", sort="-checkpoint", limit=2)["step"].tolist() == [90, 40]
    tied = query(run, "label", sort=["label", "-sample"], limit=4)  # the first key alone does not say which
    assert tied["sample"].tolist() == ["digits/008", "digits/004", "digits/000", "digits/009"]
    assert query(run, NORM, by="label", top=1).equals(query(run, NORM, by="label", sort="-activation_norm").head(1))


@pytest.mark.parametrize("function", ["argmax", "argmin"])
@pytest.mark.parametrize("dim", ["checkpoint", "layer", "sample"])
def test_places_of_extremes_are_numpys(run: Run, function: str, dim: str) -> None:
    array = xr.open_datatree(run.path, engine="zarr", chunks=None)["cube/activation_cosine"].load()
    values, axis = array.values, array.dims.index(dim)
    found = query(run, COSINE, reduce=f"{function}:{dim}")
    fill = -np.inf if function == "argmax" else np.inf
    place = getattr(np, function)(np.where(np.isnan(values), fill, values), axis).reshape(-1)
    none = np.isnan(values).all(axis).reshape(-1)
    names = np.arange(CHECKPOINTS) if dim == "checkpoint" else query(run, NORM)[dim].unique()
    assert found[dim][~none].tolist() == names[place][~none].tolist()
    assert found[dim][none].isna().all()
    expected = np.take_along_axis(values, np.expand_dims(place.reshape(found_shape(values, axis)), axis), axis)
    np.testing.assert_array_equal(found["activation_cosine"], expected.reshape(-1))


def found_shape(values: np.ndarray[Any, Any], axis: int) -> tuple[int, ...]:
    return values.shape[:axis] + values.shape[axis + 1 :]


def test_the_first_of_equal_extremes_counts(run: Run) -> None:
    found = query(run, "results.consistency.right", reduce="argmax:probe")
    right = run.values(f"{run.results('consistency')[-1]}/right")
    assert found["probe"].tolist() == right.argmax(1).tolist()


def test_a_difference_reads_its_ends_only(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    values = run.values("layers/s1.b1/activation").astype(np.float64)
    asked: list[int] = []
    block = Run.block

    def counting(self: Run, path: str, checkpoint: int, *more: Any, **options: Any) -> Any:
        asked.extend([checkpoint] * path.startswith("layers/"))
        return block(self, path, checkpoint, *more, **options)

    monkeypatch.setattr(Run, "block", counting)
    found = query(run, "layers.s1.b1.activation", reduce=["diff:checkpoint", "norm"], by="sample", top=3)
    expected = np.sqrt(((values[-1] - values[0]) ** 2).sum((1, 2)))
    np.testing.assert_allclose(found["activation"], np.sort(expected)[::-1][:3], rtol=1e-6)
    assert set(asked) == {0, CHECKPOINTS - 1}


@pytest.mark.parametrize("between", [["checkpoint=1..2"], ["checkpoint>0"], ["activation_norm>0", "checkpoint=0,3"]])
def test_a_difference_is_that_of_the_selected_ends(run: Run, between: list[str]) -> None:
    table = query(run, NORM, where=between[-1])
    first, last = (
        table[table["checkpoint"] == t]["activation_norm"].to_numpy() for t in table["checkpoint"].iloc[[0, -1]]
    )
    expected = last - first
    if len(between) > 1:
        expected[(first <= 0) | (last <= 0)] = np.nan
    found = query(run, NORM, where=between, reduce="diff:checkpoint")["activation_norm"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert np.isnan(expected).any() == (len(between) > 1)


@pytest.mark.parametrize(
    ("condition", "checkpoints"),
    [("checkpoint=-1", [3]), ("checkpoint=-4", [0]), ("checkpoint=-5,2", [2]),
     ("checkpoint=-2..", [2, 3]), ("checkpoint!=-1", [0, 1, 2]), ("checkpoint<-1", [0, 1, 2]),
     ("checkpoint=0,-1", [0, 3]), ("checkpoint=..-3", [0, 1]), ("epoch=0.5..1", [1, 2]), ("epoch==1", [2])],
)  # fmt: skip
def test_places_count_from_the_end(run: Run, condition: str, checkpoints: list[int]) -> None:
    assert query(run, "step", where=condition)["checkpoint"].tolist() == checkpoints


@pytest.mark.parametrize(
    ("condition", "layers"), [("layer~^s[0-9]", ["s1.b1", "s3b1"]), ("layer!~b1$", ["stem"]), (r"layer~\.", ["s1.b1"])]
)
def test_regular_expressions(run: Run, condition: str, layers: list[str]) -> None:
    assert query(run, NORM, where=condition)["layer"].unique().tolist() == layers


@settings(deadline=None, max_examples=12)
@given(sample=st.integers(0, SAMPLES - 1), by_id=st.booleans(), layer=st.sampled_from(LAYERS), top=st.integers(1, 10))
def test_neighbours_are_those_of_numpy(run: Run, sample: int, by_id: bool, layer: str, top: int) -> None:
    values = run.values(f"layers/{layer}/gradient").astype(np.float64)[-1].reshape(SAMPLES, -1)
    apart = np.linalg.norm(values - values[sample], axis=1)
    order = [i for i in np.argsort(apart, kind="stable") if i != sample][:top]
    like = f"digits/{sample:03d}" if by_id else sample
    found = query(run, f"layers.{layer}.gradient", where="checkpoint=-1", like=like, top=top)
    assert found["sample"].tolist() == [f"digits/{i:03d}" for i in order]
    np.testing.assert_allclose(found["distance"], apart[order], rtol=1e-5)
    assert found["label"].tolist() == [i % 4 for i in order]
    selected = query(
        run, f"layers.{layer}.gradient", where=["checkpoint=-1", "outputs.loss>0", "label!=0"], like=like, limit=9
    )
    loss = query(run, LOSS, where="checkpoint=-1").set_index("sample")["loss"]
    kept = [f"digits/{i:03d}" for i in np.argsort(apart, kind="stable") if i != sample and i % 4]
    assert selected["sample"].tolist() == [name for name in kept if loss[name] > 0]


@pytest.mark.parametrize("filtered", [[], ["outputs.loss>0"]])
def test_neighbours_are_ranked_within_each_checkpoint(run: Run, filtered: list[str]) -> None:
    values = run.values("layers/s3b1/gradient").astype(np.float64).reshape(CHECKPOINTS, SAMPLES, -1)
    loss = run.values("outputs/loss")
    of_each = []
    for t in (1, 2, 3):
        apart = np.linalg.norm(values[t] - values[t, 5], axis=1)
        order = [i for i in np.argsort(apart, kind="stable") if i != 5 and (not filtered or loss[t, i] > 0)]
        of_each.append([(t, f"digits/{i:03d}") for i in order])
    asked: dict[str, Any] = {"where": ["checkpoint>0", *filtered], "like": 5}
    everything = [pair for pairs in of_each for pair in pairs]
    nearest = [pair for pairs in of_each for pair in pairs[:2]]
    for more, kept in (({}, everything), ({"limit": 7}, everything[:7]), ({"top": 2}, nearest)):
        found = query(run, "layers.s3b1.gradient", **asked, **more)
        assert list(zip(found["checkpoint"], found["sample"], strict=True)) == kept
    overall = query(run, "layers.s3b1.gradient", **asked, sort="distance", top=5)["distance"]
    assert overall.is_monotonic_increasing
    assert len(overall) == 5


@pytest.mark.parametrize(
    ("names", "arguments", "message"),
    [
        ([], {}, "name a variable, .* lists what there is"),
        ([3], {}, "name variables in text, such as 'outputs.loss', got int"),
        (["cube.*nrom"], {}, r"no variable matches 'cube\.\*nrom'"),
        (["~("], {}, "not a regular expression"),
        ([NORM, "layers.stem.activation"], {}, "activation_norm goes along layer and activation does not"),
        ([NORM], {"where": "los>1"}, "no coordinate 'los'"),
        ([NORM], {"where": "activation_nrom>1"}, "did you mean activation_norm"),
        ([NORM], {"where": "activation_norm>1e9"}, "selects nothing; activation_norm is -"),
        ([NORM], {"where": "activation_norm>1e9", "by": "layer"}, "selects nothing; activation_norm is -"),
        ([NORM], {"where": "activation_norm>1e9", "reduce": "argmax:layer"}, "selects nothing"),
        ([NORM], {"where": "loss>1"}, "did you mean outputs.loss"),
        ([NORM], {"where": "outputs.los>1"}, "did you mean outputs.loss"),
        ([NORM], {"where": "layer~("}, "is not a regular expression"),
        ([NORM], {"where": "label~3"}, "is for text, and label holds numbers"),
        ([NORM], {"where": "layers.stem.activation>1"}, "goes along channel, width"),
        ([NORM, "train_loss"], {"where": "outputs.loss>0", "reduce": "mean:checkpoint"}, "goes along sample"),
        ([NORM], {"by": "lable"}, "did you mean label"),
        ([NORM], {"by": "label", "reduce": "mean:layer"}, "--by label: no reduction takes sample away"),
        ([NORM], {"by": "label", "reduce": "argmax:sample"}, "takes no groups of sample"),
        ([NORM], {"reduce": ["argmax:layer", "mean"]}, "is for one variable, and the last reduction"),
        ([NORM, COSINE], {"reduce": "argmax:layer"}, "is for one variable, and the last reduction"),
        (
            [NORM],
            {"where": ["activation_norm>1e9", "activation_norm<0"]},
            "^all conditions together select nothing; --",
        ),
        ([NORM], {"where": "activation_norm>1e9"}, "^--where"),
        (["layers.stem.activation"], {"where": "sample=1", "like": 1}, "--like 1: no other sample is selected"),
        (["layers.stem.activation"], {"like": "0..1"}, "no sample of this id"),
        ([NORM], {"reduce": "argmax"}, "goes along one axis, as in argmax:checkpoint"),
        ([NORM], {"reduce": "maen:sample"}, "did you mean mean"),
        ([NORM], {"reduce": "diff:checkpoint", "where": "checkpoint=1"}, "one checkpoint is selected"),
        ([NORM], {"sort": "activation_nrom"}, "no such column; did you mean activation_norm"),
        ([NORM], {"top": 0}, "the top must be at least 1"),
        ([NORM], {"top": 1, "limit": 1}, "not both"),
        ([NORM], {"like": 0}, "--like needs features of samples"),
        (["layers.stem.activation"], {"like": 99}, "there are samples 0 to 10"),
        (["layers.stem.activation"], {"like": "digits"}, "no sample of this id"),
        (["layers.stem.activation", NORM], {"like": 0}, "activation_norm goes along layer"),
    ],
)
def test_bad_questions_get_one_line(run: Run, names: list[str], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(FeatdynError, match=message) as caught:
        query(run, *names, **arguments)
    assert "\n" not in str(caught.value)


def test_what_is_true_or_false_takes_no_other_word() -> None:
    for text in ("right=true", "right=yes", "right=T*", "right!=0", "right=true,false"):
        assert Condition.parse(text).holds(np.array([True])).all()
    for text, message in (("right=flase", "right is true or false"), ("right>0.5", "right holds true and false")):
        with pytest.raises(FeatdynError, match=message):
            Condition.parse(text).holds(np.array([True, False]))


def test_too_many_rows_by_value_are_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values_module, "ROWS", 10)
    with pytest.raises(FeatdynError, match="more than 10 rows"):
        query(run, NORM, where="activation_norm<100")
    assert len(query(run, NORM, where="activation_norm<100", top=12)) == 12


def test_the_listing_names_every_variable(run: Run) -> None:
    found = variables(run).set_index("variable")
    assert found.loc["cube.activation_norm", "axes"] == f"checkpoint {CHECKPOINTS} x layer 3 x sample {SAMPLES}"
    assert found.loc["cube.activation_norm", "bytes"] == CHECKPOINTS * 3 * SAMPLES * 4
    for name in found.index:
        assert len(query(run, name, limit=1)) == 1
    assert found.loc["step", ["units", "meaning"]].tolist() == ["step", "training steps"]
    for name in ("outputs.loss", "label", "epoch", "train_loss", NORM, "layers.stem.activation"):
        assert found.loc[name, "units"], name
        assert found.loc[name, "meaning"], name
    assert variables(run, "cube.*").variable.tolist() == [name for name in found.index if name.startswith("cube.")]


def test_answers_read_back_from_arrow_and_netcdf(run: Run, tmp_path: Path) -> None:
    asked = {"where": "layer!=stem", "reduce": "mean:sample"}
    frame = query(run, NORM, **asked)
    render(ask(run, NORM, **asked), "arrow", tmp_path / "a.arrow")
    with pa.ipc.open_file(tmp_path / "a.arrow") as file:
        pd.testing.assert_frame_equal(file.read_all().to_pandas(), frame)
    render(ask(run, NORM, **asked), "netcdf", tmp_path / "a.nc")
    found = xr.load_dataset(tmp_path / "a.nc", engine="scipy")
    assert found["activation_norm"].dims == ("checkpoint", "layer")
    np.testing.assert_array_equal(found["activation_norm"].values.reshape(-1), frame["activation_norm"])
    assert found["step"].values.tolist() == [0, 10, 40, 90]
    render(ask(run, NORM, top=5), "netcdf", tmp_path / "b.nc")
    rows = xr.load_dataset(tmp_path / "b.nc", engine="scipy")
    assert rows["sample"].values.tolist() == query(run, NORM, top=5)["sample"].tolist()
    stream = io.StringIO()
    render(ask(run, NORM, **asked), "json", stream)
    assert [row["activation_norm"] for row in json.loads(stream.getvalue())] == frame["activation_norm"].tolist()
