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
    "netcdf": ("netCDF4",),
}
"""Name of an extra to the modules that it brings; what reads stores needs none of them."""


class MissingExtra(FeatdynError):
    """A part of featdyn needs packages that are not installed."""


def install(module: str) -> str:
    """Return the command that brings a module; ValueError where it is of no extra."""
    for extra, modules in EXTRAS.items():
        if module in modules:
            return f"pip install 'featdyn[{extra}]'"
    raise ValueError(f"{module} is of no extra")


@contextmanager
def asked_for() -> Iterator[None]:
    """Say in a line which extra brings a module that is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        try:
            command = install(missing)
        except ValueError:
            raise error from None
        raise MissingExtra(f"this needs {missing}, which is not installed: {command}") from error
