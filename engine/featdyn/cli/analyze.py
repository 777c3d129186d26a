"""``featdyn analyze``: one subcommand for each analysis, its flags made from the analysis's options."""

# ruff: noqa: D102  as click says

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import click

from featdyn.cli import named
from featdyn.cli.flags import flags
from featdyn.cli.progress import bar
from featdyn.cli.said import called, say
from featdyn.cli.workers import compute_flags, opened
from featdyn.errors import FeatdynError
from featdyn.nearest import nearest
from featdyn.output import quoted

if TYPE_CHECKING:
    from featdyn.analysis import Analysis


ALL = "all"
"""Every analysis for which a store has what it needs: the flag, and the command that stands for it."""


class Analyses(click.Group):
    """The analyses as subcommands, behind any number of stores; what there is, the registry says."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take what comes before the name of an analysis for stores."""
        names = self.list_commands(ctx)
        words = [*takewhile(lambda arg: not arg.startswith("-"), args)]
        at = next((i for i, word in enumerate(words) if word in names), len(words))
        if at < len(words):
            if not at and not {"-h", "--help"} & set(args) and not ctx.resilient_parsing:
                raise click.UsageError(f"name a store before {words[0]}: featdyn analyze STORE {words[0]}", ctx)
            ctx.obj = words[:at]
            more = [*takewhile(lambda word: word in names, words[at:])]
            if rest := words[at + len(more) :]:
                raise click.UsageError(f"no analysis {rest[0]!r}: {nearest(rest[0], names)}", ctx)
            if len(more) > 1:
                args = [*args[:at], ",".join(dict.fromkeys(more)), *args[at + len(more) :]]
        elif f"--{ALL}" in args and words:
            ctx.obj = words
            args = [*words, ALL, *(arg for arg in args[at:] if arg != f"--{ALL}")]
        elif words and not ctx.resilient_parsing and not {"-h", "--help"} & set(args):
            if len(words) == 1:
                raise click.UsageError(f"name an analysis after {words[0]}: {', '.join(names)}", ctx)
            raise click.UsageError(f"no analysis {words[-1]!r}: {nearest(words[-1], names)}", ctx)
        return super().parse_args(ctx, args[at:])

    def list_commands(self, ctx: click.Context) -> list[str]:
        from featdyn.analysis import analyses

        return list(analyses())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        from featdyn.analysis import analyses

        known = analyses()
        if cmd_name == ALL:
            return _command(ALL, *known.values())
        if all(name in known for name in cmd_name.split(",")):
            return _command(cmd_name, *(known[name] for name in cmd_name.split(",")))
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each analysis with its whole question on one line."""
        from featdyn.analysis import analyses

        width = max(map(len, analyses()))
        with formatter.section("Analyses"):
            for name, analysis in analyses().items():
                formatter.write(f"  {name:<{width}}  {analysis.question}\n")

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write an example."""
        formatter.write(f"\n  Example: featdyn analyze run.zarr {self.list_commands(ctx)[0]}\n")


class _Command(click.Command):
    """One analysis: its stores come before its name."""

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write where the stores stand."""
        formatter.write_usage(f"{ctx.parent.command_path if ctx.parent else ''} STORE... {self.name}", "[OPTIONS]")


@click.group(
    cls=Analyses,
    subcommand_metavar="STORE... ANALYSIS... [OPTIONS]",
    options_metavar="",
    no_args_is_help=True,
)
def command() -> None:
    """Run an analysis on each STORE and commit its result there; featdyn analyze ANALYSIS --help lists its options.

    Of several analyses, or --all for which a store has what they need, each takes the options that it has, and what
    more than one of them reads or computes is read and computed once. An analysis that fails on one store is run on the
    others; the exit code is then 1.
    """


def _asked(analysis: Analysis) -> list[click.Parameter]:
    """Return the flags that say where a user's own network and training are."""
    trains = "training data" in analysis.needs
    found = []
    if trains or "network" in analysis.needs or "cuts" in analysis.options.model_fields:
        said = "A function that makes the network; needed where featdyn did not train it."
        found.append(click.Option(["--model"], metavar="MODULE:FACTORY", help=said))
        said = "With --model: (model, inputs) -> outputs, where it was recorded with one."
        found.append(click.Option(["--forward"], metavar="MODULE:FUNCTION", help=said))
        said = "With --model: (outputs) -> logits, where it was recorded with a function; keys are known."
        found.append(click.Option(["--output"], metavar="MODULE:FUNCTION", help=said))
    if trains:
        said = "With --model: batches (inputs, labels) of its training, or a function that makes them."
        found.append(click.Option(["--batches"], metavar="MODULE:LOADER", help=said))
        said = "With --model: (outputs, labels) -> (sample,); cross-entropy by default."
        found.append(click.Option(["--loss"], metavar="MODULE:FUNCTION", help=said))
    return [*found]


def _command(name: str, *analyses: Analysis) -> click.Command:
    def run(
        fresh: bool,
        model: str | None = None,
        batches: str | None = None,
        loss: str | None = None,
        forward: str | None = None,
        output: str | None = None,
        **options: Any,
    ) -> None:
        context, tried, failed = click.get_current_context(), 0, 0
        stores = context.obj
        own: dict[str, Any] = {"model": named.factory(model) if model else None}
        own |= {"batches": named.made(batches) if batches else None}
        functions = {"loss": loss, "forward": forward, "output": output}
        own |= {name: named.named(given) for name, given in functions.items() if given}
        with opened(options) as workers:
            # A default is nobody's wish: of what was asked for, analyses ask more than of what was not (see ROLES).
            default = click.core.ParameterSource.DEFAULT
            options = {k: v for k, v in options.items() if context.get_parameter_source(k) is not default}
            for store in stores:
                with bar(name) as update:
                    own |= {"progress": update, "workers": workers, "fresh": fresh}
                    for found in _answers(name, analyses, store, **own, **options):
                        tried += 1
                        if isinstance(found, FeatdynError):
                            if len(stores) == len(analyses) == 1:
                                raise found
                            click.echo(f"featdyn: {found}", err=True)
                            failed += 1
                            continue
                        look = f"{called()} report {quoted(store)} -o report.html"
                        say(f"{store}: {found.attrs['path']} committed; look at it with: {look}")
        if failed:
            click.echo(f"{failed} of {tried} {'stores' if len(analyses) == 1 else 'analyses'} failed", err=True)
            sys.exit(1)

    params = {p.name: p for a in analyses for p in [*_asked(a), *flags(a.options)]}
    again = click.Option(["--fresh"], is_flag=True, help="Reuse nothing of earlier results.")
    one = len(analyses) == 1
    return _Command(
        f"--{ALL}" if name == ALL else " ".join(a.name for a in analyses),
        callback=run,
        params=[*params.values(), again, *compute_flags()],
        help="\n\n".join([a.question for a in analyses] + [a.source for a in analyses if one]),
        epilog=f"Example: featdyn analyze run.zarr {f'--{ALL}' if name == ALL else name.replace(',', ' ')}",
    )


def _answers(name: str, analyses: tuple[Analysis, ...], store: str, **given: Any) -> Iterator[Any]:
    """Yield for each analysis of a store its result, or why there is none."""
    from featdyn.analysis.driver import analyze_one
    from featdyn.analysis.several import answerable, several
    from featdyn.store import Run

    try:
        if len(analyses) == 1:
            yield analyze_one(store, analyses[0], **given)
            return
        chosen = answerable(Run(store), given["model"], given["batches"]) if name == ALL else list(analyses)
        for _, found in several(store, chosen, **given):
            yield found
    except FeatdynError as error:
        yield error
