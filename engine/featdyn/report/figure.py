"""A figure as a plain description: what is drawn, on which axes, with which intervals; no library's words.

The page, a notebook and an image file are all drawn from it (:mod:`featdyn.report.plotly`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes
    ----------
    title : what it shows, with its unit
    scale
        ``"auto"`` is logarithmic where positive values span much; ``"category"`` has a place for each of its names;
        ``"checkpoint"`` has a place for each checkpoint, whose number and training step are named.
    share : whether values are shown as percentages
    whole : whether values are whole numbers
    from_zero : whether the axis starts at zero
    checkpoints, steps : of a checkpoint axis, what stands at each place; such figures follow the page's slider
    """

    title: str = ""
    scale: Literal["auto", "linear", "log", "category", "checkpoint"] = "linear"
    share: bool = False
    whole: bool = False
    from_zero: bool = False
    checkpoints: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()


@dataclass(frozen=True)
class Series:
    """Values under one name, as a line or as points.

    Attributes
    ----------
    name : as the legend shows it
    y : its values, NaN where missing
    x : their places; None: 0, 1, ... along a checkpoint axis
    low, high : the stored 95 % interval of each value
    depth : 0 for what is shallow (or early) to 1 for what is deep (or late), which gives the colour
    order : else the place among the colours of :data:`~featdyn.report.colours.KINDS`; None is grey
    dash : ``"solid"``, ``"dash"``, ``"dot"`` or ``"dashdot"``
    joined : whether a line joins the values
    beside : a number beside each value; what it is, the figure says
    """

    name: str
    y: NDArray[Any]
    x: Sequence[Any] | None = None
    low: NDArray[Any] | None = None
    high: NDArray[Any] | None = None
    depth: float | None = None
    order: int | None = None
    dash: str = "solid"
    joined: bool = True
    beside: NDArray[Any] | None = None


@dataclass(frozen=True)
class Mark:
    """A place on the x axis with a name, and the interval in which it lies."""

    x: float
    name: str
    low: float = np.nan
    high: float = np.nan


@dataclass(frozen=True)
class Lines:
    """Lines or points over one axis."""

    x: Axis
    y: Axis
    series: tuple[Series, ...]
    marks: tuple[Mark, ...] = ()
    beside: str = ""  # what stands beside each value, as in "standard deviation over probes"
    title: str = ""


@dataclass(frozen=True)
class Map:
    """A heat map: ``z (y, x)``, and where known its stored 95 % intervals."""

    x: Axis
    y: Axis
    z: NDArray[Any]
    names: tuple[Sequence[str], Sequence[str]] = field(default=((), ()))  # of rows and columns of category axes
    share: bool = False
    low: NDArray[Any] | None = None
    high: NDArray[Any] | None = None
    range: tuple[float, float] | None = None  # of the colours; None: that of the values
    title: str = ""
    alt: str = ""


Figure: TypeAlias = Lines | Map

SPAN = 20
"""Ratio of the largest to the smallest value above which an axis that may be logarithmic is."""


def ratio(values: NDArray[Any]) -> float:
    """Return the largest of known values over the smallest, 0 where there are none or one is not positive."""
    return float(values.max() / values.min()) if values.size and (values > 0).all() else 0.0


def is_log(axis: Axis, values: NDArray[Any]) -> bool:
    """Whether an axis of these known values is logarithmic."""
    return axis.scale == "log" or (axis.scale == "auto" and ratio(values) > SPAN)


def known(series: Sequence[Series]) -> NDArray[Any]:
    """Return the finite values of lines, one after the other."""
    return np.concatenate([np.ravel(v[np.isfinite(v)]) for v in (numbers(s.y) for s in series)] or [np.array([])])


def numbers(values: ArrayLike) -> NDArray[Any]:
    """Return values as an array of floats, whatever holds them."""
    return np.asarray(values, dtype=np.float64)
