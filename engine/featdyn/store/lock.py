"""One writer per store, held by the operating system: a killed writer leaves no stale lock behind."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from types import TracebackType

from featdyn.errors import StoreError

NAME = ".featdyn.lock"


class WriterLock:
    """Exclusive right to write one store, as a context manager; a second writer gets a :class:`StoreError`."""

    taken_over = False  # the system gives the lock of a process away only when the process is gone

    def __init__(self, store: Path) -> None:
        self._path = store / NAME
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock or raise; the file says who holds it."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreError(f"{self._path.parent} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise StoreError(f"{self._path.parent} is being written by {holder}: wait for it or stop it") from error
        if not self._path.exists() or os.fstat(descriptor).st_ino != self._path.stat().st_ino:
            os.close(descriptor)  # removed meanwhile by a writer that ended without a commit: the lock guards nothing
            raise StoreError(f"{self._path.parent} was given up by another writer just now: try again")
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        self._descriptor = descriptor

    def release(self, *, sure: bool = True) -> None:
        """Give the lock back."""
        if self._descriptor is not None:
            os.close(self._descriptor)  # closing drops the lock
            self._descriptor = None

    def __enter__(self) -> WriterLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
