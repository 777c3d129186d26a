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
ELSEWHERE = """
import builtins, io, os, sys
import click, google_crc32c, jinja2, numcodecs, numpy, pandas, plotly, pyarrow.dataset, pydantic, safetensors, scipy
import tqdm, xarray, zarr, multiprocessing.synchronize, concurrent.futures.process, asyncio.unix_events
for name in {modules!r}:
    sys.modules[name] = None
for name in {calls!r}:
    if hasattr(os, name):
        delattr(os, name)
sys.platform = {platform!r}

def without_proc(function):
    def call(path, *more, **options):
        if str(path).startswith("/proc"):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return function(path, *more, **options)
    return call

io.open, builtins.open, os.readlink = map(without_proc, (io.open, builtins.open, os.readlink))
"""
"""Another system, as far as one can be had here: what other packages need of this one they have taken before."""
POSIX = ("fcntl", "resource", "pwd", "grp", "termios", "pty", "tty", "syslog", "readline")
LINUX = ("sched_getaffinity", "sched_setaffinity", "posix_fadvise", "posix_fallocate", "O_DIRECT", "sched_getparam")
OF_UNIX = ("fork", "register_at_fork", "pread", "pwrite", "preadv", "sysconf", "statvfs", "getuid", "geteuid", "chown",
           "mkfifo", "O_DIRECTORY", "O_NOFOLLOW", "killpg", "getpgid", "setsid", "uname", "nice")  # fmt: skip
WITHOUT = """
import importlib.abc, importlib.util, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

def find_spec(name, package=None, find=importlib.util.find_spec):
    return None if name.partition(".")[0] in {missing!r} else find(name, package)

sys.meta_path.insert(0, Missing())
importlib.util.find_spec = find_spec
"""
READING = """
import json, sys
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


def run(commands: list[list[str]], before: str = "") -> tuple[dict[str, int], str]:
    """Run commands in one process that has no module of an extra; return their exit codes, and what went wrong."""
    missing = sorted({module for modules in EXTRAS.values() for module in modules})
    code = WITHOUT.format(missing=missing) + before + READING
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


@pytest.mark.parametrize(
    ("platform", "modules", "calls"), [("darwin", (), LINUX), ("win32", POSIX, (*LINUX, *OF_UNIX))]
)
def test_a_store_is_read_on_other_systems(
    stores: list[str], tmp_path: Path, platform: str, modules: tuple[str, ...], calls: tuple[str, ...]
) -> None:
    store = stores[0]
    commands = [
        ["info", store],
        ["query", store, "cube.activation_norm", "--reduce", "mean:sample", "-o", str(tmp_path / "a.csv")],
        ["sql", store],
        ["verify", store],
        ["report", store, "-o", str(tmp_path / "r.html")],
        ["compare", *stores],
    ]
    codes, said = run(commands, ELSEWHERE.format(platform=platform, modules=modules, calls=calls))
    assert codes == dict.fromkeys(("info", "query", "sql", "verify", "report", "compare"), 0), said
    assert (tmp_path / "a.csv").read_text().startswith("checkpoint,")


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
