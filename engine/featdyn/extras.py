"""What an installation may lack, and the extra that brings it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from featdyn.errors import FeatdynError

EXTRAS = {
    "train": ("torch", "numba", "sklearn", "threadpoolctl", "PIL"),
    "vision": ("torchvision",),
    "scale": ("dask", "distributed", "bokeh"),
    "cloud": ("obstore",),
    "hdf5": ("h5py",),
    "superpixels": ("skimage",),
    "sql": ("duckdb",),
    "plot": ("matplotlib",),
}
"""Name of an extra to the modules that it brings; what reads stores needs none of them."""


class MissingExtra(FeatdynError):
    """A part of featdyn needs packages that are not installed."""


@contextmanager
def asked_for() -> Iterator[None]:
    """Say in a line which extra brings a module that is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        extra = next((name for name, modules in EXTRAS.items() if missing in modules), None)
        if extra is None:
            raise
        raise MissingExtra(f"this needs {missing}, which is not installed: pip install 'featdyn[{extra}]'") from error
