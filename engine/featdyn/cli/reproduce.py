"""``featdyn reproduce``."""

from __future__ import annotations

from pathlib import Path

import click

from featdyn.cli.complete import completing
from featdyn.cli.progress import bar
from featdyn.cli.said import say


def _studies(ctx: click.Context, incomplete: str) -> list[str]:
    from featdyn.reproduce.load import names

    return names()


@click.command(epilog="Example: featdyn reproduce feature-dynamics --scale quick --out reproduced")
@click.argument("study", required=False, shell_complete=completing(_studies))
@click.option(
    "--scale",
    type=click.Choice(["quick", "small", "full"]),
    default="quick",
    show_default=True,
    help="How large: minutes on data that come along, hours on MNIST and CIFAR-10, or the study's own.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default="reproduced",
    show_default=True,
    help="The folder; the same command again goes on with what is there.",
)
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder with mnist, ... as torchvision has them.")
@click.option("--cifar10", type=click.Path(path_type=Path), help="CIFAR-10 as {train,test}/CLASS/FILES.")
@click.option("--only", multiple=True, metavar="DATA", help="Only on this data; may be repeated.")
@click.option("--keep-stores", is_flag=True, help="Keep stores; else those of a seed go when it has been measured.")
@click.option("--plan", "plan_only", is_flag=True, help="Say what it will take, and do nothing.")
@click.option("--list", "list_studies", is_flag=True, help="List the studies that come with featdyn.")
def command(
    study: str | None,
    scale: str,
    out: Path,
    data_dir: Path | None,
    cifar10: Path | None,
    only: tuple[str, ...],
    keep_stores: bool,
    plan_only: bool,
    list_studies: bool,
) -> None:
    """Run the experiments of STUDY and judge its claims by rules that were written before.

    Ends with OUT/STUDY-SCALE.html and .json. The same command in several processes at once shares the work: each takes
    seeds that no other is at work on.
    """
    from featdyn.reproduce.load import load, names
    from featdyn.reproduce.study import SCALES, ScaleName

    if list_studies:
        for name in names():
            click.echo(f"{name:<18} {load(name).title}")
        return
    if study is None:
        raise click.UsageError("give a study, or --list to see those that come with featdyn")
    chosen = load(study)

    from featdyn.reproduce import document, page
    from featdyn.reproduce.jobs import Data, jobs
    from featdyn.reproduce.runs import Runs
    from featdyn.training.stage import Events

    size: ScaleName = SCALES[SCALES.index(scale)]
    found = jobs(chosen, size, only)
    runs = Runs(found, out, Data(data_dir, cifar10), keep=keep_stores, say=say)
    for line in runs.plan():
        say(line)
    if plan_only:
        return
    runs.check()
    with bar("training", "step") as update:
        whole = runs.go(Events(step=lambda step, steps, loss: update(step, steps)))
    said = document.document(chosen, size, found, out)
    stem = f"{chosen.name}-{scale}"
    document.write(said, out / f"{stem}.json")
    page.write(said, out / f"{stem}.html")
    for row in (page.row_of(verdict, said["quantities"]) for verdict in said["verdicts"]):
        say(f"{row['verdict']:<14} {row['data']}: {row['statement']}: {row['measured']}")
    if other := sum(page.other_rules(said).values()):
        say(f"rules have changed since {other} of {said['runs']['made']} runs were made")
    if not whole:
        say(f"{said['runs']['made']} of {said['runs']['asked']} runs are made; other processes are at work on the rest")
    say(f"{out / stem}.html")
