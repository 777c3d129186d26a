"""Record checkpoints that exist: the network is given the weights of one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featdyn.capture.checkpoint_files import quiet, read, state_in
from featdyn.capture.mapped_checkpoint import MappedCheckpoint
from featdyn.capture.options import CaptureOptions
from featdyn.capture.overwritten import say_overwritten
from featdyn.capture.piecewise import Piecewise
from featdyn.capture.piecewise_recorder import PiecewiseRecorder, few_inputs
from featdyn.capture.probes import Probes
from featdyn.capture.recorder import Recorder
from featdyn.errors import NetworkError, TrainingError
from featdyn.networks import is_skeleton, skeleton, unwrap
from featdyn.store import Run, exists

HELD = 5
"""So many times the weights of a checkpoint are held by a network, two checkpoints that were read, and as written."""


def capture(
    model: nn.Module | Callable[[], nn.Module],
    probes: Probes,
    checkpoints: Mapping[int, Path],
    store: str | Path,
    *,
    prefix: str | None = None,
    said: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = lambda done, total: None,
    room: int | None = None,
    **options: Any,
) -> Run:
    """Record a network at checkpoints that a training has left; return the run.

    A store of the same recording goes on after its last step. The network keeps the weights of the last checkpoint.

    Parameters
    ----------
    model
        The network, whose weights are replaced, or a function that makes it.
    probes, store, options
        As :class:`featdyn.capture.Recorder` takes them.
    checkpoints
        Step to file or folder, as :func:`featdyn.capture.checkpoint_steps.by_step` finds them, in order.
    prefix
        What stands before the network's names in the files, where they hold several networks.
    room
        Bytes of memory that this may take beside what the process has; None says nothing. Where the weights of some
        checkpoints do not fit, the network passes piece by piece: see :mod:`featdyn.capture.piecewise`.
    said, progress
        Told of what is odd (a checkpoint that equals the one before, tensors that the network has not), and of how
        many are done.

    Raises
    ------
    NetworkError
        A checkpoint does not hold the network, or its outputs are not finite. Those before it are recorded.
    StoreError
        As the recorder raises it.
    """
    told: set[tuple[str, ...]] = set()
    network = _network(model, empty=room is not None)
    if room is not None and HELD * sum(t.nbytes for t in network.state_dict().values()) > room:
        return _piecewise(network, probes, checkpoints, store, prefix, room, told, said, progress, options)
    model = _network(model, empty=False)
    before: dict[str, Tensor] = {}
    flaws: dict[int, str] = {}
    with (
        _file_named(store, checkpoints, flaws),
        Recorder(model, probes, store, resume=True, **options) as recorder,
        quiet(),
    ):
        recorder.meter.quiet = True  # there is no training to compare with
        recorder.plan(len(checkpoints)).check(store)
        new = _new(recorder, checkpoints, said)
        known = {step: path for step, path in checkpoints.items() if step not in new}
        say_overwritten(store, known, partial(state_in, model=model, prefix=prefix), said)
        done = len(checkpoints) - len(new)
        for (step, path), content in zip(new.items(), _read_ahead(new.values()), strict=True):
            done += 1
            state = state_in(path, model, prefix, partial(_left_out, path, told, said), content=content)
            if before and all(torch.equal(before[name], value) for name, value in state.items()):
                said(f"{path}: equals the checkpoint before")
            model.load_state_dict(state, strict=False)  # what is not a tensor stays
            flaws[step] = _not_finite(state)
            recorder.record(step=step)
            before = state
            progress(done, len(checkpoints))
    return Run(store)


def _network(model: nn.Module | Callable[[], nn.Module], *, empty: bool) -> nn.Module:
    """Return a network, or what the function makes, then without weights where it is to be ``empty``."""
    return unwrap(model if isinstance(model, nn.Module) else skeleton(model) if empty else model())


def _piecewise(
    network: nn.Module,
    probes: Probes,
    checkpoints: Mapping[int, Path],
    store: str | Path,
    prefix: str | None,
    room: int,
    told: set[tuple[str, ...]],
    said: Callable[[str], None],
    progress: Callable[[int, int], None],
    options: dict[str, Any],
) -> Run:
    """Record a network whose weights do not fit into memory."""
    if not is_skeleton(network):
        raise NetworkError("the network's weights do not fit into memory: give a function that makes it")
    if options.get("forward") is not None:
        raise NetworkError("a network larger than memory is called as model(inputs): leave forward (--forward) out")

    def opened(path: Path) -> MappedCheckpoint:
        return MappedCheckpoint(path, network, prefix, partial(_left_out, path, told, said))

    inputs, first = few_inputs(probes), opened(next(iter(checkpoints.values())))
    held = Piecewise(network, inputs, first, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    options["layers"] = held.layers(options.get("layers", CaptureOptions().layers))
    with PiecewiseRecorder(held, probes, store, room=room, said=said, resume=True, **options) as recorder, quiet():
        recorder.meter.quiet = True  # there is no training to compare with
        recorder.plan(len(checkpoints)).check(store)
        new = _new(recorder, checkpoints, said)
        for done, (step, path) in enumerate(new.items(), len(checkpoints) - len(new) + 1):
            recorder.record_with(step, opened(path))
            progress(done, len(checkpoints))
    return Run(store)


def _new(recorder: Recorder, checkpoints: Mapping[int, Path], said: Callable[[str], None]) -> dict[int, Path]:
    """Return the checkpoints behind the last that is recorded; say which of those before it are not."""
    known = set(Run(recorder.place).values("step").tolist()) if recorder.checkpoints else set()
    for step, path in checkpoints.items():
        if step <= recorder.last_step and step not in known:
            said(f"{path}: step {step} is not recorded, as the store is at {recorder.last_step}: take another store")
    return {step: path for step, path in checkpoints.items() if step > recorder.last_step}


@contextmanager
def _file_named(store: str | Path, checkpoints: Mapping[int, Path], flaws: Mapping[int, str]) -> Iterator[None]:
    """Name the file of the checkpoint that could not be recorded: the first of ``flaws`` that the store lacks."""
    try:
        yield
    except TrainingError as error:
        kept = Run(store).values("step").tolist() if exists(store) else []
        failed = next((step for step in flaws if step not in kept), None)
        if failed is None:
            raise
        raise NetworkError(f"{checkpoints[failed]}: {flaws[failed] or error}") from error


def _not_finite(state: Mapping[str, Tensor]) -> str:
    """Say which tensor is why outputs are not finite, where one is."""
    wrong = next((name for name, value in state.items() if not value.isfinite().all()), None)
    return f"{wrong} is not finite: leave this checkpoint out" if wrong else ""


def _read_ahead(paths: Iterable[Path]) -> Iterator[Any]:
    """Yield what the files hold; while one is recorded the next is read."""
    with ThreadPoolExecutor(1, thread_name_prefix="featdyn-reader") as reader:
        ahead: deque[Future[Any]] = deque()
        for path in paths:
            ahead.append(reader.submit(read, path))
            if len(ahead) > 1:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _left_out(path: Path, told: set[tuple[str, ...]], said: Callable[[str], None], names: list[str]) -> None:
    """Say which tensors of a checkpoint the network has not, where that was not said of one before."""
    if names and tuple(names) not in told:
        told.add(tuple(names))
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        said(f"{path}: the network has no {names[0]}{more}, left out here: is it of another version?")
