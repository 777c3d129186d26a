"""An installation without the extra `train`: stores are read, and what is missing is one line with its extra."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from featdyn.extras import EXTRAS, MissingExtra, asked_for
from tests.engine.declared_results import declared_result
from tests.engine.synthetic_run import make_run

ROOT = Path(__file__).parents[2]
READING = """
import importlib.abc, json, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
from featdyn.cli.main import main
for command in json.loads(sys.argv[1]):
    sys.argv = ["featdyn", *command]
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    print()
    print("::", command[0], code, flush=True)
"""


def run(commands: list[list[str]]) -> tuple[dict[str, int], str]:
    """Run commands in one process that has no module of the extra; return their exit codes, and what went wrong."""
    missing = {*EXTRAS["train"], "torchvision"}
    code = READING.format(missing=missing)
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands)], capture_output=True, text=True, check=True
    )
    said = [line.split() for line in done.stdout.splitlines() if line.startswith(":: ")]
    return {name: int(code) for _, name, code in said}, done.stderr


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> list[str]:
    from featdyn.analysis import analyses
    from featdyn.store import RunWriter

    folder = tmp_path_factory.mktemp("install")
    made = [make_run(folder / f"{name}.zarr", checkpoints=3).path for name in "ab"]
    for path in made:
        with RunWriter.open(path) as writer:
            for name in ("consistency", "drift"):
                writer.result(name, declared_result(analyses()[name], missing=0.1))
    return [str(path) for path in made]


def test_a_store_is_read_without_the_extra(stores: list[str], tmp_path: Path) -> None:
    store = stores[0]
    commands = [
        ["info", store],
        ["query", store, "cube.activation_norm", "--reduce", "mean:sample"],
        ["verify", store],
        ["report", store, "-o", str(tmp_path / "r.html")],
        ["compare", *stores],
        ["gc", store],
        ["train", "--list"],
        ["capture", "--help"],
    ]
    codes, said = run(commands)
    assert codes == dict.fromkeys(("info", "query", "verify", "report", "compare", "gc", "train", "capture"), 0), said
    assert (tmp_path / "r.html").stat().st_size > 10_000


@pytest.mark.parametrize("command", [["train", "digits", "--store", "none.zarr"], ["demo"]])
def test_what_needs_an_extra_says_which(command: list[str]) -> None:
    codes, said = run([command])
    assert codes == {command[0]: 1}
    assert said == "featdyn: this needs torch, which is not installed: pip install 'featdyn[train]'\n"


def test_other_modules_are_not_taken_for_an_extra() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such"), asked_for():
        raise ModuleNotFoundError("No module named 'no_such'", name="no_such")
    with pytest.raises(MissingExtra, match=r"featdyn\[cloud\]"), asked_for():
        raise ModuleNotFoundError("No module named 'obstore'", name="obstore.store")


def test_the_lowest_versions_are_those_that_are_tried() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    tried = dict(line.split("==") for line in lines if not line.startswith("#"))
    claimed = dict(requirement.split(">=") for requirement in project["dependencies"])
    assert claimed.keys() == tried.keys()
    for name, version in claimed.items():
        assert (tried[name] + ".").startswith(version + "."), name


def test_extras_are_those_of_the_package() -> None:
    """Each module that an extra is said to bring is of a package that it lists, and of none that is always there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    distributions = packages_distributions()

    def names(requirements: list[str]) -> set[str]:
        return {requirement.partition(">")[0].strip().lower() for requirement in requirements}

    always = names(project["dependencies"])
    for extra, modules in EXTRAS.items():
        for module in modules:
            held = {name.lower() for name in distributions.get(module, [])}
            if held and module != "dask":  # which distributed brings
                assert held & names(extras[extra]), (extra, module)
            assert not held & always, (extra, module)
