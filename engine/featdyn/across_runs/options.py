"""Options of questions to several runs; each field is also a flag."""

from __future__ import annotations

from pydantic import Field

from featdyn.validation import Options


class ClaimOptions(Options):
    """Options of the table of claims; all of them are our own choice."""

    fit: float = Field(
        0.99, gt=0, le=1, description="t2 is the first checkpoint that has this share of its training probes right"
    )
    age: float = Field(0.5, ge=0, lt=1, description="t1 is the last checkpoint before this fraction of t2's steps")
    stable: float = Field(0.9, gt=0, le=1, description="predictions are stable where the agreement is at least this")
