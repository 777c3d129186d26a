"""SQL over a store: beside pandas on the same numbers, and what of the store it touches."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn.errors import FeatdynError
from featdyn.query import query
from featdyn.query.catalogue import Catalogue
from featdyn.query.sql import sql, tables
from featdyn.query.sql.tables import tables as tables_of
from featdyn.store import Run, commit_result
from tests.engine import question_run
from tests.engine.question_run import CHECKPOINTS, LAYERS, SAMPLES, Held
from tests.engine.runs import write_run
from tests.engine.synthetic_run import add_consistency, make_run

duckdb = pytest.importorskip("duckdb")
scan = pytest.importorskip("featdyn.query.sql.scan")


@pytest.fixture
def run(written: tuple[Run, Held]) -> Run:
    return written[0]


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """The blocks that are read of the store."""
    found: list[tuple[str, int, int]] = []
    block = Run.block

    def counting(self: Run, path: str, checkpoint: int, number: int, **options: Any) -> Any:
        found.append((path, checkpoint, number))
        return block(self, path, checkpoint, number, **options)

    monkeypatch.setattr(Run, "block", counting)
    return found


@settings(deadline=None, max_examples=12)
@given(
    t=st.integers(-1, CHECKPOINTS), layers=st.lists(st.sampled_from(LAYERS), min_size=1, unique=True),
    label=st.integers(0, 3), bound=st.floats(0, 2), either=st.booleans(),
)  # fmt: skip
def test_rows_are_those_of_pandas(
    written: tuple[Run, Held], t: int, layers: list[str], label: int, bound: float, either: bool
) -> None:
    table = query(written[0], "cube.activation_norm")
    word, join = ("or", np.logical_or) if either else ("and", np.logical_and)
    kept = table[
        (table.checkpoint >= t) & table.layer.isin(layers)
        & join(table.label != label, table.activation_norm > np.float32(bound))
    ]  # fmt: skip
    names = ", ".join(f"'{name}'" for name in layers)
    found = sql(
        written[0],
        "select split, count(*) as n, avg(activation_norm) as norm, max(severity) as severity from cube "
        f"where checkpoint >= {t} and layer in ({names}) and (label <> {label} {word} activation_norm > {bound!r}) "
        "group by split order by split",
    )
    grouped = kept.groupby("split")
    assert found["split"].tolist() == sorted(grouped.groups)
    np.testing.assert_array_equal(found["n"], grouped.size())
    np.testing.assert_allclose(found["norm"], grouped["activation_norm"].apply(lambda s: s.astype(float).mean()), 1e-6)
    np.testing.assert_array_equal(found["severity"], grouped["severity"].max())


@pytest.mark.parametrize(
    ("statement", "checkpoints", "blocks"),
    [
        ("select avg(loss) from outputs where checkpoint = 3", {3}, {0, 1, 2, 3}),
        ("select avg(loss) from outputs where step > 100 and split = 'train'", {4, 5, 6}, {0, 1}),
        ("select avg(loss) from outputs where sample = 'toy/040' and step between 1 and 50", {1, 2}, {2}),
        ("select avg(loss) from outputs where checkpoint in (0, 6) and label = 9", set(), set()),
    ],
)
def test_only_the_blocks_that_are_needed_are_read(
    run: Run, touched: list[tuple[str, int, int]], statement: str, checkpoints: set[int], blocks: set[int]
) -> None:
    sql(run, statement)
    read = [(t, b) for path, t, b in touched if path == "outputs/loss"]
    assert set(read) == {(t, b) for t in checkpoints for b in blocks}
    assert len(read) == len(set(read))
    assert {path for path, _, _ in touched if "/" in path} <= {"outputs/loss"}


@pytest.mark.parametrize("longest", [SAMPLES, SAMPLES - 1])  # from there on blocks are told apart, not samples
@pytest.mark.parametrize(
    ("condition", "samples"),
    [("sample = 'toy/000'", [0]), ("sample = 'toy/015'", [15]), ("sample = 'toy/016'", [16]),
     ("sample > 'toy/062'", [63]), ("sample < 'toy/001'", [0]), ("sample between 'toy/031' and 'toy/032'", [31, 32]),
     ("sample = 'toy/064'", [])],
)  # fmt: skip
def test_a_block_is_read_where_its_first_or_last_sample_is_asked_for(
    run: Run, touched: list[tuple[str, int, int]], monkeypatch: pytest.MonkeyPatch, longest: int, condition: str,
    samples: list[int],
) -> None:  # fmt: skip
    monkeypatch.setattr(scan, "PLACES", longest)
    found = sql(run, f"select sample, loss from outputs where checkpoint = 2 and {condition} order by sample")
    assert found["sample"].tolist() == [f"toy/{i:03d}" for i in samples]
    read = {(t, b) for path, t, b in touched if path == "outputs/loss"}
    assert read == {(2, i // 16) for i in samples}


def test_columns_that_are_not_named_are_not_read(run: Run, touched: list[tuple[str, int, int]]) -> None:
    found = sql(run, "select count(*) as n, sum(activation_norm) as s from cube where layer = 's2b3'")
    assert found["n"].tolist() == [CHECKPOINTS * SAMPLES]
    assert {path for path, _, _ in touched if path.startswith(("cube/", "outputs/", "layers/"))} == {
        "cube/activation_norm"
    }


@settings(deadline=None, max_examples=15)
@given(rows=st.integers(1, 700), bytes_=st.integers(1, 20_000), table=st.sampled_from(["cube", "s2b3", "outputs"]))
def test_batches_join_cells_up_to_a_bound(written: tuple[Run, Held], rows: int, bytes_: int, table: str) -> None:
    found = next(t for t in tables_of(Catalogue(written[0])) if t.name == table)
    columns = {"cube": ("activation_norm", 64, 0), "s2b3": ("activation", 16, 48), "outputs": ("loss", 16, 0)}
    column, cell, width = columns[table]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(scan, "ROWS", rows)
        patched.setattr(scan, "BYTES", bytes_)
        batches = list(scan.Scan(found).scanner([*found.coordinates, column]).batches)
    most = min(rows, bytes_ // width) if width else rows
    assert all(batch.num_rows <= max(cell, most) for batch in batches)
    of_checkpoint = SAMPLES * cell // 16
    if most >= of_checkpoint:  # one fits: none is cut
        assert {batch.num_rows for batch in batches} == {of_checkpoint}
    whole = pa.Table.from_batches(batches).to_pandas()
    whole = whole.assign(**{name: whole[name].astype(object) for name in whole.select_dtypes("category")})
    expected = query(written[0], f"{'layers.' if width else ''}{table}.{column}")
    if width:  # a row there for each value
        expected = expected.drop_duplicates(["checkpoint", "sample"])
        whole[column] = [values[0] for values in whole[column]]
    order = [name for name in ("checkpoint", "layer", "sample") if name in whole]
    for name in (*order, "split", column):
        ordered = whole.sort_values(order)[name], expected.sort_values(order, kind="stable")[name]
        assert ordered[0].tolist() == ordered[1].tolist()


def test_every_table_has_its_rows_and_columns(run: Run) -> None:
    for row in tables(run).itertuples():
        found = sql(run, f"select * from {row.table}")
        assert len(found) == row.rows
        assert sorted(found.columns) == sorted(row.columns.split(", "))


def test_each_set_of_axes_is_a_table_and_what_most_share_has_the_name(tmp_path: Path) -> None:
    """Of two axes or more; coordinates have none of their own."""
    path = make_run(tmp_path / "run.zarr", checkpoints=1).path
    of = {"x": "ab", "v": "ab", "y": "ba", "u": "abd", "w": "ac", "p": "a", "q": "a", "r": "a", "one": "", "two": ""}
    lengths = {"a": 2, "b": 3, "c": 0, "d": 1}
    values = {name: (tuple(dims), np.full([lengths[dim] for dim in dims], 2.5)) for name, dims in of.items()}
    commit_result(path, "e", xr.Dataset(values, {"z": ("a", [7, 8]), "a": ["p", "q"]}))
    own = Run(path)
    columns = {row.table.removeprefix("results."): row.columns for row in tables(own).itertuples()}
    assert {name: said for name, said in columns.items() if name.split("_")[0] == "e"} == {
        "e": "a, z, b, v, x", "e_a": "a, z, p, q, r", "e_a_b_d": "a, z, b, d, u", "e_a_c": "a, z, c, w",
        "e_b_a": "b, a, z, y", "e_scalars": "one, two",
    }  # fmt: skip
    assert sql(own, "select sum(x + v) as s from results.e")["s"].tolist() == [30.0]
    assert sql(own, "select * from results.e_scalars").to_dict("records") == [{"one": 2.5, "two": 2.5}]
    assert sql(own, "select count(*) as n from results.e_a_c")["n"].tolist() == [0]
    assert list(sql(own, "select * from results.e_b_a")) == ["b", "a", "z", "y"]


def test_every_variable_is_a_column(run: Run, tmp_path: Path) -> None:
    """Also one along a single axis of a result whose other variables have more."""
    for own in (run, write_run(tmp_path / "a.zarr"), add_consistency(make_run(tmp_path / "b.zarr", checkpoints=2))):
        catalogue = Catalogue(own)
        columns = set[str]()
        for table in tables_of(catalogue):
            columns |= {array.path for array in table.arrays.values()}
            beside = catalogue.coordinates(table.widest.path)
            columns |= {path for name, path in beside.items() if name in table.coordinates}
        assert {catalogue.paths[name] for name in catalogue.names} <= columns
    wrong = sql(Run(tmp_path / "a.zarr"), "select cut, wrong from results.consistency_cut order by cut")
    assert wrong.to_dict("records") == [{"cut": "s1", "wrong": 3}, {"cut": "s2", "wrong": 4}]


def test_values_are_those_of_query(written: tuple[Run, Held]) -> None:
    run, held = written
    found = sql(run, "select activation from layers.s2b3 order by checkpoint, sample")["activation"]
    np.testing.assert_array_equal(np.stack(found.tolist()).reshape(-1), held["layers/s2b3/activation"].reshape(-1))
    frame = sql(run, 'select * from results.representation order by layer, "set", t')
    for name in ("participation_ratio", "margin"):
        expected = query(run, f"results.representation.{name}", sort="layer,set,t")[name]
        np.testing.assert_array_equal(frame[name].astype(float), expected)
    named = sql(run, "select distinct label, class_name from samples order by label")
    assert named["class_name"].tolist() == list(question_run.CLASSES)


def test_what_was_not_measured_is_null(written: tuple[Run, Held]) -> None:
    found = sql(written[0], "select count(train_loss) as n, avg(train_loss) as mean from checkpoints")
    assert found["n"].tolist() == [CHECKPOINTS - 1]
    np.testing.assert_allclose(found["mean"], [np.nanmean(written[1]["train_loss"])])


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("select los from outputs", 'Referenced column "los" not found.*"loss"'),
        ("select * from outptus", 'Did you mean "outputs"'),
        ("select * from results.consistensy", "consistency"),
        ("select * from results.spectra", r"run\.zarr: no result of spectra, there are .* featdyn analyze .* spectra$"),
        ('select * from "RESULTS" . "Spectra" s', "no result of spectra, there are results of consistency"),
        ("select * from consraints", r"^no table consraints: featdyn sql .*run\.zarr lists what there is$"),
        ("select * from scan_99", "^no table scan_99: "),
        ("select * from foo.outputs", r"^no table foo\.outputs: "),
        ("select * from isotropy", 'Did you mean "results.isotropy"'),
        ("select * from results.zzz", "^no table zzz: "),
        ("selec 1", "syntax error"),
        ("", "write a statement"),
        ("select * from '/etc/passwd'", "^no table /etc/passwd: "),
        ("copy samples to '/tmp/never.csv'", "disabled by configuration|not allowed|Cannot"),
        ("select avg(split) from outputs", r"avg\(VARCHAR\)'\. You might need to add explicit type casts\.$"),
        ("describe otputs", 'Did you mean "outputs"'),
        ("select 1; select 2", "^these are 2 statements: give one$"),
        ("pivot outputs on split using avg(loss); select 2;", "^these are 2 statements"),
        (" -- nothing but words", "write a statement"),
    ],
)
def test_bad_statements_get_one_line(run: Run, statement: str, message: str) -> None:
    with pytest.raises(FeatdynError, match=message) as caught:
        sql(run, statement)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("statement", ["show tables", "SHOW ALL TABLES;", " describe ", "show"])
def test_tables_are_shown(run: Run, statement: str) -> None:
    pd.testing.assert_frame_equal(sql(run, statement), tables(run))


def test_a_table_is_described(run: Run, touched: list[tuple[str, int, int]]) -> None:
    told = tables(run).set_index("table")["columns"]
    for table in ("outputs", "layers.s2b3", "samples"):
        described = sql(run, f"describe {table}")
        assert described["column_name"].tolist() == told[table].split(", ")
    assert not [path for path, _, _ in touched if "/" in path]


def test_an_answer_without_rows_says_so(run: Run, featdyn: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = featdyn("sql", run.path, "select loss from outputs where split = 'tset'", "--format", "csv")
    assert (code, out, err) == (1, "loss\n", "featdyn: no row meets the statement\n")
    assert featdyn("query", run.path, "outputs.loss", "--where", "split=tset")[0] == code


def test_tables_say_null_of_what_is_missing(run: Run, featdyn: Callable[..., tuple[int, str, str]]) -> None:
    statement = (
        "select train_loss as a, nullif(split, split) as b, null::int as c, null::date as d, [1, null] as e"
        " from checkpoints, samples where checkpoint = 0 limit 1"
    )
    code, out, _ = featdyn("sql", run.path, statement)
    assert (code, out.split("\n")[1].split()) == (0, ["NULL"] * 4 + ["[1,", "NULL]"])
    assert featdyn("sql", run.path, statement, "--format", "csv")[1].split("\n")[1] == ',,,,"[1, null]"'


HASTY = """
import sys, time
from featdyn.query.sql import scan, sql
from featdyn.store import Run, commit_result

batch, running = scan.Scan._batch, []

def slow(*given):
    running.append(1)
    time.sleep(0.05)
    found = batch(*given)
    running.pop()
    return found

scan.Scan._batch = slow
for statement in sys.argv[2:]:
    try:
        print(sql(Run(sys.argv[1]), statement).shape, len(running))
    except Exception as error:
        print(type(error).__name__, len(running))
"""


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        (["select sample, loss from outputs limit 2"], "(2, 2) 0\n"),
        (["select sample from outputs where loss > 0 limit 1"] * 3, "(1, 1) 0\n" * 3),
        (["select sample, error(split) from outputs limit 1"], "FeatdynError 0\n"),
    ],
)
def test_nothing_reads_on_behind_an_answer(run: Run, statements: list[str], said: str) -> None:
    """A thread that did would call into Python while it ends: the process aborts, or hangs."""
    for _ in range(3):
        command = [sys.executable, "-c", HASTY, str(run.path), *statements]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


@pytest.mark.parametrize("where", ["in DuckDB", "in a scan"])
def test_an_interrupted_statement_ends_as_other_commands_do(
    run: Run, featdyn: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """DuckDB's Python makes a RuntimeError of Ctrl-C, and an error of its own of one while it reads."""
    if where == "in a scan":
        monkeypatch.setattr(scan.Scan, "_batch", Mock(side_effect=KeyboardInterrupt))
    else:
        connection = Mock(wraps=duckdb.connect())
        connection.execute.side_effect = RuntimeError("Query interrupted")
        monkeypatch.setattr(duckdb, "connect", Mock(return_value=connection))
    code, out, err = featdyn("sql", run.path, "select avg(loss) from outputs")
    assert (code, out, err) == (130, "", "\nfeatdyn: interrupted; what was committed is safe\n")


def test_a_closed_standard_output_is_no_fault_of_ours(run: Run, tmp_path: Path) -> None:
    for number, more in enumerate(('sql "$1" "select 1"', 'query "$1" outputs.loss', 'sql "$1" "select 1" -o "$2"')):
        out = tmp_path / f"{number}.csv"
        command = ["sh", "-c", f'"$0" -m featdyn {more} >&-', sys.executable, str(run.path), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert out.exists() == ("-o" in more)


@pytest.mark.parametrize("command", [("query", "{}"), ("sql", "select * from {}")])
def test_a_name_of_thousands_of_letters_is_cut(
    run: Run, featdyn: Callable[..., tuple[int, str, str]], command: tuple[str, str]
) -> None:
    code, _, err = featdyn(command[0], run.path, command[1].format("x" * 3000))
    assert code == 1
    assert "x" * 90 + "..." in err
    assert "x" * 101 not in err


def test_damage_is_told_as_elsewhere(written: tuple[Run, Held], tmp_path_factory: pytest.TempPathFactory) -> None:
    run, _ = question_run.write(tmp_path_factory.mktemp("damaged") / "run.zarr")
    next(run.path.glob("outputs/loss/*1.0*")).write_bytes(b"")
    with pytest.raises(FeatdynError, match="cannot be read"):
        sql(run, "select avg(loss) from outputs")
    assert len(sql(run, "select loss from outputs where checkpoint = 0")) == SAMPLES


def test_without_duckdb_a_line_says_what_to_install(
    run: Run, featdyn: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    code, _, err = featdyn("sql", run.path, "select 1")
    assert (code, err) == (1, "featdyn: this needs duckdb, which is not installed: pip install 'featdyn[sql]'\n")
    assert featdyn("sql", run.path)[0] == 0  # the list of tables needs none


def test_the_command_writes_what_it_is_told_to(
    run: Run, featdyn: Callable[..., tuple[int, str, str]], tmp_path: Any
) -> None:
    statement = "select split, avg(loss) as loss from outputs group by split order by split"
    expected = sql(run, statement)
    for ending, read in (("csv", pd.read_csv), ("parquet", pd.read_parquet), ("feather", pd.read_feather)):
        assert featdyn("sql", run.path, statement, "-o", tmp_path / f"a.{ending}")[0] == 0
        pd.testing.assert_frame_equal(read(tmp_path / f"a.{ending}"), expected, check_dtype=False)
