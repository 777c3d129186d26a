"""``featdyn capture``."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

import click

from featdyn.capture.options import CaptureOptions
from featdyn.cli import named
from featdyn.cli.allocator import keep_freed_memory
from featdyn.cli.flags import flags
from featdyn.cli.progress import bar
from featdyn.compute.options import ComputeOptions
from featdyn.errors import FeatdynError
from featdyn.sizes import counted
from featdyn.validation import validate


@click.command(
    epilog="Example: featdyn capture --model nets:make_network --probes nets:probes "
    "--checkpoints 'step*.pt' --store run.zarr"
)
@click.option("--model", required=True, metavar="MODULE:FACTORY", help="A function that makes the network.")
@click.option(
    "--probes", required=True, metavar="MODULE:PROBES", help="Probes, (inputs, labels), or a function that makes them."
)
@click.option("--checkpoints", required=True, multiple=True, metavar="GLOB", help="Files, or folders of files.")
@click.option("--store", required=True, type=click.Path(), help="Where to record; the same recording is continued.")
@click.option(
    "--step", "pattern", metavar="REGEX", help="Its group is the step in a name; else the number that differs."
)
@click.option("--prefix", help="What stands before the network's names in files that hold several networks.")
@click.option("--loss", metavar="MODULE:FUNCTION", help="(outputs, labels) -> (sample,); cross-entropy by default.")
@click.option("--forward", metavar="MODULE:FUNCTION", help="(model, inputs) -> outputs, where model(inputs) is not it.")
@click.option("--output", metavar="KEY", help="Which of several outputs counts as logits.")
@click.option(
    "--memory-limit",
    metavar="SIZE",
    help="Memory of this process, such as 2GiB; a network whose weights do not fit passes piece by piece.",
)
@click.option("--accept-changes", is_flag=True, help="Go on with another network, loss or options; info shows it.")
def command(
    model: str,
    probes: str,
    checkpoints: tuple[str, ...],
    store: str,
    pattern: str | None,
    prefix: str | None,
    loss: str | None,
    forward: str | None,
    output: str | None,
    memory_limit: str | None,
    accept_changes: bool,
    **options: Any,
) -> None:
    """Record checkpoints that exist: .pt, .pth, .ckpt (weights only), safetensors, and folders of Hugging Face.

    Modules are found from the current folder. The same command again goes on where it was stopped.
    """
    from featdyn.capture.checkpoint_steps import by_step

    paths = [Path(found) for name in checkpoints for found in sorted(glob.glob(name, recursive=True))]
    if not paths:
        raise FeatdynError(f"no checkpoints at {' '.join(checkpoints)}")
    steps = by_step(list(dict.fromkeys(paths)), pattern)

    from featdyn.capture.existing import capture
    from featdyn.compute.plan import resident

    limit = validate(ComputeOptions, {"memory_limit": memory_limit}, "capture").memory_limit
    if limit is None:
        keep_freed_memory()
    model_ = named.network(model) if limit is None else named.factory(model)
    given, functions = named.probes(probes), named.asked(loss, forward, output)
    with bar("capturing", "checkpoint") as update, named.in_a_line():
        run = capture(
            model_, given, steps, store, prefix=prefix, progress=update,
            said=lambda line: click.echo(line, err=True), accept_changes=accept_changes,
            room=None if limit is None else limit - resident(), **functions, **options,
        )  # fmt: skip
    click.echo(
        f"{store}: {counted(run.checkpoints, 'checkpoint')}, steps {run.values('step')[0]} to {run.values('step')[-1]}"
    )


command.params += flags(CaptureOptions)
