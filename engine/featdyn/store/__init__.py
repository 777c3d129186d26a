"""The store: one run as one Zarr v3 group that xarray reads, committed checkpoint by checkpoint. See SPEC.md."""

from featdyn.store.checkpoint import CheckpointWriter
from featdyn.store.locate import below, locate
from featdyn.store.reader import Run
from featdyn.store.root import exists
from featdyn.store.schema import ArraySpec, Schema
from featdyn.store.verify import Verdict, verify
from featdyn.store.writer import RunWriter

__all__ = [
    "ArraySpec",
    "CheckpointWriter",
    "Run",
    "RunWriter",
    "Schema",
    "Verdict",
    "below",
    "exists",
    "locate",
    "verify",
]
