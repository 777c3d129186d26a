"""``featdyn import``."""

from __future__ import annotations

import glob
from pathlib import Path

import click

from featdyn.cli.progress import bar
from featdyn.errors import FeatdynError
from featdyn.sizes import counted


@click.command(epilog="Example: featdyn import 'features/step*.npz' --axes sample,feature --store run.zarr")
@click.argument("paths", nargs=-1, required=True, metavar="PATHS...")
@click.option("--store", required=True, type=click.Path(), help="Where to; the same import is continued.")
@click.option("--format", "kind", type=click.Choice(["pico", "saev", "vllm", "thingsvision", "arrays"]),
              help="What PATHS hold; found out by default.")  # fmt: skip
@click.option("--axes", metavar="A,B,...", help="Of plain arrays: names of their axes, checkpoint,sample,feature.")
@click.option("--steps", metavar="N,N,...", help="The step of each checkpoint, where nothing says it.")
@click.option(
    "--step", "pattern", metavar="REGEX", help="Its group is the step in a path; else the number that differs."
)
@click.option("--layers", default="**", show_default=True, metavar="A,B,...", help="Names or patterns of layers.")
@click.option("--dtype", type=click.Choice(["source", "float16"]), default="source", show_default=True,
              help="float16 rounds; else every value keeps its bits.")  # fmt: skip
@click.option("--codec", type=click.Choice(["none", "zstd"]), default="zstd", show_default=True, help="Compression.")
def command(
    paths: tuple[str, ...],
    store: str,
    kind: str | None,
    axes: str | None,
    steps: str | None,
    pattern: str | None,
    layers: str,
    dtype: str,
    codec: str,
) -> None:
    """Bring recordings of other tools into a store.

    PATHS are one recording, or one for each checkpoint, also as patterns: learning_dynamics folders of pico-train,
    shards of saev, folders of hidden states of vLLM, feature folders of thingsvision, and plain .npy, .npz or Zarr.
    The same command again goes on where it was stopped.
    """
    from featdyn.capture.foreign import import_recording

    found = [Path(path) for pattern_ in paths for path in sorted(glob.glob(pattern_, recursive=True)) or [pattern_]]
    with bar("importing", "checkpoint") as update:
        run = import_recording(
            list(dict.fromkeys(found)),
            store,
            format=kind,
            axes=_parts(axes),
            steps=None if steps is None else [_whole(step) for step in _parts(steps)],
            step_pattern=pattern,
            layers=_parts(layers),
            dtype="float16" if dtype == "float16" else None,
            codec="none" if codec == "none" else "zstd",
            progress=update,
        )
    steps_ = run.values("step")
    click.echo(
        f"{store}: {counted(run.checkpoints, 'checkpoint')}, steps {steps_[0]} to {steps_[-1]}, "
        f"{counted(len(run.layers), 'layer')}"
    )


def _parts(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise FeatdynError(f"--steps: {text!r} is no whole number")
    return int(text)
