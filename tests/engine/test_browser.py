"""Pages in a browser: figures are drawn, sliders move together, names cannot act, keys and screen readers find all."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from featdyn.analysis import analyses
from featdyn.report import write_report
from featdyn.report.comparison import write
from featdyn.store import Run, RunWriter
from tests.engine.browser import browser, until, visit
from tests.engine.declared_results import declared_result
from tests.engine.synthetic_run import add_consistency, extend, make_run

HOSTILE = "<script>document.title='owned'</script>&lt;<b>x"
ASKED = ("drift", "richness")
DRAWN = "return [...document.querySelectorAll('.plot')].filter((plot) => plot.querySelector('.main-svg')).length"
BOTTOM = "window.scrollTo(0, arguments[0]); return document.body.scrollHeight"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    layers = (f"{HOSTILE}1", f"{HOSTILE}2")
    run = make_run(tmp_path_factory.mktemp("run") / "a run.zarr", layers=layers, sets={HOSTILE: 4, "test": 5})
    add_consistency(run, cuts=layers)
    with RunWriter.open(run.path) as writer:
        for name in ASKED:
            writer.result(name, declared_result(analyses()[name], missing=0.1, checkpoints=5))
    return Run(run.path)


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("profile")


@pytest.fixture(scope="module")
def opened(run: Run, profile: Path) -> Iterator[Any]:
    with browser(profile) as driver:
        visit(driver, write_report(run, profile / "report.html"))
        draw_all(driver)
        yield driver


def draw_all(driver: Any) -> None:
    """Scroll down once: figures are drawn as they come near."""
    count = driver.execute_script("return document.querySelectorAll('.plot').length")
    height = driver.execute_script(BOTTOM, 0)
    for top in range(0, height, 700):
        driver.execute_script(BOTTOM, top)
        driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    assert count > 0
    assert until(driver, f"{DRAWN} === arguments[0]", count)


def errors(driver: Any) -> list[Any]:
    return [entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def violations(driver: Any, *rules: str) -> list[tuple[str, str]]:
    """Return what axe finds serious; figures hold nothing but pictures, so that it need not walk through them."""
    axe = pytest.importorskip("axe_core_python.selenium", reason="needs axe-core-python").Axe()
    only = {"runOnly": {"type": "rule", "values": list(rules)}} if rules else {}
    found = axe.run(driver, {"exclude": [[".svg-container"]]}, {"resultTypes": ["violations"], **only})["violations"]
    assert (
        driver.execute_script("return document.querySelectorAll('.plot :is(a, button, input, [tabindex])').length") == 0
    )
    return [
        (entry["id"], node["html"][:200])
        for entry in found
        if entry["impact"] in ("serious", "critical")
        for node in entry["nodes"]
    ]


def plot_of(driver: Any, slot: str, value: str) -> Any:
    return driver.execute_script(f"const plot = document.querySelector('[data-slot={slot}]'); return {value}")


def test_every_figure_is_drawn_and_names_are_words(opened: Any) -> None:
    assert opened.title == "a run.zarr · featdyn report"
    assert errors(opened) == []
    words = opened.execute_script(
        "return [...document.querySelectorAll('[data-slot=layers-0-0] .legendtext')].map((e) => e.textContent)"
    )
    assert words == [f"{HOSTILE}1", f"{HOSTILE}2"]


def test_sliders_move_together_by_keys(opened: Any, run: Run) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    sliders = opened.find_elements(By.CSS_SELECTOR, "input[name=t]")
    assert len(sliders) >= 6
    sliders[2].send_keys(Keys.HOME)
    for keys, place in (("", 0), (Keys.ARROW_RIGHT, 1), (Keys.END, 4), (Keys.ARROW_LEFT * 2, 2)):
        sliders[2].send_keys(keys)
        until(opened, "return document.querySelector('input[name=t]').value === arguments[0]", str(place))
        assert {slider.get_property("value") for slider in sliders} == {str(place)}
        assert {s.get_attribute("aria-valuetext") for s in sliders} == {
            f"checkpoint {place}, step {run.values('step')[place]:,}"
        }
    for slot in ("training-0-0", "layers-0-0", "drift-0-3"):
        opened.execute_script(f"document.querySelector('[data-slot={slot}]').scrollIntoView()")
        until(opened, f"return document.querySelector('[data-slot={slot}]').layout.shapes.at(-1).x0 === 2")
    opened.execute_script("document.querySelector('[data-maps]').scrollIntoView()")
    crossed = "return document.querySelector('[data-maps]').layout.shapes.map((s) => [s.x0, s.y0]).join(' ')"
    assert until(opened, f"{crossed} === '2,0 0,2'")
    opened.execute_script("document.querySelector('[data-slot=richness-1-2]').scrollIntoView()")
    wanted = run.result("richness")["intensity"].isel(set=0, layer=-1, t=2).values
    until(opened, "return document.querySelector('[data-slot=richness-1-2]').stale === false")
    found = np.array(plot_of(opened, "richness-1-2", "[...plot.data[0].y]"), float)
    np.testing.assert_allclose(found, wanted, rtol=1e-3)


def test_choices_by_keys_and_values_as_a_table(opened: Any, run: Run) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    section = opened.find_element(By.CSS_SELECTOR, "#layers")
    opened.execute_script("arguments[0].scrollIntoView()", section)
    splits, norms = run.values("split"), run.array("cube/activation_norm").values
    chosen = section.find_element(By.CSS_SELECTOR, "input[name=set]:checked")
    assert chosen.get_attribute("value") == "1"
    chosen.send_keys(Keys.ARROW_LEFT)
    until(opened, "return document.querySelector('#layers input[name=set]:checked').value === '0'")
    until(opened, "return document.querySelector('#layers .plot').stale === false")
    wanted = norms[:, :, splits == HOSTILE].mean(-1)
    np.testing.assert_allclose(plot_of(opened, "layers-0-0", "plot.data.map((d) => [...d.y])"), wanted.T, rtol=1e-3)
    summary = section.find_element(By.CSS_SELECTOR, ".tools summary")
    summary.send_keys(Keys.ENTER)
    cells = until(opened, "return [...document.querySelectorAll('#layers .tools td')].map((e) => e.textContent)")
    heads = opened.execute_script(
        "return [...document.querySelectorAll('#layers .tools thead th')].map((e) => e.textContent)"
    )
    assert heads == [f"{HOSTILE}1", f"{HOSTILE}2"]
    np.testing.assert_allclose(np.array(cells[1:], float).reshape(wanted.shape), wanted, rtol=1e-3)


def test_nothing_serious_for_screen_readers_in_both_themes(opened: Any) -> None:
    opened.execute_script("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
    colours = {}
    for rules in ((), ("color-contrast",)):
        theme = opened.execute_script("return getComputedStyle(document.documentElement).getPropertyValue('--theme')")
        colours[theme.strip()] = plot_of(opened, "training-0-0", "plot.data[0].line.color + plot.layout.paper_bgcolor")
        assert violations(opened, *rules) == []
        opened.execute_script("document.getElementById('theme').click(); window.scrollTo(0, 0)")
        until(opened, "return document.querySelector('[data-slot=training-0-0]').stale === false")
    opened.execute_script("document.querySelectorAll('details').forEach((e) => { e.open = false; })")
    assert set(colours) == {"light", "dark"}
    assert colours["light"] != colours["dark"]
    levels = opened.execute_script(
        "return [...document.querySelectorAll('h1, h2, h3')].map((e) => Number(e.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    labels = opened.execute_script("return [...document.querySelectorAll('.plot')].map((e) => e.ariaLabel)")
    assert all(labels)


def test_downloads_are_named_and_opaque(opened: Any, profile: Path, run: Run) -> None:
    image = pytest.importorskip("PIL.Image")
    for kind in ("png", "csv", "svg"):
        opened.execute_script(
            f"document.querySelector('#drift [data-slot=drift-0-3] ~ .tools [data-save={kind}]').click()"
        )
        name = "a-run-drift-Accuracy-of-a-linear-probe-"
        found = wait_for(profile, f"{name}*.{kind}")
        if kind == "png":
            with image.open(found) as picture:
                assert picture.size == (1800, 1080)
                assert picture.convert("RGBA").getchannel("A").getextrema() == (255, 255)
        elif kind == "svg":
            assert "a run.zarr · Accuracy of a linear probe" in found.read_text(encoding="utf-8")
        else:
            rows = list(csv.DictReader(found.read_text(encoding="utf-8").splitlines()))
            wanted = run.result("drift").isel(set=0)
            value = wanted["linear_accuracy"].transpose("cut", "t").values.ravel()
            np.testing.assert_allclose([float(r["value"] or "nan") for r in rows], value, rtol=1e-3)
            low = wanted["linear_accuracy_low"].transpose("cut", "t").values.ravel()
            both = np.array([r["low"] != "" for r in rows])
            np.testing.assert_allclose([float(r["low"]) for r in rows if r["low"]], low[both], rtol=5e-3, atol=1e-3)
            assert both.any()
    assert errors(opened) == []


def wait_for(folder: Path, pattern: str) -> Path:
    import time

    for _ in range(4800):
        found = [path for path in folder.glob(pattern) if path.stat().st_size]
        if found:
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"no {pattern} among {sorted(p.name for p in folder.iterdir() if p.is_file())}")


@contextmanager
def narrow(driver: Any) -> Iterator[None]:
    size = {"width": 400, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    yield
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_narrow_pages_do_not_scroll_sideways(opened: Any) -> None:
    with narrow(opened):
        assert until(opened, "return document.documentElement.scrollWidth <= 400")


def test_long_names_lose_their_middle_where_there_is_no_room(tmp_path: Path) -> None:
    name = "encoder.layers.{}.attention.output_projection.dense_with_a_name_that_has_no_room_at_all_{}"
    cuts, groups = ([name.format(i, end) for i in (1, 2)] for end in ("<b>", "&amp;"))
    table = pd.DataFrame(
        {"quantity": "accuracy", "cut": np.repeat(cuts, 2), "group": groups * 2, "value": [0.1, 0.2] * 2}
    )
    table = table.assign(runs=3, **dict.fromkeys(("low", "high", "probes_low", "probes_high"), np.nan))
    with browser(tmp_path / "profile") as driver, narrow(driver):
        visit(driver, write(table, tmp_path / "long.html"))
        draw_all(driver)
        assert errors(driver) == []
        texts = (
            "const of = (c) => [...document.querySelectorAll('.plot ' + c)]; return of(arguments[0]).map((e) => {}(e))"
        )
        for kind, whole in (("legendtext", groups), ("xtick text", cuts)):
            said = driver.execute_script(texts.format("((e) => e.textContent)"), f".{kind}")
            for found, full in zip(said, whole, strict=True):
                first, last = found.split("…")
                assert full.startswith(first)
                assert full.endswith(last)
                assert len(first) + len(last) > 6
        ends = driver.execute_script(texts.format("((e) => e.getBoundingClientRect().right)"), ".legendtext")
        assert max(ends) <= driver.execute_script("return document.documentElement.clientWidth")
        pointed = plot_of(driver, "compared-0-0-0", "plot.data.map((d) => d.customdata.map((of) => [of[3], of[0]]))")
        escaped = [
            [text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for text in each]
            for each in (groups, cuts)
        ]
        assert pointed == [[[group, cut] for cut in escaped[1]] for group in escaped[0]]
        heads = "return [...document.querySelectorAll('table.grid tbody th')].map((e) => [e.title, e.offsetWidth])"
        rows = driver.execute_script(heads)
        assert [text for text, _ in rows] == table["cut"].tolist()
        assert max(width for _, width in rows) < 200  # numbers stand beside it without scrolling


@pytest.mark.parametrize("places", [3, 16])
def test_an_axis_says_what_it_is_below_its_names(opened: Any, profile: Path, places: int) -> None:
    names = [f"s{i}b3" for i in range(places)]
    table = pd.DataFrame({"quantity": "consistency.accuracy", "cut": names, "set": "corrupted", "group": "a"})
    table = table.assign(value=0.5, low=0.4, high=0.6, runs=3, probes_low=np.nan, probes_high=np.nan)
    visit(opened, write(table, profile / "axis.html"))
    draw_all(opened)
    edges = "return [...document.querySelectorAll(arguments[0])].map((e) => e.getBoundingClientRect()[arguments[1]])"
    (title,) = opened.execute_script(edges, ".xtitle", "top")
    assert title >= max(opened.execute_script(edges, ".xtick text", "bottom"))


def test_a_comparison_is_such_a_page(opened: Any, profile: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    names = [HOSTILE, "b"] * 2
    table = pd.DataFrame({"quantity": "consistency.accuracy", "cut": ["s1", "s1", "s2", "s2"], "group": names})
    numbers = {"value": [0.5, 0.9, 0.4, 0.6], "low": [0.4, 0.8, 0.3, np.nan], "high": [0.6, 1.0, 0.5, np.nan]}
    table = table.assign(**numbers, runs=3, probes_low=np.nan, probes_high=np.nan)
    visit(opened, write(table, profile / "compare.html", where="t2: the last checkpoint."))
    opened.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert opened.switch_to.active_element.get_attribute("class") == "skip"  # the first key offers the results
    shown = "const style = getComputedStyle(document.activeElement); return style.outlineStyle + style.outlineWidth"
    assert opened.execute_script(shown) == "solid2px"
    draw_all(opened)
    assert errors(opened) == []
    assert violations(opened) == []
    assert opened.title == "2 groups of runs compared · featdyn"
    assert plot_of(opened, "compared-0-0-0", "plot.data.map((d) => [...d.y])") == [[0.5, 0.4], [0.9, 0.6]]
    assert "intervals apart in 1 of 1 places" in opened.find_element("id", "overview").text


def test_a_figure_that_does_not_know_the_slider_s_checkpoint_says_what_it_shows(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r.zarr", checkpoints=3)
    add_consistency(run)
    with RunWriter.open(run.path) as writer:
        writer.result("richness", declared_result(analyses()["richness"], missing=0.0, checkpoints=3))
    extend(run)
    with browser(tmp_path / "profile") as driver:
        visit(driver, write_report(extend(run), tmp_path / "r.html"))
        draw_all(driver)
        said = "return document.querySelector('{}').parentElement.querySelector('.drawn').textContent"
        lines = "return document.querySelector('{}').layout.shapes.length"
        for slot, words in (
            ("[data-slot=richness-0-0]", "Ends at checkpoint 2, before 4."),
            ("[data-slot=richness-1-2]", "Drawn is checkpoint 2, the nearest to 4 that there is."),
            ("[data-maps]", "Ends at checkpoint 2, before 4."),
            ("[data-slot=training-0-0]", ""),
        ):
            assert driver.execute_script(said.format(slot)) == words
            assert driver.execute_script(lines.format(slot)) == (not words)
        script = "const i = document.querySelector('input[name=t]'); i.value = 1; i.dispatchEvent(new Event('input'))"
        driver.execute_script(script)
        driver.execute_script("document.querySelector('[data-maps]').scrollIntoView()")
        until(driver, f"{lines.format('[data-maps]')} === 2")
        assert driver.execute_script(said.format("[data-maps]")) == ""
