"""Requests to an object store: obstore with bounded patience, conditional puts, and errors of one line."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from featdyn.errors import StoreError
from featdyn.extras import asked_for
from featdyn.store.record import Object, Refused, Version

with asked_for():
    from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
    from obstore.store import MemoryStore, from_url

PART = 2**26  # larger objects are read in parts, so that none has to come within one request's time

# What one request may take, and for how long it is repeated. At the first contact somebody waits for the answer; a
# training run that has begun should live through a short outage. What has no condition must be over before a lease is.
QUICK = {"timeout": 60, "retries": 3, "during": 10}
PATIENT = {"timeout": 300, "retries": 12, "during": 180}
BRIEF = {"timeout": 10, "retries": 3, "during": 10}

# Beyond that a read is tried again, as a check of a store, or an analysis of hours, should not end for one answer: for
# so many seconds at the first contact, and once the object store has answered; the first pause, and the longest.
FIRST, READING = 1.0, 20.0
PAUSE, LONGEST = 0.1, 5.0
Found = TypeVar("Found")

_MEMORY: dict[str, MemoryStore] = {}  # memory://name is one store for the whole process

_QUERY = re.compile("[%?#]")
"""What ends a path in a URL, or stands for another character; in a key it is a character like any other."""

_HINTS = {
    "NoSuchBucket": "no such bucket",
    "MissingAccessKeyId": "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "MissingSecretAccessKey": "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "MissingAccount": "no account: set AZURE_STORAGE_ACCOUNT_NAME",
    "TokenRequest": "no credentials: set those of the object store in the environment",
    "169.254.169.254": "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "BadScheme": "its endpoint is http, not https: set AWS_ALLOW_HTTP=true to allow that",
    "Unrecognised": "not a URL of a bucket: write s3://bucket/path",
}
_PASSING = {
    "kind: Connect": "cannot be reached: check the network, and AWS_ENDPOINT_URL if it is set",
    "kind: Timeout": "no answer in time: check the network",
}


class Client:
    """One prefix of a bucket; methods raise OSError with a ``strerror`` of one line.

    With ``again`` what only reads is tried again, beyond what obstore repeats by itself.
    """

    def __init__(self, store: Any, *, again: bool = False) -> None:
        self._store = store
        self._patience = FIRST if again else 0.0
        self._again = again

    def get(self, path: str) -> Object | None:
        """Return an object, or None; of one that is larger than a part only its description."""
        try:
            return self._read(lambda: self._got(path))
        except FileNotFoundError:
            return None

    def part(self, path: str, start: int, length: int) -> bytes:
        """Return some bytes of an object."""
        if not length:  # which is no range
            return b""
        return self._read(lambda: bytes(self._store.get_range(path, start=start, length=length)))

    def head(self, path: str) -> Object | None:
        """Return what is known of an object without its content, or None."""
        try:
            about = self._read(lambda: self._store.head(path))
            return Object(b"", about["size"], *_version(about))
        except FileNotFoundError:
            return None

    def list(self, below: str = "") -> Iterator[tuple[str, int]]:
        """Yield path and size of all objects, or of those below a path."""
        batches: Any = None
        last: str | None = None

        def more() -> Any:
            nonlocal batches
            try:
                batches = batches or iter(self._store.list(below or None, offset=last))
                return next(batches, None)
            except BaseError:
                batches = None  # and on from where it stopped
                raise

        while batch := self._read(more):
            for about in batch:
                yield about["path"], about["size"]
            last = batch[-1]["path"]

    def _got(self, path: str) -> Object:
        found = self._store.get(path)
        about = found.meta
        content = bytes(found.bytes()) if about["size"] <= PART else b""
        if content and len(content) != about["size"]:  # no answer, so nothing is said of the object
            raise ValueError("the answer was cut short")
        return Object(content, about["size"], *_version(about))

    def _read(self, call: Callable[[], Found]) -> Found:
        """Return what a call returns that only reads; try again for a time what may pass."""
        waits = pauses(self._patience)
        while True:
            try:
                with plainly():
                    found = call()
                break
            except FileNotFoundError:
                self._patience = READING if self._again else 0.0
                raise
            except OSError as error:
                pause = next(waits, None) if error.errno == errno.EIO else None
                if pause is None:
                    self._patience = 0.0  # until it answers: a store of many objects need not be waited for each time
                    raise
            time.sleep(pause)
        self._patience = READING if self._again else 0.0
        return found

    def put(self, path: str, content: bytes) -> None:
        """Write an object, whatever is there; a large one in parts."""
        with plainly():
            self._store.put(path, content, chunk_size=PART, max_concurrency=4)

    def put_if(self, path: str, content: bytes, before: Version) -> Version:
        """Write an object if what is there is still the version ``before`` (None: nothing); return the new version.

        The answer to a put can be lost; then nobody knows whether it was done, and one that was done and is repeated is
        refused. So the object is read back, and if it is what was to be written it is taken as written. Raises
        :class:`Refused` if it is another version, and OSError if the request failed and nobody knows yet whether it
        will still be done.
        """
        try:
            with plainly():
                return _version(self._store.put(path, content, mode=before or "create", use_multipart=False))[0]
        except (Refused, OSError) as error:
            try:
                found = self.get(path)
            except OSError:
                raise error from None
            if found is not None and found.size == len(content) and found.content == content:
                return found.version
            raise

    def delete(self, path: str) -> None:
        """Remove an object."""
        with plainly():
            self._store.delete(path)


def connect(url: str, how: dict[str, int]) -> Any:
    """Return the obstore of a URL; credentials, region and endpoint come from the environment."""
    if url.startswith("memory://"):
        return _MEMORY.setdefault(url, MemoryStore())
    http = any(
        os.environ.get(f"{p}_ALLOW_HTTP", "").lower() in ("1", "true", "yes") for p in ("AWS", "AZURE", "GOOGLE")
    )
    try:
        with plainly():
            return from_url(
                _QUERY.sub(lambda mark: f"%{ord(mark[0]):02X}", url),
                client_options={"allow_http": http, "connect_timeout": "5s", "timeout": f"{how['timeout']}s"},
                retry_config={
                    "max_retries": how["retries"],
                    "retry_timeout": timedelta(seconds=how["during"]),
                    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=15)},
                },
            )
    except OSError as error:
        raise StoreError(f"{url}: {error.strerror}") from error


def pauses(patience: float) -> Iterator[float]:
    """Yield how long to wait before each new try, twice as long each time, until so many seconds are over."""
    until, pause = time.monotonic() + patience, PAUSE
    while time.monotonic() + pause < until:
        yield pause
        pause = min(2 * pause, LONGEST)


def _version(about: Any) -> tuple[Version, Any]:
    return {key: about[key] for key in ("e_tag", "version") if about[key] is not None}, about.get("last_modified")


@contextmanager
def plainly() -> Iterator[None]:
    """Turn obstore's errors into :class:`Refused`, FileNotFoundError, or OSError with a line of text."""
    try:
        yield
    except (AlreadyExistsError, PreconditionError) as error:
        raise Refused from error
    except (FileNotFoundError, BaseError, ValueError) as error:
        text = str(error)
        if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in text:
            raise FileNotFoundError(errno.ENOENT, "missing") from error
        raise OSError(*_said(text)) from error


def _said(text: str) -> tuple[int, str]:
    """Return EIO for what may pass and another number for what will not, and a line of text."""
    status = re.search(r"status code: (\d+ [\w ]+)", text)
    code = re.search(r"<Code>(\w+)</Code>", text)
    for number, hints in ((errno.EINVAL, _HINTS), (errno.EIO, _PASSING)):
        for mark, hint in hints.items():
            if mark in text:
                return number, hint
    if status is None:
        return errno.EIO, text.partition("\n")[0][:200]
    why = f"{status[1]}: {code[1]}" if code else status[1]
    if status[1][:3] in ("401", "403"):
        return errno.EACCES, f"access denied ({why}): check the credentials"
    passing = status[1][0] == "5" or status[1][:3] in ("408", "429")
    return errno.EIO if passing else errno.EINVAL, f"the object store answered {why}"
