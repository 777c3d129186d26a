"""A training step with a frozen prefix on stored features, beside one on computed features and an unfrozen one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from bench.harness import Case, sized
from featdyn.networks import cuts
from featdyn.training import load
from featdyn.training.loop import Loop

RECIPE = (
    "data.image_size=32",  # the shapes of CIFAR-10, but for two input channels
    "data.train_size=640",
    "training.epochs=100",
    "training.schedule=constant",
    "training.learning_rate=0.01",
)


def cases(device: str) -> Iterator[Case]:
    for cut in sized(("s1b3", "s2b3"), ("s1b3",)):
        yield _case(cut, device)


def _case(name: str, device: str) -> Case:
    changes = (*RECIPE, *sized((), ("data.image_size=8", "network.options.width=4")), f"training.device={device}")
    freeze = (*changes, f"intervention.cut={name}", "intervention.freeze_at=0")
    loops = {
        "ours": Loop(load("digits", freeze)),
        "frozen, features computed at each step": Loop(load("digits", [*freeze, "intervention.stored=0"])),
        "unfrozen": Loop(load("digits", changes)),
    }
    losses: dict[str, list[float]] = {kind: [] for kind in loops}

    def step(kind: str) -> str:
        losses[kind].append(loops[kind].step(len(losses[kind]))[0])
        return kind

    def check(kind: str) -> None:
        """Frozen runs see the same features, to rounding; the unfrozen one is another training."""
        if kind != "unfrozen":
            assert abs(losses[kind][0] - losses["ours"][0]) <= 1e-4 * losses["ours"][0]

    cut = next(c for c in cuts(loops["ours"].model, loops["ours"].batches[0][0]) if c.name == name)
    whole, suffix = cut.prefix_macs + cut.suffix_macs, cut.suffix_macs
    notes = (
        f"by multiply-adds: unfrozen / suffix {whole / suffix:.2f}, frozen / suffix "
        f"{(cut.prefix_macs + 3 * suffix) / (3 * suffix):.2f} (a step is forward and twice that backward)"
    )
    peers = {kind: partial(step, kind) for kind in loops if kind != "ours"}
    title = f"a training step of resnet20, batch 64, 1x32x32, frozen up to {name}, float32"
    return Case(title, partial(step, "ours"), peers, check, repeats=7, notes=notes)
