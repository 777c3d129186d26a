"""Recipes and command lines of anything: what is wrong gets one clear line and an exit code, never a traceback."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import shutil
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn.cli import main
from featdyn.cli.main import COMMANDS
from featdyn.errors import RecipeError
from featdyn.store import verify
from featdyn.training import load
from featdyn.training.recipe import Recipe, fields

WORDS = [
    "",
    "0",
    "-1",
    "3",
    "0.5",
    "1e9",
    "1e400",
    "nan",
    "nope",
    "..",
    "/",
    "a=b",
    "=",
    "[",
    "'",
    "é",
    "\n",
    "\r",
    "a\nb",
]
WORDS += [
    "s3*",
    "[a",
    "split=test",
    "layer=s3*",
    "mean:sample",
    "mean:",
    ":",
    "std:layer",
    "cube.activation_norm",
    "csv",
]
WORDS += ["train_loss", "results.consistency.accuracy", "results.consistency", "layers", "table", "json", "digits"]
NAMES = [name for name, _, _ in fields()]


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([*NAMES, "training", "x", "", "a.b.c", "network.options.width"]),
            st.one_of(
                st.sampled_from(
                    [*WORDS, "true", "1_0", "[1, 2]", "{a = 1}", "1979-05-27", '"x"', "'''", "10" * 2000, "[" * 5000]
                ),
                st.text(max_size=8),
                st.floats().map(repr),
                st.integers().map(str),
            ),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_changes_to_a_recipe(changes: list[tuple[str, str]]) -> None:
    with one_line():
        assert isinstance(load("digits", [f"{name}={value}" for name, value in changes]), Recipe)


@settings(deadline=None, max_examples=100)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.sampled_from([b"[a]\n" * 99, b"a=" + b"[" * 5000, b"a = 1\na = 2", b"\xff", b"network = 1", b"[[network]]"]),
    )
)
def test_recipe_files(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    path.write_bytes(content)
    with one_line():
        load(str(path))


@contextlib.contextmanager
def one_line() -> Any:
    try:
        yield
    except RecipeError as error:
        assert "\n" not in str(error)  # noqa: PT017


@pytest.fixture(scope="module")
def store(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(small_store, tmp_path_factory.mktemp("fuzz") / "run.zarr"))


@st.composite
def command_lines(draw: st.DrawFn, store: str) -> list[str]:
    """Return a command, some of its options and arguments, right or wrong."""
    name = draw(st.sampled_from([*sorted(set(COMMANDS) - {"demo"}), "nope", "--debugg", "--version"]))
    options = ["--nope", "-x"]
    if name in COMMANDS:
        command = importlib.import_module(f"featdyn.cli.{name}").command
        options += [flag for p in command.params for flag in p.opts if flag.startswith("-")]
    letters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])  # what a system can pass
    value = st.one_of(st.sampled_from([store, store, *WORDS]), st.text(letters, max_size=5))
    words = draw(st.lists(st.one_of(st.just(store), st.sampled_from(options), value), max_size=6))
    if name == "analyze":
        words = [store, draw(st.sampled_from(["drift", "isotropy", "nope"])), *words]
    elif draw(st.booleans()):
        words = [store, *words]
    return [name, *words]


def run(arguments: list[str]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    argv = mock.patch.object(sys, "argv", ["featdyn", *arguments])
    with argv, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_command_lines(store: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    arguments = data.draw(command_lines(str(store)))
    here = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("here"))  # where -o may write
    try:
        with (
            mock.patch("featdyn.training.stage.train", side_effect=RecipeError("would train")),
            mock.patch("featdyn.training.sweep.train", side_effect=RecipeError("would train")),
            mock.patch("featdyn.report.server.Server.serve_forever", side_effect=KeyboardInterrupt),
            mock.patch("featdyn.analysis.driver.analyze", return_value=xr.Dataset(attrs={"path": "results/x/000001"})),
        ):
            code, _, err = run(arguments)
    finally:
        os.chdir(here)
    assert code in (0, 1, 2)
    assert "(unexpected:" not in err, arguments
    assert "Traceback" not in err
    if code:
        last = err.splitlines()
        assert len(last) == 1, arguments
        assert err.startswith("featdyn: "), arguments


def test_the_store_that_was_fuzzed_is_whole(store: Path) -> None:
    assert verify(store).sound
