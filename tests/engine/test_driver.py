"""What every analysis is checked for, given and completed with, by analyses that exist in this file only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from featdyn.analysis import analyses
from featdyn.analysis import context as contexts
from featdyn.analysis.context import Context
from featdyn.analysis.declaration import Analysis, Variable, bounded
from featdyn.analysis.driver import HELD, analyze, too_large
from featdyn.analysis.options import Suffixes, Trained, alpha, samples
from featdyn.analysis.several import answerable, keeping, several
from featdyn.analysis.status import Status, reasons, summary
from featdyn.capture import Probes, Recorder
from featdyn.compute import Limits, Plan
from featdyn.compute.serial import Serial
from featdyn.errors import ComputeError, FeatdynError
from featdyn.store import ArraySpec, Run, RunWriter, Schema
from featdyn.validation import Options, validate


def asking(compute: Callable[[Context[Any]], xr.Dataset] = lambda _: xr.Dataset(), **said: Any) -> Analysis:
    """An analysis of one question."""
    base = {"name": "mine", "question": "what?", "source": "This test.", "options": Options, "variables": {}}
    return Analysis(**base | said, compute=compute)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two checkpoints of a network that featdyn does not know, of probes with labels."""
    torch.manual_seed(0)
    model, probes = nn.Sequential(nn.Linear(3, 4), nn.ReLU()), Probes(torch.randn(6, 3), torch.arange(6) % 2)
    path = tmp_path_factory.mktemp("driver") / "r.zarr"
    with Recorder(model, probes, path, layers=["0"], gradients=False) as recorder:
        for step in range(2):
            recorder.record(step=step)
    return Run(path)


def made(path: Path, *arrays: str, coords: dict[str, Any] | None = None, **attributes: Any) -> Run:
    """A run of one checkpoint that holds these arrays of three samples, and nothing else."""
    specs = [ArraySpec("checkpoint", (), (), "int64")]
    specs += [ArraySpec(name, ("sample", "feature"), (3, 2), "float32") for name in arrays]
    static = {"": xr.Dataset(coords={"sample": np.array(list("abc"), dtype=object), **(coords or {})})}
    with (
        RunWriter.create(path, Schema.build(specs, 3), static=static, attributes=attributes) as writer,
        writer.checkpoint() as checkpoint,
    ):
        checkpoint.write("checkpoint", np.array(0))
        for spec in specs[1:]:
            checkpoint.write(spec.path, np.zeros((3, 2), np.float32), 0)
    return Run(path)


@pytest.mark.parametrize(
    ("need", "said"),
    [
        ("activations", "mine needs activations: none were recorded"),
        ("moments", "mine needs moments: no activations were recorded, nor their moments"),
        ("gradients", "mine needs gradients: none were recorded"),
        ("labels", "mine needs labels: its probes have none"),
        ("targets", "mine needs targets: its probes have no labels"),
        ("training probes", "mine needs training probes: probes whose coordinate 'split' says 'train'"),
        ("training data", r"mine needs training data: 'featdyn train' did not make it.*model=model, batches=loader\)"),
        ("network", r'mine needs network: it is known to its own code only.*featdyn.analyze\(run, "mine", model=model'),
    ],
)
def test_what_a_run_lacks_is_refused_by_name(tmp_path: Path, need: Any, said: str) -> None:
    with pytest.raises(FeatdynError, match=said) as caught:
        asking(needs=frozenset([need]))(made(tmp_path / "r.zarr"))
    assert "\n" not in str(caught.value)


def test_what_is_there_is_enough_in_either_form(tmp_path: Path, recorded: Run) -> None:
    features = made(tmp_path / "a.zarr", "layers/a/activation")
    moments = made(tmp_path / "m.zarr", capture={"record": "moments"})
    gradients = made(tmp_path / "g.zarr", "layers/a/gradient")
    for run, needs in (
        (features, ["activations", "moments"]),
        (moments, ["moments"]),
        (gradients, ["gradients"]),
        (recorded, ["labels", "targets", "activations"]),
    ):
        assert asking(needs=frozenset(needs))(run).attrs["analysis"] == "mine"
    for run, need in ((features, "gradients"), (gradients, "activations"), (gradients, "moments")):
        with pytest.raises(FeatdynError, match=f"mine needs {need}"):
            asking(needs=frozenset([need]))(run)
    with pytest.raises(FeatdynError, match="mine needs activations: in place of them their moments were kept"):
        asking(needs=frozenset(["activations"]))(moments)
    with pytest.raises(FeatdynError, match="mine needs weights and inputs and outputs: none were recorded"):
        asking(needs=frozenset(["network"]))(features, model=nn.Linear(1, 1))


@pytest.mark.parametrize("model", [None, nn.Linear(1, 1)])
@pytest.mark.parametrize("batches", [None, []])
def test_training_data_and_a_network_come_together(recorded: Run, model: Any, batches: Any) -> None:
    needing = asking(needs=frozenset(["training data"]))
    if batches is None:
        with pytest.raises(FeatdynError, match="mine needs training data"):
            needing(recorded, model=model)
    elif model is None:
        with pytest.raises(FeatdynError, match="takes model= and batches= together"):
            needing(recorded, batches=batches)
    else:
        needing(recorded, model=model, batches=batches)
    if batches is not None:
        with pytest.raises(FeatdynError, match="mine needs no training data: leave batches= out"):
            asking()(recorded, model=model, batches=batches)


GRID = {"value": Variable("t cut", "a value", "m", (0.0, 2.0), status="why"), "other_*": Variable("*", "others")}


def answered(recorded: Run, found: xr.Dataset, variables: dict[str, Variable] = GRID) -> xr.Dataset:
    return asking(lambda _: found, variables=variables)(recorded)


def grid(**more: Any) -> xr.Dataset:
    values = xr.DataArray([[1.0, np.nan], [np.nan, 0.0]], dims=("cut", "t"), coords={"t": [0, 1], "cut": ["a", "b"]})
    return xr.Dataset({"value": values, **more})


def test_a_result_has_what_was_declared_and_a_word_for_all_that_is_missing(recorded: Run) -> None:
    marked = Status(("cut", "t"), (2, 2)).mark("too_few_samples", (0, 1)).mark("one_class", (0, slice(None)))
    found = answered(recorded, grid(why=marked.variable(), other_x=("u", [1.0, np.nan])))
    assert found["value"].attrs["long_name"] == "a value"
    assert found["value"].attrs["units"] == "m"
    assert found["value"].attrs["valid_range"] == [0.0, 2.0]
    assert found["value"].attrs["ancillary_variables"] == "why value_status"  # one cell has no reason of its own
    words = reasons(found, "value")
    assert words is not None
    assert words.values.tolist() == [["one class", "too few samples"], ["not defined", ""]]
    others = reasons(found, "other_x")
    assert others is not None
    assert others.values.tolist() == ["", "not defined"]
    assert summary(found) == [
        ("why", "too few samples", 1, 4),
        ("why", "one class", 1, 4),
        ("value_status", "not defined", 1, 4),
        ("other_x_status", "not defined", 1, 2),
    ]
    assert found["t"].attrs["long_name"]
    whole = answered(recorded, grid().fillna(1.0))
    assert set(whole.data_vars) == {"value"}
    assert "ancillary_variables" not in whole["value"].attrs
    assert reasons(whole, "value") is None
    assert (whole.attrs["input_commit"], whole.attrs["options"]) == (recorded.commits[-1].number, {})


def test_a_status_with_a_name_that_is_taken_gets_another(recorded: Run) -> None:
    found = answered(recorded, grid(), {"value": Variable("t cut", "a value"), "value_status": Variable("t", "x")})
    assert "value_status" in found
    taken = {"value": Variable("t cut", "a value"), "value_status": Variable("t", "x")}
    again = answered(recorded, grid(value_status=("t", [1, 2])), taken)
    assert again["value"].attrs["ancillary_variables"] == "value_missing"
    assert again["value_status"].values.tolist() == [1, 2]


def test_numbers_that_are_no_floats_or_mean_something_by_missing_have_the_status_that_is_declared(
    recorded: Run,
) -> None:
    why = Status(("t",), (2,)).mark("one_class", 1).variable()
    variables = {
        "value": Variable("t cut", "a value", missing="padding", status="why"),
        "count": Variable("t", "a count", status="why"),
        "free": Variable("t", "a count", status="elsewhere"),
    }
    found = answered(recorded, grid(count=("t", [1, -1]), free=("t", [1, 2]), why=why), variables)
    assert {name: found[name].attrs.get("ancillary_variables") for name in variables} == {
        "value": "why",
        "count": "why",
        "free": None,
    }
    assert set(found.data_vars) == {"value", "count", "free", "why"}
    assert found["value"].attrs["missing"] == "padding"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (grid(extra=("t", [1.0, 2.0])), "mine: the variable extra is not declared"),
        (grid().isel(cut=0, drop=True), r"mine: value has dimensions \('t',\), declared are t cut"),
        (grid().expand_dims("u"), "mine: value has dimensions .*, declared are t cut"),
        (grid(why=Status(("u",), (2,)).variable()), "mine: why has dimensions .*: it cannot say which cells it means"),
    ],
)
def test_what_was_not_declared_so_is_a_mistake_of_the_analysis(recorded: Run, found: xr.Dataset, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        answered(recorded, found)


def test_what_has_reasons_keeps_the_first() -> None:
    status = Status(("a",), (4,)).mark("first", [0, 1]).mark("second", np.array([False, True, True, False]))
    assert [status.reason(i) for i in range(4)] == ["first", "first", "second", ""]
    assert status.reason() == status.reason(slice(1, 3)) == "second"
    assert status.computed.tolist() == [False, False, False, True]
    status.mark("nowhere", []).mark("late", 0)
    assert status.variable().attrs["flag_meanings"] == "computed first second"
    assert status.variable().attrs["flag_values"] == [0, 1, 2]
    assert status.variable().values.tolist() == [1, 1, 2, 0]
    assert Status((), ()).mark("x").reason() == "x"


def test_limits_are_declared_with_their_variable() -> None:
    found = bounded("share", "t", "a share", valid_range=(0.0, 1.0))
    assert list(found) == ["share", "share_low", "share_high"]
    assert {(each.dims, each.valid_range) for each in found.values()} == {("t", (0.0, 1.0))}
    assert Variable("t", "x").attributes() == {"long_name": "x", "units": "1"}


class Room(Serial):
    """This process, as if so many bytes were free."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.plans = room, list[Plan]()

    def limits(self) -> Limits:
        return Limits(self.room + 7, 7, 1, True)

    def admit(self, plan: Plan) -> None:
        self.plans.append(plan)
        plan.announce(self.room + 7, 7, threads=1, here=True)


def test_a_network_is_too_large_where_it_does_not_fit_as_often_as_it_is_held(recorded: Run) -> None:
    weights = 4 * (3 * 4 + 4)
    for room, large in ((HELD * weights, False), (HELD * weights - 1, True)):
        workers = Room(room)
        assert too_large(recorded, workers) is large
        whole = asking(needs=frozenset(["network"]))
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
        if large:
            with pytest.raises(ComputeError, match=r"mine of a network as a whole \(piece by piece go .*consistency"):
                whole(recorded, model=model, workers=workers)
        else:
            whole(recorded, model=model, workers=workers)
        seen: list[bool] = []
        pieces = asking(lambda c, s=seen: s.append(c.empty) or xr.Dataset(), streams=True)  # type: ignore[misc]
        pieces(recorded, model=lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU()), workers=workers)
        asking(lambda c, s=seen: s.append(c.empty) or xr.Dataset())(recorded, workers=workers)  # type: ignore[misc]
        assert seen == [large, False]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda: 3, "model: the function gives int, not a torch.nn.Module"),
        (nn.Linear(3, 4, device="meta"), "mine needs a network with weights, and this one lies on torch's meta device"),
    ],
)
def test_a_model_that_is_none_is_refused(recorded: Run, model: Any, said: str) -> None:
    with pytest.raises(FeatdynError, match=said):
        asking()(recorded, model=model)


class Uncopied(nn.Linear):
    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("held elsewhere")


def test_a_model_is_copied_with_what_it_has_computed_or_refused(recorded: Run) -> None:
    model = nn.Linear(3, 4)
    model.kept = (model.weight * 2).sum()  # of a graph that torch does not copy
    seen: list[Any] = []
    asking(lambda c: seen.append(c.model) or xr.Dataset())(recorded, model=model)  # type: ignore[func-returns-value]
    (own,) = seen
    assert own is not model
    assert own.weight is not model.weight
    assert own.kept.item() == model.kept.item()
    with pytest.raises(FeatdynError, match=r"the model cannot be copied \(held elsewhere\)"):
        asking()(recorded, model=Uncopied(3, 4))


@pytest.mark.parametrize("tasks", [1, 2, [1, 0, 3]])
def test_progress_is_of_the_plan_s_tasks_and_ends_at_all(recorded: Run, tasks: Any) -> None:
    told: list[tuple[int, int]] = []

    def compute(context: Context[Any]) -> xr.Dataset:
        context.admit(Plan("three", 4, 0))
        assert list(context.each("abc", tasks)) == ["a", "b", "c"]
        return xr.Dataset()

    asking(compute)(recorded, progress=lambda done, of: told.append((done, of)))
    done = {1: (1, 2, 3), 2: (2, 4, 4)}.get(tasks if isinstance(tasks, int) else 0, (1, 1, 4))
    assert told == [(each, 4) for each in done]
    asking(compute)(recorded)  # nobody asks


def test_first_results_are_committed_once_a_minute_and_for_a_tenth_of_the_time(
    recorded: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, kept = [0.0], []
    monkeypatch.setattr(contexts, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(contexts, "KEPT_EVERY", 60.0)

    def first() -> xr.Dataset:
        now[0] += 20  # which it takes
        return xr.Dataset()

    context = Context(recorded, Options(), Serial(), commit=kept.append, _kept=0.0)
    for later, count in ((59, 0), (1, 1), (239, 1), (1, 2), (239, 2), (2, 3)):  # 9 x 20 s, and a minute
        now[0] += later
        context.keep(first)
        assert len(kept) == count, later
    Context(recorded, Options(), Serial(), _kept=0.0).keep(lambda: pytest.fail("nobody commits"))


def test_features_are_kept_in_a_quarter_of_memory_up_to_a_bound(recorded: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from featdyn.analysis import several as module

    monkeypatch.setattr(module, "KEPT", 1000)
    for limit, free, room in (
        (3999, None, 999), (4004, None, 1000), (400, 8000, 100), (None, 402, 100), (None, None, 1000), (None, 0, 1000),
    ):  # fmt: skip
        monkeypatch.setattr(module, "available", lambda free=free: free)
        run = Run(recorded.path)
        with keeping(run, limit):
            assert run.kept is not None
            assert run.kept.room == room
        assert run.kept is None


class Some(Options):
    some: int = 3


def test_of_several_each_gets_its_own_and_one_that_fails_leaves_the_others(recorded: Run) -> None:
    given: dict[str, Any] = {}

    def fails(context: Context[Any]) -> xr.Dataset:
        raise FeatdynError("no")

    def noted(context: Context[Any]) -> xr.Dataset:
        given[type(context.options).__name__] = (context.options.model_dump(), context.batches, context.workers)
        return xr.Dataset({"x": ("u", [1.0])})

    variables = {"x": Variable("u", "x")}
    plain = asking(noted, name="plain", variables=variables)
    fed = asking(noted, name="fed", variables=variables, options=Some, needs=frozenset(["training data"]))
    bad = asking(fails, name="bad")
    workers, batches = Room(10**12), [1]
    found = {
        one.name: result
        for one, result in several(
            recorded.path, [bad, plain, fed], workers=workers, batches=batches, model=nn.Linear(1, 1), some=4
        )
    }
    assert list(found) == ["bad", "plain", "fed"]
    assert str(found["bad"]) == "no"
    assert given == {"Options": ({}, None, workers), "Some": ({"some": 4}, batches, workers)}
    assert Run(recorded.path).results("plain") == [found["plain"].attrs["path"]]


@pytest.mark.parametrize("given", [(), ("network",), ("network", "training data"), ("training data",)])
def test_what_a_run_can_be_asked_follows_from_needs_and_results(recorded: Run, given: tuple[str, ...]) -> None:
    held = {"activations", "moments", "labels", "targets", *(given if "network" in given else ())}
    wanted = {name for name, one in analyses().items() if one.needs <= held}
    wanted = {name for name in wanted if wanted >= set(analyses()[name].results)}
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU()) if "network" in given else None
    batches = [1] if "training data" in given else None
    assert {one.name for one in answerable(recorded, model, batches)} == wanted
    assert ("isotropy" in wanted) == (len(given) == 2)  # which reads a result of noise


LIMITS: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "seed": ((0,), (-1,)),
    "sets": ((("a",),), ((),)),
    "cuts": ((("a",),), ((),)),
    "layers": ((("a",),), ((),)),
    "alpha": ((1e-9, 0.999), (0.0, 1.0)),
    "t2": ((0, 1, "last", "all"), (-1, "first")),
}


@pytest.mark.parametrize("name", LIMITS)
def test_options_that_analyses_share_have_limits(name: str) -> None:
    asked = [one for one in analyses().values() if name in one.options.model_fields]
    assert asked
    for one in asked:
        for value in LIMITS[name][0]:
            assert getattr(validate(one.options, {name: value}, one.name), name) == value
        for value in LIMITS[name][1]:
            with pytest.raises(FeatdynError, match=name):
                validate(one.options, {name: value}, one.name)


class Own(Options):
    some: int = samples(9)
    few: int = samples(9, least=1)
    level: float = alpha()


def test_numbers_of_samples_have_a_least_and_a_level_its_usual_value() -> None:
    assert Own(some=2, few=1).level == 0.05
    for wrong in ({"some": 1}, {"few": 0}, {"level": 1}):
        with pytest.raises(FeatdynError):
            validate(Own, wrong, "own")


def test_deep_halves_are_of_the_last_checkpoint_of_all_or_of_one(recorded: Run) -> None:
    for t2, found in (("last", [1]), ("all", [0, 1]), (0, [0]), (1, [1])):
        assert Suffixes(t2=t2).suffixes(recorded) == found  # type: ignore[arg-type]
    assert Suffixes().suffixes(recorded) == [1]
    with pytest.raises(FeatdynError, match="no checkpoint 2: they are 0 to 1"):
        Suffixes(t2=2).suffixes(recorded)


def test_an_earlier_result_is_known_unless_it_is_to_be_fresh(recorded: Run) -> None:
    seen: list[bool] = []

    def compute(context: Context[Any]) -> xr.Dataset:
        seen.append(context.known is not None)
        return xr.Dataset({"x": ("t", [1.0, 2.0])}, {"t": [0, 1]})

    again = asking(compute, name="again", variables={"x": Variable("t", "x")})
    analyze(recorded.path, again)
    analyze(recorded.path, again)
    analyze(recorded.path, again, fresh=True)
    again(recorded)
    again(recorded, fresh=True)
    replace(again, version=2)(recorded)
    assert seen == [False, True, False, True, False, False]


def test_first_results_say_of_which_checkpoints_they_are_and_nothing_is_kept_without_a_store(
    recorded: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contexts, "KEPT_EVERY", -np.inf)

    def of(count: int) -> xr.Dataset:
        return xr.Dataset({"x": ("t", np.arange(float(count)))}, {"t": np.arange(count)})

    def compute(context: Context[Any]) -> xr.Dataset:
        context.keep(lambda: of(1))
        return of(2)

    growing = asking(compute, name="growing", variables={"x": Variable("t", "x")})
    analyze(recorded.path, growing)
    run = Run(recorded.path)
    first, whole = (run.result("growing", path) for path in run.results("growing"))
    assert (first.sizes["t"], whole.sizes["t"]) == (1, 2)
    weights = whole.attrs["identity"]["weights"]
    assert len(weights) == 2
    assert first.attrs["identity"] == whole.attrs["identity"] | {"weights": weights[:1]}
    before = len(run.commits)
    assert growing(recorded).sizes["t"] == 2
    assert len(Run(recorded.path).commits) == before


def test_a_network_without_weights_goes_piece_by_piece_whatever_is_free(recorded: Run) -> None:
    seen: list[bool] = []
    pieces = asking(lambda c: seen.append(c.empty) or xr.Dataset(), streams=True)  # type: ignore[func-returns-value]
    pieces(recorded, model=nn.Sequential(nn.Linear(3, 4, device="meta"), nn.ReLU()))
    pieces(recorded, model=nn.Sequential(nn.Linear(3, 4), nn.ReLU()))
    assert seen == [True, False]


def test_targets_and_training_probes_may_be_given_in_another_way(tmp_path: Path) -> None:
    asking(needs=frozenset(["targets"]))(made(tmp_path / "t.zarr", "inputs/target"))
    trained = asking(needs=frozenset(["training probes"]), options=Trained)
    plain = made(tmp_path / "p.zarr")
    with pytest.raises(FeatdynError, match="mine needs training probes"):
        trained(plain)
    trained(plain, train="mine")  # one that is not there is refused where sets are read
    split = {"split": ("sample", np.array(["test", "train", "test"], dtype=object))}
    trained(made(tmp_path / "s.zarr", coords=split))
    with pytest.raises(FeatdynError, match="mine needs training probes"):
        trained(made(tmp_path / "o.zarr", coords={"split": ("sample", np.array(["test"] * 3, dtype=object))}))
