"""``featdyn``: finds the command, runs it, and turns what can go wrong into one line and an exit code."""

# ruff: noqa: D102  as click says

from __future__ import annotations

import importlib
import logging
import os
import re
import sys
import traceback
from itertools import pairwise

import click

from featdyn import __version__
from featdyn.cli.said import drop_output
from featdyn.errors import FeatdynError
from featdyn.extras import asked_for
from featdyn.nearest import nearest
from featdyn.output import shown

# Name to one line, so that --help imports no command.
COMMANDS = {
    "demo": "Train, record, stitch and report on data that needs no download.",
    "train": "Train a recipe and record it; the same command again resumes.",
    "capture": "Record checkpoints that exist, of any network.",
    "import": "Bring recordings of other tools into a store.",
    "info": "Show what a store holds.",
    "query": "Select, reduce, group and sort arrays of a store.",
    "sql": "Ask a store in SQL.",
    "analyze": "Answer a question about a store, and keep the answer in it.",
    "replay": "Compute stored results again, and say whether they come out the same.",
    "export": "Write a composite of checkpoints as a state dict.",
    "reproduce": "Run a study again, and judge its claims by rules that were written before.",
    "compare": "Put runs side by side, in one table and one figure.",
    "report": "Write a store's HTML report.",
    "plot": "Draw a figure of a store for paper.",
    "serve": "Show a store in a browser while it is written.",
    "verify": "Check every committed byte of a store; drop what is damaged.",
    "gc": "Remove from a store what no commit names.",
    "compact": "Rewrite a store of an older format, with fewer files.",
}


class Commands(click.Group):
    """The commands of :data:`COMMANDS`, each in the module of its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"featdyn.cli.{cmd_name}")
        command: click.Command = module.command
        command.name = cmd_name
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command, or say which one may have been meant."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"No such command {args[0]!r}: {nearest(args[0], COMMANDS)}")
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and not ctx.resilient_parsing:
            _refuse_options_as_values(command, rest, ctx)
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="featdyn")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def featdyn(debug: bool) -> None:
    """Record what happens inside a network while it trains, and ask questions about it afterwards."""


def _refuse_options_as_values(command: click.Command, args: list[str], ctx: click.Context) -> None:
    """Refuse ``--sort --top 3``, where click takes ``--top`` for the column."""
    options = {name: option for option in command.params for name in (*option.opts, *option.secondary_opts)}
    words = args[: args.index("--")] if "--" in args else args
    for word, value in pairwise(words):
        option = options.get(word)
        takes = isinstance(option, click.Option) and not option.is_flag and not option.count
        if takes and value.startswith("--") and value.partition("=")[0] in options:
            raise click.UsageError(f"Option {word!r} requires an argument, and {value} is an option.", ctx)


def main() -> None:
    """Run the command line and exit: 0 on success, 2 on wrong usage, 130 when interrupted, else 1."""
    debug = "--debug" in sys.argv[1:2]
    if not sys.stdout:  # closed, as by >&-
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  until the process ends
    log = logging.getLogger("featdyn")  # what analyses say before they start
    if not log.handlers:
        log.addHandler(_Echo())
    log.setLevel(logging.INFO)
    try:
        with asked_for():
            featdyn.main(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted; what was committed is safe", 130)
    except BrokenPipeError:  # the reader of a pipe has gone, as in `featdyn query ... | head`
        drop_output()
        sys.exit(1)
    except Exception as error:
        if debug:
            traceback.print_exc()
            sys.exit(1)
        _fail(_line(error), 1)


def _line(error: Exception) -> str:
    """Say in a line what went wrong; only what is a fault of ours is unexpected."""
    if isinstance(error, FeatdynError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"not enough memory ({error})" if str(error) else "not enough memory"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'standard output'}: {error.strerror}"
    return f"{type(error).__name__}: {error} (unexpected: featdyn --debug shows where)"


class _Echo(logging.Handler):
    """Writes to standard error, whatever that is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(self.format(record), err=True)


def _fail(message: str, code: int) -> None:
    message = re.sub(r"(\S{100})\S{200,}", r"\1...", message)  # what was pasted by mistake; paths are shorter
    click.echo(f"featdyn: {shown(' '.join(message.split()))}", err=True)
    sys.exit(code)
