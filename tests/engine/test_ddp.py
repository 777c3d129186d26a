"""Several ranks record one run: the store is that of one process, and nothing that one rank does breaks it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from featdyn.store import Run, schema, verify
from tests.engine import ranks

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(autouse=True)
def _one_thread():
    """The bits of a convolution depend on the number of threads; ranks have one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def content(store: Path) -> dict[str, bytes]:
    """Every file of a store, without what tells the time: the lock, and of the root the provenance."""
    found = {p.relative_to(store).as_posix(): p.read_bytes() for p in store.rglob("*") if p.is_file()}
    found.pop(".featdyn.lock", None)
    if "zarr.json" in found:
        root = json.loads(found["zarr.json"])
        root["attributes"].pop("provenance")
        root["attributes"]["featdyn"].pop("root_crc32c")
        found["zarr.json"] = json.dumps(root).encode()
    return found


def equal(store: Path, other: Path) -> None:
    one, two = content(store), content(other)
    assert one.keys() == two.keys()
    assert [path for path in one if one[path] != two[path]] == []
    assert verify(store).sound


def test_two_ranks_write_the_store_of_one_process(tmp_path):
    samples = schema.SHARD_SAMPLES * 2 + 50
    assert [type(end) for end in ranks.launch(tmp_path, 2, ranks.train, tmp_path / "two.zarr", samples)] == [dict, dict]
    ranks.twin(tmp_path / "one.zarr", 2, samples)
    run = Run(tmp_path / "two.zarr")
    assert run.schema.blocks == 3
    assert run.values("step").tolist() == [2, 4, 6]
    equal(tmp_path / "two.zarr", tmp_path / "one.zarr")
