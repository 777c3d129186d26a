"""``featdyn verify --capture``: probes run anew give what is stored, or it is said by how much not."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from featdyn.capture import Axis, Probes
from featdyn.capture.again import run_again
from featdyn.cli.verify import command
from featdyn.errors import StoreError
from featdyn.store import Run
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
