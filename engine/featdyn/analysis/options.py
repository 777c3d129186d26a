"""Options that analyses share, each declared once; every field is also a flag of ``featdyn analyze``.

An analysis lists those it has: ``class DriftOptions(FeatureSource, Cuts, Sets, Seed)``, with its own fields after them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from featdyn.errors import FeatdynError
from featdyn.validation import Options

if TYPE_CHECKING:
    from featdyn.store import Run


class Seed(Options):
    """Whatever is random."""

    seed: int = Field(0, ge=0, description="of everything that is random: draws, choices of probes, nulls")


class Sets(Options):
    """Which sets of probes."""

    sets: tuple[str, ...] = Field(("*",), min_length=1, description="names or patterns of sets of probes")


class Trained(Options):
    """Which probes the network was trained on; sets are named by the user."""

    train: str = Field("train", description="name of the set of probes that the network was trained on")


class Unseen(Options):
    """Which probes it was not."""

    test: str = Field("test", description="name of the set of probes that it was not trained on")


class Cuts(Options):
    """Where the network is cut."""

    cuts: tuple[str, ...] = Field(
        ("default",), min_length=1, description="cut names or patterns (s3*), 'default' or 'all'"
    )


class Layers(Options):
    """Which recorded layers."""

    layers: tuple[str, ...] = Field(("all",), min_length=1, description="names or patterns (s3*) of recorded layers")


class Suffixes(Options):
    """Which checkpoints stand as t2."""

    t2: Literal["last", "all"] | Annotated[int, Field(ge=0)] = Field(
        "last", description="the deep halves: of the last checkpoint, of all, or of the one of this number"
    )

    def suffixes(self, run: Run) -> list[int]:
        """Return the checkpoints whose suffixes are asked for."""
        if isinstance(self.t2, int):
            if self.t2 >= run.checkpoints:
                raise FeatdynError(f"{run.path}: no checkpoint {self.t2}: they are 0 to {run.checkpoints - 1}")
            return [self.t2]
        return [run.checkpoints - 1] if self.t2 == "last" else list(range(run.checkpoints))


class FeatureSource(Options):
    """Where features at cuts come from."""

    features: Literal["auto", "stored", "recomputed"] = Field(
        "auto",
        description="where features come from: auto takes the cheaper of reading and computing, and reads only where "
        "every bit was kept (float32); stored reads float16 too",
    )


def samples(default: int, least: int = 2) -> Any:
    """Return the field ``samples`` with an analysis's own default."""
    return Field(
        default,
        ge=least,
        description="at most this many probes of each set: a seeded choice, every class and corruption",
    )


def alpha(default: float = 0.05) -> Any:
    """Return the field ``alpha``."""
    return Field(default, gt=0, lt=1, description="level of the verdict")
