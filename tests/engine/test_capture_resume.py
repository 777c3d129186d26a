"""A store is continued by the recording that it holds, and only where its steps go on."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from featdyn.capture import Probes, Recorder, meter
from featdyn.capture.open_store import check_alike
from featdyn.errors import StoreError, TrainingError
from featdyn.store import Run, cost, erase, gc, locate, repair, verify
from featdyn.store.files import Folder
from tests.engine.runs import tree

info = importlib.import_module("featdyn.cli.info")


class Net(nn.Module):
    """What it computes does not show in its shapes."""

    def __init__(self, act: Callable[[Tensor], Tensor] = torch.tanh, slope: float = 0.1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c, self.act = nn.Linear(6, 8), nn.LeakyReLU(slope), nn.Linear(8, 3), act

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.act(self.b(self.a(x))))


def probes(seed: int = 1, shift: int = 0, **coords: Any) -> Probes:
    inputs = torch.randn(12, 6, generator=torch.Generator().manual_seed(seed))
    return Probes(inputs, (torch.arange(12) + shift) % 3, coords)


def smooth(outputs: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, labels, reduction="none", label_smoothing=0.1)


def halved(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the values of cross-entropy, with half its gradient."""
    found = nn.functional.cross_entropy(outputs, labels, reduction="none")
    return (found + found.detach()) / 2


def called(model: nn.Module, inputs: Tensor) -> Tensor:
    """Ask as a recorder does by itself."""
    return model(inputs)


def chosen(outputs: Tensor) -> Tensor:
    """Take for logits what a recorder takes by itself."""
    return outputs


def recorder(store, **changes: Any) -> Recorder:
    arguments = {"model": Net(), "probes": probes(), "layers": ["a"], "coords": ["loss"], "batch": 8, **changes}
    arguments.setdefault("resume", not arguments.get("overwrite"))
    return Recorder(arguments.pop("model"), arguments.pop("probes"), store, **arguments)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    store = tmp_path_factory.mktemp("resume") / "r.zarr"
    with recorder(store) as first:
        first.record(step=3, loss=1)
    return store


OTHERS = {
    "other inputs": {"probes": probes(seed=2)},
    "other labels": {"probes": probes(shift=1)},
    "other coordinate sample": {"probes": probes(sample=np.array([f"s{i}" for i in range(12)], dtype=object))},
    "with the weights of its checkpoint 0 the values of the loss": {"loss": smooth},
    "with the weights of its checkpoint 0 the gradients of the loss": {"loss": halved},
    "with the weights of its checkpoint 0 the values of the network": {"model": Net(torch.sin)},
    "other network": {"model": Net(slope=0.2)},
    "batch is 8 there, 4 here": {"batch": 4},
    "dtype is float16 there, float32 here": {"dtype": "float32"},
    "layers/a/activation is in one": {"layers": ["b"]},
    "cube/activation_cosine is of another": {"layers": ["a", "b"]},
    "loss is in one": {"coords": []},
    "gradients is True there, False here": {"gradients": False},
    "forward is None there, called here": {"forward": called},
    "output is None there, chosen here": {"output": chosen},
}


@pytest.mark.parametrize("message", OTHERS)
def test_another_recording_is_refused_in_a_line_that_names_what_differs(begun, message):
    before = tree(begun)
    with pytest.raises(StoreError, match="holds another recording") as caught:
        recorder(begun, **OTHERS[message])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert tree(begun) == before


@pytest.mark.parametrize(("first", "then"), [("none", "zstd"), ("zstd", "none")])
def test_a_store_keeps_its_codec(tmp_path, first, then):
    for step, codec in enumerate((first, then)):
        with recorder(tmp_path / "r.zarr", codec=codec) as continued:
            continued.record(step=step, loss=1)
    run = Run(tmp_path / "r.zarr")
    assert (run.schema.codec, run.checkpoints) == (first, 2)
    assert verify(run.path).sound
    np.testing.assert_array_equal(run.block("layers/a/activation", 0, 0), run.block("layers/a/activation", 1, 0))


def test_the_same_recording_is_continued_with_any_weights(begun):
    net = Net()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    recorder(begun, model=net, layers=["[a]"]).close()  # another pattern for the same layers
    assert net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_a_second_start_is_refused_in_a_line_that_names_the_ways_out(tmp_path):
    store = tmp_path / "r.zarr"
    with recorder(store) as one:
        for step in (0, 5, 9):
            one.record(step=step, loss=0)
    with recorder(store) as one:
        for old in (0, 4, 9):
            there = "is not there" if old == 4 else "is there already"
            with pytest.raises(StoreError, match=rf"step {old} {there}.* to step 9 already.*load.*overwrite=True or"):
                one.record(step=old, loss=0)
        one.record(step=10, loss=0)
        with pytest.raises(StoreError, match="step 10 is there already"):
            one.record(step=10, loss=0)
    before = tree(store)
    ways = r"recording to step 10 already: .* resume=True .*; .* overwrite=True or choose"
    with recorder(store, resume=False) as again, pytest.raises(StoreError, match=ways):
        again.start(loss=0)
    with pytest.raises(ValueError, match="give one of them"):
        recorder(store, resume=True, overwrite=True)
    assert tree(store) == before
    assert Run(store).values("step").tolist() == [0, 5, 9, 10]
    moved, fresh = Net(), Net()
    with torch.no_grad():
        moved.a.bias += 1
    with recorder(
        store, model=moved, resume=False
    ) as on:  # a training that has gone on, by nobody knows how many steps
        with pytest.raises(
            StoreError, match=r"weights given are not those of its last checkpoint, step 10: .*start\(step"
        ):
            on.step(loss=0)
        on.record(step=11, loss=0)  # this says it
        on.step(loss=0)
    assert Run(store).values("step").tolist() == [0, 5, 9, 10, 11, 12]
    with pytest.raises(StoreError, match=ways.replace("10", "12")):  # the weights that it began with
        recorder(store, model=fresh, resume=False)
    with recorder(store, model=moved, resume=False) as on:  # in the same lines, from where it ended
        on.step(loss=0)
    assert Run(store).values("step").tolist()[-2:] == [12, 13]


def test_a_network_as_at_the_first_checkpoint_is_a_second_start_one_as_at_another_is_not(tmp_path):
    nets = [Net() for _ in range(3)]
    with torch.no_grad(), recorder(tmp_path / "r.zarr", model=(trained := Net())) as one:
        for step, net in enumerate(nets):
            trained.a.bias.fill_(step)
            net.a.bias.fill_(step)
            one.record(step=step, loss=0)
    with pytest.raises(StoreError, match="holds a recording to step 2 already"):
        recorder(tmp_path / "r.zarr", model=nets[0], resume=False)
    for net in nets[1:]:
        recorder(tmp_path / "r.zarr", model=net, resume=False).close()


def test_a_recorder_needs_room_for_one_checkpoint(tmp_path, monkeypatch):
    with recorder(tmp_path / "r.zarr") as one:
        disk = one.plan(1).disk
    free = {"bytes": disk}
    monkeypatch.setattr(Folder, "free", lambda _: free["bytes"])
    recorder(tmp_path / "enough.zarr").close()
    free["bytes"] -= 1
    with pytest.raises(StoreError, match="are free"):
        recorder(tmp_path / "less.zarr")
    assert not (tmp_path / "less.zarr").exists()


def test_steps_go_on_from_the_last_committed(tmp_path):
    for _ in range(3):
        with recorder(tmp_path / "r.zarr", every=2, resume=False) as one:
            for _ in range(5):
                one.step(loss=0)
    # 1 to 5, then from the checkpoint of step 4 on 5 to 9, then from that of 8 on 9 to 13
    assert Run(tmp_path / "r.zarr").values("step").tolist() == [2, 4, 6, 8, 10, 12]


def test_a_run_of_before_that_says_nothing_of_its_identity_is_continued(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("featdyn.capture.probed_network.identity", lambda *_: {})
        with recorder(tmp_path / "r.zarr") as one:
            one.record(step=0, loss=0)
    with recorder(tmp_path / "r.zarr") as one:
        one.record(step=1, loss=0)
    assert Run(tmp_path / "r.zarr").checkpoints == 2


def test_a_recording_is_overwritten_where_nothing_else_is_lost(tmp_path):
    store = tmp_path / "r.zarr"
    with recorder(store, overwrite=True) as one:  # nothing is there yet
        one.record(step=5, loss=0)
        before = tree(store)
        with pytest.raises(StoreError, match="being written"):
            recorder(store, overwrite=True)
    for odd in ("notes.txt", "layers/b/zarr.json", "other.zarr/commits/000001.json"):
        (foreign := store / odd).parent.mkdir(parents=True, exist_ok=True)
        foreign.write_text("{}")
        before = tree(store)
        with pytest.raises(StoreError, match=rf"'{odd}' is not the store's, so nothing was removed") as said:
            recorder(store, overwrite=True)
        assert "\n" not in str(said.value)
        assert tree(store) == before
        foreign.unlink()
    (tmp_path / "mine").mkdir()
    for content in ("", '{"zarr_format": 3, "node_type": "group", "attributes": {}}'):
        (tmp_path / "mine" / ("zarr.json" if content else "data.txt")).write_text(content)
        before = tree(tmp_path / "mine")
        with pytest.raises(StoreError, match="not a featdyn store"):
            recorder(tmp_path / "mine", overwrite=True)
        assert tree(tmp_path / "mine") == before
    with recorder(store, overwrite=True, model=Net(torch.sin), dtype="float32") as one:
        assert (one.checkpoints, one.last_step) == (0, -1)
        one.record(step=1, loss=2)
    assert Run(store).values("step").tolist() == [1]
    assert verify(store).sound
    assert {path.name for path in (store / "commits").iterdir()} == {"000001.json", "root.json"}


def test_what_an_interrupted_removal_leaves_is_removed_by_the_next(tmp_path, monkeypatch):
    with recorder(tmp_path / "r.zarr") as one:
        one.record(step=5, loss=0)
    removed: list[str] = []

    def remove(self: Folder, path: str) -> None:
        if len(removed) == 7:
            raise KeyboardInterrupt
        removed.append(path)
        whole(self, path)

    whole = Folder.remove
    with monkeypatch.context() as patched:
        patched.setattr(Folder, "remove", remove)
        with pytest.raises(KeyboardInterrupt):
            recorder(tmp_path / "r.zarr", overwrite=True)
    with recorder(tmp_path / "r.zarr", overwrite=True) as one:
        one.record(step=1, loss=0)
    assert Run(tmp_path / "r.zarr").values("step").tolist() == [1]
    assert verify(tmp_path / "r.zarr").sound


def test_a_loop_records_where_it_begins_its_due_steps_and_where_it_ends(tmp_path):
    def loop(steps: int, **how: bool) -> Run:
        with recorder(tmp_path / "r.zarr", every=3, **how) as one:
            one.start()
            for _ in range(steps):
                one.step(loss=one.steps)
            one.finish()
        return Run(tmp_path / "r.zarr")

    run = loop(5)
    assert run.values("step").tolist() == [0, 3, 5]
    np.testing.assert_array_equal(run.values("loss"), [np.nan, 2, 4])
    assert loop(0, resume=True).values("step").tolist() == [0, 3, 5]
    assert loop(1, resume=True).values("step").tolist() == [0, 3, 5, 6]
    assert loop(4, overwrite=True).values("step").tolist() == [0, 3, 4]
    assert loop(6, overwrite=True).values("step").tolist() == [0, 3, 6]


ACCEPTED = {
    "network": {"model": Net(slope=0.2)},
    "values of the loss": {"loss": smooth},
    "gradients of the loss": {"loss": halved},
    "values of the network": {"model": Net(torch.sin)},
    "batch": {"batch": 4},
    "forward": {"forward": called},
    "output": {"output": chosen},
}


@pytest.mark.parametrize("what", ACCEPTED)
def test_a_change_that_is_accepted_is_put_on_record(tmp_path, featdyn, what):
    store = tmp_path / "r.zarr"
    with recorder(store) as first:
        first.record(step=3, loss=1)
    with recorder(store, **ACCEPTED[what], accept_changes=True):
        pass
    assert Run(store).changes == ()  # nothing was recorded with it
    with recorder(store, **ACCEPTED[what], accept_changes=True) as changed:
        for step in (4, 5):
            changed.record(step=step, loss=1)
    with recorder(store, **ACCEPTED[what]) as again:  # what was accepted once is what is expected from then on
        again.record(step=6, loss=1)
    (change,) = Run(store).changes
    assert (change.commit, what in change.what) == (2, True)
    assert f"changed since commit 2 ({change.when}): {what} was" in featdyn("info", store)[1]
    assert json.loads(featdyn("info", store, "--json")[1])["changes"] == [
        {"commit": 2, "when": change.when, "what": change.what}
    ]
    content = (store / "zarr.json").read_bytes()
    for name in ("zarr.json", "commits/root.json"):
        (store / name).unlink()
    repair(store)
    assert Run(store).changes == (change,)
    (store / "zarr.json").write_bytes(content)
    (store / "checkpoints/000001/model.safetensors").write_bytes(b"damaged")
    repair(store)
    assert (Run(store).checkpoints, Run(store).changes) == (1, ())


@pytest.mark.parametrize("other", ["other inputs", "other labels", "layers/a/activation is in one"])
def test_what_a_store_would_say_wrongly_is_never_accepted(begun, other):
    with pytest.raises(StoreError, match="another recording"):
        recorder(begun, **OTHERS[other], accept_changes=True)


def test_the_share_of_recording_is_said_kept_and_goes_on(tmp_path, monkeypatch, capsys):
    store = tmp_path / "r.zarr"
    clock = iter(range(10**6))
    monkeypatch.setattr(meter, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(meter, "SECONDS", 3.0)
    runs = []
    for steps in (3, 2):
        with recorder(store, coords=[]) as recording:
            for _ in range(steps):
                recording.step()
        runs.append(cost.cost_of(locate(store)))
    assert 0 < runs[0].recording < runs[0].run
    assert runs[1].recording > runs[0].recording
    assert runs[1].run > runs[0].run + 2
    assert f"recording has taken {runs[1].share:.1%} of the run's time" in capsys.readouterr().err
    said = CliRunner().invoke(info.command, [str(store)]).output
    assert str(runs[1]) in said
    assert not gc(store).removed
    assert verify(store).sound
    (store / ".featdyn.cost").write_text("{")
    assert cost.cost_of(locate(store)) is None
    assert CliRunner().invoke(info.command, [str(store)]).exit_code == 0
    erase(store)
    assert not (store / ".featdyn.cost").exists()


def test_a_recorder_that_has_begun_goes_to_no_other_step(tmp_path):
    with recorder(tmp_path / "r.zarr", resume=False) as one:
        one.start(loss=0)
        one.step(loss=0)
        one.start(step=1, loss=0)
        with pytest.raises(StoreError, match=r"has begun and stands at step 1, not 0: .* resume=True$"):
            one.start(step=0, loss=0)
    assert Run(tmp_path / "r.zarr").values("step").tolist() == [0, 1]


def test_buffers_that_are_used_again_change_no_probe(tmp_path):
    inputs, labels, mask = torch.randn(4, 6), torch.tensor([0, 1, 2, 0]), torch.ones(4, 2, dtype=torch.bool)
    mine = Probes(inputs, labels, mask=mask)
    before = [mine.inputs.clone(), mine.labels.clone(), mine.mask.clone()]
    for tensor in (inputs, labels, mask):
        tensor.zero_()
    assert all(map(torch.equal, before, (mine.inputs, mine.labels, mine.mask)))
    array = np.ones((4, 6), np.float32)
    held = Probes(array)
    array[:] = 0
    assert held.inputs.all()


def test_a_network_that_changes_is_refused_and_what_is_there_kept(tmp_path):
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))
    with Recorder(model, probes(), tmp_path / "r.zarr", layers="0") as one:  # a pattern alone is taken too
        one.start()
        model[1] = nn.Sequential(nn.ReLU(), nn.Linear(4, 3))
        with pytest.raises(TrainingError, match=r"another than when the recorder was made \(1.1.bias is new, gone or"):
            one.step()
    assert Run(tmp_path / "r.zarr").values("step").tolist() == [0]


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ({"step": 3, "parameter": {"a": 1, "b": 2}}, None),
        ({"step": 4, "parameter": {"a": 1, "b": 2}}, "rank 1 does not have rank 0's step: do so"),
        ({"step": 3, "parameter": {"a": 1, "b": 3}}, "rank 1 does not have rank 0's parameter b: do so"),
        ({"step": 3, "parameter": {"a": 1}}, "rank 1 does not have rank 0's parameter b: do so"),
        ({"step": 3, "parameter": {"a": 1, "b": 2, "c": 0}}, "rank 1 does not have rank 0's parameter c: do so"),
    ],
)
def test_ranks_claim_what_the_first_does(theirs, said):
    first = {"step": 3, "parameter": {"a": 1, "b": 2}}
    if said is None:
        check_alike([first, theirs, first], "do so")
    else:
        with pytest.raises(TrainingError, match=said):
            check_alike([first, theirs, first], "do so")
