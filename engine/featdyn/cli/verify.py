"""``featdyn verify``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from featdyn.cli.out import text_format
from featdyn.cli.progress import bar
from featdyn.output import quoted, shown
from featdyn.plain import plain
from featdyn.sizes import counted


@click.command(epilog="Example: featdyn verify run.zarr --sample 0.1")
@click.argument("store", type=click.Path())
@click.option("--sample", type=float, help="Check this fraction of the files only.")
@click.option("--seed", type=click.IntRange(min=0), help="Of the sample; by default another each time.")
@click.option("--repair", "mend", is_flag=True, help="Drop what is damaged and what follows from it.")
@click.option("--capture", "passed", is_flag=True, help="Run some probes anew instead, alone and in another order.")
@click.option("--model", metavar="MODULE:FACTORY", help="With --capture: a function that makes the network.")
@click.option("--probes", metavar="MODULE:PROBES", help="With --capture: the probes, or a function that makes them.")
@click.option("--loss", metavar="MODULE:FUNCTION", help="With --capture, as featdyn capture takes it.")
@click.option("--forward", metavar="MODULE:FUNCTION", help="With --capture, as featdyn capture takes it.")
@click.option("--output", metavar="KEY", help="With --capture, as featdyn capture takes it.")
@text_format
def command(
    store: str,
    sample: float | None,
    seed: int | None,
    mend: bool,
    passed: bool,
    model: str | None,
    probes: str | None,
    loss: str | None,
    forward: str | None,
    output: str | None,
    kind: str | None,
) -> None:
    """Check every committed byte of STORE against its commit records; exit code 1 when something is wrong.

    With --repair, damaged results are dropped, and damaged checkpoints with all later ones and with what was computed
    from them. The same featdyn train goes on from there. A zarr.json that is lost is made anew. Nothing is deleted: see
    featdyn gc. Where a file cannot be read now, nothing is changed.

    With --capture, some probes pass the network with the weights of the last checkpoint, in the recorded batch, in
    another order and alone: exit code 0 only where all arrays are what is stored, up to the rounding of their type.
    """
    if passed:
        if sample is not None or seed is not None or mend:
            raise click.UsageError("--capture runs probes and checks no files: leave --sample, --seed, --repair out")
        if model is None or probes is None:
            raise click.UsageError("--capture takes --model module:factory and --probes module:probes")
        if not _same(store, model, probes, loss, forward, output, kind == "json"):
            sys.exit(1)
        return
    if any(given is not None for given in (model, probes, loss, forward, output)):
        raise click.UsageError("--model, --probes, --loss, --forward and --output go with --capture")
    from featdyn.store import repair, verify

    if sample is None and seed is not None:
        raise click.UsageError("--seed is of a --sample")
    if sample is not None and not 0 < sample <= 1:
        raise click.UsageError(f"--sample takes a number above 0 and at most 1, got {sample}")
    if mend and sample is not None:
        raise click.UsageError("--repair checks everything: leave --sample out")
    with bar("verifying", "B") as update:
        repaired = repair(store, update) if mend else None
        verdict = repaired.verdict if repaired else verify(store, update, sample=sample, seed=seed)
    if kind == "json":
        click.echo(json.dumps(asdict(repaired or verdict), indent=1))
    else:
        for problem in (*verdict.problems, *verdict.unknown):
            click.echo(shown(problem))
        drawn = "" if verdict.seed is None else f" of {verdict.of}, drawn with seed {verdict.seed}"
        counts = [(len(verdict.problems), "problems"), (len(verdict.unknown), "that cannot be read now")]
        state = "sound" if verdict.sound else ", ".join(f"{n} {what}" for n, what in counts if n)
        size = f"{verdict.bytes / 2**20:.1f} MiB"
        click.echo(f"{store}: {verdict.commits} commits, {verdict.files} files{drawn}, {size}: {state}")
        what = shown(", ".join(verdict.lost)) or "nothing"
        anew = shown(", ".join(verdict.mendable))
        if repaired is None and verdict.problems:
            also = f"; write anew: {anew}" if anew else ""
            click.echo(f"featdyn verify {quoted(store)} --repair would drop: {what}{also}")
        elif repaired is not None and repaired.changed:
            click.echo(f"{store}: dropped: {what}; {repaired.checkpoints} checkpoints are left")
            if anew:
                click.echo(f"{store}: written anew from the manifests: {anew}")
            if repaired.source != "zarr.json":
                click.echo(f"{store}: zarr.json and commits/root.json were made anew from {repaired.source}")
            if repaired.aside:
                click.echo(
                    f"{store}: the old zarr.json is {repaired.aside}; to free the room: featdyn gc {quoted(store)}"
                )
    if not (verdict.sound or repaired):
        sys.exit(1)


def _same(
    store: str,
    model: str,
    probes: str,
    loss: str | None,
    forward: str | None,
    output: str | None,
    as_json: bool,
) -> bool:
    """Run some probes again and print what came out; return whether it is what is stored."""
    from featdyn.capture.again import WAYS, run_again
    from featdyn.cli import named

    t, count, found = run_again(
        named.network(model), named.probes(probes), store, **named.asked(loss, forward, output)
    )  # fmt: skip
    other = sum(not each.equal for each in found)
    if as_json:
        arrays = [{**asdict(each), "equal": each.equal} for each in found]
        click.echo(json.dumps(plain({"checkpoint": t, "probes": count, "arrays": arrays}, missing=True), indent=1))
        return not other
    click.echo(f"{'largest difference / value':<40} {'its batch':>10} {'reversed':>10} {'alone':>10} {'allowed':>10}")
    for each in found:
        cells = " ".join(f"{_cell(each.difference[way]):>10}" for way in WAYS)
        said = "" if each.equal else "  differs"
        click.echo(f"{shown(each.path):<40} {cells} {each.allowed:>10.2g}{said}")
    verdict = f"{other} of {len(found)} arrays differ" if other else f"{len(found)} arrays equal up to rounding"
    click.echo(f"{store}: {counted(count, 'probe')} at checkpoint {t}: {verdict}")
    return not other


def _cell(difference: float) -> str:
    return "equal" if difference == 0 else f"{difference:.2g}"
