from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from featdyn.store import ArraySpec, Run
from tests.engine.conftest import SMALL
from tests.engine.runs import write_run
from tests.engine.synthetic_run import make_run
from tests.engine.test_training import TINY

ROOT = Path(__file__).parents[2]


def child(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def test_help_is_light_and_complete():
    code = """
import resource, sys
sys.argv = ["featdyn", "--help"]
from featdyn.cli import main
try:
    main()
except SystemExit:
    pass
heavy = {"torch", "dask", "numba", "xarray", "zarr", "numpy", "pandas"} & set(sys.modules)
print(heavy or "light", resource.getrusage(resource.RUSAGE_SELF).ru_utime)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1].startswith("light")
    for name in ("demo", "train", "info", "query", "analyze", "report", "verify"):
        assert f"  {name} " in run.stdout


@pytest.mark.parametrize("command", [["report"], ["query", "train_loss"], ["compare"]])
def test_what_is_written_is_a_file_of_this_machine(featdyn, small_store, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    code, out, err = featdyn(command[0], small_store, *command[1:], "-o", "s3://bucket/x.html")
    assert (code, out) == (1, "")
    assert err == "featdyn: s3://bucket/x.html: stores may lie in a bucket, what -o names is a file of this machine\n"
    assert not list(tmp_path.iterdir())


def test_import_featdyn_is_light():
    code = "import sys, featdyn, featdyn_kernels; print({'torch', 'dask', 'numba'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize("command", [["info"], ["query", "train_loss"], ["verify"]])
def test_looking_at_a_store_imports_neither_torch_nor_dask_nor_numba(small_store, command):
    arguments = [command[0], str(small_store), *command[1:]]
    code = f"""
import sys
sys.argv = ["featdyn", *{arguments!r}]
from featdyn.cli import main
from featdyn.store import Run
try:
    main()
except SystemExit as stop:
    assert not stop.code
print({{"torch", "dask", "numba"}} & set(sys.modules))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.splitlines()[-1:] == ["set()"], run.stderr


def test_the_life_of_a_run(featdyn, tmp_path):
    store, page = tmp_path / "run.zarr", tmp_path / "report.html"
    changes = [part for change in (*SMALL, "training.epochs=1") for part in ("--set", change)]
    code, out, err = featdyn("train", "digits", "--store", store, *changes)
    assert (code, err) == (0, "")
    assert "recording needs" in out
    code, out, _ = featdyn("train", "digits", "--store", store, *changes)  # again: nothing left to do
    assert code == 0
    code, out, _ = featdyn("analyze", store, "consistency", "--cuts", "s1b3,pooled")
    assert code == 0
    assert "results/consistency/" in out
    code, out, _ = featdyn("report", store, "-o", page)
    assert code == 0
    assert "<html" in page.read_text()
    code, out, _ = featdyn("verify", store, "--json")
    assert code == 0
    assert json.loads(out)["problems"] == []
    where = ["--where", "cut=pooled", "--where", "set=test"]
    code, out, _ = featdyn("query", store, "results.consistency.accuracy", *where, "--format", "json")
    assert code == 0
    assert len(json.loads(out)) == 16


def test_the_issue_s_own_query(featdyn, small_store):
    arguments = ["cube.activation_norm", "--where", "layer=s3*", "--where", "split=test", "--reduce", "mean:sample"]
    for kind in ("table", "csv", "json"):
        code, out, err = featdyn("query", small_store, *arguments, "--format", kind)
        assert (code, err) == (0, "")
        assert "s3b3" in out
        assert "s2b3" not in out


def test_info_tells_people_and_programs_the_same(featdyn, small_store):
    _, text, _ = featdyn("info", small_store)
    _, out, _ = featdyn("info", small_store, "--json")
    found = json.loads(out)
    assert found["probes"] == {"train": 40, "test": 33, "corrupted": 14}
    assert list(found["layers"]) == ["stem", *(f"s{s}b{b}" for s in (1, 2, 3) for b in (1, 2, 3)), "pooled"]
    assert f"{found['checkpoints']} checkpoints, 11 layers" in text
    assert found["history"][0]["train_loss"] is None


def test_lists(featdyn):
    _, out, _ = featdyn("train", "--list")
    assert "cifar10" in out
    _, out, _ = featdyn("train", "--fields")
    assert "labels.noise = 0.0" in out
    for stores in ((), ("store",)):
        code, out, _ = featdyn("analyze", *stores, "consistency", "--help")
        assert code == 0
        assert " analyze STORE... consistency [OPTIONS]" in " ".join(out.split())
        assert "--features" in out


def test_the_help_of_analyze_is_the_registry_s(featdyn):
    from featdyn.analysis import analyses

    code, out, _ = featdyn("analyze", "--help")
    assert code == 0
    lines = [line.strip() for line in out.splitlines()]
    for name, analysis in analyses().items():
        assert [line for line in lines if line.split()[:1] == [name]] == [
            f"{name:<{max(map(len, analyses()))}}  {analysis.question}"
        ]


def test_each_help_ends_with_an_example_of_its_own(featdyn):
    from featdyn.analysis import analyses
    from featdyn.cli.main import COMMANDS

    for command in (*((name,) for name in COMMANDS), *(("analyze", name) for name in analyses())):
        code, out, _ = featdyn(*command, "--help")
        assert code == 0
        last = " ".join(out.split("Example: ")[1].split())
        assert last.startswith(f"featdyn {command[0]}"), command
        assert set(command) <= set(last.split())


SEVERAL = {
    "train": {"--set", "--sweep"}, "capture": {"--checkpoints"}, "import": {"paths"}, "export": {"--cut", "--from"},
    "query": {"variables", "--where", "--by", "--reduce", "--sort"}, "replay": {"results"}, "reproduce": {"--only"},
    "compare": {"stores", "--quantity", "--where", "--reduce"}, "plot": {"--where"},
}  # fmt: skip
"""What a command takes several times."""
NEEDED = {
    "capture": {"--model", "--probes", "--checkpoints", "--store"},
    "import": {"paths", "--store"},
    "export": {"store", "--cut", "--from", "--to"},
    "compare": {"stores"},
    "replay": {"results"},
} | {name: {"store"} for name in ("info", "query", "sql", "report", "plot", "serve", "verify", "gc", "compact")}
"""And what it cannot do without."""


SWITCHES = {
    "train": {"--download", "--accept-changes", "--list", "--fields"}, "capture": {"--accept-changes"},
    "info": {"--results"}, "query": {"--raw", "--list"}, "sql": {"--raw"}, "compare": {"--raw"}, "gc": {"--dry-run"},
    "verify": {"--repair", "--capture"}, "reproduce": {"--keep-stores", "--plan", "--list"},
}  # fmt: skip
"""What takes no value, beside --json."""
RANGES = {
    "train": {"--seeds": (1, None)}, "query": {"--top": (1, None), "--limit": (1, None)},
    "verify": {"--seed": (0, None)}, "serve": {"--port": (0, 65535)},
}  # fmt: skip
FOLDERS, FILES = {"demo", "reproduce"}, {"query", "sql", "compare", "report", "plot", "export"}
"""Whose --out is a folder, and a file."""


def test_what_each_command_takes_without_a_value_and_within_what_bounds():
    import click

    from featdyn.cli.main import COMMANDS
    from featdyn.cli.main import featdyn as whole

    for name in COMMANDS:
        if name == "analyze":
            continue
        options = [o for o in whole.get_command(click.Context(whole), name).params if isinstance(o, click.Option)]
        switches = {o.opts[0] for o in options if o.is_flag and o.name != "kind" and not o.secondary_opts}
        assert (name, switches) == (name, SWITCHES.get(name, set()))
        ranges = {o.opts[0]: (o.type.min, o.type.max) for o in options if isinstance(o.type, click.IntRange)}
        assert (name, ranges) == (name, RANGES.get(name, {}))
        out = [(o.type.file_okay, o.type.dir_okay) for o in options if o.name == "out"]
        assert (name, out) == (name, [(False, True)] if name in FOLDERS else [(True, False)] if name in FILES else [])


def test_what_each_command_takes_several_times_needs_and_shows_of_its_defaults():
    import click

    from featdyn.cli.main import COMMANDS
    from featdyn.cli.main import featdyn as whole

    for name in COMMANDS:
        command = whole.get_command(click.Context(whole), name)
        several, needed = set(), set()
        for option in command.params:
            several |= {option.opts[0]} if getattr(option, "multiple", False) or option.nargs == -1 else set()
            needed |= {option.opts[0]} if option.required else set()
            if isinstance(option, click.Option) and option.default and isinstance(option.default, bool | int | str):
                assert option.show_default, f"{name} {option.opts[0]}"
            if isinstance(option, click.Option):
                assert option.help.strip(), f"{name} {option.opts[0]}"
        assert (name, several) == (name, SEVERAL.get(name, set()))
        assert (name, needed) == (name, NEEDED.get(name, set()))


def test_a_flag_that_may_be_left_out_is_of_the_kind_of_what_it_takes():
    import click

    from featdyn.analysis import analyses
    from featdyn.cli.main import featdyn as whole

    kinds = {"integer": "integer", "number": "float", "path": "path"}
    group, checked = whole.get_command(click.Context(whole), "analyze"), 0
    for name, declared in analyses().items():
        flags = {option.name: option.type.name for option in group.get_command(click.Context(group), name).params}
        for field, said in declared.options.model_json_schema()["properties"].items():
            if "anyOf" in said:
                takes = [one.get("format", one["type"]) for one in said["anyOf"] if one["type"] != "null"]
                # Of several kinds only the options' own check tells.
                assert flags[field] == (kinds[takes[0]] if len(takes) == 1 else "text"), f"{name} --{field}"
                checked += 1
    assert checked


def test_json_is_asked_for_in_the_same_way_everywhere(featdyn, small_store):
    for command in (["info"], ["verify"], ["gc", "--dry-run"], ["query", "train_loss"]):
        short, long = (
            featdyn(command[0], small_store, *command[1:], *how) for how in (["--json"], ["--format", "json"])
        )
        assert short == long
        assert short[0] == 0
        json.loads(short[1])
    for command in ("sql", "compare"):
        assert "--json" in featdyn(command, "--help")[1]


def test_what_is_said_next_can_be_typed(monkeypatch, tmp_path):
    from featdyn.cli.said import called

    program = tmp_path / "featdyn"
    program.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert called() == "featdyn"
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    monkeypatch.setattr(sys, "argv", [str(program)])
    assert called() == str(program)
    monkeypatch.setattr(sys, "argv", ["/somewhere/featdyn/__main__.py"])
    assert called() == f"{sys.executable} -m featdyn"
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "cli.py")])
    assert called() == f"{sys.executable} {tmp_path / 'cli.py'}"


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        ("train cifr10 --store x", "cifar10"),
        ("train digits --store x --set training.epoch=1", "epochs"),
        ("train digits --store x --set trainig.epochs=1", "training"),
        ("train digits --store x --set data.name=cifar", "cifar10"),
        ("train digits --store x --set network.name=resnet2", "resnet20"),
        ("analyze STORE spectra --layers s1b33", "s1b3"),
        ("analyze STORE spectra --sets tset", "test"),
        ("analyze STORE drift --cuts s2b33", "s2b3"),
        ("query STORE outputs.loss --by lable", "label"),
        ("query STORE outputs.loss --reduce maen:sample", "mean"),
    ],
)
def test_the_nearest_name_is_said_wherever_one_is_asked_for(
    featdyn, small_store, tmp_path, monkeypatch, command, meant
):
    monkeypatch.chdir(tmp_path)
    one_line(featdyn(*command.replace("STORE", str(small_store)).split()), f"did you mean {meant}?")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command",
    [
        "report STORE -o FOLDER/r.html",
        "compare STORE STORE -o FOLDER/c.html",
        "query STORE outputs.loss -o FOLDER/a.csv",
        "sql STORE nothing -o FOLDER/a.csv",
        "plot STORE drift -o FOLDER/a.pdf",
        "export STORE --cut stem --from 0 --to 1 -o FOLDER/a.safetensors",
    ],
)
def test_no_command_makes_the_folder_of_its_file(featdyn, small_store, tmp_path, command):
    words = command.replace("STORE", str(small_store)).replace("FOLDER", str(tmp_path / "none" / "here")).split()
    one_line(featdyn(*words), f"{words[-1]}: there is no folder {tmp_path}/none/here")
    assert not list(tmp_path.iterdir())


def test_recipes_are_listed_without_torch():
    code = """
import sys
from featdyn.cli import main
for flag in ("--list", "--fields"):
    sys.argv = ["featdyn", "train", flag]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code
print({"torch", "pandas", "xarray", "zarr", "dask", "numba"} & set(sys.modules))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "set()"
    assert "cifar10-short" in run.stdout
    assert "imagefolder:PATH" in run.stdout


@pytest.mark.slow
def test_workers_that_do_not_fit_into_their_memory_are_named(featdyn, small_store):
    flags = ("--scheduler", "processes", "--workers", "1", "--memory-limit", "1MB")
    code, _, err = featdyn("analyze", small_store, "spectra", *flags)
    assert (code, err.count("\n")) == (1, 1)
    assert "processes: no workers (is --memory-limit 976.6 KiB less than a process takes?)" in err


def test_what_may_have_been_meant_is_said(featdyn, tmp_path):
    one_line(featdyn("trian", "digits"), "No such command 'trian': did you mean train?")
    for words in ("query x y --sort --top 3", "query x y --by --reduce mean", "sql x -o --raw"):
        *_, option, other = words.removesuffix(" 3").removesuffix(" mean").split()
        one_line(featdyn(*words.split()), f"Option '{option}' requires an argument, and {other} is an option")
    one_line(featdyn("analyze", tmp_path, "spectre"), "no analysis 'spectre': did you mean spectra?")
    one_line(featdyn("analyze", tmp_path), f"name an analysis after {tmp_path}: ")
    one_line(featdyn("analyze", tmp_path, "spectra", "--off", "activation"), "No such option", "--of")
    one_line(featdyn("analyze", tmp_path, "spectra", "--of", "weights"), "--of", "activation")


def test_completion_of_analyze_knows_the_analyses():
    from click.shell_completion import ShellComplete

    from featdyn.analysis import analyses
    from featdyn.cli.main import featdyn as command

    complete = ShellComplete(command, {}, "featdyn", "_FEATDYN_COMPLETE")
    for before in (["analyze"], ["analyze", "run.zarr"]):
        assert [item.value for item in complete.get_completions(before, "")] == list(analyses())
    assert "--of" in [item.value for item in complete.get_completions(["analyze", "run.zarr", "spectra"], "--")]


def test_completion_knows_recipes_studies_and_the_variables_of_a_store(tmp_path):
    from click.shell_completion import ShellComplete

    from featdyn.cli.main import featdyn as command

    write_run(tmp_path / "run.zarr")
    complete = ShellComplete(command, {}, "featdyn", "_FEATDYN_COMPLETE")

    def values(*line: str, word: str) -> list[str]:
        return [item.value for item in complete.get_completions(list(line), word)]

    assert values("train", word="cifar10-") == ["cifar10-fit", "cifar10-short"]
    assert values("reproduce", word="rich") == ["richness"]
    assert values("query", str(tmp_path / "run.zarr"), word="cube.activation_n") == ["cube.activation_norm"]
    assert values("query", "nowhere.zarr", word="") == []


def one_line(result: tuple[int, str, str], *words: str) -> None:
    code, _, err = result
    assert code != 0
    assert err.startswith("featdyn: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


def test_bad_input_gets_one_line_and_leaves_nothing(featdyn, tmp_path):
    store = tmp_path / "new.zarr"
    bad = {
        "no recipe": ["nope"],
        "no field training.lr": ["digits", "--set", "training.lr=1"],
        "no layer": ["digits", *SMALL_SET, "--set", "capture.layers=['nope*']"],
        "imagefolder": ["digits", "--set", "data.name=imagefolder:nowhere"],
        "there are": ["digits", "--set", "network.name=nope"],
        "batch_size": ["digits", "--set", "training.batch_size=99999"],
    }
    for word, arguments in bad.items():
        one_line(featdyn("train", *arguments, "--store", store), word)
        assert not store.exists(), word
    one_line(featdyn("train", "digits"), "--store")
    one_line(featdyn("info", tmp_path / "nowhere"), "no such folder")
    one_line(featdyn("info", tmp_path), "not a featdyn store")
    inside = make_run(tmp_path / "sp ace" / "run.zarr", checkpoints=1).path
    for command in ("info", "verify"):
        one_line(featdyn(command, tmp_path / "sp ace"), f"there is one inside: {inside}")
    one_line(featdyn("query", inside, "results.drift.motion"), f"featdyn analyze '{inside}' drift")
    one_line(featdyn("frobnicate"), "No such command")


SMALL_SET = [part for change in SMALL for part in ("--set", change)]


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("import --store s.zarr", "argument 'PATHS...'"),
        ("import file", "option '--store'"),
        ("capture --probes m:p --checkpoints c --store s.zarr", "option '--model'"),
        ("capture --model m:f --checkpoints c --store s.zarr", "option '--probes'"),
        ("capture --model m:f --probes m:p --store s.zarr", "option '--checkpoints'"),
        ("capture --model m:f --probes m:p --checkpoints c", "option '--store'"),
        ("compare", "argument 'STORES...'"),
    ],
)
def test_what_a_command_cannot_do_without_is_named(featdyn, command, missing):
    code, out, err = featdyn(*command.split())
    assert (code, out) == (2, "")
    assert f"Missing {missing}" in err


def test_a_store_that_is_damaged_newer_or_locked(featdyn, small_store, tmp_path):
    copy = tmp_path / "copy.zarr"
    shutil.copytree(small_store, copy)
    shard = next((copy / "layers" / "stem" / "activation").glob("c.*"))
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    code, out, _ = featdyn("verify", copy)
    assert code == 1
    assert "stem/activation" in out
    assert "1 problems" in out
    root = copy / "zarr.json"
    document = json.loads(root.read_text())
    root.write_text(json.dumps({**document, "attributes": {"featdyn": {"format": 99}}}))
    one_line(featdyn("info", copy), "newer")
    root.write_text(root.read_text()[:50])
    one_line(featdyn("info", copy), "damaged")
    from featdyn.store import RunWriter

    shutil.copytree(small_store, tmp_path / "sound.zarr")
    with RunWriter.open(tmp_path / "sound.zarr"):
        for command in (["gc", tmp_path / "sound.zarr"], ["verify", "--repair", tmp_path / "sound.zarr"]):
            one_line(featdyn(*command), "is being written by")
        code, out, _ = featdyn("analyze", tmp_path / "sound.zarr", "spectra", "--layers", "pooled")  # beside it
    assert (code, Run(tmp_path / "sound.zarr").results("spectra")) == (0, [out.split()[1]])


def test_unknown_cut_leaves_the_store_as_it_was(featdyn, small_store):
    before = (small_store / "zarr.json").read_bytes()
    one_line(featdyn("analyze", small_store, "consistency", "--cuts", "s7b1"), "s7b1")
    one_line(featdyn("analyze", small_store, "consistency", "--features", "x"), "--features")
    one_line(featdyn("analyze", small_store, "nope"), "nope")
    assert (small_store / "zarr.json").read_bytes() == before


def test_a_full_disk_is_one_line_and_what_is_committed_stays(tmp_path):
    """Written under a limit on file size, which the system enforces as it would a full disk."""
    store = tmp_path / "run.zarr"
    changes = [part for change in (*SMALL, "training.epochs=1") for part in ("--set", change)]
    command = [sys.executable, str(ROOT / "cli.py"), "train", "digits", "--store", str(store), *changes]

    def limit() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    run = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit)
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1
    assert run.stderr.startswith("featdyn: ")
    assert not store.exists()


def test_a_bare_checkout_runs_and_a_closed_pipe_is_no_error(small_store):
    run = child("info", small_store)
    assert run.returncode == 0
    assert "11 layers" in run.stdout
    command = f"{sys.executable} {ROOT / 'cli.py'} query {small_store} cube.activation_norm --format csv | head -n 2"
    run = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert run.stderr == ""
    assert len(run.stdout.splitlines()) == 2


def test_debug_shows_the_traceback(featdyn, tmp_path):
    code, _, err = featdyn("--debug", "info", tmp_path / "nowhere")
    assert code == 1
    assert "Traceback" in err


def test_many_stores_are_analysed_on_the_same_workers(featdyn, small_store, tmp_path):
    stores = [tmp_path / f"{i}.zarr" for i in range(2)]
    for store in stores:
        shutil.copytree(small_store, store)
    code, out, err = featdyn(
        "analyze", stores[0], tmp_path / "none.zarr", stores[1], "spectra", "--scheduler", "threads"
    )
    assert code == 1
    assert out.count("results/spectra/") == 2
    for line in ("none.zarr: no such folder", "1 of 3 stores failed", "dashboard: http://", "tasks, "):
        assert line in err
    first, second = (Run(store).result("spectra").load() for store in stores)
    assert first.drop_attrs().identical(second.drop_attrs())


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--memory-limit", "1MB"), r"needs .* of memory .*, but 976\.6 KiB are allowed or free"),
        (("--scheduler", "dask"), "scheduler: must be threads, processes or an address"),
        (("--workers", "2"), "--workers needs --scheduler"),
    ],
)
def test_what_does_not_fit_or_is_wrong_is_refused_before_any_work(featdyn, small_store, flags, line):
    before = (small_store / "zarr.json").read_bytes()
    code, _, err = featdyn("analyze", small_store, "spectra", *flags)
    assert code == 1
    assert re.search(f"^featdyn: .*{line}", err, re.MULTILINE)
    assert (small_store / "zarr.json").read_bytes() == before


def test_a_missing_store_or_analysis_is_wrong_usage(featdyn, small_store):
    one_line(featdyn("analyze", "density"), "name a store before density")
    assert "STORE... ANALYSIS" in featdyn("analyze", "--help")[1]


def test_info_of_a_run_that_diverged_is_json(featdyn, tmp_path):
    from featdyn.store import RunWriter
    from tests.engine.small_run import NAMES, SCHEMA, fill

    arrays = (*SCHEMA.arrays, ArraySpec("train_loss", (), (), "float64"))
    kinds = ("sample", np.array(["train", None, "test"], dtype=object))
    static = {
        "": xr.Dataset(coords={"sample": NAMES, "split": kinds}),
        "cube": xr.Dataset(coords={"layer": np.array(["a"], dtype=object)}),
    }
    losses = [1.0, np.inf, -np.inf, np.nan]
    with RunWriter.create(
        tmp_path / "run.zarr", replace(SCHEMA, arrays=arrays), static=static, attributes={}
    ) as writer:
        for loss in losses:
            with writer.checkpoint() as checkpoint:
                fill(checkpoint)
                checkpoint.write("train_loss", np.array(loss))

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    for arguments in (["info", "--json"], ["query", "--format", "json", "train_loss"]):
        code, out, err = featdyn(arguments[0], tmp_path / "run.zarr", *arguments[1:])
        assert (code, err) == (0, "")
        rows = json.loads(out, parse_constant=refuse)
        history = rows["history"] if arguments[0] == "info" else rows
        assert [row["train_loss"] for row in history] == [1.0, None, None, None]
    assert json.loads(featdyn("info", tmp_path / "run.zarr", "--json")[1])["probes"] == {
        "train": 1,
        "unknown": 1,
        "test": 1,
    }
    code, out, _ = featdyn("info", tmp_path / "run.zarr")
    assert code == 0
    assert " inf" in out


def test_a_question_about_no_variable_is_no_listing(featdyn, small_store):
    one_line(featdyn("query", small_store, "--where", "split=test"), "name a variable")


def test_a_home_in_the_name_of_an_output_file(featdyn, small_store, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert featdyn("query", small_store, "train_loss", "--format", "csv", "--out=~/x.csv")[0] == 0
    assert (tmp_path / "x.csv").exists()


def test_a_file_in_the_folder_that_one_is_in_needs_no_path(featdyn, tmp_path, monkeypatch):
    store = make_run(tmp_path / "run.zarr", checkpoints=1).path
    monkeypatch.chdir(tmp_path)
    assert featdyn("query", store, "step", "-o", "steps.csv") == (0, "", "")
    assert (tmp_path / "steps.csv").read_text().splitlines()[1].endswith(",0")
    code, _, err = featdyn("query", store, "step", "-o", "")
    assert (code, err) == (1, "featdyn: -o '': give the name of a file\n")


def test_sizes_are_said_in_mebibytes(featdyn, tmp_path):
    from featdyn.store import RunWriter, Schema

    specs = [
        ArraySpec("step", (), (), "int64"),
        ArraySpec("layers/a/activation", ("sample", "f"), (3, 400_000), "float16"),
    ]
    store = tmp_path / "run.zarr"
    with RunWriter.create(store, Schema.build(specs, 3), static={}, attributes={}) as writer, writer.checkpoint() as at:
        at.write("step", np.array(0))
        for block in range(writer.schema.blocks):
            at.write(specs[1].path, np.ones((3, 400_000), np.float16)[writer.schema.block_slice(block)], block)
    lines = [line.split() for line in featdyn("info", store)[1].splitlines()]
    assert ["a", "400000", "float16", "2.3", "MiB"] in lines  # of all samples, one checkpoint
    found = json.loads(featdyn("verify", store, "--json")[1])
    size = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    assert 0.9 * size < found["bytes"] <= size
    said = featdyn("verify", store)[1]
    assert f"1 commits, {found['files']} files, {found['bytes'] / 2**20:.1f} MiB: sound" in said
    with open(store / "layers/a/activation/c.9.0.0", "wb") as file:  # of a checkpoint that never came
        file.truncate(3 * 2**20)
    assert featdyn("gc", store)[1].endswith("removed 1 files, 3145728 bytes (3.0 MiB)\n")


def test_a_fraction_of_the_files_is_above_none_and_at_most_all(featdyn, tmp_path):
    store = make_run(tmp_path / "run.zarr", checkpoints=1).path
    whole = json.loads(featdyn("verify", store, "--json")[1])
    for share, code in (("0", 2), ("-0.1", 2), ("1.01", 2), ("1", 0), ("0.001", 0)):
        assert (share, featdyn("verify", store, "--sample", share, "--seed", "0")[0]) == (share, code)
    drawn = json.loads(featdyn("verify", store, "--sample", "1", "--seed", "0", "--json")[1])
    assert (drawn["files"], drawn["of"]) == (whole["files"], whole["files"])


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted; what was committed is safe"),
        (MemoryError("of 3 GiB"), 1, "not enough memory (of 3 GiB)"),
        (MemoryError(), 1, "not enough memory"),
        (OSError(28, "No space left on device"), 1, "standard output: No space left on device"),
        (PermissionError(13, "Permission denied", "a b"), 1, "a b: Permission denied"),
        (OSError("odd"), 1, "OSError: odd (unexpected: featdyn --debug shows where)"),
        (ZeroDivisionError("by\n0"), 1, "ZeroDivisionError: by 0 (unexpected: featdyn --debug shows where)"),
        (ValueError("x" * 300), 1, f"ValueError: {'x' * 100}... (unexpected: featdyn --debug shows where)"),
        (ValueError("x" * 299), 1, f"ValueError: {'x' * 299} (unexpected: featdyn --debug shows where)"),
    ],
)
def test_whatever_goes_wrong_is_one_line_and_an_exit_code(featdyn, tmp_path, monkeypatch, error, code, said):
    def fail(*_):
        raise error

    monkeypatch.setattr("featdyn.store.Run", fail)
    found = featdyn("info", tmp_path)
    assert (*found[:2], found[2].removeprefix("\n")) == (code, "", f"featdyn: {said}\n")  # a new line behind ^C


def test_the_command_alone_shows_its_help_as_wrong_usage(featdyn):
    for words in ([], ["analyze"]):
        code, out, err = featdyn(*words)
        assert code == 2
        assert "Usage: " in err
        assert out == ""


def test_info_of_a_layer_that_only_the_cube_knows(featdyn, tmp_path):
    from tests.engine.synthetic_run import make_run

    make_run(tmp_path / "r.zarr", layers=("stem", "s1b3", "pooled"))  # s1b3 has no array
    code, out, _ = featdyn("info", tmp_path / "r.zarr", "--json")
    assert code == 0
    assert {name: layer["shape"] for name, layer in json.loads(out)["layers"].items()} == {
        "stem": [2], "s1b3": [], "pooled": [2]
    }  # fmt: skip
    assert featdyn("info", tmp_path / "r.zarr")[0] == 0


def test_a_run_says_what_it_holds(small_store):
    run = Run(small_store)
    for shown in (repr(run), run._repr_html_()):
        for words in (
            str(small_store),
            "40 train",
            "11, ",
            "stem, s1b1",
            "consistency",
            f"{run.checkpoints}, to step 22",
        ):
            assert words in shown
    assert "<th" in run._repr_html_()


def test_a_damaged_run_can_still_be_printed(small_store, tmp_path):
    copy = tmp_path / "copy.zarr"
    shutil.copytree(small_store, copy)
    run = Run(copy)
    (copy / "split" / "c" / "0").write_bytes(b"junk")
    assert "unreadable" in repr(run)
    assert "unreadable" in run._repr_html_()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("full", ["/dev/full", "a pipe that nobody reads"])
def test_what_is_committed_is_no_failure_where_nobody_can_be_told(featdyn, tmp_path, monkeypatch, full):
    store, changes = tmp_path / "run.zarr", [part for change in TINY for part in ("--set", change)]

    def into_nowhere(*command):
        where = full
        if full != "/dev/full":
            reading, where = os.pipe()
            os.close(reading)
        with suppress(OSError), open(where, "w") as stream, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            code, _, err = featdyn(*command)
        return code, err

    code, err = into_nowhere("train", "digits", "--store", store, *changes)
    assert (code, f"{store}: {Run(store).checkpoints} checkpoints" in err) == (0, True)
    code, err = into_nowhere("analyze", store, "spectra")
    assert (code, f"{Run(store).results('spectra')[-1]} committed" in err) == (0, True)
    code, err = into_nowhere("info", store)  # what is asked for is not had
    assert (code, err) == (1, "featdyn: standard output: No space left on device\n" if full == "/dev/full" else "")
    folder = tmp_path / "sweep"
    code, err = into_nowhere("train", "digits", "--store", folder, *changes, "--sweep", "labels.noise=0")
    assert (code, "done" in err) == (0, True)


def test_the_demo_is_the_recipe_digits_made_shorter():
    pytest.importorskip("torch")
    from featdyn.cli.demo import SHORTER
    from featdyn.training import load
    from featdyn.training.recipe import differences

    whole, shorter = (load("digits", changes).model_dump(mode="json") for changes in ((), SHORTER))
    assert [line.partition(":")[0] for line in differences(whole, shorter)] == ["description", "training.epochs"]
    assert "changed:" not in shorter["description"]


@pytest.mark.slow
def test_the_demo_leaves_a_run_and_its_report(featdyn, tmp_path):
    pytest.importorskip("sklearn")
    code, out, err = featdyn("demo", "--out", tmp_path / "demo")
    assert code == 0, err
    run = Run(tmp_path / "demo/run.zarr")
    assert run.values("test_accuracy")[-1] > 0.9
    assert run.analyses == ["consistency"]
    assert "Temporal consistency" in (tmp_path / "demo/report.html").read_text(encoding="utf-8")
    assert f"info {tmp_path / 'demo/run.zarr'}" in out


def test_a_store_that_cannot_be_written_is_refused_before_all_else(featdyn, small_store, tmp_path, monkeypatch):
    store = shutil.copytree(small_store, tmp_path / "run.zarr")
    monkeypatch.setattr(os, "access", lambda path, mode: not (Path(path) == store and mode & os.W_OK))
    for names in (["spectra"], ["spectra", "similarity"]):
        code, out, err = featdyn("analyze", store, *names)
        lines = [line for line in err.splitlines() if not line.endswith("failed")]
        assert (code, out) == (1, "")
        assert lines == [f"featdyn: {store} cannot be written, so that no result could be kept there"] * len(names)
