"""Patterns of layer names, against a matcher that walks both names letter by letter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featdyn.networks.layer_patterns import matching


def walks(pattern: str, name: str) -> bool:
    if not pattern:
        return not name
    if pattern.startswith("**"):
        return any(walks(pattern[2:], name[i:]) for i in range(len(name) + 1))
    if pattern[0] == "*":
        part = name.split(".")[0]
        return any(walks(pattern[1:], name[i:]) for i in range(len(part) + 1))
    if not name:
        return False
    if pattern[0] == "?":
        return name[0] != "." and walks(pattern[1:], name[1:])
    return pattern[0] == name[0] and walks(pattern[1:], name[1:])


@given(st.text("ab1.*?", max_size=8), st.text("ab1.", max_size=8))
def test_stars_stay_within_a_part_of_the_name_and_double_ones_do_not(pattern, name):
    assert (matching(pattern, [name]) == [name]) == (walks(pattern, name) or pattern == name)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("layer*", ["layer1", "layer2"]),
        ("layer1.*", ["layer1.0", "layer1.x[0]"]),
        ("layer[12]", ["layer1", "layer2"]),
        ("layer[!1]", ["layer2"]),
        ("**.relu", ["layer1.0.relu"]),
        ("layer**", ["layer1", "layer1.0", "layer1.0.relu", "layer1.x[0]", "layer2"]),
        ("layer1.x[0]", ["layer1.x[0]"]),  # a name is a pattern of itself
        ("layer[", []),
        ("[]", []),
        ("(layer1)", []),
    ],
)
def test_patterns_of_a_residual_network(pattern, expected):
    names = ["layer1", "layer1.0", "layer1.0.relu", "layer1.x[0]", "layer2", "fc"]
    assert matching(pattern, names) == expected
