"""Cached machine code is dropped when any file that it was made of changes."""

import os
import pickle
import re
import shutil
import subprocess
import sys

import numba
import pytest

from featdyn_kernels import _cache, _jit, _versions

INNER = "from featdyn_kernels._jit import njit\n@njit\ndef inner(x):\n    return x + {}\n"
OUTER = """
from featdyn_kernels._jit import njit
from featdyn_kernels.{} import inner
@njit
def outer(x):
    return inner(x)
@njit(fastmath=True)
def fast(x):
    return inner(x)
"""


@pytest.mark.parametrize("inner", [pytest.param("operation.inner", marks=pytest.mark.slow), "_shared.deep.inner"])
def test_changes_in_any_file_that_an_operation_uses_are_seen(tmp_path, inner):
    root = tmp_path / "featdyn_kernels"
    for folder in ("operation/nested", "_shared/deep"):
        (root / folder).mkdir(parents=True)
    (root / "__init__.py").touch()
    for module in (_jit, _cache, _versions):
        shutil.copy(module.__file__, root)
    (root / "operation/nested/outer.py").write_text(OUTER.format(inner))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
    }
    code = """from featdyn_kernels.operation.nested.outer import fast, outer
print(outer(1), fast(1), *(sum(f.stats.cache_hits.values()) for f in (outer, fast)))"""
    printed, files = [], []
    for constant in (1, 1, 2, 2):
        (root / inner.replace(".", "/")).with_suffix(".py").write_text(INNER.format(constant))
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        printed.append(run.stdout.strip())
        if len(printed) == 3:
            for index in (tmp_path / "cache").rglob("*.nbi"):  # of an older version, whose classes are gone
                index.write_bytes(pickle.dumps(numba.__version__) + b"cgone\nGone\n.")
        files.append({path.name for path in (tmp_path / "cache").rglob("outer.outer*.nbc")})
    assert printed == ["2 2 0 0", "2 2 1 1", "3 3 0 0", "3 3 0 0"]
    assert files[0] == files[1]
    assert len(files[2]) == 1
    assert files[0].isdisjoint(files[2])  # so that no process finds old code where the index promises new


def test_no_kernel_is_cached_in_another_way():
    files = [path for path in _cache.PACKAGE.rglob("*.py") if path.name != "_jit.py"]
    assert not [path for path in files if re.search(r"cache=(True|cached)", path.read_text())]
