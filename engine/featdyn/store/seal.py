"""A JSON file that holds the checksum of its own bytes, so that it proves itself: the root, and each manifest."""

from __future__ import annotations

import re

from featdyn.store.record import crc32c

UNSET = "00000000"  # what stands in place of the checksum while it is computed


def seal(content: bytes, key: str) -> bytes:
    """Return the content with the checksum where its first ``key`` says :data:`UNSET`."""
    return content.replace(_member(key, UNSET), _member(key, f"{crc32c(content):08x}"), 1)


def intact(content: bytes, key: str) -> bool:
    """Whether the content is as :func:`seal` made it."""
    found = re.search(rb'"%s": "([0-9a-f]{8})"' % key.encode(), content)  # the first: ours stands before all else
    return found is not None and int(found[1], 16) == crc32c(content.replace(found[0], _member(key, UNSET), 1))


def _member(key: str, value: str) -> bytes:
    return f'"{key}": "{value}"'.encode()
