"""Recordings as other tools write them, made from what their documentation says of the formats; fixed numbers."""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file


class Bomb:
    """A pickle that leaves a trace where it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def values(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Return normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def pico(run: Path, steps: Sequence[int], modules: Sequence[str], samples: int, width: int) -> dict[int, Any]:
    """Write checkpoints of pico-train: bfloat16 activations of the last token, weights, and weights' gradients."""
    written: dict[int, Any] = {}
    for step in steps:
        folder = run / "checkpoints" / f"step_{step}" / "learning_dynamics"
        folder.mkdir(parents=True)
        for split, count in (
            ("train", samples + step % 3),
            ("val", samples),
        ):  # the training batch is another each time
            held: dict[str, Any] = {"activations": {}, "weights": {}, "gradients": {}}
            for m, module in enumerate(modules):
                seed = step * 100 + m
                held["activations"][module] = torch.from_numpy(values(count, width + m, seed=seed)).bfloat16()
                held["weights"][module] = torch.from_numpy(values(width + m, 3, seed=seed + 50))
                held["gradients"][module] = torch.from_numpy(values(width + m, 3, seed=seed + 70))
            for kind, tensors in held.items():
                torch.save(tensors, folder / f"{split}_{kind}.pt")
        written[step] = held
    (run / "checkpoints" / "latest").symlink_to(f"step_{steps[-1]}", target_is_directory=True)
    return written


def saev(
    folder: Path, examples: int, layers: Sequence[int], patches: int, width: int, per_shard: int, trace: Path
) -> NDArray[np.float32]:
    """Write shards of saev's protocol 2.1: ``(example, layer, token, feature)``, the last file of full length."""
    folder.mkdir(parents=True)
    tokens, every = patches + 1, values(examples, len(layers), patches + 1, width)
    metadata = {
        "family": "clip", "ckpt": "ViT-B-32/openai", "layers": list(layers), "content_tokens_per_example": patches,
        "cls_token": True, "d_model": width, "n_examples": examples, "dataset": "images", "dtype": "float32",
        "max_tokens_per_shard": per_shard * tokens * len(layers), "protocol": "2.1", "pixel_agg": "majority",
        "data": base64.b64encode(pickle.dumps(Bomb(trace))).decode(),
    }  # fmt: skip
    (folder / "metadata.json").write_text(json.dumps(metadata))
    shards = []
    for i, start in enumerate(range(0, examples + 1, per_shard)):  # a full last shard is followed by an empty one
        part = every[start : start + per_shard]
        whole = np.zeros((per_shard, *every.shape[1:]), "<f4")
        whole[: len(part)] = part
        whole.tofile(folder / f"acts{i:06d}.bin")
        shards.append({"name": f"acts{i:06d}.bin", "n_examples": len(part)})
    (folder / "shards.json").write_text(json.dumps(shards))
    return every


def vllm(folder: Path, lengths: Sequence[int], layers: int, width: int) -> dict[str, Any]:
    """Write hidden states as vLLM's connector does: a file a request, bfloat16 ``(token, layer, feature)``."""
    folder.mkdir(parents=True)
    written = {}
    for i, length in enumerate(lengths):
        states = torch.from_numpy(values(length, layers, width, seed=i)).bfloat16()
        tokens = torch.arange(length) * 7 + i
        save_file({"hidden_states": states, "token_ids": tokens}, folder / f"req-{i}.safetensors")
        (folder / f"req-{i}.safetensors.lock").touch()
        written[f"req-{i}"] = states, tokens
    return written


def thingsvision(folder: Path, features: NDArray[Any], kind: str, names: Sequence[str] = ()) -> None:
    """Write features as thingsvision saves them, with the names of the images."""
    folder.mkdir(parents=True, exist_ok=True)
    if names:
        (folder / "file_names.txt").write_text("".join(f"{name}\n" for name in names))
    path = folder / f"features.{kind}"
    if kind == "npy":
        np.save(path, features)
    elif kind == "pt":
        torch.save(torch.from_numpy(features), path)
    elif kind == "hdf5":
        import h5py

        with h5py.File(path, "w") as file:
            file.create_dataset("features", data=features)
    else:
        from scipy.io import savemat

        rows = {name.removesuffix(".jpg"): row for name, row in zip(names, features, strict=False)}
        savemat(path, rows or {"features": features})
