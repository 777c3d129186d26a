"""What README and the pages of docs show is what runs, and where they lead there is something."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.engine import documents
from tests.engine.documents import PAGES, ROOT, Block, blocks

COMMANDS = [command for page in PAGES for block in blocks(page) for command in block.commands]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_there_are_commands_of_every_kind():
    from click import Context

    from featdyn.cli.main import featdyn

    assert len(PAGES) > 20
    assert {command[0] for command in COMMANDS} == set(featdyn.list_commands(Context(featdyn)))


@pytest.mark.parametrize("command", {" ".join(c): c for c in COMMANDS}.values(), ids=" ".join)
def test_each_command_is_one(command):
    """Its options are known, and its recipe's fields."""
    from featdyn.cli.main import featdyn
    from featdyn.training import load

    group, arguments = featdyn, documents.words(command)
    with group.make_context("featdyn", arguments) as context:
        _, found, rest = group.resolve_command(context, arguments)
        with found.make_context(command[0], rest, parent=context) as inner:
            if command[0] == "analyze":
                name, analysis, rest = found.resolve_command(inner, [*inner._protected_args, *inner.args])
                with analysis.make_context(name, rest, parent=inner):
                    pass
            if command[0] == "train" and inner.params["recipe"]:
                swept = tuple(sweep.split(",")[0] for sweep in inner.params["sweeps"])
                load(inner.params["recipe"], (*inner.params["changes"], *swept))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_each_block_is_run_or_says_why_not(page):
    for block in blocks(page):
        if block.language == "python":
            compile(block.text, name(page), "exec")
        assert block.why_not or block.file or not block.others, f"not of featdyn: {block.others}"


def test_what_is_not_run_is_told_apart(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        '<!-- not run: why -->\n```\nfeatdyn info a\n```\n\n```python title="nets.py"\nx = 1\n```\n'
        "<!-- hidden\ny\n-->\n```\nfeatdyn info b; featdyn gc 'c d'  # words\nmake\n```\n"
    )
    first, second, third, fourth = blocks(page)
    assert (first.why_not, first.commands) == ("why", [["info", "a"]])
    assert second == Block("python", "x = 1\n", file="nets.py")
    assert third == Block("python", "y\n")
    assert ([documents.words(c) for c in fourth.commands], fourth.others) == ([["info", "b"], ["gc", "c d"]], ["make"])


@pytest.mark.parametrize("page", [p for p in PAGES if any(not b.why_not for b in blocks(p))], ids=name)
def test_each_page_runs(featdyn, small_store, folder, monkeypatch, page):
    pytest.importorskip("torch")
    if any(command[0] == "sql" for block in blocks(page) for command in block.commands):
        pytest.importorskip("duckdb")
    shutil.copytree(small_store, folder / "run.zarr")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SCHEDULER", "")  # gone again where a page sets it
    documents.run(page, folder, featdyn)
