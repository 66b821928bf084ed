# Every target does its own set-up: a virtual environment in .venv, made once and renewed when pyproject.toml changes.
# Variables of the environment reach the commands, ASSAY_DATA (the data packs, see docs/data.md) among them.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ROOMS  := sources featurize models screening
CODE   := assay/__init__.py assay/__main__.py $(ROOMS) tests benchmarks docs/site

export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help screen install test lint types doctest unit browser bench chaos site notebook clean

help: ## Show the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

screen: $(VENV)/.core ## Screen a few thousand hypothetical superconductors, offline
	$(BIN)/assay run configs/quickstart.yaml

install: $(VENV)/.all ## Everything but the tools of development

test: $(VENV)/.dev ## What continuous integration runs
	@$(MAKE) --no-print-directory --jobs=2 lint types doctest
	@$(MAKE) --no-print-directory unit

lint: $(VENV)/.dev ## Style, spelling, and the two rules of the house
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/codespell $(CODE) configs docs *.md pyproject.toml
	$(BIN)/lint-imports

types: $(VENV)/.dev ## mypy --strict on the four rooms
	$(BIN)/mypy

doctest: $(VENV)/.dev ## The examples in the docstrings
	$(BIN)/python -m pytest -q --doctest-modules assay

# One file runs in one process, since its tests share campaigns and servers; tests/chaos, the longest, comes first.
unit: $(VENV)/.dev browser ## The tests, on up to four cores
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder tests

browser: $(VENV)/.dev ## Chromium for the tests of pages, which are skipped where npm brings none
	@$(MAKE) --no-print-directory $(VENV)/.browser || echo "no browser: tests/browser is skipped" >&2

bench: $(VENV)/.bench ## Structures per second, beside alignn; needs ASSAY_DATA
	$(BIN)/python benchmarks/featurizer.py
	$(BIN)/python benchmarks/predict.py
	$(BIN)/python benchmarks/endtoend.py
	$(BIN)/python benchmarks/cascade.py
	$(BIN)/python benchmarks/compiling.py
	$(BIN)/python benchmarks/rendering.py
	$(BIN)/python benchmarks/vision.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/reading.py

chaos: $(VENV)/.dev ## Kills, damages, faults of servers, changed replies, sabotages: hours, one table
	$(BIN)/python -m tests.chaos --kills 300 --damages 4000 --faults 150 --replies 3000 --seed 1

site: $(VENV)/.dev ## The documentation site in build/site/html; a broken link is an error
	$(BIN)/python docs/site/build.py

notebook: $(VENV)/.dev ## The outputs of the tutorial notebook, made anew
	$(BIN)/python -m tests.notebook

clean: ## Remove the environment and every cache
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "assay needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1 | head -n 1)." \
	       "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 78; }
	$(PYTHON) -m venv $(VENV)

warm := from assay.models.ensemble.ensemble import Ensemble; from assay.sources import prototypes; \
  [Ensemble.load(f'models/zoo/{name}').predict(prototypes.generate(300)) for name in ('tc', 'tc-graphs')]

# The numeric kernels are compiled here, once, and not in the first campaign. A stamp is written last, so that it stands
# for a finished installation.
define install_as
	$(BIN)/python -m pip install --quiet --editable $(1)
	@$(BIN)/python -c "$(warm)"
	@touch $@
endef

$(VENV)/.core: pyproject.toml | $(BIN)/python
	$(call install_as,.)

$(VENV)/.all: pyproject.toml | $(BIN)/python
	$(call install_as,'.[all]')

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(call install_as,'.[dev]')

$(VENV)/.browser: tests/browser/install.py
	$(BIN)/python tests/browser/install.py $(VENV)/browser
	@touch $@

$(VENV)/.bench: pyproject.toml | $(BIN)/python
	$(call install_as,'.[dev$(comma)bench]')

comma := ,
