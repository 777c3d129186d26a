"""What is handed on: the sdist holds all that the repository does, the wheel all of both packages."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOT_SOURCE = (".*", "__pycache__", "*.pyc", "*.egg-info", "build", "dist", "site", "demo", "shared")
BUILD = """
import setuptools.build_meta as backend, sys
print(getattr(backend, sys.argv[1])(sys.argv[2]))
"""


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def built(what: str, source: Path, out: Path) -> Path:
    """Build in the folder of the source; return the archive."""
    command = [sys.executable, "-W", "ignore", "-c", BUILD, what, str(out)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_the_sdist_is_whole_and_a_wheel_comes_from_it(tmp_path: Path) -> None:
    setuptools = pytest.importorskip("setuptools")
    if int(setuptools.__version__.partition(".")[0]) < 77:
        pytest.skip("the build asks for setuptools 77")
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*NOT_SOURCE))
    held = files(source)
    with tarfile.open(built("build_sdist", source, tmp_path)) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert held - files(unpacked) == set()
    assert {"CHANGELOG.md", "CITATION.cff", "LICENSE", "tests/test_distribution.py", "PKG-INFO"} <= files(unpacked)

    with zipfile.ZipFile(built("build_wheel", unpacked, tmp_path)) as wheel:
        inside = set(wheel.namelist())
    packages = {name.partition("/")[2] for name in held if name.startswith(("engine/featdyn/", "kernels/"))}
    assert packages - inside == set()
    about = {name for name in inside if ".dist-info/" in name}
    assert inside - about <= packages  # no test, benchmark or leftover of a build
    assert {"licenses/LICENSE", "entry_points.txt", "METADATA"} <= {name.partition("/")[2] for name in about}
