"""What the shell may complete an argument with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

import click
from click.shell_completion import CompletionItem

Names = Callable[[click.Context, str], Iterable[str]]
"""From what stands on the line before, and the beginning of the word, to the names that there are."""


def completing(names: Names) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Return what click asks for the names that begin so; it says nothing of what is wrong."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        with suppress(Exception):
            return [CompletionItem(name) for name in names(ctx, incomplete) if name.startswith(incomplete)]
        return []

    return complete
