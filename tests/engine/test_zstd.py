"""Frames of blocks as they are, and which arrays come in such: read by the decoder of zstd itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numcodecs.zstd import compress, decompress

from featdyn.store import zstd


@given(st.integers(0, 3 * zstd.BLOCK), st.sampled_from(["uint8", "float16", "float64"]))
def test_a_stored_frame_is_one_that_any_decoder_reads(size: int, dtype: str) -> None:
    drawn = np.random.default_rng(size).integers(0, 256, size // np.dtype(dtype).itemsize * np.dtype(dtype).itemsize)
    values = drawn.astype(np.uint8).view(dtype).reshape(1, -1)
    frame = zstd.stored(values)
    if values.size:  # numcodecs takes no frame of nothing
        assert bytes(decompress(frame)) == values.tobytes()
    assert zstd.expand(frame, values.nbytes).tobytes() == values.tobytes()
    assert zstd.declared(frame) == zstd.most(frame) == values.nbytes
    blocks = max(1, -(-values.nbytes // zstd.BLOCK))
    assert len(frame) == values.nbytes + 13 + 3 * blocks


@pytest.mark.parametrize("edge", [-1, 0, 1])
@pytest.mark.parametrize("blocks", [1, 2])
def test_a_stored_frame_ends_with_the_last_block_that_holds_bytes(blocks: int, edge: int) -> None:
    values = np.arange(blocks * zstd.BLOCK + edge).astype(np.uint8)
    frame = zstd.stored(values)
    assert bytes(decompress(frame)) == values.tobytes()
    assert len(frame) == len(values) + 13 + 3 * (blocks + (edge > 0))


@pytest.mark.parametrize(("zeros", "worth"), [(0.0, False), (0.02, False), (0.9, True), (1.0, True)])
def test_random_bytes_are_not_compressed_and_sparse_ones_are(zeros: float, worth: bool) -> None:
    draw = np.random.default_rng(0)
    values = draw.integers(0, 2**16, (64, 4096), dtype=np.uint16)
    values[draw.random(values.shape) < zeros] = 0
    assert zstd.pays(values.view(np.float16)) is worth


def test_the_sample_is_from_all_over() -> None:
    values = np.random.default_rng(0).integers(0, 256, (16, 2**16), dtype=np.uint8)
    values[:6] = 0
    assert zstd.pays(values)
    assert zstd.pays(values[::-1].copy())
    values[:6] = values[6:12]
    assert not zstd.pays(values)


SIZES = (0, 2, 4, 8)
"""Bytes that say the decoded size, by the two highest bits of the first byte behind the magic number."""


def head(single: bool, size: int | None, width: int, dictionary: int) -> bytes:
    """Write out a head as RFC 8878, 3.1.1.1, has it: of a dictionary of so many bytes of name, of a size or none."""
    flag = 0 if width == 1 else SIZES.index(width)
    first = flag << 6 | single << 5 | (0, 1, 2, 4).index(dictionary)
    written = b"" if size is None else (size - 256 * (width == 2)).to_bytes(width, "little")
    return zstd.MAGIC + bytes([first]) + b"\x38" * (not single) + b"d" * dictionary + written


@pytest.mark.parametrize("dictionary", [0, 1, 2, 4])
@pytest.mark.parametrize(
    ("single", "width", "size"),
    [(True, 1, 0), (True, 1, 255), (True, 2, 256), (True, 4, 2**20), (True, 8, 2**40), (False, 2, 65_791),
     (False, 4, 2**32 - 1), (False, 8, 7), (False, 0, None)],
)  # fmt: skip
def test_every_head_says_its_size(single: bool, width: int, size: int | None, dictionary: int) -> None:
    frame = head(single, size, width, dictionary)
    assert zstd.declared(frame) == size
    if size is not None:
        assert zstd.most(frame + b"whatever") == size
    for end in range(len(frame)):
        with pytest.raises(ValueError, match="no zstd frame"):
            zstd.declared(frame[:end])
    with pytest.raises(ValueError, match="no zstd frame"):
        zstd.declared(b"x" + frame[1:])


@pytest.mark.parametrize("dictionary", [0, 1, 2, 4])
def test_a_frame_that_does_not_say_its_size_holds_what_its_blocks_can(dictionary: int) -> None:
    """Of blocks as they are and of one byte many times exactly that, of compressed ones 128 KiB (3.1.1.2)."""
    frame, kinds = head(False, None, 0, dictionary), ((0, 5, 5, 5), (1, 700, 1, 700), (2, 9, 9, 2**17), (0, 3, 3, 3))
    ends, total = [len(frame)], [0]
    for number, (kind, size, length, decoded) in enumerate(kinds):
        frame += (size << 3 | kind << 1 | (number == 3)).to_bytes(3, "little") + b"\1" * length
        ends.append(len(frame))
        total.append(total[-1] + decoded)
    frame += (99 << 3).to_bytes(3, "little")  # behind the last
    for end in range(ends[0], len(frame) + 1):
        begun = sum(start + 3 <= end for start in ends[:-1])
        assert zstd.most(frame[:end]) == total[begun]


def test_each_of_four_places_counts_a_fourth() -> None:
    size, length = 2**19 + 5, 2**13
    random = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    starts = [place * (size - length) // 3 for place in range(4)]
    elsewhere = np.zeros(size, np.uint8)
    for start in starts:
        found = random.copy()
        found[start : start + length] = 0
        assert zstd.pays(found)
        elsewhere[start : start + length] = random[start : start + length]
    assert not zstd.pays(elsewhere)


@pytest.mark.parametrize(("saved", "worth"), [(0.105, False), (0.145, True)])
def test_an_eighth_has_to_be_saved(saved: float, worth: bool) -> None:
    values = np.random.default_rng(0).integers(0, 256, 2**15, dtype=np.uint8)
    values[: int(saved * len(values))] = 0
    assert zstd.pays(values) is worth
    assert zstd.pays(values[: 2**14]) is True  # all of what is no longer than the sample


def test_a_frame_has_the_level_and_the_checksum_that_metadata_say() -> None:
    from featdyn.store.metadata import ZSTD

    values = np.random.default_rng(0).integers(0, 20, 2**15, dtype=np.uint8) ** 2
    says = ZSTD["configuration"]
    frame = zstd.compress(values)
    assert frame == bytes(compress(values, says["level"]))
    assert frame != bytes(compress(values, says["level"] + 1))
    for made in (frame, zstd.stored(values), zstd.compress(values, zstd.FAST)):
        assert bool(made[4] >> 2 & 1) is says["checksum"]
