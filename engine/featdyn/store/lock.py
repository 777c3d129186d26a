"""Who may write a folder, held by the operating system: a killed process leaves no stale lock behind.

There are three locks, each on a file of its own. The writer's is held by who adds checkpoints, repairs or collects
garbage, for as long as that takes. The turn is held by whoever publishes, the writer too, and only while it does: so
the result of an analysis is committed between two checkpoints of a training. The ranks' is shared by the processes that
add files to the checkpoint at hand for the writer: it may be killed while one of these, which has not noticed yet,
still writes a shard, and then the next writer would write the same file; so that one waits until nobody holds it.
"""

# ruff: noqa: D102  methods without a docstring do what the classes of place.py say

from __future__ import annotations

import errno
import logging
import os
import secrets
import socket
from contextlib import suppress
from pathlib import Path
from weakref import WeakSet

from featdyn.errors import StoreError
from featdyn.store import right
from featdyn.store.lease import NAME, SECONDS, Lease, alive, several
from featdyn.store.lease_file import LeaseFile

try:
    import fcntl
except ImportError:  # Windows, where a store can be read
    fcntl = None  # type: ignore[assignment]

LOG = logging.getLogger("featdyn")
TURN = ".featdyn.turn"
RANKS = ".featdyn.ranks"  # there while a writer of several processes is at work
NAMES = (NAME, TURN, RANKS)
_LEASE = f"{NAME}."  # and a number, where there are no locks
_NONE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)

_files: WeakSet[LockedFile] = WeakSet()


def is_lock(name: str) -> bool:
    """Whether a file of a store, by its name, is one of these."""
    return name in NAMES or name.startswith(_LEASE)


class _NoLocks(OSError):
    """The file system, or the operating system, has none."""


class LockedFile:
    """A file that this process may lock; what is forked from it neither keeps the lock nor can give it back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor: int | None = None
        _files.add(self)

    def lock(self, *, shared: bool = False, create: bool = False) -> bool:
        """Lock it; return False where another process has.

        Raises FileNotFoundError if there is no such file and none was to be made, and OSError if it cannot be opened
        for writing or its file system has no locks.
        """
        made = create and not self.path.exists()
        self.descriptor = os.open(self.path, os.O_RDWR | (os.O_CREAT if create else 0), 0o644)
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
            fcntl.flock(self.descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            self.close()
            return False
        except OSError as error:
            self.close()
            if made:
                self.path.unlink(missing_ok=True)
            if error.errno in _NONE:
                raise _NoLocks(error.errno, f"its file system has no file locks ({error.strerror})") from error
            raise

    def stands(self) -> bool:
        """Whether what is locked still lies at that path: else the lock guards nothing."""
        try:
            return self.descriptor is not None and os.path.samestat(os.fstat(self.descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def unlock(self) -> None:
        """Give the lock back, also where something that was forked by other means than Python's has the file open."""
        if self.descriptor is not None:
            with suppress(OSError):
                fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        self.close()

    def close(self) -> None:
        """Do, in a child just forked, as if it had never been locked: the parent's lock stays."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


def _forget() -> None:
    for file in list(_files):
        file.close()


if hasattr(os, "register_at_fork"):  # no system without it forks
    os.register_at_fork(after_in_child=_forget)


class FolderLock(right.Lock):
    """An exclusive lock of a folder, never taken over: the system gives it away only from a process that is gone.

    It lies on a file of the folder, whose content says who holds it. Where the file system has no locks it is a lease,
    the same one whatever the name of the lock.
    """

    def __init__(self, store: Path, name: str) -> None:
        self._store = store
        self._file = LockedFile(store / name)
        self._lease: Lease | None = None

    @property
    def leased(self) -> bool:
        """Whether it is a lease."""
        return self._lease is not None

    def try_acquire(self) -> None:
        if self._lease is not None:
            self._lease.try_acquire()
            self.taken_over = self._lease.taken_over
            self._lease.sure = True  # a rename is done at once, or never
            return
        try:
            locked = self._file.lock(create=True)
        except _NoLocks as error:
            if fcntl is None:
                raise StoreError(f"{self._store} cannot be written: {error.strerror}, which a writer needs") from error
            LOG.warning(
                "%s: %s: a lease is taken instead, which a writer that is killed leaves for %.0f s",
                self._store, error.strerror, SECONDS,
            )  # fmt: skip
            self._lease = Lease(LeaseFile(self._store), self._store)
            self.try_acquire()
            return
        except OSError as error:
            raise StoreError(f"{self._store} cannot be written: {error.strerror}") from error
        if not locked:
            raise right.HeldError(f"{self._store} is being written by {self._holder()}: wait for it or stop it")
        if not self._file.stands():
            self._file.unlock()
            raise right.HeldError(f"{self._store} was given up by another writer just now: try again")
        assert self._file.descriptor is not None
        with suppress(OSError):  # for people only: on a full disk the lock holds without it
            os.ftruncate(self._file.descriptor, 0)
            os.pwrite(self._file.descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    @property
    def held(self) -> bool:
        return self._file.descriptor is not None if self._lease is None else self._lease.held

    def check(self, lasting: float = 0.0) -> None:
        if self._lease is not None:
            self._lease.check(lasting)
        elif not self._file.stands():  # what lies at that path now may be another run, with its own writer
            raise StoreError(
                f"{self._store}: it was moved, replaced or removed while it was being written, or its "
                f"{self._file.path.name} was: nothing more is written there; open the store again"
            )

    def release(self) -> None:
        self._file.unlock()
        if self._lease is not None:
            self._lease.release()

    def _holder(self) -> str:
        """Return who has the lock as far as that is known: never who has ended."""
        try:
            name = self._file.path.read_text(errors="replace").strip()
            _, pid, _, host = name.split(" ", 3)
            return name if host != socket.gethostname() or alive(int(pid)) else "another process"
        except (OSError, ValueError):
            return "another process"


class WriterLock(FolderLock, right.WriterLock):
    """The exclusive right to add checkpoints, to repair and to collect garbage."""

    def __init__(self, store: Path) -> None:
        super().__init__(store, NAME)
        self._ranks = LockedFile(store / RANKS)

    def try_acquire(self) -> None:
        super().try_acquire()
        if not self.leased and not self.alone():
            self.release()
            raise right.HeldError(
                f"{self._store} is being written by a process of a run that was stopped: wait for it or stop it"
            )

    def alone(self) -> bool:
        """Return whether this process has the lock and no other writes for it; from then on none can."""
        if self.leased or not self.held:
            return self.held
        try:
            if not self._ranks.lock():
                return False
            self._ranks.path.unlink()
        except FileNotFoundError:
            return True
        finally:
            self._ranks.unlock()
        return True

    def invite(self) -> str:
        """Let other processes write too, through :class:`RankLock`; return what they have to know."""
        if self.leased:
            raise several(self._store, "on a file system without locks")
        token = secrets.token_hex(16)
        self._ranks.path.write_text(token)
        return token

    def remove(self) -> None:
        """Remove the lock's file; until it is released nobody can mistake another for it."""
        (self._store / TURN).unlink(missing_ok=True)  # without a store nobody else can have a turn
        self._file.path.unlink(missing_ok=True)
        if self.leased:
            LeaseFile(self._store).delete(NAME)


class RankLock:
    """The right to add files for the holder of the lock, which other processes may have at the same time.

    Who has it must hear from the holder of the lock once more before it writes: then no other writer can have come.
    """

    def __init__(self, store: Path, token: str) -> None:
        self._file = LockedFile(store / RANKS)
        self._token = token

    @property
    def held(self) -> bool:
        return self._file.descriptor is not None

    def acquire(self) -> None:
        """Take it or raise, if this is not the folder of the writer that gave the token."""
        with suppress(OSError):
            if self._file.lock(shared=True) and self._file.path.read_text() == self._token and self._file.stands():
                return
        self._file.unlock()
        raise StoreError(
            f"{self._file.path.parent}: {socket.gethostname()} does not see what the first rank writes there: "
            "all ranks need the same folder, on a file system that they share"
        )

    def release(self) -> None:
        self._file.unlock()
