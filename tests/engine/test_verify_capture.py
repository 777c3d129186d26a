"""``featdyn verify --capture``: probes run anew give what is stored, or it is said by how much not."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from featdyn.capture import Axis, Probes
from featdyn.capture import outputs as recorded_outputs
from featdyn.capture.again import Compared, run_again
from featdyn.cli.verify import command
from featdyn.errors import StoreError
from featdyn.store import Run, schema
from tests.engine.token_networks import Attending, inputs, record

NETS = """
import torch
from featdyn.capture import Probes
from tests.engine.token_networks import Attending, inputs

def network():
    torch.manual_seed(9)
    made = Attending(first=True)
    for p in made.parameters():
        torch.nn.init.normal_(p)  # the store has the weights
    return made

def off():
    made = Attending(first=True)
    made.gain = 1.01
    return made

probes = Probes(*inputs())
others = Probes(*inputs(left=True))
"""


def asked(*args: object) -> tuple[int, str]:
    """Return exit code and output."""
    result = CliRunner().invoke(command, [str(a) for a in args])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_was_recorded_is_found_again_and_what_was_not_is_named(tmp_path, monkeypatch, dtype):
    (tmp_path / "nets_again.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "nets_again", raising=False)
    layers = {"embed": None, "mix": Axis(sample=1), "up": "mean"}
    record(tmp_path / "r.zarr", Attending(first=True), Probes(*inputs()), layers=layers, dtype=dtype, batch=5)
    common = ("r.zarr", "--capture", "--probes", "nets_again:probes")
    code, out = asked(*common, "--model", "nets_again:network")
    assert code == 0, out
    assert "8 probes at checkpoint 2: 9 arrays equal up to rounding" in out
    code, out = asked(*common, "--model", "nets_again:network", "--json")
    rows = {row["path"]: row for row in json.loads(out)["arrays"]}
    assert set(rows) == {spec.path for spec in Run("r.zarr").schema.arrays if spec.path[:4] in ("laye", "outp")}
    assert all(row["difference"]["recorded"] < 1e-6 for row in rows.values())
    code, out = asked(*common, "--model", "nets_again:off")
    assert code == 1
    assert "layers/up/activation" in [line.split()[0] for line in out.splitlines() if line.endswith("differs")]
    assert "layers/embed/activation" not in [line.split()[0] for line in out.splitlines() if line.endswith("differs")]
    with pytest.raises(StoreError, match=r"recorded of other inputs\.ids|recorded of other inputs"):
        asked("r.zarr", "--capture", "--model", "nets_again:network", "--probes", "nets_again:others")
    for wrong in (("--capture",), ("--model", "a:b"), ("--capture", "--repair")):
        assert asked("r.zarr", *wrong)[0] == 2


def test_a_value_that_was_changed_after_the_pass_is_found(tmp_path):
    probes = Probes(torch.randn(20, 3), torch.arange(20) % 2)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    run = record(tmp_path / "r.zarr", network, probes, layers=["0"], checkpoints=1, change=0.0)
    assert all(each.equal for each in run_again(network, probes, run.path)[2])

    class Near(nn.Linear):
        __qualname__ = "Linear"

        def forward(self, x):
            return super().forward(x) * (1 + 1e-4)

    Near.forward.__qualname__ = "Linear.forward"
    near = nn.Sequential(Near(3, 4), nn.ReLU(), nn.Linear(4, 2))
    found = {each.path: each for each in run_again(near, probes, run.path)[2]}
    assert not found["layers/0/activation"].equal
    assert found["layers/0/activation"].difference["alone"] == pytest.approx(1e-4, rel=0.1)


class Masked(nn.Module):
    """Two layers of one weight and of one buffer, whose second class is masked out; what is small, and off at a value.

    It is off where the first input has this value.
    """

    def __init__(self, seed: int, off_at: float | None = None, by: float = 0.0, masked: float = -torch.inf) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)
        self.two.weight = self.one.weight
        for layer in (self.one, self.two):
            layer.register_buffer("shift", self.one.shift if layer is self.two else torch.randn(3))
        self._off_at, self._by, self._masked = off_at, by, masked

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        off = x[:, :1] == self._off_at if self._off_at is not None else torch.ones_like(x[:, :1]).bool()
        y = 1e-3 * self.two(self.one(x) + self.one.shift) + self.two.shift * 1e-3
        y = y * (1 + self._by * off)
        return torch.stack([y[:, 0], torch.full_like(y[:, 1], self._masked), y[:, 2]], 1)


@pytest.fixture
def in_blocks(tmp_path, monkeypatch):
    """A run in blocks of eight probes, which pass by three, and its probes."""
    monkeypatch.setattr(schema, "SHARD_SAMPLES", 8)
    probes = Probes(torch.arange(63.0).view(21, 3) / 50, 2 * (torch.arange(21) % 2))
    options = {"layers": ["one"], "batch": 3, "gradients": False, "checkpoints": 2}
    return record(tmp_path / "r.zarr", Masked(0), probes, **options), probes


def test_probes_of_all_blocks_and_batches_are_found_again_by_any_weights(in_blocks):
    run, probes = in_blocks
    t, count, found = run_again(Masked(5), probes, run.path)
    assert (t, count) == (1, 8)
    assert {each.path for each in found} == {"layers/one/activation", "outputs/logits", "outputs/loss"}
    assert all(each.equal for each in found)


@pytest.mark.parametrize("place", [0, 8, 20])
def test_a_probe_that_differs_is_found_by_how_much_in_whatever_block(in_blocks, place):
    run, probes = in_blocks
    near = Masked(5, float(probes.inputs[place, 0]), 1e-3)
    *_, found = run_again(near, probes, run.path)
    (logits,) = (each for each in found if each.path == "outputs/logits")
    assert logits.difference == pytest.approx(dict.fromkeys(("recorded", "reversed", "alone"), 1e-3), rel=1e-2)
    assert not logits.equal
    only = Masked(5, 7.0, 1.0)  # where no probe is
    assert all(each.equal for each in run_again(only, probes, run.path)[2])


@pytest.mark.parametrize("masked", [0.0, float("nan")])
def test_a_value_that_is_not_finite_as_it_was_is_as_far_off_as_can_be(in_blocks, masked):
    run, probes = in_blocks
    found = {each.path: each for each in run_again(Masked(5, masked=masked), probes, run.path)[2]}
    assert set(found["outputs/logits"].difference.values()) == {float("inf")}
    assert found["layers/one/activation"].equal


def test_what_is_off_by_what_is_allowed_is_equal():
    assert Compared("a", {"recorded": 0.0, "alone": 0.5}, 0.5).equal
    assert not Compared("a", {"recorded": 0.0, "alone": 0.5000001}, 0.5).equal


def test_of_a_vocabulary_what_was_kept_is_found_again(tmp_path, monkeypatch):
    monkeypatch.setattr(recorded_outputs, "VOCABULARY", 8)
    monkeypatch.setattr(recorded_outputs, "TOP", 3)
    run = record(tmp_path / "r.zarr", Attending(), Probes(*inputs()), layers=["up"], checkpoints=1)
    found = run_again(Attending(), Probes(*inputs()), run.path)[2]
    kept = {"layers/up/activation", "layers/up/gradient", *(f"outputs/{n}" for n in ("loss", "token_loss"))}
    assert {each.path for each in found} == kept | {"outputs/top_logits", "outputs/target_logit"}
    assert all(each.equal for each in found)
