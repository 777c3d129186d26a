"""Callbacks record what a recorder in a bare loop does, at the same steps."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featdyn.adapters.attached import Attached
from featdyn.capture import Probes, Recorder
from featdyn.capture.pending_checkpoint import PendingCheckpoint
from featdyn.errors import StoreError
from featdyn.store import Run

STEPS, EVERY, BATCH = 7, 3, 4


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.head = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.first(x).relu())


def data() -> tuple[Tensor, Tensor]:
    x = torch.randn(STEPS * BATCH, 5, generator=torch.Generator().manual_seed(1))
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def probes() -> Probes:
    return Probes(torch.randn(9, 5, generator=torch.Generator().manual_seed(2)), torch.arange(9) % 3)


def bare(path: Path, accumulated: int = 1) -> Run:
    """Train by hand, in the order of the data, and record."""
    net = Net()
    optimizer, (x, y) = torch.optim.SGD(net.parameters(), 0.1), data()
    batches = list(zip(x.split(BATCH), y.split(BATCH), strict=True))
    with Recorder(net, probes(), path, every=EVERY, layers=["*"], dtype="float32") as recorder:
        recorder.record(step=0)
        for i, (inputs, labels) in enumerate(batches, 1):
            (F.cross_entropy(net(inputs), labels) / accumulated).backward()
            if i % accumulated == 0:
                optimizer.step()
                optimizer.zero_grad()
                recorder.step()
        if recorder.steps % EVERY:
            recorder.wait()
            recorder.record(step=recorder.steps)
    return Run(path)


@pytest.fixture
def slow_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each commit come long after the step that it is of."""
    finish = PendingCheckpoint.finish

    def late(self: PendingCheckpoint, *arguments: Any) -> int:
        time.sleep(0.3)
        return finish(self, *arguments)

    monkeypatch.setattr(PendingCheckpoint, "finish", late)


def same(run: Run, other: Run, prefix: str = "") -> None:
    for spec in other.schema.arrays:
        if spec.path == "cube/sketch":  # a layer's projection follows from its name
            continue
        path = spec.path.replace("layers/", f"layers/{prefix}")
        np.testing.assert_allclose(run.values(path), other.values(spec.path), rtol=1e-5, atol=1e-7, err_msg=path)


def test_what_follows_a_training_records_its_begin_its_due_steps_and_its_end(tmp_path):
    net, attached = Net(), Attached(probes(), tmp_path / "r.zarr", every=3, layers=["first"])
    attached.begin(net, 0)
    for step in (0, 1, 1, 2, 3, 3, 4, 5):  # a step that spans several batches is seen more than once
        attached.at(step)
    attached.end()
    attached.end()  # and nothing more
    attached.at(6)
    assert Run(tmp_path / "r.zarr").values("step").tolist() == [0, 3, 5]
    attached.begin(net, 5)  # from where it ended
    attached.at(6)
    attached.release()  # as after an exception: the last step is not recorded twice, nor one that is not due
    assert Run(tmp_path / "r.zarr").values("step").tolist() == [0, 3, 5, 6]
    with pytest.raises(StoreError, match="holds a recording to step 6 already"):
        attached.begin(net, 0)
    with pytest.raises(StoreError, match=r"to step 6, and training goes on from step 4: load .*; choose another path"):
        attached.begin(net, 4)
    again = Attached(probes(), tmp_path / "r.zarr", every=1, layers=["first"], accept_changes=True)
    again.begin(net, 4)
    for step in (5, 6):  # are there already
        again.at(step)
    again.wait()
    again.release()
    anew = Attached(probes(), tmp_path / "r.zarr", every=3, layers=["first"], overwrite=True)
    anew.begin(net, 6)  # a training that goes on keeps what it has recorded
    anew.release()
    assert Run(tmp_path / "r.zarr").values("step").tolist() == [0, 3, 5, 6]
    anew.begin(net, 0)
    anew.release()
    assert Run(tmp_path / "r.zarr").values("step").tolist() == [0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("accumulated", [1, 2])
def test_lightning(tmp_path, accumulated, slow_commits):
    lightning = pytest.importorskip("pytorch_lightning", reason="Lightning is not installed")
    from featdyn.adapters.lightning import Record

    class Module(lightning.LightningModule):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
            return F.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:  # called behind those of callbacks
            saved.append((checkpoint["global_step"], int(Run(tmp_path / "r.zarr").values("step")[-1])))

    saved: list[tuple[int, int]] = []
    keep = lightning.pytorch.callbacks if hasattr(lightning, "pytorch") else lightning.callbacks
    own = keep.ModelCheckpoint(tmp_path, every_n_train_steps=EVERY, save_top_k=-1)
    recording = Record(probes(), tmp_path / "r.zarr", every=EVERY, layers=["net.*"], dtype="float32")
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()), BATCH)
    lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, accumulate_grad_batches=accumulated, callbacks=[recording, own],
        limit_train_batches=STEPS - STEPS % accumulated,
    ).fit(Module(), loader)  # fmt: skip
    same(Run(tmp_path / "r.zarr"), bare(tmp_path / "bare.zarr", accumulated), "net.")
    assert saved
    assert all(step - EVERY < committed for step, committed in saved), saved


class Named(nn.Module):
    """As Hugging Face has them: inputs and the loss by name."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Any]:
        logits = self.net(x)
        return {"logits": logits} | ({} if labels is None else {"loss": F.cross_entropy(logits, labels)})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("accumulated", [1, 2])
def test_hugging_face(tmp_path, accumulated, monkeypatch, slow_commits):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed, without which there is no trainer")
    from featdyn.adapters.huggingface import Record

    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    known = Probes({"x": probes().inputs}, probes().labels)
    recording = Record(known, tmp_path / "r.zarr", every=EVERY, layers=["net.*"], dtype="float32")
    x, y = (values[: (STEPS - STEPS % accumulated) * BATCH] for values in data())
    arguments = transformers.TrainingArguments(
        str(tmp_path / "out"), max_steps=STEPS // accumulated, per_device_train_batch_size=BATCH, learning_rate=0.1,
        lr_scheduler_type="constant", optim="sgd", max_grad_norm=0.0, save_steps=EVERY, report_to=[], use_cpu=True,
        gradient_accumulation_steps=accumulated, logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip

    class InOrder(transformers.Trainer):  # type: ignore[name-defined,misc]
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(x)

        def _save_checkpoint(self, *_: Any, **__: Any) -> None:
            saved.append((self.state.global_step, int(Run(tmp_path / "r.zarr").values("step")[-1])))

    saved: list[tuple[int, int]] = []
    rows = [{"x": a, "labels": b} for a, b in zip(x, y, strict=True)]
    InOrder(Named(), arguments, train_dataset=rows, callbacks=[recording]).train()
    same(Run(tmp_path / "r.zarr"), bare(tmp_path / "bare.zarr", accumulated), "net.")
    assert saved
    assert all(step - EVERY < committed for step, committed in saved), saved
