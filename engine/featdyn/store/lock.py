"""One writer per store, held by the operating system: a killed writer leaves no stale lock behind.

A writer of several processes (ranks) is one that holds the lock and publishes, and others that only add files to the
checkpoint at hand. Each of these shares a second lock while it writes: the first may be killed while another, which has
not noticed yet, still writes a shard, and then the next writer would write the same file. So the next writer waits
until nobody holds the second lock.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
from contextlib import suppress
from pathlib import Path

from featdyn.errors import StoreError
from featdyn.store.place import Lock

NAME = ".featdyn.lock"
RANKS = ".featdyn.ranks"  # there while a writer of several processes is at work


class WriterLock(Lock):
    """Exclusive right to write one store; a second writer gets a :class:`StoreError`.

    It is never taken over: the system gives the lock of a process away only when the process is gone.
    """

    def __init__(self, store: Path) -> None:
        self._path = store / NAME
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock or raise; the file says who holds it."""
        store = self._path.parent
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreError(f"{store} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise StoreError(f"{store} is being written by {holder}: wait for it or stop it") from error
        if not _is_at(descriptor, self._path):
            os.close(descriptor)  # removed meanwhile by a writer that ended without a commit: the lock guards nothing
            raise StoreError(f"{store} was given up by another writer just now: try again")
        self._descriptor = descriptor
        if not self.alone():
            self.release()
            raise StoreError(f"{store} is being written by a process of a run that was stopped: wait for it or stop it")
        with suppress(OSError):  # for people only: on a full disk the lock holds without it
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())

    def alone(self) -> bool:
        """Return whether this process has the lock and no other writes for it; from then on none can."""
        if self._descriptor is None:
            return False
        path = self._path.with_name(RANKS)
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    def invite(self) -> str:
        """Let other processes write too, through :class:`RankLock`; return what they have to know."""
        token = secrets.token_hex(16)
        self._path.with_name(RANKS).write_text(token)
        return token

    def remove(self) -> None:
        """Remove the lock's file; until it is released nobody can mistake another for it."""
        self._path.unlink()

    def release(self) -> None:
        """Give the lock back."""
        if self._descriptor is not None:
            os.close(self._descriptor)  # closing drops the lock
            self._descriptor = None


class RankLock:
    """The right to add files for the holder of the lock, which other processes may have at the same time.

    Who has it must hear from the holder of the lock once more before it writes: then no other writer can have come.
    """

    def __init__(self, store: Path, token: str) -> None:
        self._path = store / RANKS
        self._token = token
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take it or raise, if this is not the folder of the writer that gave the token."""
        try:
            descriptor = os.open(self._path, os.O_RDWR)
        except OSError:
            descriptor = None
        if descriptor is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                if os.read(descriptor, 100).decode() == self._token and _is_at(descriptor, self._path):
                    self._descriptor = descriptor
                    return
            except BlockingIOError:
                pass
            os.close(descriptor)
        raise StoreError(
            f"{self._path.parent}: {socket.gethostname()} does not see what the first rank writes there: "
            "all ranks need the same folder, on a file system that they share"
        )

    def release(self) -> None:
        """Give it back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _is_at(descriptor: int, path: Path) -> bool:
    return path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino
