"""One call in a process of its own, forked from one that has imported all: its processor time and its memory."""

from __future__ import annotations

import json
import os
import resource
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any


def apart(call: Callable[[], Any]) -> dict[str, float]:
    """Return the processor seconds of a call, all its threads and children, and the bytes that it adds at most.

    The bytes are the highest resident size (VmHWM) less what the process has before; what was imported and touched by
    its parent counts for neither.

    Raises
    ------
    RuntimeError
        The call failed: with its traceback.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    with warnings.catch_warnings():
        # From Python 3.12 on it warns where there are threads: those of libraries wait for work, and hold no lock.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        code = 1
        try:
            os.close(reader)
            found: dict[str, Any]
            try:
                Path("/proc/self/clear_refs").write_text("5")  # the highest size begins anew
                before, start = resident("VmRSS"), seconds()
                call()
                found = {"seconds": seconds() - start, "bytes": max(0, resident("VmHWM") - before)}
            except BaseException:
                found = {"error": traceback.format_exc()}
            with os.fdopen(writer, "w") as pipe:
                json.dump(found, pipe)
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    if not said:
        raise RuntimeError("the process of a call was killed")
    result: dict[str, Any] = json.loads(said)
    if "error" in result:
        raise RuntimeError(result["error"])
    return result


def seconds() -> float:
    """Return the processor time of this process and of those that it has waited for."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def resident(name: str) -> int:
    """Return a size of this process in bytes, by its name in Linux's ``/proc/self/status``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
