from __future__ import annotations

import io
import json
import subprocess
import sys
import textwrap
import tracemalloc
import warnings
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn.analysis.status import DEAD, FEW, ONE_CLASS, Status, reasons
from featdyn.errors import FeatdynError
from featdyn.query import query, render
from featdyn.query import reduce as reduce_module
from featdyn.query import values as values_module
from featdyn.query.catalogue import Catalogue
from featdyn.query.cells import Cells
from featdyn.query.folds import most_frequent
from featdyn.query.reduce import Reduction, reduce
from featdyn.query.stored_array import find
from featdyn.store import ArraySpec, Run, RunWriter, Schema, commit_result
from tests.engine.runs import CHECKPOINTS, LAYERS, SAMPLES, SPLITS, write_run
from tests.engine.synthetic_run import make_run

FUNCTIONS = ("mean", "sum", "min", "max", "std", "count", "median", "q0.9", "q0.25", "mode")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of 4 checkpoints, to be read only."""
    return write_run(tmp_path_factory.mktemp("store") / "run.zarr")


@pytest.fixture(scope="module")
def zstd_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same run, compressed."""
    return write_run(tmp_path_factory.mktemp("store") / "zstd.zarr", "zstd")


def reference(values: np.ndarray[Any, Any], axes: tuple[int, ...], function: str) -> np.ndarray[Any, Any]:
    """Reduce as numpy words it, in float64."""
    values = values.astype(np.float64)
    if function == "count":
        return (~np.isnan(values)).sum(axes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # empty slices
        if function == "mode":
            rows = np.moveaxis(values, axes, range(-len(axes), 0)).reshape(*np.delete(values.shape, axes), -1)
            return np.asarray(scipy.stats.mode(rows, axis=-1, nan_policy="omit").mode, np.float64)
        if function[0] == "q":
            return np.nanquantile(values, float(function[1:]), axes)
        return getattr(np, f"nan{function}")(values, axes)


@cache
def dataset(run: Run, group: str) -> xr.Dataset:
    """Return a group as xarray opens it, without featdyn."""
    return xr.open_datatree(run.path, engine="zarr", chunks=None)[group].to_dataset().load()


@pytest.mark.parametrize(
    ("variable", "group", "name"),
    [
        ("cube.activation_norm", "cube", "activation_norm"),
        ("cube/activation_cosine", "cube", "activation_cosine"),
        ("layers.s1.b1.activation", "layers/s1.b1", "activation"),
        ("layers.s1.b1.gradient", "layers/s1.b1", "gradient"),
        ("outputs.loss", "outputs", "loss"),
        ("train_loss", "/", "train_loss"),
        ("label", "/", "label"),
        ("split", "/", "split"),
        ("results.consistency.prediction", "results/consistency/000006", "prediction"),
        ("results.consistency.000005.accuracy", "results/consistency/000005", "accuracy"),
    ],
)
def test_a_variable_is_what_xarray_reads(run: Run, zstd_run: Run, variable: str, group: str, name: str) -> None:
    expected = dataset(run, group)[name]
    found = query(run, variable)
    pd.testing.assert_frame_equal(query(zstd_run, variable), found)
    assert found.columns[-1] == name
    assert len(found) == expected.size
    np.testing.assert_array_equal(found[name].to_numpy(expected.dtype), expected.values.reshape(-1))
    indexed = expected.to_series().reset_index()
    for dim in expected.dims:
        if dim in expected.coords:
            assert found[dim].tolist() == indexed[dim].tolist()


def test_columns_are_the_axes_with_useful_coordinates(run: Run) -> None:
    assert list(query(run, "cube.activation_norm").columns) == [
        *("checkpoint", "step", "epoch", "layer", "sample", "split", "label", "corruption", "severity"),
        "activation_norm",
    ]
    assert list(query(run, "results.consistency.accuracy", where=["source=*"], reduce=["mean:set"]).columns) == [
        *("cut", "source", "t1", "step1", "t2", "step2", "accuracy")
    ]
    assert list(query(run, "step").columns) == ["checkpoint", "epoch", "step"]
    assert list(query(run, "outputs.loss", reduce=["mean"]).columns) == ["loss"]


def test_coordinates_are_those_of_xarray_and_nothing_else_along_an_axis(run: Run) -> None:
    """What is measured along an axis, such as `wrong`, is no coordinate of what else is; nor is an array its own."""
    result = run.result("consistency")
    for name in ("accuracy", "right", "wrong"):
        axes = {key: of.dims[0] for key, of in result[name].coords.items()}
        assert dict(find(Catalogue(run), f"results.consistency.{name}").coordinates) == axes
    of_step = find(Catalogue(run), "step").coordinates.keys()
    assert {"checkpoint", "epoch"} <= of_step <= run.coords.coords.keys() - {"step"}


@pytest.mark.parametrize(
    ("condition", "keep"),
    [
        ("checkpoint=1", lambda f: f.checkpoint == 1),
        ("checkpoint=last", lambda f: f.checkpoint == CHECKPOINTS - 1),
        ("checkpoint!=first", lambda f: f.checkpoint != 0),
        ("step=10..40", lambda f: f.step.between(10, 40)),
        ("step = 40..", lambda f: f.step >= 40),
        ("step=..10,90", lambda f: (f.step <= 10) | (f.step == 90)),
        ("step!=0,40", lambda f: ~f.step.isin([0, 40])),
        ("epoch>0.5", lambda f: f.epoch > 0.5),
        ("epoch>=0.5", lambda f: f.epoch >= 0.5),
        ("epoch<0.5", lambda f: f.epoch < 0.5),
        ("epoch<=5e-1", lambda f: f.epoch <= 0.5),
        ("layer=s*b1", lambda f: f.layer != "stem"),
        ("layer=s1.b1", lambda f: f.layer == "s1.b1"),
        ("layer!=s?b1,stem", lambda f: f.layer == "s1.b1"),
        ("split=train,test", lambda f: f.split.isin(["train", "test"])),
        ("corruption=", lambda f: f.corruption == ""),
        ("corruption!=", lambda f: f.corruption != ""),
        ("severity=3", lambda f: f.severity == 3),
        ("label=1,3", lambda f: f.label.isin([1, 3])),
        ("sample=*/00[0-4]", lambda f: f["sample"] <= "digits/004"),
        ("train_loss<0.7", lambda f: f.checkpoint >= 2),  # NaN is never below
    ],
)
def test_where_keeps_what_pandas_keeps(run: Run, condition: str, keep: Any) -> None:
    everything = query(run, "cube.activation_norm")
    kept = everything[keep(everything)].reset_index(drop=True)
    found = query(run, "cube.activation_norm", where=[condition])
    assert 0 < len(found) < len(everything)
    pd.testing.assert_frame_equal(found[kept.columns], kept)


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_selected_and_reduced_as_numpy_does(run: Run, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["activation_norm", "activation_cosine"]))
    layers = data.draw(st.lists(st.sampled_from(LAYERS), min_size=1, unique=True))
    splits = data.draw(st.lists(st.sampled_from(SPLITS), min_size=1, unique=True))
    checkpoints = data.draw(st.lists(st.integers(0, CHECKPOINTS - 1), min_size=1, unique=True))
    dims = data.draw(st.lists(st.sampled_from(["checkpoint", "layer", "sample"]), min_size=1, unique=True))
    function = data.draw(st.sampled_from(FUNCTIONS))
    where = [f"layer={','.join(layers)}", f"split={','.join(splits)}", f"checkpoint={','.join(map(str, checkpoints))}"]
    found = query(run, f"cube.{name}", where=where, reduce=[f"{function}:{','.join(dims)}"])
    tree = dataset(run, "cube")
    split = dataset(run, "/")["split"].values
    index = np.ix_(sorted(checkpoints), [n in layers for n in LAYERS], np.isin(split, splits))
    axes = tuple(tree[name].dims.index(d) for d in dims)
    expected = reference(tree[name].values[index], axes, function)
    np.testing.assert_allclose(found[name].to_numpy(), expected.reshape(-1), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_reductions_of_whole_numbers_are_exact(run: Run, function: str) -> None:
    values = dataset(run, "results/consistency/000006")["prediction"].values
    cells = find(Catalogue(run), "results.consistency.prediction").cells
    found = reduce(cells, Reduction.parse(f"{function}:t1,probe")).cells.load()
    np.testing.assert_allclose(found, reference(values, (1, 3), function), rtol=1e-12)
    assert (found.dtype.kind in "iu") == (function in ("sum", "min", "max", "count", "mode"))


def test_class_numbers_have_a_mode_and_no_mean(run: Run) -> None:
    values, label = dataset(run, "results/consistency/000006")["prediction"], dataset(run, "/")["label"].values
    found = query(run, "results.consistency.prediction", reduce="mode:probe")["prediction"]
    assert found.tolist() == reference(values.values, (3,), "mode").reshape(-1).tolist()
    assert query(run, "label", by="split")["label"].tolist() == [
        reference(label[dataset(run, "/")["split"].values == split], (0,), "mode") for split in sorted(set(SPLITS))
    ]
    for how in ("mean", "median", "q0.9", "std", "argmax:t1"):
        with pytest.raises(FeatdynError, match=f"^prediction holds class numbers, which have no {how[:4]}"):
            query(run, "results.consistency.prediction", reduce=["mode:probe", how])
    counted = query(run, "results.consistency.prediction", reduce=["count:probe", "mean"])["prediction"]
    assert counted.tolist() == [values.sizes["probe"]]


@given(
    rows=st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0, np.nan]), min_size=5, max_size=5), min_size=1, max_size=6)
)
def test_ties_are_those_that_numpy_counts(rows: list[list[float]]) -> None:
    values = np.array(rows)
    mode, tied = most_frequent(values, (1,))
    for row, best, others in zip(values, mode, tied, strict=True):
        there, counts = np.unique(row[~np.isnan(row)], return_counts=True)
        if not len(there):
            assert np.isnan(best)
            assert not others
            continue
        assert best == there[counts.argmax()]
        assert others == ((counts == counts.max()).sum() > 1)


def test_reductions_apply_in_order(run: Run) -> None:
    values = dataset(run, "layers/s3b1")["gradient"].values.astype(np.float64)
    found = query(run, "layers.s3b1.gradient", where=["checkpoint>0"], reduce=["std:sample", "max:channel,width"])
    np.testing.assert_allclose(found["gradient"].to_numpy(), values[1:].std(1).max((1, 2)), rtol=1e-12)
    assert found["step"].tolist() == [10, 40, 90]


@settings(deadline=None, max_examples=60)
@given(
    values=st.lists(st.floats(-(2.0**90), 2.0**90) | st.just(np.nan), min_size=1, max_size=24),
    infinities=st.lists(st.sampled_from([np.inf, -np.inf]), max_size=2),
    cell=st.integers(1, 7),
    function=st.sampled_from(FUNCTIONS),
)
def test_cut_into_cells_or_not_the_result_is_the_same(
    values: list[float], infinities: list[float], cell: int, function: str
) -> None:
    if function in ("median", "q0.9", "q0.25"):
        infinities = []  # between infinities numpy interpolates to NaN
    array = np.array([*infinities, *values], np.float64)
    cells = Cells(("x",), (np.arange(len(array)),), (cell,), array.dtype, lambda index: array[index[0] * cell :][:cell])
    found = reduce(cells, Reduction(function, ("x",))).cells.load()
    with np.errstate(invalid="ignore"):
        expected = reference(array, (0,), function)
    scale = max(np.abs(array[np.isfinite(array)]), default=0)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * scale)


@pytest.mark.parametrize(("function", "expected"), [("q0", -np.inf), ("median", np.inf), ("q1", np.inf)])
def test_a_quantile_may_be_infinite(function: str, expected: float) -> None:
    cells = Cells.held(np.array([np.inf, 1.0, -np.inf, np.nan, np.inf, np.inf]), ("x",))
    assert reduce(cells, Reduction(function, ())).cells.load() == expected


@pytest.mark.parametrize("function", ["q0", "median", "q1", "mode", "std", "norm"])
def test_of_one_missing_value_nothing_is_left(function: str) -> None:
    assert np.isnan(reduce(Cells.held(np.array([np.nan]), ("x",)), Reduction(function, ())).cells.load())


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a result of axes along which there is nothing, and of one value alone."""
    path = make_run(tmp_path_factory.mktemp("store") / "sparse.zarr", checkpoints=1).path
    empty = {"x": (("a", "b"), np.zeros((3, 0))), "y": (("b", "a"), np.zeros((0, 3), int)), "z": ("c", np.zeros(0))}
    commit_result(path, "e", xr.Dataset({**empty, "one": ((), 2.5), "count": ("a", [1, 2, 3])}))
    return Run(path)


@pytest.mark.parametrize("name", ["x", "y", "z"])
def test_where_an_axis_has_nothing_values_are_missing(sparse: Run, name: str) -> None:
    dim = "c" if name == "z" else "b"
    rows, left = (1, {}) if name == "z" else (3, {"a": [0, 1, 2]})
    for function in (*FUNCTIONS, "norm", f"argmax:{dim}", f"argmin:{dim}"):
        found = query(sparse, f"results.e.{name}", reduce=function if ":" in function else f"{function}:{dim}")
        expected = [0] * rows if function in ("sum", "count") else [np.nan] * rows
        if not (name == "y" and function in ("min", "max", "argmax:b", "argmin:b")):  # of whole numbers, no NaN
            np.testing.assert_array_equal(found[name], expected)
        assert {key: found[key].tolist() for key in left} == left
        if ":" in function:
            assert found[dim].isna().all()
    for asked in ({}, {"limit": 2}, {"top": 2}, {"sort": name}, {"sort": f"-{name}", "limit": 1}):
        assert query(sparse, f"results.e.{name}", **asked).empty
    with pytest.raises(FeatdynError, match=f"last minus first, and no {dim} is selected"):
        query(sparse, f"results.e.{name}", reduce=f"diff:{dim}")


def test_one_value_alone_is_asked_for_as_many_are(sparse: Run) -> None:
    for asked in ({}, {"limit": 1}, {"top": 3}, {"sort": "one"}, {"reduce": "max"}, {"reduce": "median"}):
        assert query(sparse, "results.e.one", **asked)["one"].tolist() == [2.5]
    for name, condition in (("results.e.one", "one>0"), ("results.e.count", "results.e.one>0")):
        with pytest.raises(FeatdynError, match=f"^--where '{condition}': .*one is one value, along no axis$"):
            query(sparse, name, where=condition)


def test_nan_is_skipped_and_nothing_left_is_nan(run: Run) -> None:
    left = {"mean": np.nan, "std": np.nan, "min": np.nan, "median": np.nan, "sum": 0, "count": 0}
    for function, expected in left.items():
        found = query(run, "cube.activation_cosine", where=["checkpoint=0"], reduce=[function])
        np.testing.assert_array_equal(found["activation_cosine"], [expected])
    assert query(run, "cube.activation_cosine", reduce=["mean"]).notna().all(axis=None)


@pytest.mark.parametrize("limit", [1, 2, 5, 11, 12, 40, 10_000])
def test_a_limit_takes_the_first_rows(run: Run, limit: int) -> None:
    everything = query(run, "cube.activation_norm")
    pd.testing.assert_frame_equal(query(run, "cube.activation_norm", limit=limit), everything.head(limit))
    reduced = query(run, "cube.activation_norm", reduce=["mean:sample"], limit=limit)
    pd.testing.assert_frame_equal(reduced, query(run, "cube.activation_norm", reduce=["mean:sample"]).head(limit))


def test_only_what_is_selected_is_read(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run.zarr")
    expected = query(run, "layers.s1.b1.activation", where=["checkpoint=1", "sample=digits/00[4-7]"])
    for file in run.path.glob("layers/*/*/c.*"):
        if file != run.path / "layers/s1.b1/activation/c.1.1.0.0":
            file.write_bytes(b"")
    again = query(run, "layers.s1.b1.activation", where=["checkpoint=1", "sample=digits/00[4-7]"])
    pd.testing.assert_frame_equal(again, expected)
    first = query(run, "layers.s1.b1.activation", where=["checkpoint=1", "sample!=digits/00[0-3]"], limit=24)
    pd.testing.assert_frame_equal(first, expected)
    with pytest.raises(FeatdynError, match=r"layers/s1\.b1/activation/c\.0\.0\.0\.0 cannot be read .*featdyn verify"):
        query(run, "layers.s1.b1.activation")


@pytest.mark.parametrize("function", ["mean", "std", "max", "count"])
def test_a_reduction_needs_the_memory_of_a_cell(tmp_path: Path, function: str) -> None:
    samples, features, block = 512, 1024, 64
    schema = Schema(
        (
            ArraySpec("checkpoint", (), (), "int64"),
            ArraySpec("layers/a/activation", ("sample", "feature"), (samples, features), "float32"),
        ),
        samples,
        block,
    )
    values = np.random.default_rng(0).standard_normal((samples, features)).astype(np.float32)
    coords = {"sample": np.array([f"{i}" for i in range(samples)], dtype=object)}
    path = tmp_path / "run.zarr"
    with RunWriter.create(path, schema, static={"": xr.Dataset(coords=coords)}, attributes={}) as writer:
        for t in range(4):
            with writer.checkpoint() as checkpoint:
                checkpoint.write("checkpoint", np.array(t))
                for b in range(schema.blocks):
                    checkpoint.write("layers/a/activation", values[schema.block_slice(b)] + t, b)
    run = Run(path)
    query(run, "layers.a.activation", limit=1)  # imports
    tracemalloc.start()
    found = query(run, "layers.a.activation", reduce=[f"{function}:checkpoint,sample"])["activation"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    expected = reference(values + np.arange(4)[:, None, None], (0, 1), function)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    cell = block * features * 4
    assert peak < 6 * cell < 4 * values.nbytes / 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variable": "cube.activation_nrom"}, "did you mean cube.activation_norm"),
        ({"variable": "cube"}, "did you mean cube.activation_cosine, cube.activation_norm, cube.layer?"),
        ({"variable": "layers.s1.activation"}, "did you mean .*layers.s1.b1.activation"),
        ({"variable": "accuracy"}, "did you mean results.consistency.accuracy?"),
        ({"variable": "zzz"}, r"there are .*cube\.\*.*layers\.\*"),
        ({"where": ["split:test"]}, "write it as coordinate=value"),
        ({"where": ["=test"]}, "write it as coordinate=value"),
        ({"where": ["splt=test"]}, "no coordinate 'splt'; did you mean split\\? there are checkpoint, layer, sample"),
        ({"where": ["split=tset"]}, "selects nothing; split is train, test, corrupted"),
        ({"where": ["step=5"]}, "selects nothing; step is 0 to 90"),
        ({"where": ["step=a..b"]}, "'a' is not a number"),
        ({"where": ["step=*"]}, "is not a number, a range"),
        ({"where": ["split<test"]}, "holds text"),
        ({"where": ["split=test", "corruption=fog"]}, "no sample .* meets all of: split=test, corruption=fog"),
        ({"reduce": ["average:sample"]}, "there are mean, sum, min, max, std, count, norm, median, .* and quantiles"),
        ({"reduce": ["q1.5:sample"]}, "quantiles such as q0.9"),
        ({"reduce": ["q.9.9:sample"]}, "quantiles such as q0.9"),
        ({"reduce": ["mean:sampel"]}, "no axis 'sampel'; the axes here are checkpoint, layer, sample"),
        ({"reduce": ["mean:"]}, "no axis ''"),
        ({"reduce": ["mean:split"]}, "split is a coordinate of sample"),
        ({"reduce": ["mean:sample", "std:sample"]}, "the axes here are checkpoint, layer"),
        ({"reduce": ["mean", "std:sample"]}, "no axis is left"),
        ({"variable": "split", "reduce": ["max"]}, "values are text"),
        ({"limit": 0}, "limit must be at least 1"),
    ],
)
def test_bad_questions_get_one_line(run: Run, arguments: dict[str, Any], message: str) -> None:
    arguments = dict(arguments)
    with pytest.raises(FeatdynError, match=message) as caught:
        query(run, arguments.pop("variable", "cube.activation_norm"), **arguments)
    assert "\n" not in str(caught.value)


def test_too_many_rows_are_refused_before_they_are_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = CHECKPOINTS * len(LAYERS) * SAMPLES
    monkeypatch.setattr(values_module, "ROWS", everything)
    assert len(query(run, "cube.activation_norm")) == everything
    monkeypatch.setattr(values_module, "ROWS", everything - 1)
    with pytest.raises(FeatdynError, match=f"{CHECKPOINTS * len(LAYERS) * SAMPLES} rows; .*--reduce.*--limit"):
        query(run, "cube.activation_norm")
    monkeypatch.setattr(values_module, "ROWS", 100)
    assert len(query(run, "cube.activation_norm", limit=120)) == 120  # a limit is a decision
    monkeypatch.setattr(reduce_module, "HELD", 10)
    for reduction in ("mean:checkpoint", "median:sample"):
        with pytest.raises(FeatdynError, match="numbers at once"):
            query(run, "cube.activation_norm", reduce=[reduction])
    for reduction, numbers in (("mean:checkpoint", len(LAYERS) * SAMPLES), ("median", everything)):  # leaves, sorts
        monkeypatch.setattr(reduce_module, "HELD", numbers)
        query(run, "cube.activation_norm", reduce=[reduction])


def test_more_than_two_gibibytes_of_numbers_are_not_held() -> None:
    def read(index: tuple[int, ...]) -> NoReturn:
        raise AssertionError("it is refused before anything is read")

    lengths = (2**14 + 1, 2**14, 2)
    cells = Cells(("a", "b", "c"), tuple(map(np.arange, lengths)), lengths, np.dtype(float), read)
    with pytest.raises(FeatdynError, match="--reduce mean leaves 268,451,840 numbers at once: select less"):
        reduce(cells, Reduction("mean", ("c",)))


def test_neither_torch_nor_dask_nor_numba_is_imported(run: Run) -> None:
    code = """
    import sys
    from featdyn.query import query, render
    from featdyn.store import Run
    run = Run(sys.argv[1])
    for variable in ("cube.activation_cosine", "layers.s1.b1.gradient", "results.consistency.accuracy"):
        found = query(run, variable, where=["checkpoint=last"] if variable[0] != "r" else [], reduce=["mean"])
        render(found, "json", sys.stdout)
    loaded = {"torch", "dask", "numba", "xarray"} & set(sys.modules)
    assert not loaded, loaded
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(run.path)], check=True)


@pytest.fixture(scope="module")
def patchy(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a result of which cells are missing, for reasons by cell, by cut, and for none that is known."""
    path = tmp_path_factory.mktemp("store") / "patchy.zarr"
    write_run(path)
    values = np.arange(12, dtype=np.float64).reshape(2, 3, 2)
    values[0], values[1, 2, 1], values[1, 0, 0] = np.nan, np.nan, np.nan
    by_cell, by_cut = Status(("t", "cut", "set"), (3, 2, 2)), Status(("cut",), (2,))
    by_cell.mark(FEW, (2, 1, 1))
    by_cell.mark(DEAD, (0, 0, 0))
    by_cut.mark(ONE_CLASS, (0,))
    links = {"ancillary_variables": "by_cell by_cut nowhere"}
    result = xr.Dataset(
        {
            "value": (("cut", "t", "set"), values, links),
            "verdict": ("cut", np.array(["", "isotropic"], dtype=object), {"ancillary_variables": "by_cut"}),
            "by_cell": by_cell.variable(),
            "by_cut": by_cut.variable(),
        },
        {"cut": np.array(["a", "b"], dtype=object), "set": np.array(["train", "test"], dtype=object)},
    )
    with RunWriter.open(path) as writer:
        writer.result("patchy", result)
    return Run(path)


def test_missing_values_have_their_reasons(patchy: Run) -> None:
    table = query(patchy, "results.patchy.value")
    said = reasons(patchy.result("patchy").load(), "value")
    assert said is not None
    flat = said.transpose("cut", "t", "set").values.reshape(-1)
    missing = table["value"].isna()
    assert table["missing"].tolist() == np.where(missing, flat, "").tolist()
    assert table.set_index(["cut", "t", "set"])["missing"].loc[("a", 0, "train")] == "features do not vary"
    assert table.set_index(["cut", "t", "set"])["missing"].loc[("a", 1, "test")] == "one class"
    assert table.set_index(["cut", "t", "set"])["missing"].loc[("b", 2, "test")] == "too few samples"
    assert table.set_index(["cut", "t", "set"])["missing"].loc[("b", 0, "train")] == ""  # nothing says


@pytest.mark.parametrize("where", [["cut=b", "t=2"], ["cut=a", "set=test"], ["set=test", "t=1..2"]])
@pytest.mark.parametrize("limit", [None, 1, 3])
def test_reasons_are_of_the_selected_cells(patchy: Run, where: list[str], limit: int | None) -> None:
    whole = query(patchy, "results.patchy.value", where=where)
    table = query(patchy, "results.patchy.value", where=where, limit=limit)
    everything = query(patchy, "results.patchy.value").set_index(["cut", "t", "set"])["missing"]
    assert len(table) == min(len(whole), limit or len(whole))
    if "missing" not in table:
        assert table["value"].notna().all() or (everything.loc[table.set_index(["cut", "t", "set"]).index] == "").all()
        return
    for row in table.itertuples():
        assert row.missing == everything.loc[(row.cut, row.t, row.set)]


def test_reasons_of_text_of_statuses_and_of_whole_tables(patchy: Run) -> None:
    assert query(patchy, "results.patchy.verdict")["missing"].tolist() == ["one class", ""]
    status = query(patchy, "results.patchy.by_cut")
    assert status["by_cut"].tolist() == [1, 0]
    assert status["missing"].tolist() == ["one class", ""]
    assert "missing" not in query(patchy, "results.patchy.value", where=["cut=b", "t=1"])
    assert "missing" not in query(patchy, "results.patchy.value", reduce=["mean:set"])
    stream = io.StringIO()
    render(query(patchy, "results.patchy.value", where=["cut=b", "t=2", "set=test"]), "json", stream)
    (record,) = json.loads(stream.getvalue())
    assert (record["value"], record["missing"]) == (None, "too few samples")


def test_rows_that_conditions_and_limits_leave_keep_their_reasons(patchy: Run) -> None:
    name, ranked = "results.patchy.value", ["results.patchy.value", "results.patchy.by_cut"]
    whole = query(patchy, name).set_index(["cut", "t", "set"])["missing"]
    for asked in (
        {"where": "results.patchy.by_cut>=1"},
        {"sort": "value", "limit": 9},
        {"sort": "-value", "limit": 11},
    ):
        rows = query(patchy, name, **asked)
        assert (
            rows["missing"].tolist() == whole.loc[list(zip(rows["cut"], rows["t"], rows["set"], strict=True))].tolist()
        )
        assert rows["missing"].any()
    for asked in ({"where": "value>=6"}, {"top": 4}):
        assert "missing" not in query(patchy, name, **asked)
    assert "missing" not in query(patchy, *ranked)  # of which of them would it be


def test_reasons_import_no_torch(patchy: Run) -> None:
    code = f"""
import sys
from featdyn.query import query
from featdyn.store import Run
assert query(Run({str(patchy.path)!r}), "results.patchy.value")["missing"].any()
print({{"torch", "dask", "numba"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
