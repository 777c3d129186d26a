"""What the page says in words: headline numbers and tables of where everything comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.provenance import provenance
from featdyn.query import recorded
from featdyn.report.chapters import Chapter
from featdyn.report.rounding import percent
from featdyn.report.training_curves import steps
from featdyn.sizes import counted
from featdyn.store import Run

# Attributes of the root with a place of their own on the page, or that only programs need.
KNOWN = ("recipe", "capture", "provenance", "dataset", "checkpoint_steps", "featdyn", "coordinates")


@dataclass(frozen=True)
class Table:
    """A table of names and values."""

    title: str
    rows: list[tuple[str, str]]


@dataclass(frozen=True)
class Head:
    """The top of the page."""

    name: str
    subtitle: str
    numbers: list[tuple[str, str, str]]  # value, what it is, detail
    planned: int  # checkpoints of the whole training, as far as the run says


def head(run: Run) -> Head:
    """Return the run's name and headline numbers."""
    recipe, dataset = run.described("recipe"), run.described("dataset")
    network, data = _mapping(recipe.get("network")).get("name"), dataset.get("name")
    known = [str(network)] if network else []
    known += [f"{'trained on ' if network else ''}{data}"] if data else []
    subtitle = " ".join(known)
    if recipe.get("description"):
        subtitle += f" · {recipe['description']}" if subtitle else str(recipe["description"])
    steps_planned = run.attributes.get("checkpoint_steps")
    planned = len(steps_planned) if isinstance(steps_planned, list) else 0
    return Head(run.name, subtitle, list(_numbers(run, planned)), planned)


def _numbers(run: Run, planned: int) -> Iterator[tuple[str, str, str]]:
    coords = run.coords
    if "test_accuracy" in coords and np.isfinite(last := float(coords["test_accuracy"].values[-1])):
        if run.recipe is None:
            yield f"{last:.4g}", "test accuracy", "as recorded at the last checkpoint"
        elif run.checkpoints < planned:
            yield percent(last), "test accuracy so far", tested(run)
        else:
            yield percent(last), "final test accuracy", "whole test set, last checkpoint"
    done = f"{float(coords['epoch'].values[-1]):.4g}" if "epoch" in coords else ""
    epochs = f", {done} epoch{'s' if done != '1' else ''}" if done else ""
    yield *_counted(run.checkpoints, "checkpoint"), f"to step {int(steps(run)[-1]):,}{epochs}"
    sets = ProbeSets.of(run)
    sizes = dict(zip(sets.names, sets.sizes, strict=True))
    split = ", ".join(f"{n:,} {name}" for name, n in sizes.items()) if len(sizes) > 1 else "fixed samples"
    yield *_counted(run.schema.samples, "probe"), split
    layers = [a for a in run.schema.arrays if a.path.startswith("layers/")]
    kinds = sorted({a.path.rpartition("/")[2] for a in layers})
    yield *_counted(len({a.path.split("/")[1] for a in layers}), "layer"), " and ".join(f"{k}s" for k in kinds)


def _counted(n: int, noun: str) -> tuple[str, str]:
    number, _, things = counted(n, noun).partition(" ")
    return number, things


def tested(run: Run) -> str:
    """Return on which test images a recipe's run is evaluated before its last checkpoint."""
    some = _mapping(run.described("recipe").get("checkpoints")).get("test_samples", 0)
    return f"at most {some:,} test images, drawn once" if some else "whole test set"


def tables(run: Run, chapters: Sequence[Chapter]) -> list[Table]:
    """Return where the run, its results and this page come from."""
    attributes, state, newest = run.attributes, run.attributes["featdyn"], run.commits[-1]
    positions = recorded.padding(run)
    found = [
        Table("Outputs", [*recorded.outputs(run).items(), *([("positions", positions)] if positions else [])]),
        Table("Recorded with", list(rows(attributes.get("provenance")))),
        Table("Data set", list(rows(attributes.get("dataset")))),
        Table(
            "Store",
            [
                ("format", str(state["format"])),
                ("commits", str(len(run.commits))),
                ("newest commit", f"{newest.number} ({newest.kind} {newest.name})"),
                ("its manifest", f"crc32c {newest.manifest.crc32c:08x}"),
                ("samples in a shard", str(state["shard_samples"])),
                ("codec", str(state["codec"])),
            ],
        ),
    ]
    for chapter in chapters:
        source = [("path", chapter.path), *rows(chapter.attributes)]
        found.append(Table(f"{chapter.sections[0].title}: result of {chapter.name}", source))
    found.append(Table("This page", list(rows(provenance()))))
    notes = {key: value for key, value in attributes.items() if key not in KNOWN}
    found.append(Table("Notes", list(rows(notes))))
    return [table for table in found if table.rows]


def recipe_tables(run: Run) -> list[Table]:
    """Return the recipe, a table for each of its tables; for other runs what was captured."""
    recipe = run.described("recipe") or {"capture": run.attributes.get("capture")}
    plain = {key: value for key, value in recipe.items() if not isinstance(value, Mapping)}
    tables = [Table(f"[{key}]", list(rows(value))) for key, value in recipe.items() if isinstance(value, Mapping)]
    return [table for table in [Table("", list(rows(plain))), *tables] if table.rows]


def rows(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested JSON-like values as dotted names and text; nothing for what is empty."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key == "versions" and isinstance(inner, Mapping):
                inner = [f"{package} {version}" for package, version in inner.items()]
            yield from rows(inner, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list | tuple) and not any(isinstance(v, list | tuple | Mapping) for v in value):
        if value:
            yield prefix, ", ".join(map(str, value))
    elif value not in (None, ""):
        yield prefix, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
