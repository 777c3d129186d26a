"""Files that a training left: the parameters and buffers in them, under the names of the network."""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from featdyn.errors import NetworkError
from featdyn.networks.unwrap import INNER

DEPTH = 3
"""How deep a file's dicts are searched for a ``state_dict``."""
_INSIDE = re.compile(rf"(?<=\.)(?:{'|'.join(INNER)}|_checkpoint_wrapped_module)\.")
"""What wrappers of a part of a network add inside its names."""
_WHOLE = ("model.safetensors", "pytorch_model.bin")


def state_in(
    path: Path,
    model: nn.Module,
    prefix: str | None = None,
    extra: Callable[[list[str]], None] = lambda names: None,
    *,
    content: Any = None,
) -> dict[str, Tensor]:
    """Return a network's parameters and buffers from a checkpoint of any usual form.

    Parameters
    ----------
    path
        A file of ``torch.save`` (a ``state_dict``, or dicts that hold one, as Lightning has them; weights only, no
        code), a safetensors file, or a folder with one such file or with several and their index, as Hugging Face has;
        of its cache a revision, ``refs/<name>``.
    model
        Whose names and shapes say what belongs to it; what wrappers put before the names is taken off.
    prefix
        What stands before the names, where a file holds several networks; ``ema/`` for those under the key ``ema``. The
        ``.`` or ``/`` at its end may be left out.
    extra
        Told which tensors stand beside those of the network, below the same prefix: it has none of these names.
    content
        What :func:`read` returned of the file, where that was called before.

    Raises
    ------
    NetworkError
        The file cannot be read, or does not hold this network, or several times.
    """
    held = dict(model.state_dict(keep_vars=True))
    own = _without_wrappers(held)
    names = [name for name, value in own.items() if isinstance(value, Tensor)]
    fitting: dict[str, dict[str, Tensor]] = {}
    beside: dict[str, list[str]] = {}
    nearest = (len(names) + 1, "")
    if content is None:
        with quiet():
            content = read(path)
    below_it = None if prefix is None else _INSIDE.sub("", prefix)
    for where, each in _states(content, DEPTH):
        tensors = _without_wrappers(each)
        for found in _prefixes(tensors, own, names):
            if below_it is not None and not _is_prefix(below_it, (found, f"{where}{found}")):
                continue
            state, flaws = _taken(tensors, found, own, names)
            if not flaws:
                fitting[f"{where}{found}"] = state
                below = (name[len(found) :] for name in tensors if name.startswith(found))
                beside[f"{where}{found}"] = [name for name in below if name not in own]
            else:
                nearest = min(nearest, (len(flaws), flaws[0]))
    if not fitting:
        at = f" with {prefix!r} before the names" if prefix else ""
        raise NetworkError(f"{path}: does not hold this network{at}: {nearest[1] or 'no tensors of its names'}")
    first, *others = fitting.values()
    if any(not torch.equal(first[name], other[name]) for other in others for name in first):
        raise NetworkError(
            f"{path}: holds this network {len(fitting)} times, below {', '.join(map(repr, fitting))}: choose a prefix"
        )
    extra(min(beside.values(), key=len))
    return {name: first[plain] for name, plain in zip(held, own, strict=True) if plain in first}


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what torch says of sparse tensors: that checking them is slow."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Validating sparse tensor invariants")
        yield


def read(path: Path, *, mapped: bool = False) -> Any:
    """Return what a file or folder holds; NetworkError where it cannot be read. Any thread may call it.

    With ``mapped`` tensors are read when they are looked at.
    """
    if path.parent.name == "refs" and path.is_file():  # a revision in the cache of Hugging Face
        commit = path.read_text(errors="replace").strip()[:64]
        path, ref = path.parent.parent / "snapshots" / commit, path
        if not commit or not path.is_dir():
            raise NetworkError(f"{ref}: names the revision {commit}, which was not downloaded")
    try:
        if path.is_dir():
            return _folder(path, mapped)
        if not path.stat().st_size:
            raise NetworkError(f"{path}: is empty")
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise NetworkError(f"{path}: holds more than tensors, which is not loaded: save model.state_dict()") from error
    except NetworkError:
        raise
    except Exception as error:  # torch and safetensors raise what they please on files that are cut or none of theirs
        known = not isinstance(error, LookupError)  # these are of the unpickling machine, and say nothing
        first = (str(error).strip().splitlines() or [""])[0] if known else "it is no file of torch.save"
        raise NetworkError(f"{path}: cannot be read as a checkpoint: {first or type(error).__name__}") from error


def _folder(path: Path, mapped: bool) -> dict[str, Any]:
    indices = sorted(path.glob("*.index.json"))
    if indices:
        index = json.loads(indices[0].read_text())
        where = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(where, dict) or not all(isinstance(part, str) for part in where.values()):
            raise NetworkError(f"{indices[0]}: has no weight_map of names to files")
        parts = sorted(set(where.values()))
    else:
        held = [name for name in _WHOLE if (path / name).is_file()]
        parts = held[:1] or sorted(
            p.name for p in path.iterdir() if p.suffix in (".safetensors", ".pt", ".pth", ".ckpt")
        )
        if len(parts) != 1:
            raise NetworkError(f"{path}: holds {len(parts)} files of weights and no index: name one")
    found: dict[str, Any] = {}
    for part in parts:
        if Path(part).name != part:
            raise NetworkError(f"{path}: its index names {part!r}, which is not a file in it")
        found |= read(path / part, mapped=mapped)
    return found


def _states(content: Any, depth: int, where: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield all dicts that hold tensors by name, with the keys that lead there."""
    if not isinstance(content, Mapping) or not depth:
        return
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if tensors:
        yield where, tensors
    for name, value in content.items():
        yield from _states(value, depth - 1, f"{where}{name}/")


def _without_wrappers(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same by names without what wrappers add inside them, or as it is where two would be the same."""
    found = {_INSIDE.sub("", name): value for name, value in values.items()}
    return found if len(found) == len(values) else dict(values)


def _prefixes(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], names: list[str]) -> list[str]:
    """Return what may stand before the network's names: before that of its first tensor, or another of that."""
    same = [name for name in names if own[name] is own[names[0]]]
    found = (name[: -len(one)] for one in same for name in tensors if name.endswith(one))
    return [prefix for prefix in dict.fromkeys(found) if not prefix or prefix.endswith(".")]


def _is_prefix(given: str, found: tuple[str, str]) -> bool:
    """Whether a prefix is one of those that are there, with or without the sign at its end."""
    return given in found or (given != "" and given in {there[:-1] for there in found})


def _taken(
    tensors: Mapping[str, Tensor], prefix: str, own: Mapping[str, Tensor], names: list[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors below a prefix under the network's names, and what is wrong with them."""
    first: dict[int, str] = {}  # one tensor under several names is often kept once
    for name in names:
        if prefix + name in tensors:
            first.setdefault(id(own[name]), name)
    state: dict[str, Tensor] = {}
    flaws: list[str] = []
    for name in names:
        other = first.get(id(own[name]), name)
        value = tensors.get(prefix + name, tensors.get(prefix + other))
        if value is None:
            flaws.append(f"{name} is missing")
        elif flaw := _flaw(value, own[name]):
            flaws.append(f"{name} {flaw}")
        elif other in state and not torch.equal(value.nan_to_num(), state[other].nan_to_num()):
            flaws.append(f"{name} and {other} are one tensor in the network, and differ here")
        else:
            state[name] = value
    return state, flaws


def _flaw(value: Tensor, own: Tensor) -> str:
    """Return why a tensor of a file is none of the network's, else nothing: numbers only where they mean the same."""
    if value.is_meta:
        return "has no values (device meta)"
    if value.is_quantized or value.is_nested or value.layout != torch.strided:
        return f"is {'quantized' if value.is_quantized else value.layout}: save it as a plain tensor"
    if value.shape != own.shape:
        return f"has shape {tuple(value.shape)}, not {tuple(own.shape)}"
    if _kind(value) != _kind(own):
        return f"is {value.dtype}, which is not what the network has, {own.dtype}"
    return ""


def _kind(tensor: Tensor) -> str:
    """Return what numbers of this type are: those of 8 bits mean something only with a scale beside them."""
    kinds = {"bool": tensor.dtype == torch.bool, "complex": tensor.is_complex(), "real": tensor.is_floating_point()}
    kind = next((kind for kind, there in kinds.items() if there), "whole")
    return kind if kind == "bool" or tensor.itemsize > 1 else f"{tensor.dtype}"
