"""Two language models as people have them, recorded in three added lines: a character model, and a BERT."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import featdyn
from featdyn.capture import Probes, Recorder
from featdyn.capture.again import run_again
from featdyn.report import write_report

TEXT = "to record what happens inside a network while it trains, and ask questions about it afterwards. " * 4
LETTERS = sorted(set(TEXT))
BLOCK = 12


class Attention(nn.Module):
    """Causal self-attention as in nanoGPT."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.c_attn, self.c_proj, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads
        self.register_buffer("bias", torch.tril(torch.ones(BLOCK, BLOCK)).view(1, 1, BLOCK, BLOCK))

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = (z.view(b, t, self.heads, -1).transpose(1, 2) for z in self.c_attn(x).split(c, dim=2))
        scores = q @ k.transpose(-2, -1) / math.sqrt(k.shape[-1])
        scores = scores.masked_fill(self.bias[:, :, :t, :t] == 0, -torch.inf)
        return self.c_proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, c))


class Block(nn.Module):
    """A layer of the transformer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.attn, self.ln_2 = nn.LayerNorm(width), Attention(width, 2), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """Characters in; logits and, where targets are given, a loss out."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(len(LETTERS), width), nn.Embedding(BLOCK, width)
        self.h, self.ln_f = nn.ModuleList([Block(width) for _ in range(2)]), nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, len(LETTERS), bias=False)
        self.wte.weight = self.lm_head.weight

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        x = self.wte(idx) + self.wpe(torch.arange(idx.shape[1], device=idx.device))
        for block in self.h:
            x = block(x)
        logits = self.lm_head(self.ln_f(x))
        loss = None if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return logits, loss


def hooked(model: nn.Module, names: list[str], call) -> tuple[dict[str, Tensor], object]:
    """Return what plain hooks see in eval mode, and what the model returns."""
    kept: dict[str, Tensor] = {}
    modules, training = dict(model.named_modules()), model.training
    handles = [
        modules[name].register_forward_hook(lambda m, a, out, name=name: kept.__setitem__(name, out)) for name in names
    ]
    model.eval()
    with torch.no_grad():
        outputs = call(model)
    for handle in handles:
        handle.remove()
    model.train(training)
    return kept, outputs


def characters(n: int) -> tuple[Tensor, Tensor]:
    """Return windows of the text and what comes next at each place."""
    codes = torch.tensor([LETTERS.index(letter) for letter in TEXT])
    starts = torch.arange(n) * 7
    return tuple(torch.stack([codes[i + k : i + k + BLOCK] for i in starts.tolist()]) for k in (0, 1))


def test_a_character_model_is_recorded_in_three_lines(tmp_path):
    torch.manual_seed(0)
    model = GPT()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    idx, targets = characters(24)
    names = ["wte", "h.0.attn", "h.0", "h.1", "ln_f"]
    seen = []
    probes = Probes(idx, targets)
    with Recorder(
        model, probes, tmp_path / "r.zarr", every=4, layers=names, dtype="float32", output=0, batch=24
    ) as recorder:
        for _ in range(12):
            _, loss = model(idx, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if recorder.step():
                seen.append(hooked(model, names, lambda m: m(idx)[0]))
    run = featdyn.open_run(tmp_path / "r.zarr")
    for t, (kept, logits) in enumerate(seen):
        for name in names:
            np.testing.assert_array_equal(run.values(f"layers/{name}/activation")[t], kept[name].numpy())
        np.testing.assert_array_equal(run.values("outputs/logits")[t], logits.numpy())
        each = F.cross_entropy(logits.double().transpose(1, 2), targets, reduction="none")
        np.testing.assert_allclose(run.values("outputs/token_loss")[t], each, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(run.values("outputs/loss")[t], each.mean(1), rtol=1e-4, atol=1e-5)
    assert run.values("outputs/loss")[-1].mean() < run.values("outputs/loss")[0].mean()
    drift = featdyn.analyze(run, "drift")
    assert np.isfinite(drift["motion"]).all()
    assert all(each.equal for each in run_again(GPT(), probes, run.path, output=0)[2])
    write_report(featdyn.open_run(run.path), tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "24 sample x 12 position" in page
    assert "cross-entropy at each position" in page


def test_a_bert_with_padding_is_recorded_in_three_lines(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16, num_labels=3,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ids, labels = torch.randint(0, 50, (12, 9)), torch.arange(12) % 3
    mask = (torch.arange(9) < 3 + torch.arange(12)[:, None] % 7).long()
    names, seen, given = ["bert.embeddings", "bert.encoder.layer.0", "bert.pooler"], [], {"input_ids": ids}
    given["attention_mask"] = mask
    probes = Probes(given, labels)
    with Recorder(model, probes, tmp_path / "r.zarr", every=2, layers=names, dtype="float32", batch=12) as recorder:
        for _ in range(4):
            model(**given, labels=labels).loss.backward()
            optimizer.step()
            if recorder.step():
                seen.append(hooked(model, names, lambda m: m(**given).logits))
    run = featdyn.open_run(tmp_path / "r.zarr")
    for t, (kept, logits) in enumerate(seen):
        for name in names:
            values = kept[name] if kept[name].ndim == 2 else kept[name].where(mask[:, :, None].bool(), torch.nan)
            np.testing.assert_array_equal(run.values(f"layers/{name}/activation")[t], values.numpy(), err_msg=name)
        np.testing.assert_array_equal(run.values("outputs/logits")[t], logits.numpy())
    assert np.isfinite(featdyn.analyze(run, "drift")["motion"]).all()
    write_report(featdyn.open_run(run.path), tmp_path / "r.html")
    assert "of them padding" in (tmp_path / "r.html").read_text()
