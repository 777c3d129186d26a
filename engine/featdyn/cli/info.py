"""``featdyn info``."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

import click

from featdyn.cli.out import text_format
from featdyn.output import shown
from featdyn.plain import plain
from featdyn.sizes import counted


@click.command(epilog="Example: featdyn info run.zarr --results")
@click.argument("store", type=click.Path())
@click.option("--results", "results", is_flag=True, help="Also options of the results, what they miss and why.")
@text_format
def command(store: str, results: bool, kind: str | None) -> None:
    """Show what STORE holds: checkpoints, layers, probes, results, sizes."""
    from featdyn.store import Run

    run = Run(store)
    found = describe(run)
    if results:
        from featdyn.query.answered import answered

        found["answered"] = answered(run)
    if kind == "json":
        click.echo(json.dumps(plain(found, missing=True), indent=1))
        return
    probes = ", ".join(f"{n} {split}" for split, n in found["probes"].items())
    click.echo(
        f"{store}: {counted(found['checkpoints'], 'checkpoint')}, {counted(len(found['layers']), 'layer')}, "
        f"probes: {shown(probes)}"
    )
    if found["description"]:
        click.echo(shown(found["description"]))
    click.echo(f"\n{'layer':<24} {'shape':<16} {'dtype':<8} per checkpoint")
    for layer, about in found["layers"].items():
        shape = " x ".join(map(str, about["shape"]))
        note = f"  {shown(about['layout'])}" if about["layout"] else ""
        click.echo(f"{layer:<24} {shape:<16} {about['dtype']:<8} {about['bytes'] / 2**20:.1f} MiB{note}")
    if found["outputs"]:
        click.echo("\noutputs")
    for name, said in found["outputs"].items():
        click.echo(shown(f"{name:<24} {said}"))
    if found["positions"]:
        click.echo(f"\npositions: {found['positions']}")
    names = [n for n in found["history"][0] if n != "checkpoint"] if found["history"] else []
    click.echo("\ncheckpoint " + " ".join(f"{n:>14}" for n in names))
    for row in found["history"]:
        click.echo(f"{row['checkpoint']:>10} " + " ".join(f"{_number(row[n]):>14}" for n in names))
    if found["recording"]:
        from featdyn.store.cost import Cost

        click.echo(f"\n{Cost(**found['recording'])}")
    for change in found["changes"]:
        for what, (before, after) in change["what"].items():
            since = f"since commit {change['commit']} ({change['when']})"
            click.echo(shown(f"changed {since}: {what} was {before}, is {after}"))
    click.echo("\nresults: " + (", ".join(found["results"]) or "none yet; see featdyn analyze --help"))
    for row in found.get("answered", []):
        click.echo("\n" + shown(f"{row['path']}: {row['question']}"))
        if row["behind"]:
            click.echo(shown(f"  {row['behind']}"))
        click.echo(shown(f"  options: {row['options']}"))
        click.echo(shown(f"  missing: {row['missing'] or 'nothing'}"))


def describe(run: Any) -> dict[str, Any]:
    """Return what ``info`` prints, JSON-like."""
    from featdyn.query import recorded
    from featdyn.store.cost import cost_of

    layers: dict[str, dict[str, Any]] = {}
    for name in run.layers:  # of one without an array the cube has summaries only
        held = [a for a in run.schema.arrays if a.path.startswith(f"layers/{name}/")]
        shape, dtype = (list(held[0].shape[1:]), held[0].dtype) if held else ([], "")
        layers[name] = {"shape": shape, "dtype": dtype, "bytes": sum(a.nbytes for a in held)}
        layers[name]["layout"] = recorded.layout(held[0]) if held else ""
    has_split = "split" in run.paths("sample")
    splits = (
        ["unknown" if name in (None, "") else str(name) for name in run.values("split").tolist()]
        if has_split
        else ["sample"] * run.schema.samples
    )
    columns = {name: run.values(name).tolist() for name in run.paths("checkpoint")}
    history = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return {
        "store": str(run.path),
        "commit": run.commits[-1].number,
        "checkpoints": run.checkpoints,
        "description": str(run.described("recipe").get("description", "")),
        "layers": layers,
        "outputs": recorded.outputs(run),
        "positions": recorded.padding(run),
        "recording": asdict(cost) if (cost := cost_of(run.place)) else None,
        "probes": {split: splits.count(split) for split in dict.fromkeys(splits)},
        "history": history,
        "changes": [asdict(change) for change in run.changes],
        "results": [c.name for c in run.commits if c.kind == "result"],
        "provenance": run.described("provenance"),
    }


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.5g}"
