"""Pages of the site that are made from code, and those that lie elsewhere in the repository."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]

ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "bench/results/README.md": "performance.md",
    "bench/results/language-model.png": "language-model.png",
    "bench/results/growth-zen5.svg": "growth.svg",
    "engine/featdyn/store/SPEC.md": "reference/store.md",
}
ELSEWHERE |= {
    str(path.relative_to(ROOT)): f"design/{path.parent.name}.md"
    for path in sorted((ROOT / "engine/featdyn").rglob("DESIGN.md"))
}
ELSEWHERE |= {
    str(path.relative_to(ROOT)): f"reproduce/{path.name}"
    for path in sorted((ROOT / "bench/results/reproduce").glob("*.html"))
}
"""Where a file of the repository lies on the site; those of ``docs`` lie where they are."""


@cache
def pages() -> dict[str, str]:
    """Return the Markdown of each page that is made."""
    from featdyn.analysis.page import page
    from featdyn.analysis.registry import analyses
    from featdyn.analysis.table import markdown

    own = [analysis for analysis in analyses().values() if analysis.module.startswith("featdyn.")]
    listed = markdown(own)
    for analysis in own:
        listed = listed.replace(f"| `{analysis.name}` |", f"| [`{analysis.name}`]({analysis.name}.md) |")
    found = {f"analyses/{analysis.name}.md": page(analysis) for analysis in own}
    picture = "![Accuracy of all pairs of checkpoints](../language-model.png)\n\n"
    picture += "*Of a small language model, joined at four depths.*\n\n## How to read it"
    found["analyses/consistency.md"] = found["analyses/consistency.md"].replace("## How to read it", picture, 1)
    return {
        "analyses/index.md": f"# Analyses\n\nOne question each, asked of a run that is recorded.\n\n{listed}\n",
        **found,
        "reference/api.md": front(),
        "reference/statistics.md": statistics(),
        "reference/commands.md": commands(),
        "reference/data-dictionary.md": data_dictionary(),
    }


def front() -> str:
    """Return what is shown of ``import featdyn``: docstrings, which mkdocstrings reads."""
    import featdyn

    beside = {
        "query.query": "featdyn.query.frame.query",
        "query.ask": "featdyn.query.frame.ask",
        "report.write_report": "featdyn.report.page.write_report",
        "networks.cuts": "featdyn.networks.ways.cuts",
        "adapters.lightning.Record": "featdyn.adapters.lightning.Record",
        "adapters.huggingface.Record": "featdyn.adapters.huggingface.Record",
    }
    own = {name: _path(getattr(featdyn, name)) for name in featdyn.__all__}
    shown = [_shown(f"featdyn.{name}", path) for name, path in (own | beside).items()]
    return "\n\n".join(
        ["# From Python", "What `import featdyn` offers; all is imported when it is first used.", *shown]
    )


def statistics() -> str:
    """Return what is shown of ``featdyn.statistics``: its functions, then those of each of its modules."""
    import featdyn.statistics as room

    head = ["# Statistics", "Functions of arrays in `featdyn.statistics`, usable without a store."]
    return "\n\n".join([*head, *_public(room, "")])


def _public(module: ModuleType, prefix: str) -> list[str]:
    """Return what is shown of a module: its functions and classes, then those of its modules."""
    held = {name: getattr(module, name) for name in getattr(module, "__all__", _defined(module))}
    shown = [_shown(prefix + name, _path(thing)) for name, thing in held.items() if _is_ours(thing)]
    below = {name: thing for name, thing in held.items() if isinstance(thing, ModuleType)}
    return shown + [part for name, thing in below.items() for part in _public(thing, f"{prefix}{name}.")]


def _defined(module: ModuleType) -> list[str]:
    return [
        n for n, thing in vars(module).items() if n[0] != "_" and getattr(thing, "__module__", "") == module.__name__
    ]


def _is_ours(thing: Any) -> bool:
    return (
        callable(thing)
        and str(getattr(thing, "__module__", "")).startswith("featdyn.")
        and hasattr(thing, "__qualname__")
    )


def _path(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def _shown(heading: str, path: str) -> str:
    return f"::: {path}\n    options:\n      heading: {heading}\n      toc_label: {heading.removeprefix('featdyn.')}"


def commands() -> str:
    """Return each command's help."""
    from click import Context

    from featdyn.cli.main import featdyn

    root = Context(featdyn, info_name="featdyn")
    parts = ["# Commands", "What `featdyn COMMAND --help` prints. Each analysis has [a page](../analyses/index.md)."]
    for name in featdyn.list_commands(root):
        command = featdyn.get_command(root, name)
        text = command.get_help(Context(command, info_name=f"featdyn {name}", parent=None, max_content_width=100))
        parts.append(f"## {name}\n\n```text\n{text}\n```")
    return "\n\n".join(parts) + "\n"


def data_dictionary() -> str:
    """Return all arrays and coordinates of a store, from its specification and from what code says of them."""
    from featdyn.analysis import status
    from featdyn.analysis.page import table
    from featdyn.names import NAMES
    from featdyn.query.derived import MEANING, axes

    rows, notes = recorded()
    reasons = [value for name, value in vars(status).items() if name.isupper() and isinstance(value, str)]
    derived = [(f"`{path}`", ", ".join(axes(path)), kind, "1", words) for path, (words, kind) in MEANING.items()]
    coordinates = [(f"`{name}`", units, words) for name, (words, units) in NAMES.items()]
    return "\n\n".join(
        [
            "# Data dictionary",
            "## What a run holds",
            "Of [the store's format](store.md#13-what-featdyn-records), with units. Losses are in nats where they are "
            "cross-entropies.",
            table(("path", "axes", "type", "units", "what it is"), rows),
            "\n".join(notes),
            "## What follows from it",
            "`featdyn query` and `featdyn sql` compute these when they are asked for.",
            table(("path", "axes", "type", "units", "what it is"), derived),
            "## Coordinates",
            "Results lie at `results/ANALYSIS/COMMIT`. Their variables are on the page of each "
            "[analysis](../analyses/index.md).",
            table(("coordinate", "units", "what it is"), coordinates),
            "## Reasons",
            "Why [a cell is missing](../concepts/missing.md): the reasons that several analyses share.",
            table(("reason",), [(f"`{reason}`",) for reason in reasons]),
        ]
    )


def recorded() -> tuple[list[tuple[str, ...]], list[str]]:
    """Return the rows of SPEC.md's table of what featdyn records, with units and words of the code; and its notes."""
    from featdyn.capture.cube import MEANING
    from featdyn.names import NAMES

    text = (ROOT / "engine/featdyn/store/SPEC.md").read_text(encoding="utf-8")
    lines = text.partition("| path | dimensions | type | what |\n|---|---|---|---|\n")[2].partition("\n\n")[0]
    found, notes = [], []
    for line in lines.splitlines():
        paths, axes, kind, words = (cell.strip() for cell in line.strip("|").split(" | "))
        several = paths.count("`") > 2
        for path in _whole(re.findall(r"`(.+?)`", paths)):
            name = path.rpartition("/")[2]
            said, units = NAMES.get(name, (MEANING.get(name, ""), "1"))
            text = said if several and said else words or said
            found.append((f"`{path}`", axes, kind, "" if "string" in kind else units, text))
        if several and text != words:
            notes.append(f"- {paths}: {words}.")
    return found, notes


def _whole(paths: list[str]) -> list[str]:
    """Return paths in full: ``_mean`` behind ``cube/activation_norm`` is ``cube/activation_mean``."""
    return [paths[0].rpartition("_")[0] + path if path.startswith("_") else path for path in paths]
