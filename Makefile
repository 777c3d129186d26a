# Two commands for a newcomer: `make demo` and `make test`. What each needs is installed into .venv on first use.
VENV ?= .venv
PY := $(VENV)/bin/python
PYTHON ?= python3
STAMP := $(VENV)/.installed
USED := $(VENV)/.installed-for-use

.PHONY: demo test test-slow test-lowest lint types readme docs bench clean

demo: $(USED)
	$(VENV)/bin/featdyn demo --out demo

# Two processes, one thread each: what a laptop or a small runner has.
test: $(STAMP)
	OMP_NUM_THREADS=1 FEATDYN_THREADS=1 $(PY) -m pytest -n 2 --dist worksteal

test-slow: $(STAMP)
	$(PY) -m pytest -m slow

# What reads stores, on the lowest versions that it claims to need, without torch.
test-lowest:
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install -q -c constraints-lowest.txt . pytest pytest-timeout hypothesis
	$(VENV)-lowest/bin/python -m pytest tests/engine/test_query.py tests/engine/test_install.py tests/engine/test_report_sections.py

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(STAMP)
	$(PY) -m mypy

readme: $(STAMP)
	$(PY) -m featdyn.analysis README.md

# The site, in the folder site; what mkdocs warns of is an error.
docs: $(STAMP)
	$(PY) -m pip install -q -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build -q

bench: $(STAMP)
	$(PY) -m pip install -q -c constraints.txt -e '.[bench]'
	$(PY) -m bench

clean:
	rm -rf $(VENV) $(VENV)-lowest build demo site

$(PY):
	$(PYTHON) -m venv $(VENV)

# torchvision's wheel does not import beside a CPU-only torch and would replace it, so such a torch is left alone: no
# `vision` extra, and no pinned torch. Nothing is compiled ahead, as most of it is never imported: what is, Python compiles
# then.
$(STAMP): EXTRAS := dev
$(USED): EXTRAS := train,sql,plot
$(STAMP) $(USED): pyproject.toml constraints.txt | $(PY)
	@if $(PY) -c 'import sys, torch; sys.exit(torch.version.cuda is not None)' 2>/dev/null; then \
	  echo 'CPU-only torch found: kept, torchvision left out'; \
	  grep -v -E '^(torch|torchvision|triton)==' constraints.txt > $(VENV)/constraints.txt; \
	  $(PY) -m pip install -q --no-compile -c $(VENV)/constraints.txt -e '.[$(EXTRAS)]'; \
	else \
	  $(PY) -m pip install -q --no-compile -c constraints.txt -e '.[$(EXTRAS),vision]'; \
	fi
	touch $@
