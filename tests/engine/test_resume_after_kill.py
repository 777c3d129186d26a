"""A training that is killed before its last checkpoint is committed goes on right, or it is said what is missing."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from featdyn.adapters.attached import Attached
from featdyn.capture import Probes, Recorder
from featdyn.capture.pending_checkpoint import PendingCheckpoint
from featdyn.errors import StoreError
from featdyn.store import Run, verify
from tests.engine.forked import start

EVERY, LAST = 4, 14


class Net(nn.Module):
    """With a buffer that is no part of its ``state_dict``, and one that is."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.head = nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)
        self.register_buffer("scale", torch.ones(6), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.first(x)).relu() * self.scale)


def probes() -> Probes:
    return Probes(torch.randn(9, 5, generator=torch.Generator().manual_seed(2)), torch.arange(9) % 3)


def recorder(net: Net, store: Path, **options: object) -> Recorder:
    return Recorder(net, probes(), store, every=EVERY, layers=["first"], coords=["loss"], **options)  # type: ignore[arg-type]


def step_of(net: Net, step: int) -> float:
    """Take one step of training on a batch that follows from its number."""
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(100 + step))
    loss = nn.functional.cross_entropy(net(x), torch.arange(7) % 3)
    net.zero_grad()
    loss.backward()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter -= 0.1 * parameter.grad
    return loss.item()


def train(store: Path, own: Path, saved: int, killed: int, *, wait: bool) -> None:
    """Train, save a checkpoint of one's own at one step, be killed at another; from this one on no commit comes."""
    net = Net()
    with recorder(net, store) as recording:
        recording.start()
        for step in range(1, LAST + 1):
            loss = step_of(net, step)
            if step == killed // EVERY * EVERY:
                recording.wait()
                PendingCheckpoint.finish = lambda *_: threading.Event().wait()  # type: ignore[assignment,method-assign]
            recording.step(loss=loss)
            if step == saved:
                if wait:
                    recording.wait()
                torch.save({"step": step, "model": net.state_dict()}, own)
            if step == killed:
                os.kill(os.getpid(), signal.SIGKILL)
        recording.finish()


def loaded(own: Path) -> tuple[Net, int]:
    net, found = Net(), torch.load(own, weights_only=True)
    net.load_state_dict(found["model"])
    return net, found["step"]


def go_on(net: Net, step: int, recording: Recorder) -> None:
    while step < LAST:
        step += 1
        recording.step(loss=step_of(net, step))
    recording.finish()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return the run of a training that nobody killed."""
    store = tmp_path_factory.mktemp("whole") / "r.zarr"
    train(store, store.with_name("own.pt"), 0, LAST + EVERY, wait=False)
    return Run(store)


def killed(folder: Path, saved: int, at: int, *, wait: bool = False) -> tuple[Path, Net, int]:
    store, own = folder / "r.zarr", folder / "own.pt"
    process = start(train_killed, store, own, saved, at, wait)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    return store, *loaded(own)


def train_killed(store: Path, own: Path, saved: int, at: int, wait: bool) -> None:
    torch.set_num_threads(1)
    train(store, own, saved, at, wait=wait)


def check_same(run: Run, whole: Run, but: tuple[int, ...] = ()) -> None:
    """See that a run holds what the other does, apart from checkpoints of some steps and coordinates given once."""
    there = [t for t, step in enumerate(whole.values("step").tolist()) if step not in but]
    assert run.values("step").tolist() == whole.values("step")[there].tolist()
    for t, other in enumerate(there):
        np.testing.assert_array_equal(
            run.block("layers/first/gradient", t, 0), whole.block("layers/first/gradient", other, 0)
        )
        assert all(torch.equal(value, run.state(t)[name]) for name, value in whole.state(other).items())
    assert verify(run.path).sound


def test_a_checkpoint_that_was_lost_is_recorded_from_the_trainings_own(tmp_path, whole, capsys):
    store, net, step = killed(tmp_path, 8, 8)
    assert (Run(store).values("step").tolist(), step) == ([0, 4], 8)
    for begin in ({}, {"step": 4}):
        with (
            recorder(net, store, resume=True) as recording,
            pytest.raises(
                StoreError, match=r"weights given are not those of its last checkpoint, step 4: load .*state\(1\)"
            ),
        ):
            recording.start(**begin)
    with recorder(net, store, resume=True) as recording:
        recording.start(step=step)
        go_on(net, step, recording)
    check_same(Run(store), whole)
    assert np.isnan(Run(store).values("loss")[2])  # nobody knows any more
    assert Run(store).changes == ()
    assert "never committed" not in capsys.readouterr().err


def test_a_checkpoint_that_nobody_has_any_more_is_said_to_be_missing(tmp_path, whole, capsys, featdyn):
    store, net, step = killed(tmp_path, 10, 11)
    with recorder(net, store, resume=True) as recording:
        with pytest.raises(StoreError, match="not those of its last checkpoint, step 4"):
            recording.step(loss=0)
        recording.start(step=step)
        go_on(net, step, recording)
    said = "checkpoints of step 8 were due and never committed: training goes on from step 10"
    assert capsys.readouterr().err.count(said) == 1
    check_same(Run(store), whole, but=(8,))
    (change,) = Run(store).changes
    assert change.what == {"checkpoints": ["all that were due to step 4", "none of step 8: never committed"]}
    assert "none of step 8: never committed" in featdyn("info", store)[1]


def test_who_waits_before_saving_is_never_ahead(tmp_path, whole, capsys):
    store, net, step = killed(tmp_path, 8, 12, wait=True)
    assert (Run(store).values("step").tolist(), step) == ([0, 4, 8], 8)
    with recorder(net, store, resume=True) as recording:
        recording.start()  # without the step: the weights tell
        go_on(net, recording.steps, recording)
    check_same(Run(store), whole)
    assert Run(store).changes == ()
    assert "never committed" not in capsys.readouterr().err


def test_who_goes_on_from_an_older_checkpoint_is_told_and_may_do_so(tmp_path, whole):
    store, net, step = killed(tmp_path, 6, 12)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with (
        recorder(net, store, resume=True) as recording,
        pytest.raises(
            StoreError, match=r"to step 8, and training goes on from step 6: load .* of step 8; choose another"
        ),
    ):
        recording.start(step=step)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    with recorder(net, store, resume=True, accept_changes=True) as recording:
        recording.start(step=step)
        go_on(net, step, recording)
    check_same(Run(store), whole)  # 8 was not recorded again
    (change,) = Run(store).changes
    assert change.what == {"training": ["recorded to step 8", "gone on from step 6; recorded beyond 8 only"]}


def test_other_weights_at_the_last_step_go_on_where_that_is_accepted(tmp_path):
    store = tmp_path / "r.zarr"
    with recorder(Net(), store) as recording:
        recording.start(step=4)
    other = Net()
    with torch.no_grad():
        other.norm.num_batches_tracked += 1  # a buffer, though all parameters are the same
    with recorder(other, store, resume=True, accept_changes=True) as recording:
        recording.start()
        go_on(other, 4, recording)
    assert Run(store).values("step").tolist() == [4, 8, 12, 14]
    assert Run(store).changes[0].what["weights"][0] == "at step 4 as recorded"


def test_many_missing_checkpoints_are_counted(tmp_path, capsys):
    store, net = tmp_path / "r.zarr", Net()
    with recorder(net, store) as recording:
        recording.start()
    step_of(net, 1)
    with recorder(net, store, resume=True) as recording:
        recording.start(step=40)
    assert "of steps 4, 8, 12, 16, 20, ... (9 in all) were due" in capsys.readouterr().err
    assert Run(store).values("step").tolist() == [0, 40]
    with recorder(net, store, resume=True) as recording, pytest.raises(ValueError, match="step must be a whole number"):
        recording.start(step=-1)


def test_what_follows_a_trainer_goes_on_beyond_what_was_committed(tmp_path, whole):
    store, net, step = killed(tmp_path, 8, 8)
    attached = Attached(probes(), store, every=EVERY, layers=["first"], coords=["loss"])
    attached.begin(net, step)
    attached.release()
    check_same(Run(store), whole, but=(12, 14))
