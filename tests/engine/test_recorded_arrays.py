"""What was recorded, and what can no longer be asked of it: small values in float16, labels that are no classes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from featdyn.analysis.inputs import layer_vectors, weights
from featdyn.analysis.inputs.class_labels import class_count, labelled, output_positions
from featdyn.analysis.inputs.no_classes import not_classes, outputs_are_probabilities, stray_label
from featdyn.analysis.inputs.positions import padded_cuts
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.analysis.inputs.recorded_arrays import recorded, refuse_vanished, vanished
from featdyn.analysis.inputs.targets import NO_TARGETS, UNKNOWN, targets
from featdyn.analysis.inputs.weights import ROUNDING, States, refuse_other_outputs
from featdyn.errors import FeatdynError, NetworkError
from featdyn.store import ArraySpec

HELD = float(np.finfo(np.float16).smallest_normal)
AXES = {"a": ("position", "feature"), "b": ("channel", "height"), "c": ("feature",)}
SHAPES = {"a": (3, 4), "b": (5, 2), "c": (7,)}


def layers_of(norms: Any = None, mask: Any = None, *, first: str = "sample", **attrs: Any) -> Any:
    """Return a run of three layers and four probes, at two checkpoints."""
    samples, order = 4, ["c", "a", "b"]  # of the network; the cube has another
    specs = {}
    for name in order:
        dims, shape = ("sample", *AXES[name]), (samples, *SHAPES[name])
        if first != "sample" and name == "a":
            dims, shape = dims[1::-1] + dims[2:], shape[1::-1] + shape[2:]
        path = f"layers/{name}/activation"
        specs[path] = ArraySpec(path, dims, shape, attrs.get("dtype", "float16"), attrs.get("of", {}))
    held = {"cube/activation_norm": norms, "cube/layer": np.array(["b", "a", "c"], object), "inputs/mask": mask}
    nodes = {name: None for name, values in held.items() if values is not None}

    class Specs(dict[str, ArraySpec]):
        arrays, samples = tuple(specs.values()), 4

    return SimpleNamespace(
        path="r.zarr", checkpoints=2, layers=order, nodes=nodes, values=held.__getitem__, schema=Specs(specs),
        described=lambda name: {},
    )  # fmt: skip


@pytest.mark.parametrize(("layer", "place"), [("a", 1), ("b", 0), ("c", 2)])
@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("masked", [False, True])
def test_what_has_vanished_is_told_by_the_norms_beside_it(layer: str, place: int, scale: float, masked: bool) -> None:
    """By the root of the mean square of those that are no padding, which float16 holds in full from HELD on."""
    real = np.array([[True, True, True], [True, True, False], [True, False, False], [True, True, True]])
    count = np.full(4, np.prod(SHAPES[layer]))
    if masked and layer == "a":
        count = 4 * real.sum(1)
    norms = np.full((2, 3, 4), np.nan)
    sizes = np.array([[1.0, 0.999, 1.001, 0.0], [0.5, 2.0, 1e-9, 0.998]])
    norms[:, place] = sizes * HELD * scale * np.sqrt(count)
    of = {} if scale == 1 else {"scale_factor": scale}
    run = layers_of(norms, real if masked else None, of=of)
    found = vanished(run, run.schema[f"layers/{layer}/activation"])
    assert found[:, 1:].tolist() == ((sizes > 0) & (sizes < 1))[:, 1:].tolist()
    assert found[1, 0]
    for other in (layers_of(None, of=of), layers_of(norms, dtype="float32", of=of)):
        nothing = vanished(other, other.schema[f"layers/{layer}/activation"])
        assert nothing.shape == (2, 4)
        assert not nothing.any()


def test_a_layer_that_is_lost_for_most_probes_is_refused() -> None:
    norms = np.ones((2, 3, 4))
    norms[1, 2, :2] = 1e-12  # half of the probes
    refuse_vanished(layers_of(norms), ["a", "b", "c"], "give up")
    norms[1, 2, :3] = 1e-12
    refuse_vanished(layers_of(norms), ["a", "b"], "give up")
    with pytest.raises(FeatdynError, match=r"^r.zarr: the activations at c are .* \(checkpoint 1\): give up$"):
        refuse_vanished(layers_of(norms), ["a", "c"], "give up")


def test_arrays_are_found_in_the_order_of_the_network() -> None:
    run = layers_of()
    paths = lambda *patterns: [spec.path.split("/")[1] for spec in recorded(run, patterns, "activation")]  # noqa: E731
    assert paths("all") == paths("a", "b", "c") == paths("*") == ["c", "a", "b"]
    assert paths("b", "c", "nowhere") == ["c", "b"]
    with pytest.raises(FeatdynError, match=r"no gradients were recorded$"):
        recorded(run, ["a"], "gradient")
    with pytest.raises(FeatdynError, match=r"no gradient of x was recorded; layers are c, a, b$"):
        recorded(run, ["x"], "gradient")
    with pytest.raises(FeatdynError, match=r"no activation of x, y was recorded; layers are c, a, b$"):
        recorded(run, ["x", "y"], "activation")
    odd = layers_of(first="position")
    assert len(recorded(odd, ["b", "c"], "activation")) == 2
    with pytest.raises(FeatdynError, match="layers/a/activation has the axes checkpoint, position, sample, feature, "):
        recorded(odd, ["all"], "activation")


def test_a_mask_is_of_features_with_its_positions() -> None:
    run = layers_of(mask=np.ones((4, 3), bool))

    def found(name: str, source: str, *shape: int) -> list[str]:
        return list(padded_cuts(run, [SimpleNamespace(name=name, shape=shape)], {name: source}))  # type: ignore[list-item]

    assert found("a", "stored", 3, 4) == ["a"]
    assert found("b", "stored", 5, 2) == found("c", "stored", 7) == []
    for name in ("a", "elsewhere"):
        assert found(name, "recomputed", 3, 9) == [name]
        assert found(name, "recomputed", 9) == []
        for shape in ((4, 3), (3, 4, 5)):
            with pytest.raises(ValueError, match=f"its features at {name} .* do not have the positions of the mask"):
                found(name, "recomputed", *shape)
    run = layers_of()
    assert found("a", "stored", 3, 4) == found("a", "recomputed", 4, 3) == []


@pytest.mark.parametrize("piece", [6, 1000])
def test_a_block_takes_its_values_twice_and_its_vectors(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(layer_vectors, "PIECE", piece)
    run = layers_of(of={"scale_factor": 0.5})  # read as float32
    run.schema.shard_samples = 9
    a, b, c = ([spec] for name in "abc" for spec in run.schema.arrays if f"/{name}/" in spec.path)
    samples = {"a": 4 * (2 * 4 * 12 + 8 * 3 * 4) + 3 * 8 * min(piece, 48), "b": 4 * (2 * 4 * 10 + 8 * 8 * 5)}
    samples["c"] = 4 * (2 * 4 * 7 + 8 * 3 * 7)
    assert [layer_vectors.block_bytes(run, specs) for specs in (a, b, c)] == [*samples.values()]
    assert layer_vectors.block_bytes(run, [*a, *b, *c]) == max(samples.values())
    run.schema.shard_samples = 2
    assert layer_vectors.block_bytes(run, b) == samples["b"] // 2
    plain = layers_of()
    plain.schema.shard_samples = 9
    assert layer_vectors.block_bytes(plain, [plain.schema["layers/c/activation"]]) == 4 * (2 * 2 * 7 + 8 * 3 * 7)


def labelled_run(labels: Any, logits: Any, loss: Any = None, target: Any = None, **more: Any) -> Any:
    """Return a run of outputs (sample, class), in blocks of two samples."""
    n, logits = len(logits), np.asarray(logits, np.float32)
    arrays = {"outputs/logits": logits} | ({} if loss is None else {"outputs/loss": np.asarray(loss, np.float32)})
    held = {"label": np.asarray(labels)} | ({} if target is None else {"inputs/target": target})
    specs = {path: ArraySpec(path, ("sample", "class")[: x.ndim], x.shape, "float32") for path, x in arrays.items()}

    class Schema(dict[str, ArraySpec]):
        blocks, samples = -(-n // 2), n

    return SimpleNamespace(
        path="r.zarr", recipe=None, checkpoints=1, nodes={**arrays, **held}, schema=Schema(specs),
        paths=lambda axis: [] if labels is None else ["label"], values=held.__getitem__,
        block=lambda path, t, block: arrays[path][2 * block : 2 * block + 2] * (-1) ** t, **more,
    )  # fmt: skip


SHARES = np.array([[0.25, 0.75], [0.5, 0.5], [0.0, 1.0]])


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        (SHARES, True),
        (np.add(SHARES, [[0], [0], [0.4e-3]]), True),
        (np.add(SHARES, [[0], [0], [0.6e-3]]), False),  # in the last block alone
        (SHARES - [[0.6e-3], [0], [0]], False),
        (np.add(SHARES, [[0, 0], [0, 0], [-1e-4, 1e-4]]), False),
        (np.ones((3, 1)), False),
    ],
)
def test_outputs_that_are_positive_and_sum_to_one_are_probabilities(outputs: Any, said: bool) -> None:
    run = labelled_run([0, 1, 0], outputs, np.ones(3))
    assert outputs_are_probabilities(run) is said
    assert ("probabilities" in not_classes(run, 2)) is said
    assert said or outputs.shape[1] == 1 or not_classes(run, 2) == ""  # of several logits any loss may be
    for other in (labelled_run([0, 1, 0], outputs), labelled_run([0, 1, 0], outputs, np.ones(3))):
        other.recipe = {} if "outputs/loss" in other.nodes else None
        assert not outputs_are_probabilities(other)
        assert not_classes(other, 2) == ""
    run.checkpoints = 0
    assert not outputs_are_probabilities(run)


def entropy(logits: Any, labels: Any) -> Any:
    return np.log1p(np.exp(np.where(labels, -logits, logits)))


@pytest.mark.parametrize("which", [None, 0, 1])
@pytest.mark.parametrize(("factor", "odd"), [(1.0, False), (1.0005, False), (1.003, True)])
def test_one_logit_is_one_where_its_loss_is_binary_cross_entropy(which: int | None, factor: float, odd: bool) -> None:
    """Up to a weight of each class; the loss of one probe of a class is off."""
    logits, labels = np.linspace(-3, 2, 9), np.arange(9) % 2
    loss = entropy(logits, labels) * np.where(labels, 3.0, 0.5)
    loss[[] if which is None else [2 + which]] *= factor
    said = not_classes(labelled_run(labels, logits[:, None], loss), 2)
    assert ("no logit" in said) == (odd and which is not None)
    for lost in (logits, loss):  # who has no number tells nothing
        wrong = lost.copy()
        wrong[[0, 1]] = np.nan, np.inf
        run = labelled_run(labels, (wrong if lost is logits else logits)[:, None], wrong if lost is loss else loss)
        assert not_classes(run, 2) == said
    if which is not None:  # of one class alone
        mine = labels == which
        one = labelled_run(labels[mine], logits[mine][:, None], loss[mine])
        assert ("no logit" in not_classes(one, 2)) == odd


@pytest.mark.parametrize(
    ("label", "loss", "stray"),
    [(3, 1.0, 3), (3, 0.0, None), (2, 1.0, None), (-1, 1.0, -1), (-1, -0.5, -1), (-100, 1.0, None), (0, 1.0, None)],
)
def test_a_label_that_is_no_class_and_has_a_loss_is_a_stray(label: int, loss: float, stray: int | None) -> None:
    labels, losses = [0, 1, 2, label], [1.0, 1.0, 1.0, loss]
    run = labelled_run(labels, np.eye(4, 3) * 5, losses)
    assert stray_label(run, 3) == stray
    assert (not_classes(run, 3) != "") == (stray is not None)
    assert stray_label(labelled_run(labels, np.eye(4, 3)), 3) is None
    floats = labelled_run(np.array([0.5, 1.0]), np.eye(2), np.ones(2))
    assert not_classes(floats, 2) == "its labels are float64, no classes"
    assert not_classes(labelled_run(None, np.eye(2), np.ones(2)), 2).startswith("its probes have no integer labels")


@pytest.mark.parametrize(
    ("labels", "width", "loss", "target", "values", "known"),
    [
        ([1, 0, -100], 2, None, None, [[0, 1], [1, 0], [0, 0]], [1, 1, 0]),  # as many columns as there are classes seen
        ([0, 0, 1], 5, None, None, [[1, 0], [1, 0], [0, 1]], [1, 1, 1]),
        ([1, 0, 2], 1, None, None, [[0, 1], [1, 0], [0, 0]], [1, 1, 0]),  # one logit tells two
        ([3, 0, 7], 1, [1, 1, 1], np.array([3, 0, 7]), [[3], [0], [7]], [1, 1, 1]),  # counts
        ([-1, -1, -1], 2, None, np.array([3, 0, 7]), None, []),
        ([0.5, 1, 2], 2, None, np.array([[0.5, 1], [2, np.nan], [0, 3]]), [[0.5, 1], [0, 0], [0, 3]], [1, 0, 1]),
        ([0.5, 1, 2], 2, None, np.array([[True, False]] * 3), [[1, 0]] * 3, [1, 1, 1]),
        ([0.5, 1, 2], 2, None, np.array([[1, 0]] * 3), None, []),  # integers that are no counts
        ([0.5, 1, 2], 2, None, np.ones((3, 3)), None, []),
        ([0.5, 1, 2], 2, None, np.ones((2, 2)), None, []),
        ([0.5, 1, 2], 4, None, np.ones((3, 2, 2)), [[1] * 4] * 3, [1, 1, 1]),
        (None, 1, None, np.array([2.0, 3.0, 4.0]), [[2], [3], [4]], [1, 1, 1]),
        (None, 1, None, None, None, []),
    ],
)
def test_targets_are_classes_or_what_has_the_shape_of_the_outputs(
    labels: Any, width: int, loss: Any, target: Any, values: Any, known: list[int]
) -> None:
    found = targets(labelled_run(labels, np.zeros((3, width)), loss, target))
    if values is None:
        assert found.values.shape == (3, 0)
        assert found.flaw(np.arange(3)) == NO_TARGETS
        assert not found.known.any()
        return
    assert found.values.tolist() == values
    assert found.known.tolist() == [bool(k) for k in known]
    assert found.flaw(np.arange(3)) == ("" if all(known) else UNKNOWN)
    assert found.flaw(np.flatnonzero(known)) == ""
    assert (found.classes is None) == (target is not None)
    if found.classes is not None:
        assert found.classes.tolist() == [label if k else -1 for label, k in zip(labels, known, strict=True)]


@pytest.mark.parametrize(
    ("dtype", "share"),
    [(torch.float32, ROUNDING), (torch.float64, ROUNDING), (torch.bfloat16, 2**-3), (torch.float16, 2**-6)],
)
@pytest.mark.parametrize("path", ["outputs/logits", "outputs/top_logits"])
def test_outputs_are_those_recorded_within_what_their_type_may_change(
    dtype: torch.dtype, share: float, path: str
) -> None:
    stored = np.array([[4.0, -8.0, np.nan], [2.0, 1.0, 0.0], [9.0, 9.0, 9.0]], np.float32)  # the last of another batch
    if path == "outputs/top_logits":
        stored = -np.sort(-np.nan_to_num(stored, nan=-1.0))[:, :1]
    run: Any = SimpleNamespace(path="r.zarr", nodes={path}, block=lambda of, t, block: stored)
    batch: Any = SimpleNamespace(start=4, stop=6, block=2)
    largest = np.nanmax(np.abs(stored[:2]))
    whole = np.array([[4.0, -8.0, -1.0], [2.0, 1.0, 0.0], [0, 0, 0]])  # filled up
    for by, other in ((0.97 * share, False), (1.07 * share, True), (np.nan, True)):
        found = torch.from_numpy(whole).to(dtype)
        found[0, 0] += by * largest
        if other:
            with pytest.raises(
                NetworkError, match=rf"of checkpoint 5 its outputs differ by .* of up to {largest:.3g}$"
            ):
                refuse_other_outputs(run, 5, found, batch)
            with pytest.raises(NetworkError, match=r"without its hooks .*: write what they do into its forward"):
                refuse_other_outputs(run, 5, found, batch, hooks=True)
        else:
            refuse_other_outputs(run, 5, found, batch)
    for odd in (whole[:, :0], whole[:1], [torch.from_numpy(whole)]):
        with pytest.raises(NetworkError, match="outputs have another shape than those recorded"):
            refuse_other_outputs(run, 5, torch.from_numpy(odd) if isinstance(odd, np.ndarray) else odd, batch)


def test_outputs_tell_so_many_classes_apart() -> None:
    for width in (1, 2, 5):
        assert class_count(labelled_run([0, 1], np.zeros((2, width)))) == max(2, width)
    run = labelled_run([0, 1], np.zeros((2, 3)))
    spec = ArraySpec("outputs/logits", ("sample", "position", "class"), (2, 2, 3), "float32")
    run.schema["outputs/logits"] = spec
    assert output_positions(run) == 2
    assert class_count(run, by_position=True) == 3
    with pytest.raises(FeatdynError, match=r"its outputs have shape \(2, 2, 3\), and only \(sample, class\) predict"):
        class_count(run)
    for dims, shape in ((("sample", "position", "class"), (2, 1, 3)), (("sample", "channel", "class"), (2, 4, 3))):
        run.schema["outputs/logits"] = ArraySpec("outputs/logits", dims, shape, "float32")
        assert output_positions(run) == 1
        with pytest.raises(FeatdynError, match="predict classes"):
            class_count(run, by_position=True)
    for nodes, said in (({"outputs/top_logits": None}, "the largest logits"), ({"inputs/x": None}, "holds no outputs")):
        run.nodes = nodes
        assert output_positions(run) == 1
        with pytest.raises(FeatdynError, match=said):
            class_count(run)


def test_probes_without_a_class_are_in_no_set() -> None:
    given = [0, 2, -100, 1, 3, -100]
    run = labelled_run(given, np.eye(6, 3))
    members = [np.arange(6) < 3, np.arange(6) == 3, np.arange(6) > 3]
    sets = ProbeSets(["a", "b", "c"], members, np.arange(6))
    found, labels = labelled(run, sets)
    assert found.names == ["a", "b"]
    assert [np.flatnonzero(member).tolist() for member in found.members] == [[0, 1], [3]]
    assert labels.tolist() == [0, 2, 0, 1, 0, 0]
    with pytest.raises(FeatdynError, match=r"no probe has a label from 0 to 2, the network's classes$"):
        labelled(run, ProbeSets(["c"], members[2:], np.arange(6)))
    with pytest.raises(FeatdynError, match="its labels are float64, no classes: no prediction is right or wrong"):
        labelled(labelled_run(np.ones(6), np.eye(6, 3)), sets)


@pytest.mark.parametrize(("held", "room"), [(0, 2), (3, 3), (4, 4), (9, 5)])
def test_weights_of_the_checkpoints_asked_for_last_are_kept(
    monkeypatch: pytest.MonkeyPatch, held: int, room: int
) -> None:
    model, read = torch.nn.Linear(3, 2), list[int]()
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    monkeypatch.setattr(weights, "HELD", held * size + size - 1)

    def state(t: int) -> dict[str, torch.Tensor]:
        read.append(t)
        return {name: torch.full_like(tensor, t) for name, tensor in model.state_dict().items()}

    run: Any = SimpleNamespace(
        path="r.zarr", checkpoints=5, state=state,
        state_file=lambda t, checked: SimpleNamespace(tensors=model.state_dict()),
    )  # fmt: skip
    states = States(run, model)
    assert (len(states), states.room, states.nbytes) == (5, room, size)
    kept: list[int] = []
    for t in [0, 1, 0, 2, 3, 1, 4, 0, 0, -1, -5, 3, 2]:
        before, place = len(read), t % 5
        assert float(states[t]["bias"][0]) == place
        assert (len(read) == before) == (place in kept)
        kept = [*(k for k in kept if k != place), place][-room:]
    assert [float(one["bias"][0]) for one in states[3:0:-2]] == [3, 1]
    for beyond in (5, -6):
        with pytest.raises(IndexError):
            states[beyond]
    nothing = States(run, None)
    assert nothing.nbytes == 0
    assert nothing[2] == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bias": None}, "it has bias, which they lack"),
        ({"more": torch.zeros(1)}, "they have more, which it lacks"),
        ({"bias": torch.zeros(3)}, r"its bias has shape \(2,\), theirs \(3,\)"),
    ],
)
@pytest.mark.parametrize("t", [0, 1, 2])
def test_weights_that_do_not_fit_are_said_with_their_checkpoint(change: Any, said: str, t: int) -> None:
    """Of the first and the last one before any work, of others when they are asked for."""
    model = torch.nn.Linear(3, 2)

    def state(at: int) -> dict[str, torch.Tensor]:
        found = dict(model.state_dict()) | (change if at == t else {})
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def file(at: int, checked: bool) -> Any:
        return SimpleNamespace(tensors={n: SimpleNamespace(shape=tuple(x.shape)) for n, x in state(at).items()})

    run: Any = SimpleNamespace(path="r.zarr", checkpoints=3, state=state, state_file=file)
    if t == 1:
        states = States(run, model)
    with pytest.raises(NetworkError, match=rf"^r.zarr: the weights of checkpoint {t} do not fit this network: {said}$"):
        states[1] if t == 1 else States(run, model)
