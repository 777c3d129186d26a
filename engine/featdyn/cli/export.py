"""``featdyn export``."""

from __future__ import annotations

import json
import os

import click

from featdyn.cli import named
from featdyn.cli.out import out_file
from featdyn.cli.said import say
from featdyn.errors import FeatdynError
from featdyn.output import output_file


@click.command(epilog="Example: featdyn export run.zarr --cut s2b3 --from 4 --to -1 -o composite.safetensors")
@click.argument("store", type=click.Path())
@click.option("--cut", "cuts", multiple=True, required=True, help="Where the network is joined; may be repeated.")
@click.option("--from", "froms", multiple=True, required=True, type=int, help="Checkpoint up to each cut, in order.")
@click.option("--to", required=True, type=int, help="Checkpoint behind the last cut; -1 is the last there is.")
@named.network_options
@out_file("The file, safetensors.", "composite.safetensors")
def command(
    store: str,
    cuts: tuple[str, ...],
    froms: tuple[int, ...],
    to: int,
    model: str | None,
    forward: str | None,
    output: str | None,
    out: str,
) -> None:
    """Write a composite of STORE as a state dict: layers up to CUT of checkpoint --from, those behind it of --to.

    With several cuts each has its own --from: the part between two cuts is of the later cut's. It loads into the
    network, and that it gives the composite's outputs is checked on some probes.
    """
    from safetensors.torch import save

    from featdyn.analysis.composites.state import composite_state
    from featdyn.capture.call import recorded_call
    from featdyn.store import Run

    if not out.endswith(".safetensors"):
        named_so = os.path.splitext(out)[0] + ".safetensors"
        raise FeatdynError(f"-o {out}: a state dict is written as safetensors; name it {named_so}")
    if len(cuts) != len(froms):
        raise FeatdynError(f"give a --from for each --cut: there are {len(froms)} for {len(cuts)}")
    run = Run(store)
    asks, gives = (named.named(given) if given else None for given in (forward, output))
    own = named.network(model) if model else None
    call = None if own is None else recorded_call(run, asks, gives)
    state = composite_state(run, cuts, (*froms, to), own, call)
    times = [t % run.checkpoints for t in (*froms, to)]
    made = {"cuts": json.dumps(cuts), "checkpoints": json.dumps(times), "source": "featdyn export"}
    content = save({key: value.contiguous() for key, value in state.items()}, metadata=made)
    with output_file(out) as stream:
        stream.write(content)
    parts = ", ".join(f"checkpoint {t} up to {cut}" for t, cut in zip(times, cuts, strict=False))
    say(f"wrote {out}: {parts}, checkpoint {times[-1]} behind; {len(state)} tensors")
