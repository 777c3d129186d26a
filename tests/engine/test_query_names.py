"""By what names things are asked for: samples by id or number, checkpoints of results, classes, endings of files."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from featdyn.errors import FeatdynError
from featdyn.query import ask, query, variables
from featdyn.query.groups import Groups
from featdyn.query.where import Condition, places, summary
from featdyn.store import ArraySpec, Run, RunWriter, Schema
from tests.engine.question_run import CHECKPOINTS, CLASSES, SAMPLES, Held
from tests.engine.synthetic_run import make_run

Call = Callable[..., tuple[int, str, str]]
NUMBERS = st.integers(-12, 12)


@pytest.fixture
def run(written: tuple[Run, Held]) -> Run:
    return written[0]


@given(st.integers(1, 9), NUMBERS | st.none(), NUMBERS | st.none())
def test_places_are_those_of_a_list(length: int, low: int | None, high: int | None) -> None:
    """Both ends belong to a range; a number from the end is that of Python."""
    everything = list(range(length))
    if low is not None:
        found = places(length, f"{low}")
        assert found is not None
        assert found.tolist() == ([everything[low]] if -length <= low < length else [])
    if low is None and high is None:
        assert places(length, "..") is None
        return
    found = places(length, f"{'' if low is None else low}..{'' if high is None else high}")
    first, last = (None if n is None else n + length if n < 0 else n for n in (low, high))
    assert found is not None
    assert found.tolist() == [
        i for i in everything if (first is None or first <= i) and (last is None or i <= last)
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "a", "1.5", "1..b", "--1", "1-2", "toy/001", "1...3", "²"])
def test_what_is_no_number_is_no_place(text: str) -> None:
    assert places(9, text) is None


@pytest.mark.parametrize(
    ("condition", "expected"),
    [("sample=17", [17]), ("sample=-1", [SAMPLES - 1]), ("sample=3..5", [3, 4, 5]), ("sample=toy/017", [17]),
     ("sample=2,toy/004,-64", [0, 2, 4]), ("sample!=1..", [0])],
)  # fmt: skip
def test_a_sample_is_named_by_its_id_or_its_number(run: Run, condition: str, expected: list[int]) -> None:
    found = query(run, "label", where=condition)["sample"].tolist()
    assert found == [f"toy/{i:03d}" for i in expected]


def test_a_name_that_is_a_number_goes_before_the_place() -> None:
    names = np.array(["2", "0", "1"], object)
    assert Condition.parse("layer=0").holds(names, names, counted=True).tolist() == [False, True, False]
    assert Condition.parse("layer=-1").holds(names, names, counted=True).tolist() == [False, False, True]
    assert not Condition.parse("layer=-1").holds(names, names).any()  # of a coordinate beside an axis


def test_a_layer_is_named_by_its_number_too(run: Run) -> None:
    by_number = query(run, "cube.activation_norm", where=["layer=-1", "checkpoint=0"])
    pd.testing.assert_frame_equal(by_number, query(run, "cube.activation_norm", where=["layer=pooled", "checkpoint=0"]))


def test_class_names_are_a_variable(run: Run) -> None:
    found = query(run, "class_name")
    assert found.columns[-1] == "class_name"
    assert found["class_name"].tolist() == [CLASSES[i % len(CLASSES)] for i in range(SAMPLES)]
    assert query(run, "class_name", where="class_name=dog")["label"].unique().tolist() == [3]
    (row,) = variables(run, "class_name").to_dict("records")
    assert (row["axes"], row["type"], row["bytes"]) == (f"sample {SAMPLES}", "text", 0)


def test_checkpoint_and_step_of_a_result(run: Run) -> None:
    ratio = "results.representation.participation_ratio"
    last = query(run, ratio, where="t=-1")
    pd.testing.assert_frame_equal(query(run, ratio, where="checkpoint=-1"), last)
    pd.testing.assert_frame_equal(query(run, ratio, by="checkpoint,layer"), query(run, ratio, by="t,layer"))
    pd.testing.assert_frame_equal(query(run, ratio, reduce="max:checkpoint"), query(run, ratio, reduce="max:t"))
    order = query(run, ratio, sort="-checkpoint")["t"].tolist()
    assert order == sorted(order, reverse=True)
    assert order[0] == CHECKPOINTS - 1


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "results.consistency.accuracy",
            {"where": "checkpoint=-1"},
            r"of accuracy: say t1 \(checkpoint of .*\) or t2 \(checkpoint of ",
        ),
        ("results.consistency.accuracy", {"where": "step>1"}, r"step of accuracy: say step1 \(.*\) or step2 \("),
        ("results.consistency.accuracy", {"by": "checkpoint"}, "say t1"),
        ("results.consistency.accuracy", {"reduce": "mean:checkpoint"}, "say t1"),
        ("label", {"where": "checkpoint=-1"}, "label has no coordinate 'checkpoint'; there are sample"),
        ("outputs.loss", {"where": "layer=s2b3"}, "loss has no coordinate 'layer'; there are checkpoint"),
        ("outputs.loss", {"where": "sample=64"}, "selects nothing; sample is toy/000.*, by number 0 to 63"),
        ("outputs.loss", {"where": "class_name=dgo"}, "class_name is ant, bee, cat, dog; did you mean dog"),
        ("clas_name", {}, "did you mean class_name"),
        ("nosuch", {}, r"no variable 'nosuch'; there are checkpoint, .*cube\.\*, "),
        ("outputs.los", {}, r"did you mean outputs\.loss\?"),
        ("outputs.loss", {"where": "split=TEST"}, r"did you mean test\?$"),
        ("cube.activation_norm", {"where": "layer=11"}, r"pooled, by number 0 to 3$"),
        ("outputs.loss", {"where": "epoch=2.2"}, r"epoch is 0 to 6; the nearest is 2\.0$"),
    ],
)
def test_what_cannot_be_meant_gets_one_line(
    run: Run, name: str, arguments: dict[str, str], message: str
) -> None:  # fmt: skip
    with pytest.raises(FeatdynError, match=message) as caught:
        query(run, name, **arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_like_needs_features_that_are_there(tmp_path: Path) -> None:
    """A sample without features is near to nothing, and others do not take it for their nearest."""
    specs = [ArraySpec("checkpoint", (), (), "int64")]
    specs += [ArraySpec("cube/sketch", ("layer", "sample", "component"), (1, 5, 3), "float32")]
    values = np.random.default_rng(0).standard_normal((1, 5, 3)).astype(np.float32)
    values[0, 2] = np.nan
    values[..., 2] = np.nan  # padding of a narrow layer
    bare = {"static": {}, "attributes": {}}
    with (
        RunWriter.create(tmp_path / "run.zarr", Schema(tuple(specs), 5, 8), **bare) as writer,
        writer.checkpoint() as at,
    ):
        at.write("checkpoint", np.array(0))
        at.write("cube/sketch", values)
    run = Run(tmp_path / "run.zarr")
    with pytest.raises(FeatdynError, match=r"--like 2: no feature of sketch is there"):
        query(run, "cube.sketch", like=2)
    found = query(run, "cube.sketch", like=0).set_index("sample")["distance"]
    apart = np.linalg.norm((values[0, :, :2] - values[0, 0, :2]).astype(np.float64), axis=1)
    order = np.argsort(apart)[1:4]
    assert found.index.tolist() == [*order, 2]
    np.testing.assert_allclose(found, [*apart[order], np.nan], rtol=1e-6)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("query STORE outputs.loss -o FOLDER/a.xml", r"no format ends in \.xml; there are \.csv, "),
        ("sql STORE 'show tables' -o FOLDER/a.xlsx", r"no format ends in \.xlsx"),
        ("export STORE --cut s2b3 --from 0 --to 1 -o FOLDER/a.pt", r"name it .*a\.safetensors"),
    ],
)
def test_an_ending_that_is_not_known_leaves_no_file(
    run: Run, featdyn: Call, tmp_path: Path, command: str, message: str
) -> None:
    words = [word.replace("STORE", str(run.path)).replace("FOLDER", str(tmp_path)) for word in shlex.split(command)]
    code, out, err = featdyn(*words)
    assert (code, out) == (1, "")
    assert re.search(message, err)
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_format_that_is_named_takes_any_ending(run: Run, featdyn: Call, tmp_path: Path) -> None:
    assert featdyn("query", run.path, "step", "--format", "csv", "-o", tmp_path / "a.xml")[0] == 0
    assert pd.read_csv(tmp_path / "a.xml")["step"].tolist() == [10 * t * t for t in range(CHECKPOINTS)]
    assert featdyn("query", run.path, "step", "-o", tmp_path / "a.txt")[0] == 0
    assert (tmp_path / "a.txt").read_text() == featdyn("query", run.path, "step")[1]


def test_a_table_is_asked_for_as_an_answer_is(run: Run) -> None:
    """One signature, which notebooks show, and one answer."""
    asked, answered = inspect.signature(query), inspect.signature(ask)
    assert asked.parameters == answered.parameters
    assert (asked.return_annotation, answered.return_annotation) == ("pd.DataFrame", "Answer")
    question = {"where": ["checkpoint=-1"], "by": "label", "top": 3}
    pd.testing.assert_frame_equal(query(run, "outputs.loss", **question), ask(run, "outputs.loss", **question).frame())
    with pytest.raises(TypeError, match="wehre"):
        query(run, "outputs.loss", wehre="checkpoint=-1")  # type: ignore[call-arg]


@pytest.mark.parametrize("other", [("a", "c"), ("b", "a"), ("a",), ("a", "b", "c")])
def test_variables_with_other_labels_on_an_axis_are_not_put_side_by_side(
    tmp_path: Path, other: tuple[str, ...]
) -> None:
    own = make_run(tmp_path / "run.zarr", checkpoints=1)
    with RunWriter.open(own.path) as writer:
        for name, cuts in (("one", ("a", "b")), ("two", other), ("three", ("a", "b"))):
            writer.result(name, xr.Dataset({f"of_{name}": ("cut", np.ones(len(cuts)))}, {"cut": list(cuts)}))
    own = Run(own.path)
    assert query(own, "results.one.of_one", "results.three.of_three")["cut"].tolist() == ["a", "b"]
    with pytest.raises(FeatdynError, match=r"have another cut: ask for them one by one"):
        query(own, "results.one.of_one", "results.two.of_two")


def test_text_with_numbers_is_grouped_in_their_order() -> None:
    groups = Groups.of({"name": np.array(["10", "2", "s1b10", "s1b9", "2", "b"], dtype=object)})
    assert groups.columns["name"].tolist() == ["2", "10", "b", "s1b9", "s1b10"]
    assert groups.codes.tolist() == [1, 0, 4, 3, 0, 2]


THIRDS = np.array([0.0, 1 / 11, 5 / 22, 1 / 3, 0.33334, 2 / 3, 1.0, 12345.678, 12.31, 123.4])


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("0.090909", 1), ("0.0909", 1), ("0.227", 2), ("0.22727", 2), ("0.6667", 5), (".667", 5), ("12346", 7),
        ("0.33334", 4), ("0.333333", 3), ("12.3", 8), ("123.4", 9), ("1234.0", None), ("123", None), ("12", None),
        ("0.09", None), ("0.7", None), ("0.3333", None), ("12345", None), ("0.0908", None), ("1.1", None),
    ],
)  # fmt: skip
def test_a_number_is_selected_as_it_is_shown(word: str, expected: int | None) -> None:
    """Of several that are shown alike it is none, and of few digits the exact value alone."""
    held = Condition.parse(f"epoch={word}").holds(THIRDS, THIRDS)
    assert np.flatnonzero(held).tolist() == ([] if expected is None else [expected])
    if expected is not None:
        assert Condition.parse(f"epoch!={word}").holds(THIRDS, THIRDS).tolist() == (~held).tolist()
        upto = Condition.parse(f"epoch=..{word}").holds(THIRDS, THIRDS)
        assert upto.tolist() == (THIRDS[expected] >= THIRDS).tolist()
        above = Condition.parse(f"epoch>{word}").holds(THIRDS, THIRDS)
        assert above.tolist() == (THIRDS[expected] < THIRDS).tolist()


@given(st.lists(st.floats(0, 100), min_size=1, max_size=20, unique=True))
def test_what_a_table_shows_can_be_typed(values: list[float]) -> None:
    """Each value that no other is shown as is the one that its own text selects."""
    array = np.array(values)
    shown = [f"{v:.5g}" for v in values]
    for place, word in enumerate(shown):
        held = np.flatnonzero(Condition.parse(f"epoch={word}").holds(array, array)).tolist()
        rounded = [v for v in values if float(word) == v]
        if rounded:
            assert held == [values.index(rounded[0])]
        elif shown.count(word) == 1 and sum(abs(v - float(word)) <= 1e-3 * abs(v) for v in values) == 1:
            assert held == [place]


@pytest.mark.parametrize(
    ("counted", "values", "kept"),
    [
        ("x=-1", [0, 1, 5], [5]), ("x=-3", [0, 1, 5], [0]), ("x=-4", [0, 1, 5], []), ("x=0", [1, 2, 5], []),
        ("x=-1", [1, 2, 5], [5]), ("x=-1", [-2, -1, 0, 3], [-1]), ("x=-3", [-2, -1, 0], []), ("x=-1.0", [0, 1, 5], []),
        ("x=first,last", [3, 1, 2], [3, 1]), ("x=first", [np.nan, 4.0, 2.0], [2.0]),
    ],
)  # fmt: skip
def test_a_negative_number_counts_from_the_end_of_an_axis_that_has_none(
    counted: str, values: list[float], kept: list[float]
) -> None:
    axis = np.array(values)
    assert axis[Condition.parse(counted).holds(axis, axis, counted=True)].tolist() == kept
    if "=-" in counted:  # of what is no axis it is the number itself
        own = [v for v in values if v == float(counted[2:])]
        assert axis[Condition.parse(counted).holds(axis, axis)].tolist() == own


@pytest.mark.parametrize(
    ("condition", "values", "end"),
    [
        ("x=2.2", [3.0, 2.0, np.nan], "2 to 3; the nearest is 2.0"), ("x=7", [3, -1], "-1 to 3; the nearest is 3"),
        ("x=-1", [-0.0, 0.0], "0 to 0; the nearest is -0.0"), ("x>5", [3.0, 2.0], "2 to 3"), ("x=inf", [3.0], "3 to 3"),
        ("x=nan", [3.0], "3 to 3"), ("x=4..5", [3.0], "3 to 3"), ("x=1", [np.nan], "missing"),
    ],
)  # fmt: skip
def test_what_selects_nothing_is_said_with_what_there_is(condition: str, values: list[float], end: str) -> None:
    held = np.array(values)
    assert not Condition.parse(condition).holds(held, held).any()
    said = str(Condition.parse(condition).nothing(held))
    assert said == f"--where {condition!r} selects nothing; x is {end}"


@pytest.mark.parametrize("number", [11, 12, 13, 14])
def test_twelve_names_are_listed_and_the_others_are_counted(tmp_path: Path, number: int) -> None:
    names = [f"v{i:02d}" for i in range(number)]
    more = f" and {number - 12} more" if number > 12 else ""
    listed = ", ".join(names[:12]) + more
    assert summary(np.array(names, object)) == listed
    run = make_run(tmp_path / "run.zarr", checkpoints=1, cube=())
    with RunWriter.open(run.path) as writer:
        writer.result("many", xr.Dataset({name: ("cut", np.ones(2)) for name in names}))
    of_result = ", ".join(f"results.many.{name}" for name in names[:12]) + more
    with pytest.raises(FeatdynError, match=rf"did you mean {re.escape(of_result)}\?$"):
        query(Run(run.path), "results.many")


def test_six_names_that_may_be_meant_are_offered(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run.zarr", checkpoints=1, cube=())
    with RunWriter.open(run.path) as writer:
        writer.result("many", xr.Dataset({f"v{i:02d}": ("cut", np.ones(2)) for i in range(20)}))
        for number in range(8):
            writer.result(f"r{number}", xr.Dataset({"same": ("cut", np.ones(2))}))
    run = Run(run.path)
    with pytest.raises(FeatdynError) as slip:  # one letter from v01 and from v10 to v19
        query(run, "results.many.v1")
    assert re.fullmatch(r".*; did you mean (results\.many\.v[01]\d, ){5}results\.many\.v[01]\d\?", str(slip.value))
    with pytest.raises(FeatdynError) as short:
        query(run, "results.many.v00", where="same>1")
    of_each = ", ".join(f"results.r{number}.same" for number in range(6))
    assert str(short.value).endswith(f"no 'same' here; did you mean {of_each}?")


def test_values_are_not_rounded_but_coordinates_are() -> None:
    assert not Condition.parse("loss=0.090909").holds(THIRDS).any()
