"""Zstandard frames that are decoded only where they hold what is expected: a few bytes may stand for gigabytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numcodecs.zstd import compress as _compress
from numcodecs.zstd import decompress

LEVEL = 1
FAST = -3
"""For what is large. Activations of a ResNet-20 take 82 % of their bytes in float16 and 75 % in float32, at 250 MB/s on
one core, and are read at 650 to 950 (level 1: 67 and 64 %, at 145 and 300 MB/s); gradients 98 %, at 1.6 GB/s."""
WORTH = 7 / 8
"""Of its bytes that a sample may take at most, else all is stored as it is, at 5 GB/s. On a Sapphire Rapids, at
650 MB/s, a disk of 80 MB/s writes an eighth as fast as it is saved."""
SAMPLE, PLACES = 2**15, 4  # bytes of it, from so many places
MAGIC = b"\x28\xb5\x2f\xfd"
BLOCK = 2**17  # bytes that a block decodes to at most
REPEATED, COMPRESSED = 1, 2  # kinds of blocks: one byte many times; neither that nor as it is (0)


def compress(content: bytes | bytearray | np.ndarray[Any, Any], level: int = LEVEL) -> bytes:
    """Return one frame of some bytes, or of those of a contiguous array, which are not copied."""
    return bytes(_compress(content, level))


def pays(content: np.ndarray[Any, Any]) -> bool:
    """Return whether a contiguous array is worth compressing with :data:`FAST`, by a sample of its bytes."""
    flat = content.reshape(-1).view(np.uint8)
    if flat.size > SAMPLE:
        length = SAMPLE // PLACES
        starts = [i * (flat.size - length) // (PLACES - 1) for i in range(PLACES)]
        flat = np.concatenate([flat[start : start + length] for start in starts])
    return len(compress(flat, FAST)) <= WORTH * flat.size


def stored(content: np.ndarray[Any, Any]) -> bytes:
    """Return a frame of a contiguous array's bytes in blocks as they are (RFC 8878, 3.1.1.2): nothing to decode."""
    flat = content.reshape(-1).view(np.uint8).data
    head = MAGIC + bytes([3 << 6 | 1 << 5]) + len(flat).to_bytes(8, "little")  # its size in 8 bytes, one segment
    parts: list[bytes | memoryview] = [head]
    for start in range(0, max(1, len(flat)), BLOCK):
        block = flat[start : start + BLOCK]
        parts += [(len(block) << 3 | (start + BLOCK >= len(flat))).to_bytes(3, "little"), block]
    return b"".join(parts)


def expand(frame: bytes | memoryview, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return what a frame of ``size`` decoded bytes holds; raise ValueError or RuntimeError where it holds another."""
    target = np.empty(size, np.uint8)
    expand_into(frame, target)
    return target


def expand_into(frame: bytes | memoryview, target: np.ndarray[Any, Any]) -> None:
    """Write what a frame holds into a contiguous array; raise as :func:`expand` where it holds more or less."""
    found, size = declared(frame), target.nbytes
    if found not in (None, size):
        raise ValueError(f"{found} bytes instead of {size} when decoded")
    if size or found is None:
        decompress(frame, target.reshape(-1).view(np.uint8))


def declared(frame: bytes | memoryview) -> int | None:
    """Return the decoded size that the head of a frame says (RFC 8878, 3.1.1.1), None where it does not."""
    head = bytes(frame[:18])
    if head[:4] != MAGIC or len(head) < 5:
        raise ValueError("no zstd frame")
    single, length = head[4] >> 5 & 1, (0, 2, 4, 8)[head[4] >> 6]
    if not length and single:
        length = 1
    at = 5 + (not single) + (0, 1, 2, 4)[head[4] & 3]
    if len(head) < at + length:
        raise ValueError("no zstd frame")
    return int.from_bytes(head[at : at + length], "little") + 256 * (length == 2) if length else None


def most(frame: bytes | memoryview) -> int:
    """Return how many bytes a frame decodes to at most: what it says, else what its blocks can hold (3.1.1.2)."""
    found = declared(frame)
    if found is not None:
        return found
    at, total, last = 6 + (0, 1, 2, 4)[frame[4] & 3], 0, False  # a frame of one segment, without a window, says it
    while not last and at + 3 <= len(frame):
        head = int.from_bytes(frame[at : at + 3], "little")
        last, kind, size = bool(head & 1), head >> 1 & 3, head >> 3
        total += BLOCK if kind == COMPRESSED else size
        at += 3 + (1 if kind == REPEATED else size)
    return total
