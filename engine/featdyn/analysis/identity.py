"""What a result is of: an earlier one is reused only where all of it agrees."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from featdyn.analysis.declaration import Analysis
from featdyn.store import Run
from featdyn.store.place import FileRecord
from featdyn.validation import Options

if TYPE_CHECKING:
    import xarray as xr
    from torch import nn


def identity(analysis: Analysis, run: Run, model: nn.Module | None, options: Options) -> dict[str, Any]:
    """Return what a result depends on, JSON-like.

    The analysis's version, the options that bear on its cells, the network's code and structure, the checksums of the
    probes, and the checksum of each checkpoint's weights.
    """
    files = [commit.files(run.place) for commit in run.commits if commit.kind == "checkpoint"]
    weights = [next((f.crc32c for f in of_one if f.path.endswith("/model.safetensors")), None) for of_one in files]
    return {
        "version": analysis.version,
        "options": {k: v for k, v in options.model_dump(mode="json").items() if k not in analysis.incidental},
        "network": _network(run, model),
        "probes": _probes(run, files[0]),
        "weights": weights,
    }


def known(analysis: Analysis, run: Run, stamp: dict[str, Any]) -> xr.Dataset | None:
    """Return the newest result whose identity is ``stamp``, with all or the first of its checkpoints."""
    for path in reversed(run.results(analysis.name)):
        earlier = run.nodes[path].get("attributes", {}).get("identity")
        held = earlier.get("weights") if isinstance(earlier, dict) else None
        if held and earlier == {**stamp, "weights": stamp["weights"][: len(held)]}:
            return run.result(analysis.name, path)
    return None


def _network(run: Run, model: nn.Module | None) -> str:
    """Return what tells the network's function apart: its code's names and its structure, or the recipe's table."""
    if model is None:
        return _digest(repr(run.attributes.get("recipe", {}).get("network")))
    kinds = [f"{name}:{type(part).__module__}.{type(part).__qualname__}" for name, part in model.named_modules()]
    return _digest("\n".join([repr(model), *kinds, *_code(model)]))


def _code(model: nn.Module) -> list[str]:
    """Return the byte code of every forward method, constants included: a changed line is another network."""
    found = []
    for kind in dict.fromkeys(type(part) for part in model.modules()):
        code = getattr(getattr(kind, "forward", None), "__code__", None)
        if code is not None:
            found.append(f"{kind.__qualname__} {code.co_code.hex()} {code.co_names} {_constants(code)}")
    return found


def _constants(code: Any) -> list[str]:
    """Return a code object's constants; nested code by its own."""
    return [str(_constants(c)) if hasattr(c, "co_consts") else repr(c) for c in code.co_consts]


def _probes(run: Run, files: list[FileRecord]) -> str:
    """Return a checksum of what was recorded of the probes, which the first commit holds."""
    own = ("inputs", *run.paths("sample"))
    return _digest(repr([(f.path, f.crc32c) for f in files if f.path.partition("/")[0] in own and "/c/" in f.path]))


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:16]
