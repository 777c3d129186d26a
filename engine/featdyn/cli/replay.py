"""``featdyn replay``."""

from __future__ import annotations

import sys
from typing import Any

import click

from featdyn.cli import named
from featdyn.cli.progress import bar
from featdyn.cli.said import say
from featdyn.cli.workers import compute_flags, opened
from featdyn.errors import FeatdynError


@click.command(epilog="Example: featdyn replay run.zarr/results/ANALYSIS")
@click.argument("results", nargs=-1, required=True, type=click.Path())
@named.network_options
@click.option("--batches", metavar="MODULE:LOADER", help="As for analyze.")
@click.option("--loss", metavar="MODULE:FUNCTION", help="As for analyze.")
def command(
    results: tuple[str, ...],
    model: str | None,
    forward: str | None,
    output: str | None,
    batches: str | None,
    loss: str | None,
    **options: Any,
) -> None:
    """Compute stored RESULTS again from their own options and say whether they come out the same.

    A result is STORE/results/ANALYSIS, the newest, or STORE/results/ANALYSIS/NUMBER. Nothing is written. The exit code
    is 1 where one differs.
    """
    from featdyn.analysis.replay import replay

    functions = {"forward": forward, "output": output, "loss": loss}
    own: dict[str, Any] = {name: named.named(given) for name, given in functions.items() if given}
    own |= {"model": named.network(model)} if model else {}
    own |= {"batches": named.made(batches)} if batches else {}
    differ = 0
    with opened(options) as workers:
        for result in results:
            store, found, path = result.rstrip("/").partition("/results/")
            if not found:
                raise FeatdynError(f"{result}: name a result as STORE/results/ANALYSIS")
            with bar(path) as update:
                again = replay(store, f"results/{path}", progress=update, workers=workers, **own)
            say(str(again))
            differ += not again.same
    if differ:
        sys.exit(1)


command.params += compute_flags()
