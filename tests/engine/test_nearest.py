"""Names that may have been meant: a slip away, and nothing that only looks like one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featdyn.nearest import _slips, meant, near, nearest

LAYERS = ["stem", "s1b1", "s1b2", "s2b3", "pooled"]
NAMES = ["epoch", "outputs.loss", "outputs.logits", "results.spectra.participation_ratio", "cube.activation_norm"]


@pytest.mark.parametrize(
    ("word", "known", "expected"),
    [
        ("TEST", ["train", "test"], "test"),
        ("dgo", ["ant", "dog"], "dog"),
        ("tset", ["train", "test"], "test"),
        ("spctra", ["drift", "spectra"], "spectra"),
        ("s5b1", LAYERS, "s1b1"),
        ("outputs.los", NAMES, "outputs.loss"),
        ("resluts.spectra.participation_ratio", NAMES, "results.spectra.participation_ratio"),
        ("results.spectra.particpation", NAMES, "results.spectra.participation_ratio"),
        ("cube.activation", NAMES, "cube.activation_norm"),
        ("nosuch", NAMES, None),
        ("11", LAYERS, None),
        ("norm", ["mean", "form_of"], None),
        ("", LAYERS, None),
    ],
)
def test_the_nearest_name_is_a_slip_away(word: str, known: list[str], expected: str | None) -> None:
    found = near(word, known)
    assert found == ([] if expected is None else [expected])
    assert meant(word, known) == ("" if expected is None else f"did you mean {expected}? ")
    assert nearest(word, known) == (
        f"there are {', '.join(known)}" if expected is None else f"did you mean {expected}?"
    )


@pytest.mark.parametrize(
    ("word", "name", "found"),
    [
        ("abxdyf", "abcdef", True), ("abxdy", "abcde", False),  # a slip for three letters
        ("abxdyfxhi", "abcdefghi", True), ("abxdyfxh", "abcdefgh", False),
        ("ab", "abcd", False), ("ab", "abc", True),  # and one at least
        ("out.abxdyf", "out.abcdef", True), ("out.abxdy", "out.abcde", False),  # of the last part
        ("optim", "optimizer", True), ("opti", "optimizer", False),  # a beginning of five letters
    ],
)  # fmt: skip
def test_as_many_slips_are_forgiven_as_a_word_is_long(word: str, name: str, found: bool) -> None:
    assert near(word, ["zzz", name]) == [name] * found


def test_the_nearest_come_first_and_as_many_as_are_asked_for() -> None:
    known = ["run12", *(f"run{i}" for i in range(8))]
    assert near("run1", known) == ["run1"]
    assert near("run1", known, 2) == ["run1", "run12"]
    assert sorted(near("run1", known, 9)) == sorted(known)
    assert near("RUN1", ["run1", "Run1", "x"], 3) == ["run1", "Run1"]


def written_out(one: str, other: str) -> int:
    """Count by the definition, from the ends."""
    if not one or not other:
        return len(one) + len(other)
    found = [
        written_out(one[:-1], other[:-1]) + (one[-1] != other[-1]),
        written_out(one[:-1], other) + 1,
        written_out(one, other[:-1]) + 1,
    ]
    if one[-2:] == other[-2:][::-1] and len(one) > 1 and len(other) > 1:
        found.append(written_out(one[:-2], other[:-2]) + 1)
    return min(found)


@given(st.text("ab.", max_size=6), st.text("ab.", max_size=6))
def test_slips_are_those_of_the_definition(one: str, other: str) -> None:
    assert _slips(one, other) == written_out(one, other) == _slips(other, one)


@given(st.text("abcdef", min_size=3, max_size=9), st.data())
def test_one_slip_is_always_forgiven(name: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(name) - 1))
    changed = name[:at] + data.draw(st.sampled_from(["", "x", name[at].upper()])) + name[at + 1 :]
    assert near(changed, ["zzz", name], 1, 0.3) == [name]
