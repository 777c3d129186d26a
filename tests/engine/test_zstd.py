"""Frames of blocks as they are, and which arrays come in such: read by the decoder of zstd itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numcodecs.zstd import decompress

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
