"""Drop what is damaged and as little else as possible, by publishing a root that no longer names it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path

from featdyn.errors import StoreError
from featdyn.store import commit, files
from featdyn.store import root as roots
from featdyn.store.lock import WriterLock
from featdyn.store.root import COPY, NAME, Root
from featdyn.store.verify import Verdict, inspect


@dataclass(frozen=True)
class Repair:
    """What :func:`repair` did.

    Attributes
    ----------
    verdict
        What was wrong with the files of the root that it started from.
    source
        That root's file: ``zarr.json``, or what was left of it elsewhere when it was damaged.
    aside
        Where the root of before was put; None when there was none.
    changed
        Whether anything had to be done.
    checkpoints
        That the store holds now.
    """

    verdict: Verdict
    source: str
    aside: str | None
    checkpoints: int
    changed: bool


def repair(path: str | Path, progress: Callable[[int, int], None] | None = None) -> Repair:
    """Check a whole store; drop damaged results, and damaged checkpoints with all that follows from them.

    No file is removed (:func:`~featdyn.store.gc` does that) and the root of before stays aside: putting it back undoes
    this, until the run goes on or is cleared. A root that is damaged itself is made anew from its copy.

    Parameters
    ----------
    path
        A store that nobody writes.
    progress
        As for :func:`~featdyn.store.verify`.

    Raises
    ------
    StoreError
        No store, or one in use; damage in the first checkpoint, on which all else stands; or a root of which no copy is
        left. Nothing is changed then.
    """
    store = Path(path)
    if not roots.lost(store):
        roots.read(store)  # what is no store is refused before a lock file appears in it
    with WriterLock(store):
        source, root = _newest(store)
        verdict = inspect(store, root, progress)
        if 1 in verdict.damaged:
            raise StoreError(
                f"{store}: the damage reaches the first commit, on which all others stand ({verdict.problems[0]}): "
                "nothing was changed; put this file back from a backup, or record the run again"
            )
        if verdict.sound and source == NAME:
            return Repair(verdict, source, None, root.checkpoints, changed=False)
        with files.disk(store):
            aside = _put_aside(store)
            after = root.without(root.lost(verdict.damaged))
            if any(entry.kind == commit.DROPPED for entry in after.commits):
                commit.write_nothing(store)
            content = after.encode()
            files.replace(store, COPY, content)  # first: the one whole root that is left may be .zarr.json.new
            roots.write_leaves(store, after.nodes)  # first: they must not be ahead of the root, and here they shrink
            files.replace(store, NAME, content)
        return Repair(verdict, source, aside, after.checkpoints, changed=True)


def _newest(store: Path) -> tuple[str, Root]:
    """Return the root, or when it is damaged the best that is left of it, with the name of its file."""
    for name in (NAME, COPY, f".{NAME}.new", *reversed(_asides(store))):
        try:
            content = files.read(store, name)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StoreError(f"{store}: {name}: {error.strerror}") from error
        if roots.intact(content):
            return name, Root.decode(content, store)
    raise StoreError(
        f"{store}: its {NAME} is damaged, and there is no whole copy of it, so nothing was changed: put it back from a "
        "backup; each array can still be opened by its own folder, and checkpoints/*/*.safetensors by torch"
    )


def _asides(store: Path) -> list[str]:
    names = (f"commits/root.{number}.json" for number in count(1))
    return list(takewhile(lambda name: files.exists(store, name), names))


def _put_aside(store: Path) -> str | None:
    try:
        content = files.read(store, NAME)
    except FileNotFoundError:
        return None
    name = f"commits/root.{len(_asides(store)) + 1}.json"
    files.write(store, name, [content])
    files.sync_folders(store, [name])
    return name
