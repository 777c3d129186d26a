"""What a result is of: an earlier one is reused only where all of it agrees."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from featdyn.analysis.declaration import Analysis
from featdyn.store import Run
from featdyn.store.record import FileRecord
from featdyn.validation import Options

if TYPE_CHECKING:
    import xarray as xr
    from torch import nn


def identity(
    analysis: Analysis, run: Run, model: nn.Module | None, options: Options, asked: Sequence[Any] = ()
) -> dict[str, Any]:
    """Return what a result depends on, JSON-like.

    The analysis's version, the options that bear on its cells, the network's code and structure, the checksums of the
    probes, and the checksum of each checkpoint's weights. ``asked`` is what else says how the network is called.
    """
    files = [commit.files(run.place) for commit in run.commits if commit.kind == "checkpoint"]
    weights = [next((f.crc32c for f in of_one if f.path.endswith("/model.safetensors")), None) for of_one in files]
    return {
        "version": analysis.version,
        "options": {k: v for k, v in options.model_dump(mode="json").items() if k not in analysis.incidental},
        "network": network_of(run, model, asked),
        "probes": _probes(run, files[0]),
        "weights": weights,
    }


def known(analysis: Analysis, run: Run, stamp: dict[str, Any]) -> xr.Dataset | None:
    """Return the newest result whose identity is ``stamp``, with all or the first of its checkpoints.

    One that was committed after the run was opened counts too, as when a notebook asks twice.
    """
    now = Run(run.place)
    for path in reversed(now.results(analysis.name)):
        earlier = now.nodes[path].get("attributes", {}).get("identity")
        held = earlier.get("weights") if isinstance(earlier, dict) else None
        if held and earlier == {**stamp, "weights": stamp["weights"][: len(held)]}:
            return now.result(analysis.name, path)
    return None


def network_of(run: Run, model: nn.Module | None, asked: Sequence[Any] = ()) -> str:
    """Return what tells the network's function apart: its code and what it holds, or the recipe's table."""
    if model is None:
        return _digest(repr(run.described("recipe").get("network")))
    from featdyn.analysis.code import code_of, text_of

    return _digest("\n".join([repr(model), *code_of(model), *map(text_of, asked)]))


def _probes(run: Run, files: list[FileRecord]) -> str:
    """Return a checksum of what was recorded of the probes, which the first commit holds."""
    own = ("inputs", *run.paths("sample"))
    return _digest(repr([(f.path, f.crc32c) for f in files if f.path.partition("/")[0] in own and "/c/" in f.path]))


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:16]
