"""Cached machine code is dropped when any file that it was made of changes."""

import os
import subprocess
import sys

FIRST = "import numba\n@numba.njit\ndef inner(x):\n    return x + {}\n"
SECOND = "from featdyn_kernels._jit import njit\nfrom inner import inner\n@njit\ndef outer(x):\n    return inner(x)\n"


def test_changes_in_another_file_of_the_operation_are_seen(tmp_path):
    (tmp_path / "outer.py").write_text(SECOND)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    code = "from outer import outer; print(outer(1), sum(outer.stats.cache_hits.values()))"
    printed = []
    for constant in (1, 1, 2):
        (tmp_path / "inner.py").write_text(FIRST.format(constant))
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        printed.append(run.stdout.strip())
    assert printed == ["2 0", "2 1", "3 0"]
