"""Where and within what memory an analysis runs; each field is also a flag of every analysis."""

from __future__ import annotations

from typing import Literal

from pydantic import ByteSize, Field, field_validator

from featdyn.validation import Options


class ComputeOptions(Options):
    """Options of the workers; without ``scheduler`` and ``gpus`` the work is done in this process, without Dask."""

    scheduler: str | None = Field(
        None, description="run on Dask: threads of this process, processes of this machine, or tcp://... of a cluster"
    )
    workers: int | None = Field(None, ge=1, description="threads, or processes; as many as there are cores by default")
    gpus: Literal["all"] | None = Field(None, description="run on Dask, one worker process for each GPU")
    memory_limit: ByteSize | None = Field(
        None, gt=0, description="memory of each worker process, such as 2GiB; an analysis that needs more is refused"
    )

    @field_validator("scheduler")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and value not in ("threads", "processes") and "://" not in value:
            raise ValueError("must be threads, processes or an address such as tcp://host:8786")
        return value
