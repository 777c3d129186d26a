"""The command line: thin commands, imported only when they run."""

from featdyn.cli.main import main

__all__ = ["main"]
