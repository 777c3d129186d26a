"""What notebooks open: coordinates, names, units, Dask, NetCDF, and the accessor."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import featdyn
from featdyn.errors import FeatdynError
from featdyn.query import query
from featdyn.store import Run
from tests.engine.question_run import CHECKPOINTS, LAYERS, Held
from tests.engine.runs import write_run
from tests.engine.synthetic_run import make_run


def test_cube_and_layers_know_their_coordinates(written: tuple[Run, Held]) -> None:
    run, held = written
    tree = featdyn.open_tree(run)
    norm = tree["cube/activation_norm"]
    assert {"step", "epoch", "label", "split"} <= set(norm.coords)
    by_label = norm.groupby("label").mean()
    expected = [held["cube/activation_norm"][..., held["label"] == i].mean(-1) for i in range(4)]
    np.testing.assert_allclose(by_label.transpose("label", ...), expected, rtol=1e-5)
    layer = tree["layers/s2b3/activation"].swap_dims(checkpoint="step").sel(step=40)
    np.testing.assert_array_equal(layer, held["layers/s2b3/activation"][2])


def test_a_node_has_coordinates_of_its_own_dimensions_only(written: tuple[Run, Held]) -> None:
    for node in featdyn.open_tree(written[0]).subtree:
        found = node.to_dataset(inherit=False)
        if node.path != "/":
            along = {dim for variable in found.data_vars.values() for dim in variable.dims}
            assert {dim for coord in found.coords.values() for dim in coord.dims} <= along, node.path


def test_every_variable_has_a_name_and_units(written: tuple[Run, Held]) -> None:
    for node in featdyn.open_tree(written[0]).subtree:
        for name, variable in node.to_dataset(inherit=False).variables.items():
            assert variable.attrs["long_name"], (node.path, name)
            assert variable.attrs["units"], (node.path, name)


def test_chunks_and_netcdf(written: tuple[Run, Held], tmp_path: Path) -> None:
    run, held = written
    tree = featdyn.open_tree(str(run.path), chunks="auto")
    assert tree["cube/activation_norm"].chunks
    np.testing.assert_allclose(
        tree["cube/activation_norm"].mean("sample").compute(), held["cube/activation_norm"].mean(-1), rtol=1e-5
    )
    for group in ("cube", "outputs", "layers/s2b3", "results/consistency"):
        node = tree[group] if group != "results/consistency" else next(iter(tree[group].children.values()))
        node.to_dataset().to_netcdf(tmp_path / "a.nc", engine="scipy")
        assert xr.load_dataset(tmp_path / "a.nc", engine="scipy").sizes


def test_a_whole_tree_becomes_netcdf(written: tuple[Run, Held], tmp_path: Path) -> None:
    pytest.importorskip("netCDF4")
    tree = featdyn.open_tree(written[0])
    tree.featdyn.to_netcdf(tmp_path / "a.nc")
    with xr.open_datatree(tmp_path / "a.nc") as found:
        np.testing.assert_array_equal(found["cube/sketch"], tree["cube/sketch"])


def test_what_netcdf_needs_is_asked_for_by_name(
    written: tuple[Run, Held], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "netCDF4", None)
    with pytest.raises(FeatdynError, match=r"this needs netCDF4, which is not installed: .*featdyn\[netcdf\]"):
        featdyn.open_tree(written[0]).featdyn.to_netcdf(tmp_path / "a.nc")
    assert not list(tmp_path.iterdir())


def test_texts_beside_numbers_are_not_chunked(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run.zarr")
    path = xr.Dataset({"accuracy": ("cut", [0.5, 1.0])}, {"cut": ["a", "b"], "path": ("cut", ["eager", "traced"])})
    where = featdyn.commit_result(run, "mine", path)
    found = featdyn.open_tree(tmp_path / "run.zarr", chunks="auto")[where]
    assert found["accuracy"].chunks == ((2,),)
    np.testing.assert_array_equal(found["path"], ["eager", "traced"])
    assert found["cut"].dtype.kind == "U"  # along other texts xarray draws no map


def test_the_accessor_asks_the_run(written: tuple[Run, Held]) -> None:
    run, held = written
    tree = featdyn.open_tree(run)
    found = tree.featdyn.query("cube.activation_norm", reduce="mean:sample")
    assert found["activation_norm"].dims == ("checkpoint", "layer")
    np.testing.assert_allclose(found["activation_norm"], held["cube/activation_norm"].mean(-1), rtol=1e-5)
    assert found["layer"].values.tolist() == list(LAYERS)
    several = tree.featdyn.query(["outputs.loss", "outputs.prediction"], where="checkpoint=-1")
    np.testing.assert_array_equal(several["loss"].values.reshape(-1), held["outputs/loss"][-1])
    assert inspect.signature(tree.featdyn.query).parameters.keys() == set(inspect.signature(query).parameters) - {"run"}
    top = tree.featdyn.query("outputs.loss", top=3)
    assert top["sample"].values.tolist() == query(run, "outputs.loss", top=3)["sample"].tolist()
    plain = xr.open_datatree(run.path, engine="zarr", chunks=None)
    assert plain.featdyn.query("step")["step"].values.tolist() == held["step"].tolist()
    with pytest.raises(FeatdynError, match="open it with"):
        xr.DataTree().featdyn.query("step")


def test_figures_of_results(written: tuple[Run, Held]) -> None:
    plot = featdyn.open_tree(written[0]).featdyn.plot
    assert dir(plot) == sorted(["training", "layers", "consistency", "isotropy", "representation"])
    figure = plot.consistency(measure="accuracy", set="test")
    expected = written[0].result("consistency")["accuracy"].sel(set="test").isel(cut=-1).transpose("t1", "t2")
    np.testing.assert_allclose(np.array(figure.data[0].z, float), expected.values, rtol=1e-3)
    assert len(figure.data[0].x) == CHECKPOINTS
    for call, message in (
        (lambda: plot.consistensy(), "did you mean consistency"),
        (lambda: plot.consistency("gird"), "did you mean grid"),
        (lambda: plot.consistency(measure="acuracy"), "did you mean accuracy"),
        (lambda: plot.consistency(sets="test"), "did you mean set"),
        (lambda: plot.consistency(set="tset"), "no set 'tset': did you mean test"),
    ):
        with pytest.raises((AttributeError, FeatdynError), match=message):
            call()


def test_attributes_are_what_netcdf_takes_or_json(tmp_path: Path) -> None:
    expected: list[tuple[object, object]] = [
        (2**31 - 1, 2**31 - 1), (-(2**31) + 1, -(2**31) + 1), (2**31, "2147483648"), (-(2**31), "-2147483648"),
        (0.5, 0.5), (1e300, "1e+300"), (True, "true"), ("a", "a"), ([1, 2.5], [1, 2.5]), ([], "[]"), ([True], "[true]"),
        ([1, "a"], '[1, "a"]'), ({"a": None}, '{"a": null}'), (None, "null"),
    ]  # fmt: skip
    attributes = {f"a{i}": value for i, (value, _) in enumerate(expected)}
    found = featdyn.open_tree(make_run(tmp_path / "run.zarr", checkpoints=1, cube=(), attributes=attributes)).attrs
    for i, (_, plain) in enumerate(expected):
        assert (found[f"a{i}"], type(found[f"a{i}"])) == (plain, type(plain))
