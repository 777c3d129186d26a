"""The sets that probes fall into (train, test, corrupted, ...), and which probes of a set are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featdyn.errors import FeatdynError
from featdyn.nearest import meant
from featdyn.store import Run
from featdyn.validation import Options

ROLES = {"train", "test"}
"""Options by which sets are given a role."""
STRATA = ("label", "corruption", "severity")
"""Coordinates by whose values a choice of probes is balanced."""


@dataclass(frozen=True, eq=False)
class ProbeSets:
    """The sets of a run's probes, in the order in which they were recorded."""

    names: list[str]
    members: list[NDArray[np.bool_]]  # (probe,) for each set, which probes belong to it
    origins: NDArray[np.int64]
    """``(probe,)``, the image or document that a probe was made from: the unit that is resampled. Without coordinate
    ``origin`` those of one ``dataset_index`` are one where their ``dataset`` agrees, too, and all or none are training
    probes (sets called train...; the others are taken to be of one part of the data set). Each probe its own where the
    run says nothing."""

    @classmethod
    def of(cls, run: Run, patterns: Sequence[str] = ("*",)) -> ProbeSets:
        """Return the splits of a run that match; one set, "probes", where its probes are not told apart.

        Where none matches :class:`FeatdynError` says which there are.
        """
        coords, n = run.coords, run.schema.samples
        given = coords["split"].values.tolist() if "split" in coords else ["probes"] * n
        splits = np.array([str(split) for split in given], dtype=object)  # numbers are names too
        names = list(dict.fromkeys(splits))
        kept = [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
        if not kept:
            raise FeatdynError(
                f"{run.path}: no set of probes is called {', '.join(patterns)}; {meant(patterns[0], names)}"
                f"there are {', '.join(names)}"
            )
        return cls(kept, [splits == name for name in kept], _origins(run, splits))

    def index(self, name: str) -> int | None:
        """Return the place of a set; None where there is none of that name."""
        return self.names.index(name) if name in self.names else None

    def member(self, name: str) -> NDArray[np.bool_]:
        """``(probe,)``, which are in a set; none where there is none of that name."""
        place = self.index(name)
        return np.zeros(len(self.origins), bool) if place is None else self.members[place]

    def refuse_unknown(self, run: Run, options: Options) -> None:
        """Raise :class:`FeatdynError` where a role (train, test) is given to a set that there is not.

        Where the user gave none, and no set has the role's name, what needs it is missing with a reason.
        """
        for role in ROLES & options.model_fields_set:
            if self.index(name := getattr(options, role)) is None:
                sets = ", ".join(self.names)
                raise FeatdynError(
                    f"{run.path}: {role}={name!r} is no set of probes; {meant(name, self.names)}there are {sets}"
                )

    @property
    def sizes(self) -> list[int]:
        """Number of probes in each set."""
        return [int(m.sum()) for m in self.members]

    @property
    def weights(self) -> NDArray[np.float64]:
        """``(probe, set)``, the weight of each probe in each set's mean."""
        return np.stack([m / m.sum() for m in self.members], axis=1)

    def choose(self, run: Run, samples: int, seed: int, *, per_origin: bool = False) -> list[NDArray[np.intp]]:
        """Return at most so many probes of each set, as ascending places: every class and corruption in its share.

        ``per_origin`` takes one probe of each image at most, so that what is chosen is independent.
        """
        coords = run.coords
        kinds = list(zip(*(coords[name].values.tolist() for name in STRATA if name in coords), strict=True))
        found = []
        for s, member in enumerate(self.members):
            places, random = np.flatnonzero(member), np.random.default_rng([seed, s])
            if per_origin:
                places = one_of_each(places, self.origins[places], random)
            if len(places) > samples:
                places = places[_balanced([kinds[i] if kinds else () for i in places], samples, random)]
            found.append(places)
        return found


def one_of_each(places: NDArray[np.intp], origins: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.intp]:
    """Return one of the places of each image, drawn at random, ascending; ``origins`` are those of the places."""
    order = random.permutation(len(places))
    return np.sort(places[order[np.unique(origins[order], return_index=True)[1]]])


def _origins(run: Run, splits: NDArray[np.object_]) -> NDArray[np.int64]:
    """Return the number of each probe's image, ``(probe,)``."""
    coords = run.coords
    if "origin" in coords:
        names = [str(name) for name in coords["origin"].values.tolist()]
    elif "dataset_index" in coords:
        parts = [split.startswith("train") for split in splits]
        given = [coords[name].values.tolist() for name in ("dataset", "dataset_index") if name in coords]
        names = [repr(each) for each in zip(parts, *given, strict=True)]
    else:
        names = [str(place) for place in range(run.schema.samples)]
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def _balanced(kinds: Sequence[tuple[Any, ...]], samples: int, random: np.random.Generator) -> NDArray[np.intp]:
    """Return ``samples`` places, ascending: of each kind its share, drawn at random.

    Probes are shuffled; the i-th of the n of a kind then stands at (i + u) / n with one u for each kind, and the
    first so many are taken.
    """
    order = random.permutation(len(kinds))
    _, kind = np.unique(np.array([repr(k) for k in kinds])[order], return_inverse=True)
    count, seen = np.bincount(kind), np.zeros(kind.max() + 1, np.int64)
    offset, rank = random.random(len(count)), np.empty(len(kind))
    for i, k in enumerate(kind):
        rank[i] = (seen[k] + offset[k]) / count[k]
        seen[k] += 1
    return np.sort(order[np.argsort(rank, kind="stable")[:samples]])
