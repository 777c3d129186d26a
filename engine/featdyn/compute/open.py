"""Open the workers that options ask for."""

from __future__ import annotations

from featdyn.compute.options import ComputeOptions
from featdyn.compute.serial import Serial
from featdyn.compute.workers import Workers
from featdyn.errors import ComputeError
from featdyn.extras import asked_for
from featdyn.validation import validate


def workers(**options: object) -> Workers:
    """Return workers, to be closed at the end: ``with workers(scheduler="processes") as found: ...``.

    Options are the fields of :class:`featdyn.compute.ComputeOptions`; wrong ones raise :class:`RecipeError`.
    :class:`ComputeError` is raised where there is no GPU, or the cluster does not answer; :class:`MissingExtra` where
    Dask is not installed.
    """
    chosen = validate(ComputeOptions, options, "compute")
    if chosen.scheduler is None and chosen.gpus is None:
        if chosen.workers is not None:
            raise ComputeError("--workers needs --scheduler threads or --scheduler processes")
        return Serial(chosen.memory_limit)
    if chosen.scheduler is not None and chosen.gpus is not None:
        raise ComputeError("--gpus starts workers of its own: leave --scheduler out")
    with asked_for():
        from featdyn.compute.cluster import Cluster

    return Cluster(chosen)
