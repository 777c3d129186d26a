"""The registry: what is declared is complete, and everything that names analyses is made from it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import featdyn
from featdyn.analysis import Analysis, analyses
from featdyn.analysis.registry import analysis
from featdyn.analysis.table import BEGIN, END, markdown, replaced
from featdyn.errors import FeatdynError

ROOT = Path(__file__).parents[2]
ENGINE = ROOT / "engine" / "featdyn"


@pytest.fixture(params=list(analyses()))
def declared(request: pytest.FixtureRequest) -> Analysis:
    return analyses()[request.param]


def test_a_declaration_is_whole(declared: Analysis) -> None:
    assert declared.question == declared.question.strip()
    assert "\n" not in declared.question
    assert declared.source.endswith(".")
    assert callable(declared.function())
    for name, field in declared.options.model_fields.items():
        assert field.description, name
        assert not field.is_required(), name
    for name, variable in declared.variables.items():
        assert variable.long_name, name
        assert variable.units, name
        low, high = variable.valid_range or (0, 1)
        assert low < high, name


def test_sections_exist_and_are_light() -> None:
    names = [declared.section for declared in analyses().values() if declared.section]
    assert names
    code = f"import sys, pkgutil; [pkgutil.resolve_name(n) for n in {names!r}]; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_declarations_are_light() -> None:
    code = "import sys, featdyn; featdyn.analyses(); print({'torch', 'numba', 'scipy', 'dask'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", ["consistency", "similarity", "richness"])
def test_what_computes_loads_no_laws_that_it_does_not_ask(name: str) -> None:
    """SciPy's distributions, its optimizers, scikit-learn and Triton take half a second to import."""
    heavy = {"scipy.stats", "scipy.optimize", "sklearn", "triton"}
    code = f"import sys, featdyn; featdyn.analyses()[{name!r}].function(); print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_nothing_else_names_an_analysis() -> None:
    """Not the command line, not the report's page, not what README's table is made by."""
    looked = [*ENGINE.glob("cli/*.py"), *ENGINE.glob("report/page*"), *ENGINE.glob("report/report.*")]
    looked = [path for path in looked if path.suffix != ".css"]  # whose words are its own
    looked += [ENGINE / "report" / "chapters.py", ENGINE / "analysis" / "table.py", ENGINE / "analysis" / "__main__.py"]
    assert len(looked) > 20
    word = re.compile(rf"\b({'|'.join(analyses())})\b")
    found = [(path.name, line) for path in looked for line in path.read_text().splitlines() if word.search(line)]
    assert found == []


def test_readme_s_table_is_the_registry_s() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    own = [a for a in analyses().values() if a.module.startswith("featdyn.")]
    assert replaced(text, markdown(own)) == text, "make readme"
    with pytest.raises(ValueError, match="no place for the table"):
        replaced("no marks", "")
    assert replaced(f"a {BEGIN} old {END} b", "new") == f"a {BEGIN}\nnew\n{END} b"


def test_an_unknown_name_says_what_may_have_been_meant() -> None:
    with pytest.raises(FeatdynError, match="no analysis 'spectre': did you mean spectra"):
        analysis("spectre")
    with pytest.raises(FeatdynError, match=r"no analysis 'x': there are .*spectra"):
        analysis("x")


def test_the_front_leads_on() -> None:
    shown = repr(featdyn.analyses())
    assert [line.split()[0] for line in shown.splitlines()] == list(analyses())
    assert analyses()["spectra"].question in shown
    assert "<td><code>spectra</code></td>" in featdyn.analyses()._repr_html_()
    assert "options: " in repr(analyses()["spectra"])
    assert {"analyses", "analyze", "open_run", "query", "report"} <= set(dir(featdyn))
    for name in dir(featdyn):
        assert getattr(featdyn, name) is not None
        assert name in str(featdyn.__doc__) + "__version__"
    with pytest.raises(AttributeError, match="it offers"):
        featdyn.nothing  # noqa: B018
