"""The report: what is on the page, that it needs nothing else, and that names in a store cannot harm it."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from featdyn.analysis import analyses
from featdyn.errors import FeatdynError
from featdyn.report import write_report
from featdyn.report.rounding import percent
from featdyn.report.sections.consistency import section
from featdyn.report.sections.consistency.pair_maps import MEASURES
from featdyn.store import Run
from tests.engine.report_page import Page
from tests.engine.synthetic_run import CUBE, SETS, add_consistency, extend, make_run, steps

RECIPE = {
    "description": "a made-up run",
    "network": {"name": "resnet20", "options": {}},
    "training": {"epochs": 12, "milestones": [0.5, 0.75]},
    "data": {},
    "labels": {},
}
ATTRIBUTES = {
    "recipe": RECIPE,
    "dataset": {"name": "digits", "classes": ["zero", "one"], "shape": [1, 8, 8]},
    "checkpoint_steps": steps(5).tolist(),
    "provenance": {"created": "2026-01-01T00:00:00Z", "versions": {"torch": "2.11", "zarr": "3.1"}},
}
HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">%{x}{{ 7*7 }}&lt;"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return add_consistency(make_run(tmp_path_factory.mktemp("report") / "first.zarr", attributes=ATTRIBUTES))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One checkpoint of a loop of somebody's own, with nothing but steps."""
    path = tmp_path_factory.mktemp("report") / "bare.zarr"
    return make_run(path, checkpoints=1, curves=(), cube=(), split=False, attributes={"note": {"who": "me"}})


@pytest.fixture(scope="module")
def page(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(write_report(run, tmp_path_factory.mktemp("page") / "report.html"))


def test_page_holds_everything_it_needs(page: Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "img", "base"), tag
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
    style = next(policy for tag, policy in page.tags if tag == "meta" and "http-equiv" in policy)
    assert "default-src 'none'" in str(style["content"])
    nonce = re.search(r"script-src 'nonce-([\w-]+)'", str(style["content"]))
    executed = [attributes for attributes, _ in page.scripts if attributes.get("type") != "application/json"]
    assert nonce
    executed = [attributes for attributes in executed if attributes.get("type") is None]
    assert [a.get("nonce") for a in executed] == [nonce[1]]  # which lends it to the library
    assert "plotly.js" in page.unpacked("library")[:200]
    assert "Copyright (c)" in page.source  # of the library's licence


def test_page_says_what_the_run_is(page: Page) -> None:
    for expected in (
        "first.zarr",
        "resnet20 trained on digits · a made-up run",
        "7 train, 5 test, 3 corrupted",
        percent(0.1 + 0.87 * (1 - math.exp(-90 / 300))),
        "training",
        "milestones",
        "0.5, 0.75",
        "torch 2.11, zarr 3.1",
        "buffers travel with their layers",
        "our own choice",
        "results/consistency/000006",
        "0 of 75",
    ):
        assert expected in page.text
    assert "not finished" not in page.text
    assert not any(tag == "p" and a.get("class") == "missing" for tag, a in page.tags)


def test_every_choice_has_a_figure(page: Page) -> None:
    shown = set(page.slots())
    held = {(slot, choice) for slot, figures in page.data["figures"].items() for choice in figures}
    assert shown == held
    sets, cuts = len(SETS), sum("data-cut" in a for _, a in page.tags)
    assert len(held) == 3 + sets * len(MEASURES) * 2 + sets * len(CUBE)
    assert cuts == 3


def test_figures_are_what_plotly_takes(page: Page) -> None:
    for figures in page.data["figures"].values():
        for figure in figures.values():
            go.Figure(figure["data"], figure["layout"])  # raises on what plotly does not know
    grid = page.data["maps"]["consistency-0"]
    go.Figure(layout={"xaxis": grid["axis2"], "yaxis": grid["axis1"]})


def test_heatmaps_hold_the_result_exactly(run: Run, page: Page) -> None:
    result, grid = run.result("consistency"), page.data["maps"]["consistency-0"]
    for measure in MEASURES:
        for s, n in enumerate(grid["sizes"]):
            shares = [cut[s] for cut in grid["measures"][measure]]
            np.testing.assert_allclose(np.array(shares) / n, result[measure].values[:, s], rtol=1e-12)
            low, high = grid["extremes"][measure][s]
            assert low == result[measure].values[:, s].min()
            assert high == result[measure].values[:, s].max()
    np.testing.assert_allclose(grid["loss"], result["loss"].values, rtol=1e-3)
    diagonal = np.einsum("cstt->cst", np.array(grid["measures"]["accuracy"]))
    plain = result["plain_accuracy"].values * result["set_size"].values[:, None]
    np.testing.assert_allclose(diagonal, np.broadcast_to(plain, diagonal.shape))
    assert grid["step2"] == steps(5).tolist()


def test_intervals_in_the_page_are_the_result_s(run: Run, page: Page) -> None:
    result, maps = run.result("consistency"), page.data["maps"]["consistency-0"]
    assert set(maps["bounds"]) == {"accuracy"}  # the result holds no others
    for end, bound in zip(("low", "high"), maps["bounds"]["accuracy"], strict=True):
        np.testing.assert_allclose(np.array(bound) / 1000, result[f"accuracy_{end}"].values, atol=5.1e-4)


def test_the_question_the_source_and_what_is_missing_are_on_the_page(tmp_path: Path) -> None:
    run = add_consistency(make_run(tmp_path / "r.zarr", checkpoints=3), missing=True)
    page = Page(write_report(run, tmp_path / "r.html"))
    declared = analyses()["consistency"]
    for words in (declared.question, declared.source, "What could not be computed, and why", "one class", "9 of 81"):
        assert words in page.text
    for name, analysis in analyses().items():
        if name != "consistency":
            assert analysis.question in page.text  # as not asked yet
    shares = np.array(page.data["maps"]["consistency-0"]["measures"]["accuracy"], dtype=float)
    assert np.isnan(shares).sum() == 9


def test_training_curves_share_a_figure_by_quantity(run: Run, page: Page) -> None:
    figures = {
        title: page.data["figures"][f"training-0-{i}"][""] for i, title in enumerate(("accuracy", "loss", "rate"))
    }
    assert [trace["name"] for trace in figures["loss"]["data"]] == ["train", "test"]
    assert figures["loss"]["data"][0]["y"][0] is None  # no training loss before the first step
    for trace in figures["accuracy"]["data"]:
        expected = run.coords[f"{trace['name']}_accuracy"].values
        np.testing.assert_allclose(np.array(trace["y"], dtype=float), expected, rtol=1e-3)


def test_layer_lines_are_means_over_the_probes_of_a_set(run: Run, page: Page) -> None:
    splits = run.coords["split"].values
    for s, name in enumerate(SETS):
        for quantity in CUBE:
            chosen = run.array(f"cube/{quantity}").astype("float64")[..., splits == name]
            with np.errstate(all="ignore"):
                mean = chosen.mean("sample").values
                spread = chosen.std("sample").values
            traces = page.data["figures"]["layers-0-0"][f"{s}|{quantity}"]["data"]
            assert [t["name"] for t in traces] == run.layers
            np.testing.assert_allclose(np.array([t["y"] for t in traces], dtype=float), mean.T, rtol=1e-3)
            told = [[float(v) if v else np.nan for v in t["text"]] for t in traces]
            np.testing.assert_allclose(np.array(told), spread.T, rtol=1e-3)


def test_layer_means_leave_out_what_is_not_finite_and_span_blocks(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r.zarr", checkpoints=2, sets={"train": 1500, "test": 601})
    assert run.schema.blocks > 1
    traces = Page(write_report(run, tmp_path / "r.html")).data["figures"]["layers-0-0"]["1|activation_norm"]["data"]
    expected = run.array("cube/activation_norm").values[:, :, 1500:].mean(-1)
    np.testing.assert_allclose([t["y"] for t in traces], expected.T, rtol=1e-3)


def test_gap_figures_start_at_the_trained_networks(run: Run, page: Page) -> None:
    figure = page.data["figures"]["consistency-1-0"]["1|accuracy"]
    assert [trace["name"] for trace in figure["data"]] == ["trained network t2", "s1b3", "s2b3", "pooled"]
    plain = run.result("consistency")["plain_accuracy"].values[1].mean()
    assert [trace["y"][0] for trace in figure["data"]] == pytest.approx([plain] * 4, rel=1e-3)
    agreement = page.data["figures"]["consistency-1-0"]["1|agreement"]["data"]
    assert [trace["y"][0] for trace in agreement] == [1.0] * 3


def test_missing_parts_say_how_to_get_them(bare: Run, tmp_path: Path) -> None:
    page = Page(write_report(bare, tmp_path / "bare.html"))
    assert sum(tag == "p" and a.get("class") == "missing" for tag, a in page.tags) == 2
    assert 'coords=("train_loss", "test_accuracy")' in page.text
    assert "from Python" in page.text
    assert "Not asked yet" in page.text
    assert "note.who me" in page.text
    assert page.data["figures"] == {}


def test_one_checkpoint_is_enough(tmp_path: Path) -> None:
    run = add_consistency(make_run(tmp_path / "r.zarr", checkpoints=1, layers=("only",), sets={"test": 1}))
    page = Page(write_report(run, tmp_path / "r.html"))
    assert not [slot for slot in page.data["figures"] if slot.startswith("consistency")]
    assert page.data["maps"] == {}
    assert page.text.count("There is one checkpoint, which has no change to show.") >= 2
    assert "checkpoint 1 to step 0" in page.text
    assert "probe 1 fixed samples" in page.text


def test_a_run_without_consistency_names_the_command(tmp_path: Path) -> None:
    path = tmp_path / "my run.zarr"
    run = make_run(path, checkpoints=3, attributes={**ATTRIBUTES, "checkpoint_steps": [0, 1, 2, 3]})
    page = Page(write_report(run, tmp_path / "r.html"))
    assert f"featdyn analyze '{path}' NAME" in page.text
    assert "it has 3 of 4 checkpoints" in page.text


def test_a_result_of_fewer_checkpoints_is_named_so(tmp_path: Path) -> None:
    run = add_consistency(make_run(tmp_path / "r.zarr", checkpoints=2), differences=4)
    page = Page(write_report(extend(run), tmp_path / "r.html"))
    assert page.text.count("omputed when there were 2 of now 3 checkpoints") == 2  # in the overview too
    assert "the deep half of checkpoint 1 (its last), accuracy" in page.text
    assert "the deep half of the last checkpoint" not in page.text
    assert "4 of 30" in page.text
    assert f"featdyn analyze {tmp_path / 'r.zarr'} consistency" in page.text


def test_curves_of_a_bare_loop_keep_their_own_names(tmp_path: Path) -> None:
    names = ("val_loss", "train_loss", "grad_norm", "epoch")
    run = make_run(tmp_path / "r.zarr", checkpoints=2, curves=names, split=False)
    page = Page(write_report(run, tmp_path / "r.html"))
    drawn = [[t["name"] for t in page.data["figures"][f"training-0-{i}"][""]["data"]] for i in range(2)]
    assert drawn == [["train", "val"], ["Grad norm"]]
    assert "probes (15)" in page.text


def test_names_in_a_store_cannot_act(tmp_path: Path) -> None:
    def build(name: str, mark: str) -> Page:
        path = tmp_path / name
        attributes = {
            **ATTRIBUTES,
            "recipe": {**RECIPE, "description": mark + "d", mark: {mark: mark}},
            "dataset": {"name": mark, "classes": [mark], "shape": [1, 8, 8]},
            "checkpoint_steps": mark,
            "provenance": {mark: mark, "versions": {mark: mark}},
            mark: [mark],
        }
        run = make_run(path, checkpoints=2, layers=(mark, f"{mark}2"), sets={mark: 3, "test": 2}, attributes=attributes)
        add_consistency(run, cuts=(mark, f"{mark}2"))
        return Page(write_report(Run(path), tmp_path / f"{name}.html"))

    calm, hostile = build("calm", "x"), build("hostile", HOSTILE)
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in calm.tags]
    both = ([sorted(set(a) - {"title"}) for _, a in page.tags] for page in (hostile, calm))  # long names have titles
    assert next(both) == next(both)
    assert HOSTILE in hostile.text.replace("  ", " ")
    layer = hostile.data["figures"]["layers-0-0"]["0|activation_norm"]["data"][0]["name"]
    assert "<" not in layer  # plotly reads tags in names
    assert layer.startswith("&lt;/script&gt;")
    raw = (tmp_path / "hostile.html").read_text()
    assert "</script><script>document" not in raw
    assert not set("<>") & set(next(body for a, body in hostile.scripts if a.get("id") == "data"))  # it is packed


def test_text_that_no_file_can_hold_is_replaced(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r.zarr", checkpoints=1, attributes={"note": "a \ud800 b"})
    assert "a ? b" in Page(write_report(run, tmp_path / "r.html")).text


def test_a_failed_write_keeps_the_old_report(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "report.html"
    target.write_text("old")

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(FeatdynError, match="cannot be written: No space left"):
            write_report(run, target)
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert write_report(run, target) == target
    assert target.read_text().startswith("<!DOCTYPE html>")


def test_a_folder_is_no_place_for_a_report(run: Run, tmp_path: Path) -> None:
    with pytest.raises(FeatdynError, match="is a folder"):
        write_report(run, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(FeatdynError, match="cannot be written"):
        write_report(run, tmp_path / "file" / "report.html")
    assert write_report(run, str(tmp_path / "new" / "report.html")).exists()


def test_no_heavy_package_is_imported(run: Run, tmp_path: Path) -> None:
    # xarray itself imports dask.array wherever that is installed.
    code = (
        "import sys; from featdyn.store import Run; from featdyn.report import write_report;"
        f"write_report(Run({str(run.path)!r}), {str(tmp_path / 'r.html')!r});"
        "print(sorted({'torch', 'distributed', 'numba'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"


def test_a_long_run_stays_small(tmp_path: Path) -> None:
    """Per square: three counts, two bounds in thousandths and a loss of four digits."""
    run = add_consistency(make_run(tmp_path / "r.zarr", checkpoints=20, cube=(), curves=()))
    maps = section(run.result("consistency"))[0].pair_maps
    squares = 3 * len(SETS) * 20 * 20
    assert len(json.dumps(maps, separators=(",", ":"))) < 24 * squares


def test_a_layer_has_one_colour_on_all_of_the_page(tmp_path: Path) -> None:
    layers = ("stem", "s1b3", "s2b3", "s3b3", "pooled")
    run = add_consistency(make_run(tmp_path / "r.zarr", layers=layers), cuts=("s1b3", "pooled"))
    data = Page(write_report(run, tmp_path / "r.html")).data["figures"]
    as_layer, as_cut = (
        {trace["name"]: trace["line"]["color"] for trace in next(iter(data[slot].values()))["data"]}
        for slot in ("layers-0-0", "consistency-1-0")
    )
    assert {name: as_cut[name] for name in ("s1b3", "pooled")} == {name: as_layer[name] for name in ("s1b3", "pooled")}
    assert len(set(as_layer.values())) == len(layers)


def test_long_names_in_tables_lose_their_middle_and_keys_break_between_words(tmp_path: Path) -> None:
    name = "a" * 90 + "b" * 80
    run = add_consistency(make_run(tmp_path / "r.zarr", layers=(name,), attributes=ATTRIBUTES), cuts=(name,))
    source = write_report(run, tmp_path / "r.html").read_text()
    assert f'<th scope="row" title="{name}">{"a" * 24}…{"b" * 24}</th>' in source
    assert '<th scope="row">identity.' not in source
    assert '<th scope="row">samples in a shard</th>' in source
