"""The public class: checks, the choice of an implementation, and a guard over the fused ones."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from featdyn_kernels._check import require
from featdyn_kernels._dispatch import choose, interpreting, is_tensor, like, to_numpy
from featdyn_kernels._versions import simd

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import torch
    from torch import Tensor, nn

    from featdyn_kernels._dispatch import Array
    from featdyn_kernels.stitch.runner import Path, Runner
    from featdyn_kernels.stitch.score import Scores

TRIAL = 4
"""Samples on which the first run compares the fused path with the modules."""
SAFETY = 10
"""Bound on the distance of two logits that may swap, over the largest error expected or seen."""


class Stitched(NamedTuple):
    """Results of shape (checkpoint, sample), of the kind and on the device of the features."""

    predictions: Any
    """int64; the first of the largest logits, -1 where one is NaN."""
    loss: Any
    """float32 cross-entropy; None without labels."""
    margin: Any
    """float32, logit of the label minus the largest of the others; None without labels."""
    log_odds: Any
    """float32, log(p / (1 - p)) of the label's probability; None without labels."""
    divergence: Any
    """float32, KL divergence from the distribution of the logits given as ``own``; None without them."""


class SuffixBank:
    """The suffixes of many checkpoints at one cut, ready to run on features from any checkpoint.

    BatchNorm is folded into the weights (eval mode), and weights are laid out once. What is fused: a convolution or
    linear layer with the BatchNorm, the residual and the ReLU behind it; heads right behind the cut as one product for
    all checkpoints. On the CPU, 3x3 convolutions of stride 1 go by Winograd's F(4x4, 3x3). On a GPU one launch serves
    all checkpoints, shortcuts that stride and zero-pad are read in place, and pooling, head and scores are one kernel;
    the second block of features of one shape is captured as a CUDA graph, later ones replay it. Other operations run in
    torch between those. A suffix that torch.fx cannot trace, or that normalises by batch statistics, runs as it stands.

    Logits closer than ``bound``, a fraction of the checkpoint's largest logit, may swap places in the fused arithmetic:
    it is ten times the error that this is known for or, where that is larger, that it made on the first samples. 0
    where nothing is fused.

    Parameters
    ----------
    suffixes
        One module per checkpoint, each from features (N, ...) to logits (N, classes); one logit z is that of class 1
        against class 0, so that (0, z) are the logits of two classes. They are taken in eval mode
        whatever their mode is, and left as they are. Weights are shared where they are float32 already: do not train
        on while the bank lives. Samples must not see each other.
    dtype
        Of weights and activations: ``torch.float32``, ``torch.bfloat16`` or, on a GPU, ``torch.float16``; None is
        float32, which is IEEE's: on a GPU no product of this class is of TF32 numbers, whatever torch is set to.
    exact
        Predictions equal those of the plain float32 module: samples whose two largest logits are closer than ``bound``
        run through that module too, and its results are taken. None is True for float32, False for the others.
    backend
        ``cpu``, ``gpu``, or ``reference`` (float64, slow); None goes by the device of the weights.
    positions
        Outputs of a sample, above 1 of suffixes that return logits (N, positions, classes), as language models do:
        each counts as a sample of labels, ``own`` and results, (N * positions,). Such suffixes run as they stand.

    Raises
    ------
    ValueError
        There is no suffix, or no GPU.

    Notes
    -----
    Feature dynamics, sections 1.1 (composites), 6.3 and 6.4. :meth:`run` may be called from any number of threads; a
    GPU takes one call at a time. The first run compares the fused way with the modules, and leaves it for the general
    one should they disagree. On a GPU, samples and checkpoints are split so that activations take no more than 512 MiB,
    twice with a graph, beside weights and features; a single sample of a single checkpoint is not split.
    """

    def __init__(
        self,
        suffixes: Sequence[nn.Module],
        *,
        dtype: torch.dtype | None = None,
        exact: bool | None = None,
        backend: str | None = None,
        positions: int = 1,
    ) -> None:
        require(len(suffixes) > 0, "suffixes must hold at least one module")
        self._set_up([(suffix, None) for suffix in suffixes], dtype, exact, backend, positions)

    @classmethod
    def from_states(
        cls,
        suffix: nn.Module,
        states: Sequence[Mapping[str, Tensor]],
        *,
        dtype: torch.dtype | None = None,
        exact: bool | None = None,
        backend: str | None = None,
        positions: int = 1,
    ) -> SuffixBank:
        """Make a bank from one suffix, left as it is, and the parameters and buffers of every checkpoint.

        Parameters
        ----------
        states
            One state dict per checkpoint. That of the whole network will do: keys that the suffix lacks are not read.
        dtype, exact, backend, positions
            As for the class.

        Raises
        ------
        ValueError
            There is no checkpoint, or a tensor is missing or has another shape.
        """
        require(len(states) > 0, "states must hold at least one checkpoint")
        bank = cls.__new__(cls)
        bank._set_up([(suffix, state) for state in states], dtype, exact, backend, positions)
        return bank

    def _set_up(
        self,
        parts: Sequence[tuple[nn.Module, Mapping[str, Tensor] | None]],
        dtype: torch.dtype | None,
        exact: bool | None,
        backend: str | None,
        positions: int,
    ) -> None:
        import torch

        from featdyn_kernels.stitch.twin import twin

        require(positions > 0, f"positions must be at least 1, got {positions}")

        dtype = torch.float32 if dtype is None else dtype
        weights = [*parts[0][0].parameters(), *(parts[0][1] or {}).values()]
        self._backend = backend = choose(backend, *weights)
        types = [torch.float32, torch.bfloat16, *[torch.float16] * (backend == "gpu")]
        if dtype not in types:
            raise TypeError(f"dtype must be {' or '.join(map(str, types))}, got {dtype}")
        self._device = _device(weights) if backend == "gpu" else torch.device("cpu")
        kept = torch.float64 if backend == "reference" else torch.float32
        self._modules = [twin(module, state, kept, self._device) for module, state in parts]
        self._exact = dtype == torch.float32 if exact is None else exact
        self._lock, self._tried = threading.Lock(), False
        self._positions = positions
        self._runner = _runner(self._modules, dtype, backend, positions)
        self.bound = SAFETY * self._runner.error

    def __len__(self) -> int:
        return len(self._modules)

    @property
    def path(self) -> Path:
        """Which implementation runs, and why."""
        return self._runner.path

    @property
    def nbytes(self) -> int:
        """Bytes of weights that the bank holds beside the modules' own."""
        return self._runner.nbytes

    def run(self, features: Array, labels: Array | None = None, own: Array | None = None) -> Stitched:
        """Run every suffix on one block of features.

        Parameters
        ----------
        features
            (N, ...) of any floating-point type. NaN and infinity give what the modules give for them.
        labels
            (N,) true classes, for loss, margin and log-odds.
        own
            (checkpoint, N, classes) logits, such as those of the networks that the suffixes are from, for the
            divergence KL(softmax(own) || softmax(logits)).

        Raises
        ------
        ValueError
            Features do not fit the suffix, labels do not fit the features, or the suffix returns no logits (N,
            classes).
        TypeError
            Features are not floating-point, or labels not integers.
        """
        import torch

        from featdyn_kernels.stitch.exact import settle

        given: Any = features if is_tensor(features) else torch.from_numpy(np.ascontiguousarray(features))
        if not given.is_floating_point():
            raise TypeError(f"features must be floating-point, got {given.dtype} of shape {tuple(given.shape)}")
        require(given.ndim >= 2, f"features must have shape (N, ...), got {tuple(given.shape)}")
        outputs = len(given) * self._positions
        classes = None if labels is None else torch.from_numpy(_labels(labels, outputs))
        logits = None if own is None else torch.from_numpy(_own(own, len(self), outputs))
        with self._exclusive():
            given = given.detach().to(self._device)
            scores = self._scores(outputs, classes, logits)
            if len(given):
                with self._lock:
                    self._try(given[:TRIAL])
                self._runner.run(given, scores)
                if self._exact and self.bound:
                    settle(self._modules, given, scores, self.bound)
        soft = (scores.loss, scores.margin, scores.log_odds) if labels is not None else (None, None, None)
        arrays = (scores.prediction, *soft, scores.divergence if own is not None else None)
        return Stitched(*(None if array is None else like(array, features) for array in arrays))

    def _exclusive(self) -> AbstractContextManager[None]:
        """Return what a run goes on in: on a GPU it shares neither buffers nor torch's settings with other runs."""
        if self._backend != "gpu":
            return nullcontext()
        from featdyn_kernels.stitch.gpu import exclusive

        return exclusive(self._device)

    def _scores(self, samples: int, labels: Tensor | None = None, own: Tensor | None = None) -> Scores:
        from featdyn_kernels.stitch.score import Scores, reduce

        if self._backend == "gpu":
            from featdyn_kernels.stitch.gpu import reduce
        return Scores(len(self), samples, labels, own, self._device, reduce)

    def _try(self, features: Tensor) -> None:
        """Compare the fused path with the modules, once; later runs rely on it."""
        from featdyn_kernels.stitch.runner import General

        if self._tried:
            return
        self._tried = True
        general = General(self._modules, "") if self._runner.error else self._runner
        plain, fused = (self._scores(len(features) * self._positions) for _ in range(2))
        try:
            general.run(features, plain)
        except (RuntimeError, TypeError, IndexError) as problem:
            self._tried = False
            reason = str(problem).strip().splitlines()[0]
            raise ValueError(f"features of shape {tuple(features.shape)} do not fit the suffix: {reason}") from problem
        if not self._runner.error:
            return
        if self._backend == "gpu" and plain.classes == 1:
            self._runner, self.bound = General(self._modules, "one logit"), 0.0
            return
        try:
            self._runner.run(features, fused)
            error = _difference(fused, plain)
            why = f"fused, the first samples came out wrong by {error:.1e} of the largest logit"
        except Exception as problem:  # the modules do run on these features, so the fault is the plan's
            error, why = np.inf, f"fused, it fails: {problem}"
        if error > self._runner.tolerance:
            self._runner, self.bound = General(self._modules, why), 0.0
        else:
            self.bound = max(self.bound, SAFETY * error)


def _runner(modules: Sequence[nn.Module], dtype: torch.dtype, backend: str, positions: int) -> Runner:
    """Return the fastest way for these suffixes, modules in eval mode."""
    from featdyn_kernels.stitch.plan import Unplannable, plan
    from featdyn_kernels.stitch.runner import General, Reference

    if backend == "reference":
        return Reference(modules, positions)
    if positions > 1:
        return General(modules, "outputs by position", positions)
    if backend == "cpu" and not simd():
        return General(modules, "the fused steps were not tested with this version of Numba")
    if any(str(module) != str(modules[0]) for module in modules[1:]):
        return General(modules, "the suffixes are not all of one architecture")
    try:
        steps = plan(modules[0])
    except Unplannable as reason:
        return General(modules, str(reason))
    fused = importlib.import_module(f"featdyn_kernels.stitch.{backend}").Fused
    return cast("Runner", fused(steps, modules, dtype))


def _difference(fused: Scores, plain: Scores) -> float:
    """Return the largest finite difference between the two, as a fraction of the checkpoint's largest logit."""
    pairs = ((fused.gap, plain.gap), (fused.scale, plain.scale))
    differences = [(a - b).abs() / plain.scale.amax(1, keepdim=True) for a, b in pairs]
    return max(float(d.nan_to_num(0.0, 0.0, 0.0).max()) for d in differences)


def _device(weights: Sequence[Tensor]) -> torch.device:
    import torch

    if interpreting():
        return torch.device("cpu")
    require(torch.cuda.is_available(), "backend='gpu' needs a CUDA device, and torch finds none")
    found = [tensor.device for tensor in weights if tensor.device.type == "cuda"]
    return found[0] if found else torch.device("cuda", torch.cuda.current_device())


def _labels(labels: Array, samples: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    found = to_numpy(labels, "labels")
    if found.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, got {found.dtype} of shape {found.shape}")
    require(found.shape == (samples,), f"labels must have shape ({samples},) like the features, got {found.shape}")
    require(not samples or found.min() >= 0, f"labels must not be negative, got {found.min() if samples else 0}")
    return np.ascontiguousarray(found, dtype=np.int64)


def _own(own: Array, checkpoints: int, samples: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    found = to_numpy(own, "own")
    require(found.dtype.kind == "f", f"own must be floating-point logits, got {found.dtype}")
    fits = found.ndim == 3 and found.shape[:2] == (checkpoints, samples)
    require(fits, f"own must have shape ({checkpoints}, {samples}, classes), got {found.shape}")
    return np.ascontiguousarray(found, dtype=np.float32)
