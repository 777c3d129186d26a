"""Taking a module apart where nothing traces it: by what its submodules return, in the order in which they run.

The suffix is the whole module, in which one submodule returns the features that are handed over; what runs before it is
thrown away. That is the network of the mixed state dict, in which parameters of modules that finish before the cut are
of one checkpoint and all others of another, wherever nothing but the cut's tensor depends on the former: which is
checked, by changing them in several ways. What is made of the input alone (a mask, positions) may pass beside the cut:
the suffix is given the input, too.

What was thrown away has the weights of the module that was taken apart, and not those of the suffix's checkpoint: so
where something passes beside a cut after all, as a branch that these few inputs do not take, a checkpoint joined with
itself is not its network, which analyses of composites look for on all probes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from featdyn.errors import NetworkError
from featdyn.functional import functional_call
from featdyn.networks.attention import with_plain_attention, without_fast_path
from featdyn.networks.cut import INPUT, OUTPUT, Cut
from featdyn.networks.hooked_part import Layout, hooked_part, one_tensor
from featdyn.networks.rows import rows
from featdyn.networks.seen import SeenOperations
from featdyn.networks.trace import CannotCut
from featdyn.networks.twin import eval_twin
from featdyn.networks.value_shapes import multiply_adds

ROWS = (3, 2)
"""Two batch sizes: a cut's tensor has a row for each sample in both."""
SCALES = (0.0, 1.0, 30.0, 1000.0)
"""How large weights before a place are drawn anew, beside their mean: so that comparisons come out otherwise, too."""
DRAWN = 65521
"""So many numbers are drawn, a prime, and used again: drawing one for each of many weights would take minutes."""


@dataclass(frozen=True)
class _Place:
    """Where a submodule that runs once returns one tensor."""

    path: str
    shape: tuple[int, ...]
    before: int  # operations
    plain: bool  # whether the tensor is all that is returned
    storage: int  # of the tensor, in the run in which operations were noted


class Hooked:
    """A module taken apart by what its submodules return, whose places are their paths.

    Raises :class:`NetworkError` where the module does not run on inputs like ``example``, ``(N, ...)``.
    """

    method = "forward hooks: torch.fx and torch.export find no such cut, and each composite runs all of the network"
    traced = False

    def __init__(self, module: nn.Module, example: Tensor) -> None:
        self._module = module
        self._inputs = rows(example)
        try:
            try:
                runs = [_Run(module, self._inputs[:n]) for n in ROWS]
            except Exception:  # turned round they are none, as lengths beside tokens
                self._inputs = example[: ROWS[0]]
                runs = [_Run(module, self._inputs[:n]) for n in ROWS]
            output = one_tensor(runs[0].output)
        except Exception as error:  # the forward functions of users raise what they please
            raise CannotCut(module, error) from error
        if output is None:
            raise CannotCut(module, f"it returns {type(runs[0].output).__name__}, not one tensor")
        self._output = output
        self._uses, self._macs = runs[0].uses, runs[0].macs
        self._finished, self._read = runs[0].finished, runs[0].read
        self._state = frozenset(module.state_dict())
        self._idle = self._state.difference(*self._uses)  # of branches not taken here: both halves have their own
        self._places = list(_places(*runs))

    def cuts(self, every: bool = False) -> Iterator[Cut]:
        """Yield the places that separate, in the order in which they run; of those that cost the same one will do."""
        total = sum(self._macs)
        yield Cut(INPUT, None, tuple(self._inputs.shape[1:]), 0, total, 0, 0, self, INPUT)
        for _, group in groupby(self._places, lambda place: (sum(self._macs[: place.before]), prod(place.shape))):
            good = (place for place in reversed(list(group)) if self._separates(place))
            found = list(good) if every else [place for place in [next(good, None)] if place]
            for place in reversed(found):
                macs = sum(self._macs[: place.before])
                sizes = {name: parameter.numel() for name, parameter in self._module.named_parameters()}
                before, behind = (sum(sizes.get(n, 0) for n in self._names(place, half)) for half in (True, False))
                costs = (macs, total - macs, before, behind)
                yield Cut(place.path, place.path if place.plain else None, place.shape, *costs, self, place)
        yield Cut(OUTPUT, None, tuple(self._output.shape[1:]), total, 0, 0, 0, self, OUTPUT)

    def part(self, source: Any, result: Any, module: nn.Module | None = None) -> nn.Module:
        """Make what leads from one submodule's output to those of others: see :class:`featdyn.networks.cut.Way`."""
        results = result if isinstance(result, tuple) else (result,)
        first = 0 if source is INPUT else source.before
        last = len(self._uses) if OUTPUT in results else max(place.before for place in results)
        over = frozenset(name for name, end in self._finished.items() if end <= first)
        layout = Layout(
            None if source is INPUT else source.path,
            None if OUTPUT in results else tuple(place.path for place in results),
            isinstance(result, tuple),
            () if source is INPUT else source.shape,
            source is INPUT or source.plain,
            tuple(self._inputs.shape[1:]),
            self._inputs.dtype,
            self._state if source is INPUT else self._state - self._shallow(source),
            self._idle.union(*self._uses[first:last]),
            over,
        )
        return hooked_part(self._module if module is None else module, layout)

    def handed(self, features: Tensor, inputs: Callable[[], Tensor]) -> Tensor:
        """Return features and inputs side by side, ``(N, both)``, in float32 at least."""
        given = inputs()
        kind = torch.promote_types(features.dtype, torch.float32)
        kind = torch.promote_types(kind, given.dtype) if given.is_floating_point() else kind
        beside = given.to(kind)
        if not given.is_floating_point() and not torch.equal(beside.to(given.dtype), given):
            raise NetworkError(f"inputs of {given.dtype} do not fit {kind}, beside features at a cut")
        return torch.cat([features.to(kind).flatten(1), beside.flatten(1)], 1)

    def _names(self, place: _Place, before: bool) -> frozenset[str]:
        """Return the tensors of the state that are used before a place, or behind it."""
        return self._idle.union(*(self._uses[: place.before] if before else self._uses[place.before :]))

    def _shallow(self, place: _Place) -> frozenset[str]:
        """Return the tensors of the state that only the prefix uses."""
        return self._names(place, True) - self._names(place, False)

    def _separates(self, place: _Place) -> bool:
        """Whether tensors that only the prefix uses have no other way to the output."""
        shallow_names = self._shallow(place)
        if self._passed_by(place, shallow_names):  # which is known at once; to try it takes many passes
            return False
        suffix, state = self.part(place, OUTPUT), self._module.state_dict()
        shallow = {name: state[name] for name in sorted(shallow_names) if state[name].is_floating_point()}
        with torch.no_grad():
            for number, other in enumerate(_changes(shallow)):
                try:
                    if not number:
                        handed = self.handed(self.part(INPUT, place)(self._inputs), lambda: self._inputs)
                    found = functional_call(suffix, other, (handed,))
                except Exception:  # what follows another path stops anywhere; torch's fast path leaves submodules out
                    if number:  # and weights that no training gives may be refused
                        continue
                    return False
                if not torch.equal(found, self._output):
                    return False
        return True

    def _passed_by(self, place: _Place, shallow: frozenset[str]) -> bool:
        """Whether what was made before a place from such tensors is read behind it, but what is handed over there."""
        return any(
            value.made < place.before and value.storage != place.storage and not shallow.isdisjoint(value.of)
            for values in self._read[place.before :]
            for value in values
        )


def _changes(state: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yield other values of these tensors: near ones, of the other sign, none, and random ones of any size."""
    yield {name: 1.5 * tensor + 0.25 for name, tensor in state.items()}
    yield {name: -tensor for name, tensor in state.items()}
    sizes = {name: 1 + tensor.abs().mean() for name, tensor in state.items()}
    drawn = torch.randn(DRAWN, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    for shift, scale in enumerate(SCALES):
        random = drawn.roll(1000 * shift)
        yield {name: scale * sizes[name] * _tiled(random, tensor) for name, tensor in state.items()}


def _tiled(values: Tensor, like: Tensor) -> Tensor:
    """Return so many of these values as a tensor has, from the first again when they are used up."""
    found = values.repeat(-(-like.numel() // len(values)))[: like.numel()].reshape(like.shape)
    return found.to(like)


@dataclass(frozen=True)
class _Value:
    """Something that an operation reads."""

    storage: int  # which is another's once it is free: with ``made`` it is known
    made: int  # by which operation
    of: frozenset[str]  # tensors of the state that it depends on


class _Run(SeenOperations):  # type: ignore[no-untyped-call]
    """One pass of a module, with what each operation uses of its state."""

    def __init__(self, module: nn.Module, inputs: Tensor) -> None:
        super().__init__()
        self.uses: list[frozenset[str]] = []
        self.macs: list[int] = []
        self.read: list[list[_Value]] = []
        self._values: dict[int, _Value] = {}  # by storage
        self.finished: dict[str, int] = {}  # operations before a submodule's last call was over
        self.returned: dict[str, list[Any]] = {}
        twin = eval_twin(module)
        self._names: dict[int, set[str]] = {}
        for name, tensor in twin.state_dict().items():
            self._names.setdefault(tensor.untyped_storage()._cdata, set()).add(name)

        def note(path: str) -> Any:
            def hook(_: nn.Module, __: Any, output: Any) -> None:
                self.finished.pop(path, None)
                self.finished[path] = len(self.uses)
                self.returned.setdefault(path, []).append(output)

            return hook

        for path, inner in twin.named_modules():
            if path:
                inner.register_forward_hook(note(path))
        with torch.inference_mode(False), torch.no_grad(), torch.random.fork_rng(devices=[]):
            self.output = eval_twin(module)(inputs.clone())
            with without_fast_path(), with_plain_attention(), self:
                twin(inputs.clone())
        self.macs = [count // len(inputs) for count in self.macs]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        storages = dict.fromkeys(t.untyped_storage()._cdata for t in _tensors((args, kwargs)))
        used = frozenset[str]().union(*(self._names.get(storage, ()) for storage in storages))
        read = [self._values[one] for one in storages if one in self._values]
        of = used.union(*(value.of for value in read))
        if _of_shapes(func):
            read, of = [], frozenset()
        for tensor in _tensors(out):
            storage = tensor.untyped_storage()._cdata
            made = self._values[storage].made if storage in storages and storage in self._values else len(self.uses)
            if storage not in self._names:
                self._values[storage] = _Value(storage, made, of)
        self.uses.append(used)
        self.read.append(read)
        self.macs.append(multiply_adds(func, args, kwargs, out))
        return out


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _of_shapes(func: Any) -> bool:
    """Whether an operation looks at the shape of a tensor only, or hands its value to Python."""
    name = str(func._schema.name).removeprefix("aten::")
    return name.endswith("_like") or name.startswith("new_") or name == "_local_scalar_dense"


def _places(first: _Run, other: _Run) -> Iterator[_Place]:
    """Yield where one tensor with a row for each sample is returned, in both runs."""
    for path, before in first.finished.items():
        returned = [run.returned.get(path, []) for run in (first, other)]
        if [len(calls) for calls in returned] != [1, 1]:
            continue
        tensors = [one_tensor(calls[0]) for calls in returned]
        real = [t for t, n in zip(tensors, ROWS, strict=True) if t is not None and t.shape[:1] == (n,)]
        shapes = {tuple(t.shape[1:]) for t in real if t.is_floating_point()}
        if len(real) == len(ROWS) and len(shapes) == 1:
            storage = real[0].untyped_storage()._cdata
            yield _Place(path, shapes.pop(), before, isinstance(returned[0][0], Tensor), storage)
