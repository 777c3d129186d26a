"""``featdyn train``."""

from __future__ import annotations

import click

from featdyn.cli.progress import bar


@click.command()
@click.argument("recipe", required=False)
@click.option("--store", type=click.Path(), help="Where to record; an existing store of this recipe is continued.")
@click.option("--set", "changes", multiple=True, metavar="FIELD=VALUE", help="Change a field, as training.epochs=3.")
@click.option("--data-dir", type=click.Path(), help="Folder of downloaded data sets.")
@click.option("--download", is_flag=True, help="Download missing data into the folder.")
@click.option("--list", "list_recipes", is_flag=True, help="List the recipes that come with featdyn.")
@click.option("--fields", is_flag=True, help="List every field of a recipe with its default and meaning.")
def command(
    recipe: str | None,
    store: str | None,
    changes: tuple[str, ...],
    data_dir: str | None,
    download: bool,
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
    chosen = recipes.load(recipe, changes)

    from featdyn.training.stage import Events, train

    with bar("training", "step") as update:
        events = Events(plan=click.echo, step=lambda step, steps, loss: update(step, steps))
        run = train(chosen, store, events)
    last = run.coords.isel(checkpoint=-1)
    accuracy = float(last["test_accuracy"])
    click.echo(f"{store}: {run.checkpoints} checkpoints, test accuracy {accuracy:.4f} after {int(last['step'])} steps")
