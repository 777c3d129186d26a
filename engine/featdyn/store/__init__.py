"""The store: one run as one Zarr v3 group that xarray reads, committed checkpoint by checkpoint. See SPEC.md."""

from featdyn.store.checkpoint import CheckpointWriter
from featdyn.store.compact import compact
from featdyn.store.erase import erase
from featdyn.store.garbage import Garbage, gc
from featdyn.store.locate import below, locate
from featdyn.store.publish import commit_result
from featdyn.store.rank_writers import CheckpointPart, RunPart
from featdyn.store.reader import Run
from featdyn.store.repair import Repair, repair
from featdyn.store.root import exists
from featdyn.store.schema import ArraySpec, Schema
from featdyn.store.verify import Verdict, verify
from featdyn.store.writer import RunWriter

__all__ = [
    "ArraySpec",
    "CheckpointPart",
    "CheckpointWriter",
    "Garbage",
    "Repair",
    "Run",
    "RunPart",
    "RunWriter",
    "Schema",
    "Verdict",
    "below",
    "commit_result",
    "compact",
    "erase",
    "exists",
    "gc",
    "locate",
    "repair",
    "verify",
]
