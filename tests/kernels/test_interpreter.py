"""Triton kernels without a GPU: every ``test_*_gpu.py`` runs again in a child process, under Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = sorted(str(p) for p in HERE.glob("test_*_gpu.py"))
SHARES = 2  # as many as processes that run the suite: torch and Triton take each child ten seconds to load


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="already under the interpreter")
@pytest.mark.parametrize("share", range(SHARES))
def test_under_the_interpreter(share):
    # Triton reads the variable when it is imported, so a process that has imported it already cannot change its mind.
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *FILES[share::SHARES]]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=HERE.parents[1], check=False)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert " passed" in run.stdout, run.stdout[-2000:]
