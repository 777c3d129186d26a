"""The site: pages that are made say all that there is, and each link between pages has an end."""

from __future__ import annotations

import posixpath
import re
import subprocess
import sys

import pytest

from tests.engine.documents import PAGES, ROOT

pytest.importorskip("torch")  # docstrings and commands of everything are read
generated = pytest.importorskip("docs.generated")

LINK = re.compile(r"\]\((?!https?://|mailto:)([^)\s#]*)(?:#([^)\s]*))?\)")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
FILES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [*PAGES, *(ROOT / name for name in generated.ELSEWHERE if name.endswith(".md"))]
}
MADE = {f"docs/{name}": text for name, text in generated.pages().items()}


def anchors(text: str) -> set[str]:
    """Return where headings can be found, as the site and GitHub name them."""
    titles = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def broken(name: str, text: str) -> list[str]:
    """Return the links of a file that lead nowhere."""
    found = []
    for path, anchor in LINK.findall(FENCED.sub("", text)):
        to = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
        picture = to.startswith("docs/images/") and (ROOT / to).is_file()
        if not picture and to not in {*FILES, *MADE, *generated.ELSEWHERE, *at_home()}:
            found.append(path)
        elif anchor and anchor not in anchors(FILES.get(to) or MADE.get(to) or FILES[at_home()[to]]):
            found.append(f"{path}#{anchor}")
    return found


def at_home() -> dict[str, str]:
    """Return files of the repository by where made pages find them."""
    return {f"docs/{place}": name for name, place in generated.ELSEWHERE.items()}


@pytest.mark.parametrize("name", [*FILES, *MADE])
def test_links_lead_somewhere(name):
    assert broken(name, FILES.get(name) or MADE[name]) == []


def test_each_page_is_listed():
    listed = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [p for p in PAGES[1:] if str(p.relative_to(ROOT / "docs")) not in listed] == []


def test_a_broken_link_is_found():
    assert broken("docs/x.md", "[a](tutorial.md) [b](nothing.md) [c](glossary.md#glossary) [d](glossary.md#x)") == [
        "nothing.md",
        "glossary.md#x",
    ]


def test_each_page_of_an_analysis_has_its_options_variables_and_source():
    from featdyn.analysis.registry import analyses

    for analysis in analyses().values():
        if not analysis.module.startswith("featdyn."):
            continue
        text = MADE[f"docs/analyses/{analysis.name}.md"]
        assert analysis.source in text
        assert analysis.question[1:] in text
        for option, field in analysis.options.model_fields.items():
            row = next(line for line in text.splitlines() if line.startswith(f"| `--{option.replace('_', '-')}` |"))
            assert (field.description or "").replace("|", "\\|") in row
        for name, variable in analysis.variables.items():
            row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
            assert f"| {variable.dims} | {variable.units} |" in row
            assert variable.long_name.replace("|", "\\|") in row
            assert variable.missing in row
        seed = "another seed would change" in text
        assert seed == any(name.endswith("_low") for name in analysis.variables)
        if analysis.section:
            assert "## How to read it" in text


def test_the_data_dictionary_has_each_array_of_a_store(small_store):
    from featdyn import open_run

    runs, results = MADE["docs/reference/data-dictionary.md"].split("## Coordinates\n")
    rows = [line.split(" | ") for line in runs.splitlines() if line[:3] == "| `"]
    held = {row[0].strip("| `"): row for row in rows}
    for path, document in open_run(small_store).nodes.items():
        if document["node_type"] != "array" or path.startswith("results/"):
            continue
        row = held[re.sub("^layers/[^/]+/", "layers/<layer>/", path)]
        known = {"checkpoint", "sample", "layer", "component", "class", "probe"}
        assert known & set(document["dimension_names"]) <= set(row[1].replace(",", "").split())
        assert document["data_type"] in row[2] or row[2].startswith(("string", "as "))
    assert "outputs/prediction" in held
    assert "| `t1` |" in results


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "-q", "-f", ROOT / "mkdocs.yml", "-d", tmp_path]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "analyses/consistency.html").is_file()
