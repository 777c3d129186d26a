"""What surrounds a run on a GPU: graphs of blocks of one shape, and torch's settings. It needs no GPU."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")


def test_float32_is_not_rounded_to_tf32_and_settings_come_back() -> None:
    from featdyn_kernels.stitch.gpu import exclusive

    def settings() -> list[str]:
        return [torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision]

    before = settings()
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        given = settings()
        with exclusive(torch.device("cpu")), exclusive(torch.device("cpu")):
            assert settings() == ["ieee", "ieee"]
        assert settings() == given
    finally:
        torch.backends.cuda.matmul.fp32_precision = before[0]


class Graph:
    """Stands in for a CUDA graph: computes again from the same memory into the same memory."""

    def __init__(self, run, block, group) -> None:
        self.run, self.results, self.replays = lambda: run(block.inputs, group), None, 0
        self.results = self.run()

    def replay(self) -> None:
        self.replays += 1
        for kept, new in zip(self.results, self.run(), strict=True):
            kept.copy_(new)


def test_blocks_of_one_shape_are_captured_once_and_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    from featdyn_kernels.stitch.gpu.replay import SHAPES, Replays

    graphs = []

    def run(inputs: tuple, group: slice) -> tuple[torch.Tensor, torch.Tensor]:
        x, labels, own = inputs
        weights = torch.arange(5.0)[group]
        return (weights[:, None] * x.sum(1)).long(), (weights[:, None] + labels)[None].float() + own.sum((1, 2))

    def capture(replays: Replays, block, group):
        graphs.append(Graph(run, block, group))
        block.graphs[group.start, group.stop] = graphs[-1], graphs[-1].results
        return block.graphs[group.start, group.stop]

    replays = Replays(run, torch.device("cpu"))
    replays.why_not = ""
    monkeypatch.setattr(Replays, "_capture", capture)
    for turn, n in enumerate([4, 4, 3, 1, 4]):
        inputs = (
            torch.randint(9, (n, 2)).float(),
            torch.randint(9, (n,)),
            torch.randint(9, (5, n, 3)).float().transpose(0, 1),
        )
        block = replays.start(inputs, 4)
        for group in (slice(0, 3), slice(3, 5)):
            found = [result.clone() for result in block(group)]
            assert all(torch.equal(*pair) for pair in zip(found, run(inputs, group), strict=True))
        assert len(graphs) == (2 if turn else 0)
    assert [graph.replays for graph in graphs] == [4, 4]
    for size in range(5, 5 + SHAPES):
        replays.start((torch.zeros(size, 2), None, None), size)
    assert len(replays._blocks) == SHAPES
    assert 4 not in {key[0] for key in replays._blocks}
