"""The numbers that SPEC.md gives, its own and what it says of ours, are those that the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from featdyn.capture import outputs
from featdyn.store import bounds, bucket, client, commit_list, lease, parity, place, publish, reader, root, schema

SPEC = " ".join((Path(root.__file__).parent / "SPEC.md").read_text(encoding="utf-8").split())
KIB, MIB = 2**10, 2**20
SAID = {
    "at most (200) bytes in UTF-8": [schema.NAME_BYTES],
    "keeps an inner chunk within (256) KiB": [schema.CHUNK_BYTES / KIB],
    "shards of at most (1024) samples and, for the largest layer, (32) MiB": [
        schema.SHARD_SAMPLES, schema.SHARD_BYTES / MIB,
    ],
    "so that a chunk has at most (64) KiB": [schema.GATHERED_BYTES / KIB],
    "one zstd frame that says its decoded size, at most (64) MiB: always": [root.LARGEST / MIB],
    "of text at most (256) MiB": [bounds.TEXT / MIB],
    "refuses a root or a manifest above (64) MiB": [place.DOCUMENT / MIB],
    "oldest first, never empty: the newest commits, at most (64)": [commit_list.LISTED],
    "if the number of the last was (2048) n": [commit_list.CHAINED],
    "groups of (16), or a fourth of the rows where these are fewer than (64)": [
        parity.GROUP, parity.GROUP * parity.GROUPS,
    ],
    r"with pauses from (0\.1) to (5) seconds for (20) seconds in all \((1) at the first contact": [
        client.PAUSE, client.LONGEST, client.READING, client.FIRST,
    ],
    "of a few samples of a shard above (1) MiB": [reader.PARTLY / MIB],
    r"\(ours: (60) seconds for a result, (600) for a writer\)": [publish.RESULT_WAITS, place.WRITER_WAITS],
    r"larger than a put may be \(ours: (256) MiB\)": [bucket.SINGLE / MIB],
    "Ours runs for (60) seconds and is renewed every (15)": [lease.SECONDS, lease.RENEWED],
    r"than the request may take \(ours: (30) seconds, and (20)\)": [
        bucket.LASTING, client.BRIEF["timeout"] + client.BRIEF["during"],
    ],
    "at positions with more than (1,024) classes: the (16) largest": [outputs.VOCABULARY, outputs.TOP],
}  # fmt: skip


@pytest.mark.parametrize("words", SAID)
def test_the_number_is_the_one_in_the_specification(words: str) -> None:
    found = re.search(words, SPEC)
    assert found is not None, f"SPEC.md does not say: {words}"
    assert [float(number.replace(",", "")) for number in found.groups()] == SAID[words]


def test_a_lease_is_renewed_several_times_and_what_has_no_condition_is_over_before_it_ends() -> None:
    assert lease.SECONDS >= 3 * lease.RENEWED  # one that is missed, or late, loses nothing
    assert client.BRIEF["timeout"] + client.BRIEF["during"] < bucket.LASTING < lease.SECONDS
    for patience in (client.QUICK, client.BRIEF):  # somebody waits for the answer
        assert patience["timeout"] + patience["during"] < client.PATIENT["timeout"]
