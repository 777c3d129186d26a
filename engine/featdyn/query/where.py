"""Conditions: ``split=test``, ``layer=s3*``, ``layer~^s[23]``, ``step=100..500``, ``checkpoint=-1``, ``loss>1``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featdyn.errors import FeatdynError
from featdyn.nearest import meant
from featdyn.query.cells import Array

_CONDITION = re.compile(r"\s*([^=!<>~]+?)\s*(!=|!~|<=|>=|==?|<|>|~)\s*(.*?)\s*", re.DOTALL)
_ORDER = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}
_TRUTH = {"1": "true", "yes": "true", "0": "false", "no": "false"}

TYPED = 3
"""Digits of a number from which it may be a rounded one: our own choice."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Condition:
    """One condition on a coordinate or a variable."""

    text: str
    name: str
    operator: str
    pattern: str

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Return what ``name=value`` says; raise :class:`FeatdynError` where it cannot be read."""
        parsed = _CONDITION.fullmatch(text)
        if parsed is None:
            raise FeatdynError(f"--where {text!r}: write it as coordinate=value, such as split=test or step>=100")
        name, operator, pattern = parsed.groups()
        return cls(text, name, "=" if operator == "==" else operator, pattern)

    def holds(self, values: Array, whole: Array | None = None, *, counted: bool = False) -> Mask:
        """Return where it holds.

        Parameters
        ----------
        whole
            All values of a coordinate: ``first`` and ``last`` are the smallest and the largest of them.
        counted
            Whether it is an axis. One of numbers has ``-1`` as its last and ``-2`` as the one before; one of names can
            be selected by place too (:func:`places`).
        """
        if values.dtype.kind == "f" and self._of_truth():  # 1, 0, and NaN where nothing is known, as of correct
            numbers = [word in ("true", "yes") for word in self.pattern.lower().split(",")]
            return np.asarray(np.isin(values, numbers) != (self.operator == "!="), bool)
        if values.dtype.kind in "iuf":
            return self._number(values, whole, counted)
        if self.operator in _ORDER:
            held = "true and false" if values.dtype.kind == "b" else "text"
            raise FeatdynError(f"--where {self.text!r}: {self.operator} is for numbers, and {self.name} holds {held}")
        if values.dtype.kind == "b":
            parts = [_TRUTH.get(part.strip().lower(), part.strip().lower()) for part in self.pattern.split(",")]
            if not all(self._word("true", [part]) or self._word("false", [part]) for part in parts):
                raise FeatdynError(f"--where {self.text!r}: {self.name} is true or false")
            words = np.where(values, "true", "false").astype(object)
        else:
            parts = [self.pattern, *(part.strip() for part in self.pattern.split(","))]
            words = np.array([str(value) for value in values.reshape(-1)], object).reshape(values.shape)
        found = {word: self._word(word, parts) for word in set(words.reshape(-1).tolist())}
        mask = np.array([found[word] for word in words.reshape(-1)], bool).reshape(values.shape)
        for part in self.pattern.split(",") if counted and "~" not in self.operator else ():
            at = places(len(values), part)
            if at is not None and part.strip() not in found:
                mask[at] = True
        return ~mask if self.operator[0] == "!" else mask

    def nothing(self, values: Array, *, counted: bool = False) -> FeatdynError:
        """Say that none of these values meets it, what there is, and what may have been meant."""
        text = values.dtype.kind not in "biuf"
        more = f", by number 0 to {len(values) - 1}" if counted and text else ""
        near = meant(self.pattern, map(str, values.reshape(-1).tolist())).rstrip() if text else self._nearest(values)
        said = f"--where {self.text!r} selects nothing; {self.name} is {summary(values)}{more}"
        return FeatdynError(said + (f"; {near}" if near else ""))

    def _nearest(self, values: Array) -> str:
        """Return the value that is nearest to the number that was asked for, where it is one."""
        try:
            number, there = float(self.pattern), values[np.isfinite(values)]
        except ValueError:
            return ""
        if self.operator != "=" or not math.isfinite(number) or not len(there):
            return ""
        return f"the nearest is {there[np.abs(there - number).argmin()].item()!r}"

    def _word(self, word: str, parts: list[str]) -> bool:
        if "~" not in self.operator:
            return any(fnmatchcase(word, part) for part in parts)
        try:
            return re.search(self.pattern, word) is not None
        except re.error as error:
            raise FeatdynError(
                f"--where {self.text!r}: {self.pattern!r} is not a regular expression: {error}"
            ) from None

    def _of_truth(self) -> bool:
        """Whether what is asked for is true or false, in words."""
        return self.operator in ("=", "!=") and set(self.pattern.lower().split(",")) <= {"true", "false", "yes", "no"}

    def _number(self, values: Array, whole: Array | None, counted: bool) -> Mask:
        def number(word: str) -> Any:
            return self._value(word, whole, counted)

        if "~" in self.operator:
            raise FeatdynError(f"--where {self.text!r}: {self.operator} is for text, and {self.name} holds numbers")
        if self.operator in _ORDER:
            return np.asarray(_ORDER[self.operator](values, number(self.pattern)))
        mask = np.zeros(values.shape, bool)
        for part in self.pattern.split(","):
            low, dots, high = part.strip().partition("..")
            if not dots:
                mask |= values == number(low)
                continue
            within = np.ones(values.shape, bool)
            if low:
                within &= values >= number(low)
            if high:
                within &= values <= number(high)
            mask |= within
        return ~mask if self.operator == "!=" else mask

    def _value(self, word: str, whole: Array | None, counted: bool) -> Any:
        """Return the number that a word stands for."""
        if word.strip() in ("first", "last") and whole is not None:
            return np.fmin.reduce(whole) if word.strip() == "first" else np.fmax.reduce(whole)
        for kind in (int, float):
            try:
                number = kind(word)
            except ValueError:
                continue
            if whole is not None and whole.dtype.kind == "f":
                return shown_as(word, number, whole)
            if counted and whole is not None and isinstance(number, int) and number < 0 <= np.fmin.reduce(whole):
                there = np.unique(whole)  # the axis counts from 0 or more: a negative number counts from its end
                return there[number] if -number <= len(there) else number
            return number
        raise FeatdynError(
            f"--where {self.text!r}: {word!r} is not a number, a range such as 10..50, or a list such as 1,2,5"
        )


def shown_as(word: str, number: float, values: Array) -> float:
    """Return the one of these values that a number stands for as it was typed, or the number itself.

    Tables show five digits (0.090909 of 1/11), and no one types more: so a value counts that is the number at five
    digits, or at the decimals that were typed, three digits or more, if it is the only one.
    """
    if (values == number).any() or not math.isfinite(number):
        return number
    there = np.unique(values[np.isfinite(values)]).tolist()
    typed = Decimal(word).as_tuple()
    decimals = -int(typed.exponent) if len(typed.digits) >= TYPED else 0
    near = [v for v in there if f"{v:.5g}" == f"{number:.5g}" or (decimals > 0 and round(v, decimals) == number)]
    return float(near[0]) if len(near) == 1 else number


def places(length: int, text: str) -> NDArray[np.intp] | None:
    """Return the places of an axis that ``17``, ``-1`` (the last) or ``3..5`` stands for; None for any other text."""
    low, dots, high = text.strip().partition("..")
    if not (low or high) or not all(re.fullmatch(r"-?\d+", word, re.ASCII) for word in (low, high) if word):
        return None
    first, last = (int(word) + length * (word[0] == "-") if word else None for word in (low, high if dots else low))
    start = 0 if first is None else max(first, 0)
    stop = length if last is None else min(last + 1, length)
    return np.arange(start, max(start, stop))


def summary(values: Array) -> str:
    """Return in words what values there are."""
    if values.dtype.kind in "iuf":
        if not np.isfinite(values).any():
            return "missing"
        return " to ".join(f"{end.reduce(values) + 0.0:g}" for end in (np.fmin, np.fmax))  # 0 has no sign here
    words = list(dict.fromkeys(str(v) or "''" for v in values))
    return ", ".join(words[:12]) + (f" and {len(words) - 12} more" if len(words) > 12 else "")
