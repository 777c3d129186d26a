"""What a command says of work that is done, whether or not standard output can take it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

from featdyn.output import quoted


def called() -> str:
    """Return what stands for ``featdyn`` where this person is: how it was called, where no shell finds that name."""
    if shutil.which("featdyn"):
        return "featdyn"
    program, python = sys.argv[0], quoted(sys.executable)
    if Path(program).name == "__main__.py":
        return f"{python} -m featdyn"
    return quoted(program) if os.access(program, os.X_OK) else f"{python} {quoted(program)}"


def say(text: str) -> None:
    """Write lines to standard output; where that is full or nobody reads it, to standard error, from then on.

    What was committed stays committed, so this is no failure of the command.
    """
    try:
        click.echo(text)
    except OSError:
        drop_output()
        sys.stdout = sys.stderr
        click.echo(text)


def drop_output() -> None:
    """Lead standard output to nowhere: else what it could not take fails once more when the process ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
