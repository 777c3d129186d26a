"""What a study comes to: verdicts with all their numbers, as JSON; the same runs give the same bytes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from featdyn.output import output_file
from featdyn.plain import plain
from featdyn.reproduce import records
from featdyn.reproduce.jobs import Job
from featdyn.reproduce.rules import ALPHA, POWER, judge, table
from featdyn.reproduce.study import ScaleName, Study

FINAL = ("train_accuracy", "test_accuracy")


def document(study: Study, scale: ScaleName, found: Sequence[Job], folder: Path) -> dict[str, Any]:
    """Return a study at a scale as JSON-like values, from the records in a folder.

    Records are taken as they are: of runs that are lacking nothing is known, and a record of other rules is counted in
    ``rules.made_under``; only those of another recipe, question or quantity are left out.
    """
    known = {(job, group): records.current(job, group, folder) for job in found for group in job.experiment.groups}
    there = {key: record for key, record in known.items() if record is not None}
    datasets = dict.fromkeys(job.data for job in found)
    verdicts = []
    for data in datasets:
        runs: dict[str, dict[str, dict[int, Any]]] = {}
        for (job, group), record in there.items():
            if job.data == data:
                runs.setdefault(job.name, {}).setdefault(group, {})[job.seed] = record.quantities
        placed = {job.name for job in found if job.data == data}
        verdicts += [each for each in judge(study, data, runs) if each.claim.experiment in placed]
    elsewhere = {claim.experiment for claim in study.claims} - {job.name for job in found}
    made = Counter(f"{record.rules} of {record.written}" for record in there.values())
    said = {
        "study": study.name,
        "title": study.title,
        "source": study.source,
        "about": list(study.about),
        "scale": scale,
        "scale_about": study.scales[scale].about,
        "rules": {
            "checksum": study.checksum,
            "written": str(study.written),
            "made_under": dict(sorted(made.items())),
            "level": ALPHA,
            "power": POWER,
        },
        "runs": {"asked": len(known), "made": len(there)},
        "not_at_this_scale": sorted(claim.id for claim in study.claims if claim.experiment in elsewhere),
        "versions": [
            json.loads(each) for each in sorted({json.dumps(r.versions, sort_keys=True) for r in there.values()})
        ],
        "verdicts": table(verdicts),
        "experiments": [_experiment(study, name, data, there) for name, data in _pairs(found)],
        "quantities": {name: quantity.about for name, quantity in study.quantities.items()},
    }
    found_json: dict[str, Any] = plain(said, missing=True)
    return found_json


def _pairs(found: Sequence[Job]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((job.name, job.data) for job in found))


def _experiment(study: Study, name: str, data: str, there: dict[tuple[Job, str], records.Record]) -> dict[str, Any]:
    """Return what became of an experiment's runs: their recipe, and where they ended, seed by seed."""
    groups = {}
    for group in study.experiments[name].groups:
        mine = [
            (job.seed, record) for (job, g), record in there.items() if (job.name, job.data, g) == (name, data, group)
        ]
        groups[group] = {
            "seeds": [seed for seed, _ in mine],
            "steps": [record.history["step"][-1] for _, record in mine],
            **{end: [record.history[end][-1] for _, record in mine] for end in FINAL},
            "recipe": _without_places(mine[0][1].recipe) if mine else None,
        }
    return {"experiment": name, "data": data, "about": study.experiments[name].about, "groups": groups}


def _without_places(recipe: Any) -> Any:
    """Return a recipe without the folders of the machine that it ran on."""
    return recipe | {"data": recipe["data"] | {"name": recipe["data"]["name"].partition(":")[0]}}


def write(said: dict[str, Any], path: Path) -> None:
    """Write it as JSON."""
    with output_file(path, parents=True) as stream:
        stream.write((json.dumps(said, indent=1, allow_nan=False) + "\n").encode())
