"""What one pass over a sample leaves behind: a small, mergeable value."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np

from featdyn_kernels._dispatch import is_tensor, to_numpy

Array: TypeAlias = Any  # numpy array or torch tensor; both have all the arithmetic below


@dataclass(frozen=True, eq=False, repr=False)
class Moments:
    """Moments of features (F), outputs (C) and labels (K classes) over ``count`` samples, in float64.

    The second moments are kept centred, as scatter matrices: sums of products of deviations from the mean. Raw second
    moments follow from them without loss; the other way round loses digits when means are large. ``a + b`` holds the
    moments of both samples together (Chan, Golub and LeVeque 1979), so blocks may be merged in any order or tree. What
    was not given has None for its fields.
    """

    count: int
    mean: Array  # (F,)
    scatter: Array  # (F, F): sum over samples of (x - mean)(x - mean)^T
    output_mean: Array | None = None  # (C,)
    output_scatter: Array | None = None  # (C, C)
    cross_scatter: Array | None = None  # (F, C), between features and outputs
    class_count: Array | None = None  # (K,): samples per class
    class_sum: Array | None = None  # (K, F)
    class_output_sum: Array | None = None  # (K, C)

    def __repr__(self) -> str:
        sizes = [f"count={self.count}", f"features={len(self.mean)}"]
        sizes += [f"outputs={len(self.output_mean)}"] if self.output_mean is not None else []
        sizes += [f"classes={len(self.class_count)}"] if self.class_count is not None else []
        return f"Moments({', '.join(sizes)})"

    def __add__(self, other: Moments) -> Moments:
        if not isinstance(other, Moments):
            return NotImplemented
        _require_mergeable(self, other)
        with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are propagated in silence
            return self._merged(other)

    def _merged(self, other: Moments) -> Moments:
        count = self.count + other.count
        weight = other.count / count if count else 0.0
        step = other.mean - self.mean
        merged: dict[str, Any] = {
            "count": count,
            "mean": self.mean + weight * step,
            "scatter": self.scatter + other.scatter + (self.count * weight) * _outer(step, step),
        }
        if self.output_mean is not None:
            output_step = other.output_mean - self.output_mean
            merged["output_mean"] = self.output_mean + weight * output_step
            for name, first in (("output_scatter", output_step), ("cross_scatter", step)):
                parts = getattr(self, name) + getattr(other, name)
                merged[name] = parts + (self.count * weight) * _outer(first, output_step)
        for name in ("class_count", "class_sum", "class_output_sum"):
            if getattr(self, name) is not None:
                merged[name] = _add_classes(getattr(self, name), getattr(other, name))
        return Moments(**merged)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as numpy arrays (and ``count`` as int), without those that are None."""
        present = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        return {name: value if name == "count" else to_numpy(value) for name, value in present.items()}

    @classmethod
    def from_dict(cls, arrays: dict[str, Any]) -> Moments:
        """Return the moments whose :meth:`to_dict` gave ``arrays``."""
        return cls(**{name: int(value) if name == "count" else value for name, value in arrays.items()})

    @property
    def sum(self) -> Array:
        """Sum of the features, (F,)."""
        return self.mean * self.count

    @property
    def output_sum(self) -> Array:
        """Sum of the outputs, (C,)."""
        return self._outputs("output_mean") * self.count

    @property
    def second(self) -> Array:
        """Raw second moment of the features: sum of ``x x^T``, (F, F)."""
        return self.scatter + self.count * _outer(self.mean, self.mean)

    @property
    def output_second(self) -> Array:
        """Raw second moment of the outputs, (C, C)."""
        mean = self._outputs("output_mean")
        return self._outputs("output_scatter") + self.count * _outer(mean, mean)

    @property
    def cross(self) -> Array:
        """Raw cross moment: sum of ``x f^T`` for features x and outputs f, (F, C)."""
        return self._outputs("cross_scatter") + self.count * _outer(self.mean, self._outputs("output_mean"))

    def covariance(self, ddof: int = 0) -> Array:
        """Return the features' covariance, (F, F): the scatter over ``count - ddof``."""
        return self.scatter / self._divisor(ddof)

    def output_covariance(self, ddof: int = 0) -> Array:
        """Return the outputs' covariance, (C, C)."""
        return self._outputs("output_scatter") / self._divisor(ddof)

    def cross_covariance(self, ddof: int = 0) -> Array:
        """Return the covariance between features and outputs, (F, C)."""
        return self._outputs("cross_scatter") / self._divisor(ddof)

    @property
    def class_mean(self) -> Array:
        """Mean of the features per class, (K, F); NaN for a class without samples."""
        count = self._labelled("class_count")
        with np.errstate(invalid="ignore"):
            return self._labelled("class_sum") / count[:, None]

    @property
    def class_output_mean(self) -> Array:
        """Mean of the outputs per class, (K, C); NaN for a class without samples."""
        count = self._labelled("class_count")
        with np.errstate(invalid="ignore"):
            return self._labelled("class_output_sum") / count[:, None]

    @property
    def between_scatter(self) -> Array:
        """Scatter of the class means, each weighted by its samples, around the mean, (F, F)."""
        count = self._labelled("class_count")
        seen = count > 0
        step = self.class_mean[seen] - self.mean
        return (step * count[seen][:, None]).T @ step

    @property
    def within_scatter(self) -> Array:
        """Scatter of the samples around their class means, (F, F): ``scatter - between_scatter``."""
        return self.scatter - self.between_scatter

    def _outputs(self, name: str) -> Any:
        if self.output_mean is None:
            raise ValueError("these moments were accumulated without outputs")
        return getattr(self, name)

    def _labelled(self, name: str) -> Any:
        if getattr(self, name) is None:
            wanted = "labels and outputs" if name == "class_output_sum" else "labels"
            raise ValueError(f"these moments were accumulated without {wanted}")
        return getattr(self, name)

    def _divisor(self, ddof: int) -> int:
        if self.count <= ddof:
            raise ValueError(f"a covariance with ddof={ddof} needs more than {ddof} samples, got {self.count}")
        return self.count - ddof


def _outer(a: Any, b: Any) -> Any:
    return a[:, None] * b[None, :]


def _add_classes(a: Any, b: Any) -> Any:
    """Add two arrays whose first axis is the class; the one that saw fewer classes counts zero for the rest."""
    if len(a) < len(b):
        a, b = b, a
    total = a.clone() if is_tensor(a) else a.copy()
    total[: len(b)] += b
    return total


def _require_mergeable(a: Moments, b: Moments) -> None:
    for name, axis in (("mean", "features"), ("output_mean", "outputs"), ("class_count", "labels")):
        first, second = getattr(a, name), getattr(b, name)
        if (first is None) != (second is None):
            raise ValueError(f"cannot add moments: only one of them has {axis}")
        if first is not None and axis != "labels" and len(first) != len(second):
            raise ValueError(f"cannot add moments of {len(first)} and {len(second)} {axis}")
