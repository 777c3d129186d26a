"""A study's file: what is wrong in it is said in one line, with the nearest name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from featdyn.errors import FeatdynError
from featdyn.reproduce.load import load, names
from featdyn.reproduce.study import references
from featdyn.training import load as recipe
from tests.engine.reproduce.study_file import study


def test_a_study_says_what_each_group_is_asked(tmp_path: Path) -> None:
    found = study(tmp_path / "s.toml")
    assert found.quantities_of("fit", "clean") == ["gain", "fitted"]
    assert found.quantities_of("fit", "random") == ["fitted"]
    assert [where[:2] for where in found.places("quick")] == [("fit", "digits")]
    assert list(found.places("small")) == []


def test_the_checksum_is_of_what_decides_a_verdict(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    first = study(path).checksum
    assert study(path, ("A small study", "Another title"), ("minutes = 0.1", "minutes = 9")).checksum == first
    assert study(path, ("at_least = -0.02", "at_least = -0.03")).checksum != first
    assert study(path, ("reaches = 0.2", "reaches = 0.3")).checksum != first


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('quantity = "gain"', 'quantity = "gian"'), "claim stable: quantity 'gian' is not there; did you mean gain?"),
        (("minutes =", "minuts ="), "no field experiments.fit.at.quick.digits.minuts; did you mean minutes?"),
        (("effect = 0.05\n", ""), "claims.0: a margin needs an effect"),
        (
            ('kind = "composite"', 'kind = "composit"'),
            "quantities.gain.kind 'composit' is not there; did you mean compos",
        ),
        (
            ('quantity = "gain"', 'quantity = "gain"\nwhere = { set = ["trian"] }'),
            "claim stable: where set 'trian' is not there; did you mean train?",
        ),
        (('t2 = "t2"', 't2 = "t3"'), "quantities.gain: time 't3' is not there; there are first, last, t2, half"),
        (('"@last"', '"@lats"'), "quantities.fitted: time 'lats' is not there; did you mean last?"),
        (('name = "consistency"', 'name = "consistncy"'), "'consistncy' is not there; did you mean consistency?"),
        (("at.quick", "at.quik"), "input should be 'quick', 'small' or 'full', got 'quik'"),
        (("at.quick", "at.small"), "experiments.fit.at 'small' is not there; there are quick"),
        (('"gain", cuts', '"gian", cuts'), "quantities.gain.options: measure: input should be"),
        (('groups = ["clean", "random"]', 'groups = ["clean", "radnom"]'), "group 'radnom' is not there; did you mean"),
        (('id = "fit"', 'id = "stable"'), "claim stable is there twice"),
        (
            ('cuts = ["hidden1"] }', 'baselines = "{claen}" }'),
            "consistency: {} 'claen' is not there; did you mean clean?",
        ),
        (("at_least = 0.0\n", "at_least = 0.0\nat_most = -1.0\n"), "at_least must be below at_most"),
        (('title = "A small study"', "title ="), "not valid TOML"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_nearest_name(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    with pytest.raises(FeatdynError, match=re.escape(said)) as caught:
        study(tmp_path / "s.toml", change)
    assert str(caught.value).startswith(str(tmp_path / "s.toml"))


def test_a_study_that_is_not_there_names_the_nearest() -> None:
    with pytest.raises(FeatdynError, match=r"'/no/such.toml' \(No such file or directory\): give a TOML file, or"):
        load("/no/such.toml")
    for name, said in (  # a file that is not there is said only of what may be a file
        ("feature-dynamic", "no study 'feature-dynamic': did you mean feature-dynamics?"),
        ("x" * 101, f"no study '{'x' * 100}': give a TOML file, or one of feature-dynamics"),
        ("a\0.toml", "no study 'a\\x00.toml': give a TOML file, or one of "),
    ):
        with pytest.raises(FeatdynError) as caught:
            load(name)
        assert str(caught.value).startswith(said)


@pytest.mark.parametrize("name", names())
def test_every_run_of_a_shipped_study_has_a_recipe_and_is_no_other(name: str) -> None:
    found = load(name)
    for scale in found.scales:
        seen: dict[str, str] = {}
        for experiment, data, place in found.places(scale):
            for group, changes in found.experiments[experiment].groups.items():
                own = [*found.scales[scale].changes, *place.changes, *changes, *place.groups.get(group, ())]
                identity = repr(recipe(place.recipe, own).identity | {"description": "", "experiment": experiment})
                assert seen.setdefault(identity, group) == group, (scale, experiment, data, group)


def test_the_plan_says_which_experiment_has_a_recipe_that_is_none(tmp_path, featdyn):
    from importlib import resources

    text = (resources.files("featdyn.reproduce") / "studies" / "richness.toml").read_text(encoding="utf-8")
    (tmp_path / "mine.toml").write_text(text.replace("training.epochs=", "training.epochz="), encoding="utf-8")
    code, out, err = featdyn("reproduce", tmp_path / "mine.toml", "--plan")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "mine: experiment " in err
    assert "no field training.epochz; did you mean epochs?" in err


LIMITS: list[tuple[str, str, tuple[float, ...], tuple[float, ...]]] = [
    ("seeds = 2", "seeds = {}", (1,), (0,)),
    ("seeds = 2", "seeds = 2\nthreads = {}", (1, 2), (0,)),
    ("minutes = 0.1", "minutes = 0.1\nseeds = {}", (1,), (0,)),
    ("minutes = 0.1", "minutes = {}", (0,), (-0.001,)),
    ("gigabytes = 0.01", "gigabytes = {}", (0,), (-0.001,)),
    ("reaches = 0.4", "reaches = {}", (0, 1), (-0.001, 1.001)),
    ("reaches = 0.4", 'steps = {}, of = "half"', (0.001, 1), (0, 1.001)),
    ("effect = 0.05", "effect = {}", (0.001,), (0,)),
    ("at_least = -0.02", "at_least = -0.02\nat_most = {}", (-0.019,), (-0.02, -0.021)),
]


@pytest.mark.parametrize(("old", "new", "good", "bad"), LIMITS)
def test_numbers_are_taken_up_to_their_limits(
    tmp_path: Path, old: str, new: str, good: tuple[float, ...], bad: tuple[float, ...]
) -> None:
    for number in good:
        study(tmp_path / "s.toml", (old, new.replace("{}", str(number))))
    for number in bad:
        with pytest.raises(FeatdynError):
            study(tmp_path / "s.toml", (old, new.replace("{}", str(number))))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{ reaches = 0.4 }", "{ before = true }", "give reaches, or steps and of"),
        ("{ reaches = 0.4 }", '{ reaches = 0.4, steps = 0.5, of = "half" }', "give reaches, or steps and of"),
        ("{ reaches = 0.4 }", '{ reaches = 0.4, of = "half" }', "give reaches, or steps and of"),
        ("{ reaches = 0.4 }", "{ steps = 0.5 }", "give reaches, or steps and of"),
        ("{ reaches = 0.4 }", '{ steps = 0.5, of = "hlaf" }', "times.t2.of 'hlaf' is not there; did you mean half"),
        ("at_least = 0.0\n", "", "effect is the least that a test must see: give at_least or at_most too"),
        ('groups = ["clean", "random"]', 'groups = ["clean", "random", "clean"]', "claims.1.groups"),
        ('groups = ["clean"], at_least', "groups = [], at_least", "claims.0.needs.0.groups"),
        ('quantity = "fitted", groups', 'quantity = "fited", groups', "claim stable: quantity 'fited'"),
        ('groups = ["clean"], at_least', 'groups = ["claen"], at_least', "claim stable: group 'claen'"),
        ('cuts = ["hidden1"] } }', 'cuts = ["hidden1"] }, groups = ["claen"] }', "consistency: group 'claen'"),
        ('cuts = ["hidden1"] } }', 't2 = ["x", "@never"] } }', "consistency: @ 'never' is not there"),
        ("minutes = 0.1", "minutes = 0.1\ngroups = { claen = [] }", "experiments.fit.at.quick.digits: group 'claen'"),
        ("minutes = 0.1", "minutes = 0.1\noptions = { drift = {} }", "digits: options of 'drift' is not there"),
        ('quantity = "gain"', 'quantity = "gain"\nwhere = { cuts = ["hidden1"] }', "where 'cuts' is not there; did"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(FeatdynError, match=re.escape(said)):
        study(tmp_path / "s.toml", (old, new))


def test_cells_that_a_claim_is_of_decide_its_verdict_too(tmp_path: Path) -> None:
    every = study(tmp_path / "s.toml")
    one, other = (
        study(tmp_path / "s.toml", ('quantity = "gain"', f'quantity = "gain"\nwhere = {{ set = ["{name}"] }}'))
        for name in ("train", "test")
    )
    assert len({every.checksum, one.checksum, other.checksum}) == 3
    assert all(re.fullmatch("[0-9a-f]{16}", each.checksum) for each in (every, one, other))
    where = ("set = ['test']", "cut = ['hidden1']")
    there, back = (
        study(tmp_path / "s.toml", ('quantity = "gain"', f'quantity = "gain"\nwhere = {{ {", ".join(each)} }}'))
        for each in (where, where[::-1])
    )
    assert there.checksum == back.checksum != other.checksum


def test_options_refer_to_times_and_groups_wherever_they_stand() -> None:
    options = {"t": "@half", "a": ["{clean}@3", {"b": "x{random}{clean}"}, 3, None], "word": "half@"}
    assert list(references(options)) == [("half", ""), ("", "clean"), ("", "random"), ("", "clean")]
