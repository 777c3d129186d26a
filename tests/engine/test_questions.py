"""Fifteen questions that a person with a store asks: one command each, checked against numpy."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from featdyn.store import Run
from tests.engine import question_run
from tests.engine.question_run import CHECKPOINTS, CLASSES, LAYERS, Held

S2B3 = LAYERS.index("s2b3")
Ask = Callable[[str], list[dict[str, str]]]


@pytest.fixture
def held(written: tuple[Run, Held]) -> Held:
    return written[1]


@pytest.fixture
def ask(written: tuple[Run, Held], featdyn: Callable[..., tuple[int, str, str]]) -> Ask:
    """Run one command on the store, written STORE; return its table."""

    def run(command: str) -> list[dict[str, str]]:
        words = [str(written[0].path) if word == "STORE" else word for word in shlex.split(command)]
        code, out, err = featdyn(*words, "--format", "csv")
        assert code == 0, err
        return list(csv.DictReader(io.StringIO(out)))

    return run


def column(rows: list[dict[str, str]], name: str) -> list[float]:
    return [float(row[name] or "nan") for row in rows]


def close(found: list[float], expected: Any) -> None:
    np.testing.assert_allclose(found, np.asarray(expected).reshape(-1), rtol=1e-5)


def test_1_how_did_test_accuracy_go_per_epoch(ask: Ask, held: Held) -> None:
    rows = ask("query STORE test_accuracy --by epoch")
    close(column(rows, "epoch"), held["epoch"])
    close(column(rows, "test_accuracy"), held["test_accuracy"])


def test_2_which_samples_are_wrong_at_the_last_checkpoint(ask: Ask, held: Held) -> None:
    rows = ask("query STORE outputs.prediction outputs.confidence --where checkpoint=-1 --where outputs.correct=false")
    last = held["outputs/logits"][-1]
    wrong = np.flatnonzero(last.argmax(1) != held["label"])
    assert [row["sample"] for row in rows] == held["sample"][wrong].tolist()
    assert [row["class_name"] for row in rows] == [CLASSES[i] for i in held["label"][wrong]]
    softmax = np.exp(last) / np.exp(last).sum(1, keepdims=True)
    close(column(rows, "confidence"), softmax.max(1)[wrong])
    close(column(rows, "prediction"), last.argmax(1)[wrong])


def test_3_which_ten_samples_moved_most_between_epochs_5_and_6(ask: Ask, held: Held) -> None:
    rows = ask(
        "query STORE layers.s2b3.activation --where epoch=5,6 --reduce diff:checkpoint --reduce norm --by sample "
        "--top 10"
    )
    values = held["layers/s2b3/activation"]
    moved = np.linalg.norm((values[6] - values[5]).reshape(len(held["sample"]), -1), axis=1)
    order = np.argsort(-moved)[:10]
    assert [row["sample"] for row in rows] == held["sample"][order].tolist()
    close(column(rows, "activation"), moved[order])


def test_4_mean_norm_by_class_and_layer_at_the_last_checkpoint(ask: Ask, held: Held) -> None:
    rows = ask("query STORE cube.activation_norm --where checkpoint=-1 --by class_name,layer")
    last = held["cube/activation_norm"][-1]
    expected = {
        (name, layer): last[depth, held["label"] == i].mean()
        for depth, layer in enumerate(LAYERS) for i, name in enumerate(CLASSES)
    }  # fmt: skip
    found = {(row["class_name"], row["layer"]): float(row["activation_norm"]) for row in rows}
    assert found == pytest.approx(expected, rel=1e-5)


def test_5_which_were_learned_first_and_forgotten_most_often(ask: Ask, held: Held) -> None:
    pytest.importorskip("duckdb")
    rows = ask(
        'sql STORE "select sample, min(checkpoint) filter (correct) as learned, '
        "count(*) filter (was and not correct) as forgotten from (select sample, checkpoint, correct, "
        "lag(correct) over (partition by sample order by checkpoint) as was from outputs) "
        'group by sample order by forgotten desc, learned, sample"'
    )
    right = held["outputs/logits"].argmax(2) == held["label"]
    forgotten = (right[:-1] & ~right[1:]).sum(0)
    learned = np.where(right.any(0), right.argmax(0), CHECKPOINTS)
    order = np.lexsort((held["sample"], learned, -forgotten))
    assert [row["sample"] for row in rows] == held["sample"][order].tolist()
    close(column(rows, "forgotten"), forgotten[order])


@pytest.mark.parametrize("last", [CHECKPOINTS - 1, 2])
def test_5_which_were_learned_first(ask: Ask, held: Held, last: int) -> None:
    rows = ask(
        "query STORE outputs.correct --where outputs.correct=true --reduce argmax:checkpoint --by sample "
        f"--sort checkpoint --where checkpoint=..{last}"
    )
    right = (held["outputs/logits"].argmax(2) == held["label"])[: last + 1]
    learned = right.any(0)
    assert learned.all() == (last > 2)  # those that never are right are in no row
    order = [i for i in np.argsort(right.argmax(0), kind="stable") if learned[i]]
    assert [row["sample"] for row in rows] == held["sample"][order].tolist()
    close(column(rows, "checkpoint"), right.argmax(0)[order])


def test_6_sparsity_as_a_table_of_checkpoint_by_layer(ask: Ask, held: Held) -> None:
    pytest.importorskip("duckdb")
    rows = ask('sql STORE "pivot cube on layer using avg(activation_sparsity) group by checkpoint order by checkpoint"')
    mean = held["cube/activation_sparsity"].mean(2)
    for depth, layer in enumerate(LAYERS):
        close(column(rows, layer), mean[:, depth])
    long = ask("query STORE cube.activation_sparsity --by checkpoint,layer")
    close(column(long, "activation_sparsity"), mean)


def test_7_which_checkpoint_has_the_largest_loss_gap(ask: Ask, held: Held) -> None:
    pytest.importorskip("duckdb")
    (row,) = ask(
        'sql STORE "select checkpoint, step, test_loss - train_loss as gap from checkpoints '
        'order by gap desc nulls last limit 1"'
    )
    gap = held["test_loss"] - held["train_loss"]
    assert int(row["checkpoint"]) == np.nanargmax(gap)
    assert float(row["gap"]) == pytest.approx(np.nanmax(gap))


def test_8_accuracy_by_corruption_and_severity_at_the_last_three_checkpoints(ask: Ask, held: Held) -> None:
    rows = ask("query STORE outputs.correct --where checkpoint=-3.. --by corruption,severity,checkpoint")
    right = held["outputs/logits"].argmax(2) == held["label"]
    frame = pd.DataFrame({"c": held["corruption"], "s": held["severity"]})
    for row in rows:
        mask = (frame.c == row["corruption"]) & (frame.s == int(row["severity"]))
        assert float(row["correct"]) == pytest.approx(right[int(row["checkpoint"])][mask].mean())
    assert len(rows) == 3 * len(frame.drop_duplicates())


def test_9_where_the_composite_first_keeps_95_percent(ask: Ask, written: tuple[Run, Held]) -> None:
    pytest.importorskip("duckdb")
    rows = ask(
        'sql STORE "select cut, t2, min(t1) as t1 from results.consistency join (select cut, t2, accuracy as own '
        "from results.consistency where \\\"set\\\" = 'test' and t1 = t2) using (cut, t2) "
        'where \\"set\\" = \'test\' and accuracy >= 0.95 * own group by cut, t2 order by cut, t2"'
    )
    accuracy = written[0].result("consistency")["accuracy"].sel(set="test").transpose("cut", "t1", "t2").load()
    expected = [
        (str(cut.values), t2, int(np.flatnonzero(keeps)[0]))
        for cut in accuracy["cut"] for t2 in range(CHECKPOINTS)
        if (keeps := accuracy.sel(cut=cut).values[:, t2] >= 0.95 * accuracy.sel(cut=cut).values[t2, t2]).any()
    ]  # fmt: skip
    assert [(row["cut"], int(row["t2"]), int(row["t1"])) for row in rows] == expected


def test_10_the_nearest_samples_to_sample_17(ask: Ask, held: Held) -> None:
    rows = ask("query STORE cube.sketch --where layer=s2b3 --where checkpoint=-1 --like 17 --top 20")
    sketch = held["cube/sketch"][-1, S2B3]
    apart = np.linalg.norm(sketch - sketch[17], axis=1)
    order = np.argsort(apart)[1:21]
    assert [row["sample"] for row in rows] == held["sample"][order].tolist()
    assert column(rows, "label") == held["label"][order].tolist()
    close(column(rows, "distance"), apart[order])


def test_11_where_the_noise_is_not_isotropic(ask: Ask, written: tuple[Run, Held]) -> None:
    rows = ask("query STORE results.isotropy.parameter_holm --where results.isotropy.parameter_verdict=anisotropic")
    result = written[0].result("isotropy").load()
    mask = (result["parameter_verdict"] == "anisotropic").broadcast_like(result["parameter_holm"])
    expected = result["parameter_holm"].where(mask.transpose(*result["parameter_holm"].dims))
    kept = expected.values[mask.transpose(*expected.dims).values]
    close(column(rows, "parameter_holm"), kept)
    assert {"test", "cut", "t"} <= set(rows[0])


def test_12_how_much_drift_lies_in_the_first_ten_directions(ask: Ask, written: tuple[Run, Held]) -> None:
    rows = ask("query STORE results.isotropy.parameter_drift_share_halves --where k=2")
    share = written[0].result("isotropy")["parameter_drift_share_halves"].sel(k=2)
    close(column(rows, "parameter_drift_share_halves"), share.values)


def test_13_participation_ratio_of_two_runs(
    written: tuple[Run, Held], featdyn: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    other, _ = question_run.write(tmp_path / "other.zarr", seed=1)
    wanted = "results.representation.participation_ratio"
    code, out, err = featdyn("compare", written[0].path, other.path, "--quantity", wanted, "--format", "csv")
    assert code == 0, err
    table = pd.read_csv(io.StringIO(out))
    for seed, run in enumerate((written[0], other)):
        last = run.result("representation")["participation_ratio"].sel(t=CHECKPOINTS - 1)
        group = table[table["group"].astype(str).str.contains(f"rate={seed}")].set_index(["layer", "set"])
        for (layer, name), row in group.iterrows():
            np.testing.assert_allclose(row["value"], last.sel(layer=layer, set=name), rtol=1e-5)


def test_14_activations_of_a_class_as_a_parquet_file(
    written: tuple[Run, Held], featdyn: Callable[..., tuple[int, str, str]], held: Held, tmp_path: Path
) -> None:
    pytest.importorskip("duckdb")
    statement = "select sample, checkpoint, activation from layers.s2b3 where label = 3 and checkpoint = 6"
    code, _, err = featdyn("sql", written[0].path, statement, "-o", tmp_path / "c.parquet")
    assert code == 0, err
    table = pd.read_parquet(tmp_path / "c.parquet")
    chosen = held["label"] == 3
    assert table["sample"].tolist() == held["sample"][chosen].tolist()
    values = held["layers/s2b3/activation"][6, chosen].reshape(chosen.sum(), -1)
    np.testing.assert_array_equal(np.stack(table["activation"].tolist()), values)
    code, _, err = featdyn("query", written[0].path, "layers.s2b3.activation", "--where", "class_name=dog",
                           "--where", "checkpoint=6", "-o", tmp_path / "d.parquet")  # fmt: skip
    assert code == 0, err
    np.testing.assert_array_equal(pd.read_parquet(tmp_path / "d.parquet")["activation"], values.reshape(-1))


def test_15_what_is_in_this_store(written: tuple[Run, Held], featdyn: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = featdyn("info", written[0].path, "--results", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["layers"]["s2b3"] == {
        "shape": list(question_run.SHAPE), "dtype": "float32", "layout": "",
        "bytes": question_run.SAMPLES * 12 * 4,
    }  # fmt: skip
    answered = {row["name"]: row for row in found["answered"]}
    assert set(answered) == {"consistency", "isotropy", "representation"}
    assert json.loads(answered["representation"]["options"])["power_first"] == 1
    why = written[0].result("representation")["participation_ratio_why"]
    missing = int((why != 0).sum())
    assert (
        f"participation_ratio_why: {missing:,} of {why.size:,} features do not vary"
        in answered["representation"]["missing"]
    )
    told = featdyn("info", written[0].path, "--results")[1]
    assert "do not vary" in told
    assert "\\n" not in told
    code, out, err = featdyn("query", written[0].path)
    assert code == 0, err
    assert "cube.activation_norm" in out
