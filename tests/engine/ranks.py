"""Processes that record together: starting them, and what they do. Also a script that torchrun runs."""

from __future__ import annotations

import pickle
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from featdyn.capture import Probes, Recorder
from featdyn.errors import FeatdynError
from featdyn.store import schema
from tests.engine.forked import CONTEXT

WAIT = 240  # seconds until processes count as hung
_number = count()


def start(folder: Path, world: int, work: Callable[..., Any], *arguments: Any) -> list[BaseProcess]:
    """Start ``work(rank, world, *arguments)`` on so many ranks; what each returns or raises lands in a file."""
    number, processes = next(_number), []
    for rank in range(world):
        process = CONTEXT.Process(
            target=_go, args=(folder / f"init-{number}", folder / f"end-{number}", rank, world, work, arguments)
        )
        process.outcome = folder / f"end-{number}-{rank}"
        process.start()
        processes.append(process)
    return processes


def ends(processes: list[BaseProcess], wait: float = WAIT) -> list[Any]:
    """Wait for all; return what each returned or raised, None for one that was killed."""
    until = time.monotonic() + wait
    for process in processes:
        process.join(max(0.1, until - time.monotonic()))
    hung = [rank for rank, process in enumerate(processes) if process.exitcode is None]
    for process in processes:
        process.kill()
        process.join()
    assert not hung, f"ranks {hung} hang"
    return [pickle.loads(p.outcome.read_bytes()) if p.outcome.exists() else None for p in processes]


def wait_for(paths: list[Path]) -> None:
    until = time.monotonic() + WAIT
    while not all(path.exists() for path in paths):
        assert time.monotonic() < until, "the ranks do not get ready"
        time.sleep(0.002)


def launch(folder: Path, world: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    return ends(start(folder, world, work, *arguments))


def _go(init: Path, end: Path, rank: int, world: int, work: Callable[..., Any], arguments: Any) -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    schema.SHARD_SAMPLES = 4  # so that few samples are several blocks
    dist.init_process_group(
        "gloo", init_method=f"file://{init}", rank=rank, world_size=world, timeout=timedelta(seconds=WAIT)
    )
    try:
        outcome = work(rank, world, *arguments)
    except AssertionError:
        outcome = traceback.format_exc()
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"
    aside = end.with_name(f"{end.name}-{rank}.new")
    aside.write_bytes(pickle.dumps(outcome))
    aside.rename(end.with_name(f"{end.name}-{rank}"))
    dist.destroy_process_group()


def make_net() -> nn.Sequential:
    """Everything that ranks could disagree in: batch statistics, dropout, an in-place step."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(4 * 25, 3),
    )


def make_probes(n: int) -> Probes:
    generator = torch.Generator().manual_seed(1)
    return Probes(torch.randn(n, 1, 5, 5, generator=generator), torch.randint(0, 3, (n,), generator=generator))


def batch(step: int, rank: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1000 * step + rank)
    return torch.randn(6, 1, 5, 5, generator=generator), torch.randint(0, 3, (6,), generator=generator)


OPTIONS: dict[str, Any] = {"layers": ["*"], "batch": 64, "every": 2, "coords": ("train_loss",)}


def train(rank: int, world: int, store: Path | None, samples: int, steps: int = 6) -> dict[str, Tensor]:
    """Train under DDP in a bare loop, recorded unless there is no store; return this rank's own end."""
    net = make_net()
    model = nn.parallel.DistributedDataParallel(net)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    recorder = store and Recorder(model, make_probes(samples), store, **OPTIONS)
    for step in range(steps):
        inputs, labels = batch(step, rank)
        torch.manual_seed(100 * step + rank)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        if recorder:  # between forward and backward: what autograd has saved is there to be disturbed
            recorder.step(train_loss=loss.item())
        loss.backward()
        optimizer.step()
    if recorder:
        recorder.close()
    ends = {**net.state_dict(), **{f"{name}.grad": p.grad for name, p in net.named_parameters()}}
    return {**ends, "random": torch.rand(3), "training": torch.tensor(net.training)}


def twin(store: Path, world: int, samples: int, steps: int = 6) -> None:
    """The same training in one process: a copy of the network for each rank, gradients averaged, copy 0 recorded."""
    nets = [make_net() for _ in range(world)]
    optimizers = [torch.optim.SGD(net.parameters(), 0.1, momentum=0.9) for net in nets]
    with Recorder(nets[0], make_probes(samples), store, **OPTIONS) as recorder:
        for step in range(steps):
            losses = []
            for net in nets:
                for own, first in zip(net.buffers(), nets[0].buffers(), strict=True):
                    own.copy_(first)
            for rank, (net, optimizer) in enumerate(zip(nets, optimizers, strict=True)):
                inputs, labels = batch(step, rank)
                torch.manual_seed(100 * step + rank)
                optimizer.zero_grad()
                losses.append(nn.functional.cross_entropy(net(inputs), labels))
            recorder.step(train_loss=losses[0].item())
            for loss in losses:
                loss.backward()
            for parameters in zip(*(net.parameters() for net in nets), strict=True):
                mean = sum(p.grad / world for p in parameters)
                for parameter in parameters:
                    parameter.grad.copy_(mean)
            for optimizer in optimizers:
                optimizer.step()


def set_to(net: nn.Module, step: int, rank: int) -> None:
    """Give a network the parameters of a step, as if it had been trained, and buffers of the rank's own."""
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        for name, values in net.named_buffers():
            if values.is_floating_point():
                values.copy_(torch.rand(values.shape, generator=generator) + rank + ("var" in name))


def drift(
    rank: int, world: int, store: Path, samples: int, last: int, ready: Path | None = None, **options: Any
) -> int:
    """Record steps up to the last from where the store stands; the ranks meet at each, as in training."""
    net = make_net()
    with Recorder(
        net, make_probes(samples), store, resume=True, **{"layers": ["*"], "batch": 3, **options}
    ) as recorder:
        if ready:
            ready.with_name(f"{ready.name}-{rank}").touch()
        for step in range(recorder.checkpoints, last):
            if world > 1:
                dist.all_reduce(torch.zeros(1))
            set_to(net, step, rank)
            recorder.record(step=step, state={"momentum": torch.full((3,), float(step))})
    return recorder.checkpoints


def go_on(rank: int, world: int, store: Path, samples: int, begin: int) -> tuple[int, str]:
    """Go on with a recording from a step, with the weights of that; return the steps counted then, or why not."""
    net = make_net()
    set_to(net, begin, rank)
    options: dict[str, Any] = {"layers": ["*"], "batch": 3, "every": 2}
    with Recorder(net, make_probes(samples), store, resume=True, **options) as recorder:
        try:
            recorder.start(step=begin)
        except FeatdynError as error:
            return recorder.steps, str(error)
        return recorder.steps, ""


if __name__ == "__main__":  # under torchrun
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    train(dist.get_rank(), dist.get_world_size(), Path(sys.argv[1]), int(sys.argv[2]))
    dist.destroy_process_group()
