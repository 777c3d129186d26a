"""An exclusive right to a store: to write, which one writer has, or to publish, which goes round."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

from featdyn.errors import StoreError


class HeldError(StoreError):
    """Another process has the lock."""


class Lock(ABC):
    """An exclusive right, as a context manager."""

    taken_over = False
    """Whether the writer before may still be at work: on its last request, as it thinks that it holds the lock."""

    @property
    @abstractmethod
    def held(self) -> bool:
        """Whether this process has it; a child forked from one that has does not."""

    @abstractmethod
    def try_acquire(self) -> None:
        """Take it or raise: :class:`HeldError` where another has it, else :class:`StoreError`."""

    @abstractmethod
    def release(self) -> None:
        """Give it back."""

    def check(self, lasting: float = 0.0) -> None:  # noqa: B027  not every right can be lost
        """Raise :class:`StoreError` unless it is held, for so many more seconds, where it can be lost."""

    def acquire(self, patience: float = 0.0) -> None:
        """Take it, waiting so many seconds for who has it, or raise :class:`StoreError`."""
        until, pause = time.monotonic() + patience, 0.02
        while True:
            try:
                return self.try_acquire()
            except HeldError:
                if time.monotonic() >= until:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 0.5)

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class WriterLock(Lock):
    """The exclusive right to add checkpoints, to repair and to collect garbage."""

    @abstractmethod
    def alone(self) -> bool:
        """Return whether this process has it and no other writes for it; from then on none can."""

    @abstractmethod
    def invite(self) -> str:
        """Let other processes write too; return what they have to know."""

    @abstractmethod
    def remove(self) -> None:
        """Remove its file: there is no store to be locked."""
