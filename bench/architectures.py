"""Which architectures come apart: ``python -m bench.architectures [--limit N] [--only PATTERN] [--json FILE]``.

Classification models of torchvision, and of timm and transformers where they are installed, with random weights and
small inputs: how many cuts, which way, whether each default cut has the bits of the network, and how long it took.
Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.harness import environment
from featdyn.errors import NetworkError
from featdyn.networks import cuts, default_cuts, resolve

SIDES = (64, 224, 299)
"""Image sides that are tried, the smallest first (pixels); of timm's models the first and their own."""
TIMM = (
    "vgg11_bn", "crossvit_tiny_240", "mobilevit_s", "twins_svt_small", "tiny_vit_5m_224", "nest_tiny",
    "vit_tiny_r_s16_p8_224", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "mixer_s32_224", "levit_128s",
    "convnext_atto", "resnet18", "efficientnet_b0", "maxvit_rmlp_pico_rw_256", "coat_tiny", "poolformer_s12",
    "edgenext_xx_small", "mobilenetv4_conv_small", "repvit_m1", "fastvit_t8", "efficientformer_l1", "gcvit_xxtiny",
    "pit_ti_224", "cait_xxs24_224", "xcit_nano_12_p16_224", "davit_tiny", "hiera_tiny_224", "eva02_tiny_patch14_224",
)  # fmt: skip
"""One small model of many families."""

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
WORDS = {"vocab_size": 100, "num_labels": 4, "pad_token_id": 0}
TEXTS: dict[str, dict[str, Any]] = {
    **{key: {**SMALL, **WORDS} for key in ("Bert", "Roberta", "Electra", "Llama")},
    "DistilBert": {"dim": 32, "n_layers": 3, "n_heads": 2, "hidden_dim": 64, **WORDS},
    "GPT2": {"n_embd": 32, "n_layer": 3, "n_head": 2, **WORDS},
}
IMAGES: dict[str, dict[str, Any]] = {
    "ViT": {**SMALL, "image_size": 32, "patch_size": 8},
    "Swin": {"image_size": 32, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2},
    "ConvNext": {},
    "ResNet": {},
}
"""Families of transformers, in sizes that take seconds."""


class Logits(nn.Module):
    """A model of transformers as one of tensors."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits alone."""
        return self.inner(x).logits  # type: ignore[no-any-return]


def models() -> Iterator[tuple[str, Callable[[], nn.Module], tuple[Tensor, ...]]]:
    """Yield names, how to make them, and inputs, of which the first that the model takes is used."""
    generator = torch.Generator().manual_seed(0)

    def images(*sides: int) -> tuple[Tensor, ...]:
        return tuple(torch.randn(3, 3, side, side, generator=generator) for side in sides)

    if importlib.util.find_spec("transformers"):
        yield from _transformers(torch.randint(1, 90, (3, 12), generator=generator), images(32, 64))
    if importlib.util.find_spec("timm"):
        import timm

        for name in TIMM:
            sides = SIDES[0], timm.get_pretrained_cfg(name).input_size[-1]
            yield f"timm {name}", partial(timm.create_model, name, pretrained=False), images(*sides)
    if importlib.util.find_spec("torchvision"):
        from torchvision import models as vision

        sizes = {name: vision.get_model_weights(name).DEFAULT.meta["num_params"] for name in vision.list_models(vision)}
        for name in sorted(sizes, key=lambda name: sizes[name]):  # the smallest first
            yield f"torchvision {name}", partial(vision.get_model, name, weights=None), images(*SIDES)


def _transformers(tokens: Tensor, images: tuple[Tensor, ...]) -> Iterator[tuple[str, Any, tuple[Tensor, ...]]]:
    import transformers

    for kind, own in {**TEXTS, **IMAGES}.items():
        task, inputs = ("Sequence", (tokens,)) if kind in TEXTS else ("Image", images)
        yield f"transformers {kind}", _maker(transformers, kind, f"For{task}Classification", own), inputs


def _maker(package: Any, kind: str, task: str, own: dict[str, Any]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        return Logits(getattr(package, kind + task)(getattr(package, f"{kind}Config")(**own)))

    return make


@torch.no_grad()
def examine(make: Callable[[], nn.Module], inputs: tuple[Tensor, ...]) -> dict[str, Any]:
    """Return what becomes of one model."""
    torch.manual_seed(0)
    model = make().eval()
    x = next(x for x in inputs if _runs(model, x))
    start = time.perf_counter()
    try:
        found = cuts(model, x)
    except NetworkError as error:
        return {"why": str(error)[:400], "seconds": round(time.perf_counter() - start, 2)}
    seconds, whole = time.perf_counter() - start, model(x)
    chosen = resolve(found, default_cuts(found))
    same = [torch.equal(cut.suffix(cut.handed(cut.prefix(x), lambda: x)), whole) for cut in chosen]
    return {
        "way": found[0].method.partition(":")[0] if found else "",
        "cuts": len(found),
        "default": [cut.name for cut in chosen],
        "bit equal": all(same) if same else None,
        "input": list(x.shape[1:]),
        "seconds": round(seconds, 2),
        **({} if found else {"why": "no single tensor separates it"}),
    }


def _runs(model: nn.Module, x: Tensor) -> bool:
    try:
        return isinstance(model(x), Tensor)
    except Exception:  # it takes other sizes
        return False


def main() -> None:
    """Print the table, and write it."""
    parser = argparse.ArgumentParser(prog="python -m bench.architectures", description=__doc__)
    parser.add_argument("--limit", type=int, help="stop after so many models")
    parser.add_argument("--minutes", type=float, help="start no model after so many minutes")
    parser.add_argument("--only", default="*", help="names or a pattern of models, such as 'timm *'")
    parser.add_argument("--json", metavar="FILE", type=Path)
    options = parser.parse_args()
    table: dict[str, Any] = {}
    start, left = time.monotonic(), [item for item in models() if fnmatchcase(item[0], options.only)]
    for name, make, inputs in left[: options.limit]:
        if options.minutes is not None and time.monotonic() - start > 60 * options.minutes:
            break
        try:
            table[name] = examine(make, inputs)
        except Exception as error:  # of one model's own code
            table[name] = {"why": f"it could not be tried: {type(error).__name__}: {error}"[:400]}
        found = table[name]
        print(f"{name:48} {found.get('way', '-'):14} {found.get('cuts', 0):4} cuts  ", end="")
        print(
            f"bit equal {found.get('bit equal')}  {found.get('seconds', 0):7.1f} s  {found.get('why', '')}", flush=True
        )
        if options.json:
            ways = Counter(row.get("way") or "none" for row in table.values())
            said = {"environment": environment("cpu"), "models": len(left), "tried": len(table), "ways": dict(ways)}
            options.json.write_text(json.dumps(said | {"table": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
