"""One writer per store where nothing notices that a process has died, as in a bucket: a lease.

The lease keeps a second writer away; it is not what keeps the store whole. A writer that was stopped in mid-request for
longer than its lease (a machine that slept) does not know that another has come. That is why each put of a commit is
conditional (:mod:`featdyn.store.bucket`): then nothing that is committed can be overwritten, whatever clocks say.
"""

# ruff: noqa: D102  as the classes of place.py say

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import threading
from contextlib import suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from time import time as now
from typing import Any, Protocol

from featdyn.errors import StoreError
from featdyn.store.record import Object, Refused, Version
from featdyn.store.right import HeldError, WriterLock

NAME = ".featdyn.lock"
SECONDS = 60.0  # how long a lease runs, and so after how long a killed writer's run can be continued
RENEWED = 15.0  # how often it is renewed


_LOCK = re.compile(rb"process \d+ on [^\n]*\n?")


class Conditional(Protocol):
    """Where the file of a lease lies."""

    def get(self, path: str) -> Object | None:
        """Return the file."""

    def head(self, path: str) -> Object | None:
        """Return it, perhaps without its content."""

    def put_if(self, path: str, content: bytes, before: Version) -> Version:
        """Write it if it is still in the version ``before``, else raise :class:`Refused`; return the new version."""

    def delete(self, path: str) -> None:
        """Remove it."""


def several(store: object, where: str = "in a bucket") -> StoreError:
    """Return the refusal of more than one writing process: each would have to hold the lease."""
    return StoreError(
        f"{store}: several processes cannot record into one store {where}: give a folder that all ranks share"
    )


def alive(pid: int) -> bool:
    """Whether there is such a process on this machine; where that cannot be asked, it is taken to be there."""
    if os.name == "nt":  # there it would be sent an interrupt
        return True
    try:
        os.kill(pid, 0)
    except PermissionError:  # it is there, and somebody else's
        return True
    except (OSError, OverflowError):
        return False
    return True


@cache
def _machine() -> str:
    """Return what tells this machine, as of its last start, and these numbers of processes from others; or nothing."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + " " + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


class Lease(WriterLock):
    """The exclusive right to write one store, for a time, and renewed for as long as the process works."""

    def __init__(self, client: Conditional, store: object) -> None:
        self._client, self._store, self._process = client, store, os.getpid()
        self._id, self._count = secrets.token_hex(8), 0
        self._version: Version = None
        self._expires = 0.0
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self.sure = True
        """Whether no replacement of the root can be under way, by the writer before or by this one.

        Else the lease is not given back but runs out, which tells the next writer to beware.
        """
        self.since: datetime | None = None
        """When it was taken, by the clock of the object store."""

    @property
    def held(self) -> bool:
        return self._version is not None and self._process == os.getpid()

    def try_acquire(self) -> None:
        """Take the lease or raise; the object says who holds it."""
        try:
            found = self._client.get(NAME)
            if found is not None:
                held = self._parse(found)
                left = held["expires"] - now()
                if not held["released"] and left > 0 and not held["ended"]:
                    raise HeldError(
                        f"{self._store} is being written by {held['holder']}: wait for it or stop it "
                        f"(if it is gone already, try again in {left:.0f} s)"
                    )
                self.taken_over = not held["released"]
                self.sure = not self.taken_over
            self._put(None if found is None else found.version)
            about = self._client.head(NAME)
            self.since = about.modified if about is not None else None
            self._check_conditions()
        except Refused:
            self._version = None  # of a put before the one that was refused
            raise HeldError(f"{self._store} is being written by another writer since just now: wait for it") from None
        except OSError as error:
            self.release()
            raise StoreError(f"{self._store} cannot be written: {error.strerror}") from error
        threading.Thread(target=self._keep, name="featdyn lease", daemon=True).start()

    def check(self, lasting: float = 0.0) -> None:
        """Raise unless the lease is held for so many more seconds: before each request that changes something."""
        if self.held and now() + lasting >= self._expires:
            self._renew()  # after a sleep: if nobody came meanwhile it is still ours
        if not self.held or now() + lasting >= self._expires:
            raise StoreError(
                f"{self._store}: this writer's lease ended, as it could not be renewed for {SECONDS:.0f} s or another "
                "writer has come: what is committed is safe, open the store again"
            )

    def alone(self) -> bool:
        return self.held

    def invite(self) -> str:
        """Raise: nobody else can write."""
        raise several(self._store)

    def remove(self) -> None:
        """Do nothing: to be given back is enough."""

    def release(self) -> None:
        """Give the lease back, or let it run out."""
        if self._process != os.getpid():  # a child forked from its holder
            return
        self._stop.set()
        with self._guard:
            version, self._version = self._version, None
            if self.sure and version is not None:
                with suppress(Refused, OSError):
                    self._client.put_if(NAME, self._document(now(), released=True), version)

    def _keep(self) -> None:
        while not self._stop.wait(RENEWED) and self._version is not None:
            self._renew()

    def _renew(self) -> None:
        with self._guard:
            if self._version is None:
                return
            with suppress(OSError):  # tried again soon, and until it works check() lets nothing pass
                try:
                    self._put(self._version)
                except Refused:
                    self._version = self._again()

    def _again(self) -> Version:
        """Return the new version if it was an earlier put of ours, thought lost, that changed it; else None."""
        found = self._client.get(NAME)
        try:
            if found is not None and self._parse(found)["id"] == self._id:
                self._put(found.version)
                return self._version
        except (Refused, StoreError):
            pass
        return None

    def _put(self, before: Version) -> None:
        expires = now() + SECONDS  # counted from before the request: it may take its time
        self._version = self._client.put_if(NAME, self._document(expires), before)
        self._expires = expires

    def _document(self, expires: float, *, released: bool = False) -> bytes:
        self._count += 1  # so that no two have the same bytes, of which many object stores make the version
        holder = f"process {os.getpid()} on {socket.gethostname()}"
        about = {"holder": holder, "expires": expires, "released": released, "id": self._id, "count": self._count}
        about |= {"machine": _machine(), "pid": os.getpid()}
        return json.dumps(about).encode() + b"\n"

    def _parse(self, found: Object) -> dict[str, Any]:
        if not found.content:  # as in a folder whose writer is about to write it, or was killed there
            expires = found.modified.timestamp() + SECONDS
            return {"holder": "another process", "id": "", "expires": expires, "released": False, "ended": False}
        if _LOCK.fullmatch(found.content):  # a folder's, which was copied: nobody holds it here
            return {"holder": "", "id": "", "expires": 0.0, "released": True, "ended": True}
        try:
            held = json.loads(found.content)
            here = _machine() and held.get("machine") == _machine()
            return {"holder": str(held["holder"]), "id": held["id"]} | {
                "expires": float(held["expires"]),
                "released": bool(held["released"]),
                "ended": bool(here and not alive(int(held["pid"]))),
            }
        except (ValueError, KeyError, TypeError):
            raise StoreError(f"{self._store}: its {NAME} is damaged; remove it if nobody writes there") from None

    def _check_conditions(self) -> None:
        """Raise if the object store writes what it should refuse: then two writers could not be told apart."""
        stale = self._version
        self._put(stale)
        for before in (None, stale):
            with suppress(Refused):
                self._client.put_if(NAME, b"{}", before)
                self._client.delete(NAME)
                raise StoreError(f"{self._store}: this object store has no conditional puts, which a writer needs")
