"""``featdyn train``."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import click

from featdyn.cli.allocator import keep_freed_memory
from featdyn.cli.complete import completing
from featdyn.cli.progress import bar
from featdyn.cli.said import say
from featdyn.sizes import counted

if TYPE_CHECKING:
    import pandas as pd


def _recipes(ctx: click.Context, incomplete: str) -> list[str]:
    from featdyn.training.recipe import shipped

    return list(shipped())


@click.command(epilog="Example: featdyn train digits --store run.zarr --set training.epochs=2")
@click.argument("recipe", required=False, shell_complete=completing(_recipes))
@click.option(
    "--store",
    type=click.Path(),
    help="Where to record, a folder or s3://bucket/path; an existing store of this recipe is continued.",
)
@click.option("--set", "changes", multiple=True, metavar="FIELD=VALUE", help="Change a field, as training.epochs=3.")
@click.option(
    "--sweep",
    "sweeps",
    multiple=True,
    metavar="FIELD=V1,V2",
    help="Train a grid: one store per point in the folder of --store; several multiply. Finished stores are skipped.",
)
@click.option("--seeds", type=click.IntRange(min=1), help="So many runs of each point (training.seed and labels.seed).")
@click.option(
    "--data-dir",
    type=click.Path(),
    help="Folder with the files of mnist, cifar10, ... as torchvision lays them out; images of your own: "
    "--set data.name=imagefolder:PATH, with PATH/{train,test}/CLASS/FILES.",
)
@click.option("--download", is_flag=True, help="Download missing data into the folder.")
@click.option("--accept-changes", is_flag=True, help="Go on though the network is not what it was; info shows it.")
@click.option("--list", "list_recipes", is_flag=True, help="List the recipes that come with featdyn.")
@click.option("--fields", is_flag=True, help="List every field of a recipe with its default and meaning.")
def command(
    recipe: str | None,
    store: str | None,
    changes: tuple[str, ...],
    sweeps: tuple[str, ...],
    seeds: int | None,
    data_dir: str | None,
    download: bool,
    accept_changes: bool,
    list_recipes: bool,
    fields: bool,
) -> None:
    """Train RECIPE (a name or a TOML file) and record it into a store; the same command again resumes."""
    from featdyn.training import recipe as recipes

    if list_recipes:
        for name, text in recipes.shipped().items():
            click.echo(f"{name:<14} {text}")
        return
    if fields:
        for name, default, text in recipes.fields():
            click.echo(f"{name} = {default or '(required)'}\n    {text}")
        return
    if not recipe or not store:
        raise click.UsageError("give a recipe and --store PATH, or --list to see the recipes")
    if data_dir is not None:
        changes = (*changes, f"data.data_dir={data_dir}")
    if download:
        changes = (*changes, "data.download=true")
    keep_freed_memory()
    if sweeps or seeds:
        if accept_changes:
            raise click.UsageError("--accept-changes is of one store, not of a sweep")
        _sweep(recipe, store, sweeps, changes, seeds)
        return
    chosen = recipes.load(recipe, changes)

    from featdyn.training.stage import Events, train

    with bar("training", "step") as update:
        events = Events(plan=say, step=lambda step, steps, loss: update(step, steps))
        run = train(chosen, store, events, accept_changes=accept_changes)
    last = run.coords.isel(checkpoint=-1)
    accuracy = float(last["test_accuracy"])
    held = counted(run.checkpoints, "checkpoint")
    say(f"{store}: {held}, test accuracy {accuracy:.4f} after {int(last['step'])} steps")


def _sweep(recipe: str, folder: str, sweeps: tuple[str, ...], changes: tuple[str, ...], seeds: int | None) -> None:
    import pandas as pd

    from featdyn.errors import FeatdynError
    from featdyn.training.stage import Events
    from featdyn.training.sweep import Sweep, points

    sweep, rows = Sweep(points(recipe, folder, sweeps, changes, seeds)), []
    say(f"{len(sweep.points)} runs in {folder}")
    measured = ("step", "train_accuracy", "test_loss", "test_accuracy")
    for number, point in enumerate(sweep.points, 1):
        nothing = dict.fromkeys(measured, float("nan"))
        row: dict[str, Any] = {**point.values, "checkpoints": 0, **nothing, "state": "done"}
        with bar(f"{number}/{len(sweep.points)} {point.name.removesuffix('.zarr')}", "step") as update:
            try:
                events = Events(step=lambda step, steps, loss: update(step, steps))
                if number == 1:  # the others need much the same
                    events.plan = say
                run = sweep.run(point, events)
                row |= {"checkpoints": run.checkpoints, **{name: run.values(name)[-1].item() for name in measured}}
            except FeatdynError as error:  # a grid may reach where training diverges: the other points still run
                row["state"] = str(error)
        rows.append(row)
    table = pd.DataFrame(rows)
    _show(table)
    axes = [name for name in sweep.points[0].values if name != "seed"]
    if seeds and seeds > 1 and axes:
        say(f"\nmean and standard deviation of test_accuracy over {seeds} seeds")
        groups = table.groupby(axes, sort=False)["test_accuracy"].agg(["mean", "std", "count"])
        _show(groups.reset_index())
    failed = sum(row["state"] != "done" for row in rows)
    if failed:
        raise FeatdynError(f"{failed} of {len(rows)} runs did not finish; the same command again goes on with them")


def _show(table: pd.DataFrame) -> None:
    from featdyn.query import render

    lines = io.StringIO()
    render(table, "table", lines)
    say(lines.getvalue().removesuffix("\n"))
