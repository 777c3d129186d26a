"""A file system that fails, is left by its process, or loses its power, at any operation that is chosen."""

from __future__ import annotations

import builtins
import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISDIR
from typing import Any, TypeAlias
from unittest import mock

from featdyn.store import files


class Killed(BaseException):
    """The process is gone: not an Exception, so that nothing handles it."""


class Faults:
    """Counts changes to the file system and lets the chosen one fail: by an error, or with the process.

    After a kill nothing changes the disk any more, whatever the code still tries. A write ``cut`` in silence stops half
    way and says that it did not; nothing else fails then. ``meanwhile`` is called at the chosen change, before it, in
    place of a fault.
    """

    def __init__(
        self,
        at: int = 0,
        *,
        kill: bool = False,
        code: int = errno.EIO,
        cut: int = 0,
        meanwhile: Callable[[], object] | None = None,
    ) -> None:
        self.at, self.kill, self.code, self.cut, self.meanwhile = at, kill, code, cut, meanwhile
        self.count, self.dead = 0, False
        self.writes: list[int] = []  # which changes can stop half way

    def change(self, partly: Callable[[], object] | None = None) -> bool:
        """Be called before each change; ``partly`` does some of it, which a fault may leave behind.

        Returns whether that is all that shall be done.
        """
        if self.dead:
            raise Killed
        self.count += 1
        if partly is not None:
            self.writes.append(self.count)
        if self.count == self.at and self.meanwhile is not None:
            self.at = 0
            self.meanwhile()
        elif self.count == self.at:
            if partly is not None:
                partly()
            self.dead = self.kill
            raise Killed if self.kill else OSError(self.code, os.strerror(self.code))
        if self.count == self.cut and partly is not None:
            partly()
            return True
        return False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Stand between the store and the operating system."""
        names = ("fsync", "rename", "mkdir", "unlink", "rmdir")
        with (
            mock.patch.object(files, "open", self.open, create=True),
            mock.patch.multiple(os, **{name: self.guarded(getattr(os, name)) for name in names}),
        ):
            yield

    def guarded(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def guard(*args: Any, **kwargs: Any) -> Any:
            self.change()
            return call(*args, **kwargs)

        return guard

    def open(self, path: Path, mode: str, buffering: int = -1) -> Any:
        if mode != "wb":
            return builtins.open(path, mode, buffering)
        self.change()
        return FaultyFile(self, path)


class Unreadable(Faults):
    """Lets the chosen look at a file of a store fail by an error, as a change does."""

    @contextmanager
    def installed(self) -> Iterator[None]:
        with mock.patch.object(files.Folder, "inside", self.looked(files.Folder.inside)):
            yield

    def looked(self, inside: Callable[..., Path]) -> Callable[..., Path]:
        def look(place: files.Folder, path: str) -> Path:
            self.change()
            return inside(place, path)

        return look


class FaultyFile:
    """A file whose writes may fail half-way; unbuffered, as what a dead process has buffered is lost."""

    def __init__(self, faults: Faults, path: Path) -> None:
        self.faults = faults
        self.file = builtins.open(path, "wb", buffering=0)  # noqa: SIM115

    def write(self, content: bytes) -> int:
        done = self.faults.change(lambda: self.file.write(bytes(content)[: len(content) // 2]))
        return len(content) if done else self.file.write(content)

    def flush(self) -> None:
        pass

    def fileno(self) -> int:
        return self.file.fileno()

    def __enter__(self) -> FaultyFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


Choose: TypeAlias = Callable[[Sequence[Any]], Any]
"""Of what a disk may have kept, from the least to the most."""

LEAST: Choose = lambda kept: kept[0]  # noqa: E731
TORN: Choose = lambda kept: kept[len(kept) // 2]  # noqa: E731  all names, but half of each file that was not synced


class Disk(Faults):
    """A disk that loses its power: it keeps what was synced, and of the rest whatever it likes.

    A file's content is kept once the file is synced, a name once its folder is.
    """

    def __init__(self, at: int) -> None:
        super().__init__(at, kill=True)
        self.contents: dict[int, bytes] = {}
        self.names: dict[int, dict[str, tuple[int, bool]]] = {}

    @contextmanager
    def installed(self) -> Iterator[None]:
        with mock.patch.object(os, "fsync", self.sync), super().installed():
            yield

    def sync(self, descriptor: int) -> None:
        self.keep(Path(os.readlink(f"/proc/self/fd/{descriptor}")))

    def keep(self, path: Path, *, below: bool = False) -> None:
        """Know that a file, or the names in a folder, are on the disk; with ``below`` all that lies there."""
        about = path.stat()
        if S_ISDIR(about.st_mode):
            self.names[about.st_ino] = names(path)
            for inner in path.iterdir() if below else ():
                self.keep(inner, below=True)
        else:
            self.contents[about.st_ino] = path.read_bytes()

    def lose_power(self, path: Path, choose: Choose) -> None:
        """Leave below a folder what the disk kept."""
        kept = self.left(path.stat().st_ino, path, choose)
        shutil.rmtree(path)
        build(path, kept)

    def left(self, folder: int, path: Path | None, choose: Choose) -> dict[str, Any]:
        """Return what is left of a folder, which lies at a path, or nowhere any more."""
        synced, now, tree = self.names.get(folder, {}), names(path) if path else {}, {}
        gone = {about: name for name, about in synced.items() if name not in now}
        renamed = {name: gone[about] for name, about in now.items() if about in gone and about != synced.get(name)}
        # A rename is one change, of two names: it comes whole.
        changes = {renamed[name]: choose((False, True)) for name in sorted(renamed)}
        for name in sorted({*synced, *now}):
            old, new, rename = synced.get(name), now.get(name), renamed.get(name, name)
            kept = old if old == new else (old, new)[changes[rename]] if rename in changes else choose((old, new))
            if kept is not None:
                there = path / name if path and kept == new else None
                tree[name] = (self.left if kept[1] else self.content)(kept[0], there, choose)
        return tree

    def content(self, file: int, path: Path | None, choose: Choose) -> bytes:
        if file in self.contents or path is None:
            return self.contents.get(file, b"")
        whole = path.read_bytes()
        return choose((b"", whole[: len(whole) // 2], whole))


def names(folder: Path) -> dict[str, tuple[int, bool]]:
    return {p.name: (p.stat().st_ino, p.is_dir()) for p in folder.iterdir()}


def build(path: Path, tree: dict[str, Any]) -> None:
    path.mkdir()
    for name, content in tree.items():
        if isinstance(content, bytes):
            (path / name).write_bytes(content)
        else:
            build(path / name, content)
