"""The workers that the flags of a command ask for."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from featdyn.cli.flags import flags
from featdyn.compute.options import ComputeOptions

if TYPE_CHECKING:
    import click

    from featdyn.compute import Workers


def compute_flags() -> list[click.Parameter]:
    """Return the flags of :class:`featdyn.compute.ComputeOptions`."""
    return flags(ComputeOptions)


def opened(options: dict[str, Any]) -> AbstractContextManager[Workers]:
    """Take what :func:`compute_flags` added out of a command's options, and open the workers that it asks for."""
    from featdyn.compute import workers

    return workers(**{name: options.pop(name) for name in ComputeOptions.model_fields})
