"""``featdyn demo``."""

from __future__ import annotations

import time
from pathlib import Path

import click

from featdyn.cli.progress import bar
from featdyn.cli.said import called
from featdyn.output import quoted

SHORTER = (
    "training.epochs=6",
    "description=ResNet-20 on the 8x8 digits that scikit-learn ships: a first look in a minute",
)
"""What the demo changes of the recipe digits: by then nearly all is right, and half of the time is spared."""


@click.command(epilog="Example: featdyn demo --out demo")
@click.option("--out", type=click.Path(file_okay=False), default="demo", show_default=True, help="The folder.")
def command(out: str) -> None:
    """Train on scikit-learn's digits, ask a first question, write OUT/run.zarr and OUT/report.html."""
    from featdyn.analysis import analyses
    from featdyn.analysis.driver import analyze
    from featdyn.report import write_report
    from featdyn.store import Run
    from featdyn.training import load
    from featdyn.training.stage import Events, train

    start = time.monotonic()
    folder = Path(out).expanduser()
    store, report = folder / "run.zarr", folder / "report.html"
    folder.mkdir(parents=True, exist_ok=True)
    with bar("training", "step") as update:
        events = Events(plan=click.echo, step=lambda step, steps, loss: update(step, steps))
        run = train(load("digits", SHORTER), store, events)
    for analysis in analyses().values():
        if analysis.demo and not run.results(analysis.name):
            with bar(analysis.name) as update:
                analyze(store, analysis, progress=update)
    write_report(Run(store), report)
    took, here = time.monotonic() - start, called()
    click.echo(f"\nstore   {store}\nreport  {report}\ndone in {took:.0f} s; next, from this folder:")
    click.echo(f"  {here} info {quoted(store)}\n  {here} query {quoted(store)}")
