"""``featdyn analyze``: one subcommand for each analysis, its flags made from the analysis's options."""

# ruff: noqa: D102  as click says

from __future__ import annotations

import sys
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

if TYPE_CHECKING:
    from featdyn.analysis import Analysis


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

        found = analyses().get(cmd_name)
        return None if found is None else _command(found)

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
    subcommand_metavar="STORE... ANALYSIS [OPTIONS]",
    options_metavar="",
    no_args_is_help=True,
)
def command() -> None:
    """Run an analysis on each STORE and commit its result there; featdyn analyze ANALYSIS --help lists its options.

    An analysis that fails on one store is run on the others; the exit code is then 1.
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


def _command(analysis: Analysis) -> click.Command:
    def run(
        fresh: bool,
        model: str | None = None,
        batches: str | None = None,
        loss: str | None = None,
        forward: str | None = None,
        output: str | None = None,
        **options: Any,
    ) -> None:
        from featdyn.analysis.driver import analyze

        context, failed = click.get_current_context(), 0
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
                try:
                    with bar(analysis.name) as update:
                        own |= {"progress": update, "workers": workers, "fresh": fresh}
                        found = analyze(store, analysis, **own, **options)
                except FeatdynError as error:
                    if len(stores) == 1:
                        raise
                    click.echo(f"featdyn: {error}", err=True)
                    failed += 1
                    continue
                look = f"{called()} report {store} -o report.html"
                say(f"{store}: {found.attrs['path']} committed; look at it with: {look}")
        if failed:
            click.echo(f"{failed} of {len(stores)} stores failed", err=True)
            sys.exit(1)

    again = click.Option(["--fresh"], is_flag=True, help="Reuse nothing of earlier results.")
    return _Command(
        analysis.name,
        callback=run,
        params=[*_asked(analysis), *flags(analysis.options), again, *compute_flags()],
        help=f"{analysis.question}\n\n{analysis.source}",
        epilog=f"Example: featdyn analyze run.zarr {analysis.name}",
    )
