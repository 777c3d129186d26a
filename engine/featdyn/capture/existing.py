"""Record checkpoints that exist: the network is given the weights of one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featdyn.capture.checkpoint_files import quiet, read, state_in
from featdyn.capture.probes import Probes
from featdyn.capture.recorder import Recorder
from featdyn.networks import unwrap
from featdyn.store import Run


def capture(
    model: nn.Module,
    probes: Probes,
    checkpoints: Mapping[int, Path],
    store: str | Path,
    *,
    prefix: str | None = None,
    said: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **options: Any,
) -> Run:
    """Record a network at checkpoints that a training has left; return the run.

    A store of the same recording goes on after its last step. The network keeps the weights of the last checkpoint.

    Parameters
    ----------
    model
        The network; its weights are replaced.
    probes, store, options
        As :class:`featdyn.capture.Recorder` takes them.
    checkpoints
        Step to file or folder, as :func:`featdyn.capture.checkpoint_steps.by_step` finds them, in order.
    prefix
        What stands before the network's names in the files, where they hold several networks.
    said, progress
        Told of what is odd (a checkpoint that equals the one before, tensors that the network has not), and of how
        many are done.

    Raises
    ------
    NetworkError
        A checkpoint does not hold the network. Those before it are recorded.
    StoreError
        As the recorder raises it.
    """
    model = unwrap(model)
    before: dict[str, Tensor] = {}
    told: set[tuple[str, ...]] = set()
    with Recorder(model, probes, store, resume=True, **options) as recorder, quiet():
        recorder.meter.quiet = True  # there is no training to compare with
        recorder.plan(len(checkpoints)).check(store)
        done = sum(step <= recorder.last_step for step in checkpoints)
        new = {step: path for step, path in checkpoints.items() if step > recorder.last_step}
        for (step, path), content in zip(new.items(), _read_ahead(new.values()), strict=True):
            done += 1
            state = state_in(path, model, prefix, partial(_left_out, path, told, said), content=content)
            if before and all(torch.equal(before[name], value) for name, value in state.items()):
                said(f"{path}: equals the checkpoint before")
            model.load_state_dict(state, strict=False)  # what is not a tensor stays
            recorder.record(step=step)
            before = state
            progress(done, len(checkpoints))
    return Run(store)


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
