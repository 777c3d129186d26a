"""Tests that any kind of place must pass: for who writes another :class:`~featdyn.store.place.Place`.

A class of pytest tests, as zarr's ``zarr.testing.store.StoreTests``, with one fixture to be given::

    class TestMine(PlaceTests):
        @pytest.fixture
        def place(self, tmp_path):
            return Mine(tmp_path / "run.zarr")  # in which nothing is yet

Two more fixtures say what not every place can be made to do; see :class:`FileTests` and :class:`WriterTests`. For a
place that can only be read there is :class:`ReadOnlyTests`. Nothing else of featdyn needs pytest.
"""

import pytest

pytest.register_assert_rewrite("featdyn.testing.files", "featdyn.testing.writers", "featdyn.testing.runs")

from featdyn.testing.files import FileTests  # noqa: E402
from featdyn.testing.runs import ReadOnlyTests, RunTests  # noqa: E402
from featdyn.testing.sample_run import record  # noqa: E402
from featdyn.testing.writers import WriterTests  # noqa: E402

__all__ = ["FileTests", "PlaceTests", "ReadOnlyTests", "RunTests", "WriterTests", "record"]


class PlaceTests(FileTests, WriterTests, RunTests):
    """Every promise of a place: its files, its writers, and the life of a run on it."""
