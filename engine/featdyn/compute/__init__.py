"""Where the work of an analysis runs: in this process, or on the workers of Dask. See DESIGN.md."""

from featdyn.compute.open import workers
from featdyn.compute.options import ComputeOptions
from featdyn.compute.plan import Limits, Plan
from featdyn.compute.serial import SERIAL
from featdyn.compute.tree import fold
from featdyn.compute.workers import Stage, Workers, same

__all__ = ["SERIAL", "ComputeOptions", "Limits", "Plan", "Stage", "Workers", "fold", "same", "workers"]
