"""``docs/defaults.md``: what is done where nothing is said. ``python -m tests.engine.defaults`` writes it anew.

Made from the declarations themselves, so that the page is true, and that no default or limit changes unseen.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

ROOT = Path(__file__).parents[2]
PAGE, ENGINE = ROOT / "docs" / "defaults.md", ROOT / "engine" / "featdyn"
OURS = re.compile(r"\bour (own )?choice", re.IGNORECASE)
HEAD = """# What is done where nothing is said

Every option with its default and the values that it takes: of a recipe (`--set training.epochs=20`), of each analysis
(`--draws 64`, or by its name from Python), of a study's file, of each command, of networks, and of functions and
classes. At the end the numbers of ours that results depend on: what no paper gives, or gives otherwise.
Made by `python -m tests.engine.defaults`.
"""
LIMITS = {
    "ge": "at least {}",
    "gt": "above {}",
    "le": "at most {}",
    "lt": "below {}",
    "min_length": "at least {} of them",
    "max_length": "at most {} of them",
}


def limits(field: FieldInfo) -> str:
    """Return which values a field takes, beside its type."""
    of_type = [meta for argument in get_args(field.annotation) for meta in getattr(argument, "__metadata__", ())]
    rules = [rule for meta in of_type for rule in getattr(meta, "metadata", ())]
    found = [
        text.format(f"{getattr(rule, name):g}")
        for rule in [*field.metadata, *rules]
        for name, text in LIMITS.items()
        if getattr(rule, name, None) is not None
    ]
    words = [str(choice) for choice in get_args(field.annotation) if isinstance(choice, str)]
    return ", ".join(found + [" or ".join(words)] * bool(words))


def table(fields: Iterable[tuple[str, FieldInfo]]) -> str:
    """Return fields as a table."""
    rows = [
        f"| `{name}` | {'' if field.is_required() else f'`{field.get_default(call_default_factory=True)!r}`'} "
        f"| {limits(field)} |"
        for name, field in fields
    ]
    return "\n".join(["| option | default | takes |", "|---|---|---|", *rows])


def commands() -> Iterator[str]:
    """Yield each command's options that have a default, as a line."""
    from featdyn.cli.main import featdyn as whole

    context = click.Context(whole)
    for name in whole.list_commands(context):
        found = whole.get_command(context, name)
        options = [o for o in getattr(found, "params", []) if isinstance(o, click.Option)]
        said = [f"`{o.opts[0]} {o.default}`" for o in options if isinstance(o.default, bool | int | float | str)]
        if said:
            yield f"- {name}: {', '.join(said)}"


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield the functions, classes and methods that a package and the packages in it offer, with their names."""
    own = [n for n, m in vars(module).items() if n[0] != "_" and getattr(m, "__module__", "") == module.__name__]
    for name in getattr(module, "__all__", own):
        member = getattr(module, name)
        if inspect.ismodule(member) and member.__name__.startswith(module.__name__):
            yield from public(member)
        elif inspect.isfunction(member) or (inspect.isclass(member) and not issubclass(member, BaseModel)):
            said = f"{module.__name__.removeprefix('featdyn.')}.{name}"
            yield said, member
            if inspect.isclass(member):
                methods = {n: getattr(m, "__func__", m) for n, m in vars(member).items() if n[0] != "_"}
                yield from ((f"{said}.{n}", m) for n, m in methods.items() if inspect.isfunction(m))


def functions(module: ModuleType) -> Iterator[str]:
    """Yield the defaults of public functions and classes, a line each."""
    for name, member in public(module):
        defaults = {n: p.default for n, p in inspect.signature(member).parameters.items()}
        said = [f"{n}={v!r}" for n, v in defaults.items() if isinstance(v, bool | int | float | str) and v == v != ""]
        if said:
            yield f"- `{name}`: `{', '.join(said)}`"


def networks() -> Iterator[str]:
    """Yield the options of each network that is known by name, a line each."""
    from featdyn.networks.registry import _BUILDERS

    for name, (builder, _) in _BUILDERS.items():
        options = [p for p in inspect.signature(builder).parameters.values() if p.kind is p.KEYWORD_ONLY]
        if options:
            yield f"- `{name}`: `{', '.join(f'{p.name}={p.default!r}' for p in options)}`"


def studies() -> Iterator[tuple[str, FieldInfo]]:
    """Yield the fields of a study's file, and of each kind of quantity."""
    from featdyn.reproduce import study
    from featdyn.reproduce.quantities import KINDS

    parts = (study.Scale, study.Place, study.Ask, study.Experiment, study.Time, study.Quantity, study.Need, study.Claim)
    for name, of in ({part.__name__.lower(): part for part in parts} | KINDS).items():
        yield from ((f"{name}.{key}", field) for key, field in of.model_fields.items())


def choices() -> Iterator[str]:
    """Yield the numbers that modules name and call our choice, a line each, with what is said of them.

    What they say decides: those of memory, blocks and caches change no result, and do not say so.
    """
    for path in sorted(ENGINE.rglob("*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        module = ".".join(path.relative_to(ENGINE).with_suffix("").parts).removesuffix(".__init__")
        for node, after in pairwise(body):
            why = ast.get_docstring(ast.Module([after], [])) if isinstance(after, ast.Expr) else None
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and why and OURS.search(why):
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                if any(type(n.value) in (int, float) for n in ast.walk(node.value) if isinstance(n, ast.Constant)):
                    yield f"- `{module}.{ast.unparse(target)} = {ast.unparse(node.value)}`: {' '.join(why.split())}"


def page() -> str:
    """Return the page."""
    import featdyn
    from featdyn import data, query, report, statistics, store
    from featdyn.analysis import analyses
    from featdyn.compute.options import ComputeOptions
    from featdyn.training import stage
    from featdyn.training.recipe import Recipe

    parts = [HEAD, "## Recipes\n"]
    tables = {
        name: field.annotation
        for name, field in Recipe.model_fields.items()
        if hasattr(field.annotation, "model_fields")
    }
    parts.append(table((f"{name}.{key}", f) for name, of in tables.items() for key, f in of.model_fields.items()))
    for name, analysis in analyses().items():
        if analysis.module.startswith("featdyn."):
            said = f"Version {analysis.version}: of another version nothing is kept."
            parts += [f"\n## `{name}`\n", said + "\n", table(analysis.options.model_fields.items())]
    parts += [
        "\n## Studies\n",
        table(studies()),
        "\n## Workers\n",
        table(ComputeOptions.model_fields.items()),
        "\n## Commands\n",
        *commands(),
        "\n## Networks\n",
        *networks(),
        "\n## Functions and classes\n",
        *(line for module in (featdyn, data, query, report, store, stage) for line in functions(module)),
        "\n## Functions of arrays\n",
        *functions(statistics),
        "\n## Numbers chosen\n",
        *choices(),
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
