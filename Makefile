# `make demo` and `make test` do all the set-up themselves. `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin
SAMPLE := demo/sample

# Small tensors: more threads than this only fight each other.
export OMP_NUM_THREADS ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow coverage lint format types evidence evidence-loss docs build clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) -V 2>&1)." >&2; \
	  echo "       Name another one: make PYTHON=python3.12 $(or $(MAKECMDGOALS),test)" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
	  echo "error: '$(PYTHON) -m venv' failed (on Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; }

.venv/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -e '.[dev]'
	@touch $@

demo: .venv/.installed ## score two real Sentinel-2 pairs and write their error maps
	@mkdir -p demo
	@test -e $(SAMPLE) || $(BIN)/lpips-sat sample $(SAMPLE)
	$(BIN)/lpips-sat score $(SAMPLE)/rgbn/pred.tif $(SAMPLE)/rgbn/ref.tif --map demo/rgbn-map.tif --overwrite
	$(BIN)/lpips-sat score $(SAMPLE)/nir/pred.tif $(SAMPLE)/nir/ref.tif --map demo/nir-map.tif --overwrite
	@echo "error maps: demo/rgbn-map.tif demo/nir-map.tif"

# One process per core, one thread each; the tests of a module stay together.
test: .venv/.installed ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile

test-slow: .venv/.installed ## run the tests that take long
	$(BIN)/pytest -m slow

# Commands that tests start as programs of their own do not count.
coverage: .venv/.installed ## measure which lines the tests run: at least 90 %
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile --cov --cov-context=test \
	  --cov-report=term:skip-covered --cov-fail-under=90

lint: .venv/.installed ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/.installed ## rewrite files in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# build/ goes first: setuptools would copy modules that no longer exist out of build/lib.
types: .venv/.installed ## type-check the package as a normal install lays it out
	@rm -rf build
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --target build/types .
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache

# Where satellite-2afc (images, trials, votes) and EuroSAT RGB (zip or folder) lie.
JUDGEMENTS ?= satellite-2afc
EUROSAT ?= EuroSAT_RGB.zip

evidence: .venv/.installed ## measure docs/evidence.md: make evidence JUDGEMENTS=... EUROSAT=...
	$(BIN)/python -m pip install --quiet -e '.[report]'
	$(BIN)/python benchmarks/evidence.py --judgements '$(JUDGEMENTS)' --eurosat '$(EUROSAT)'
	$(BIN)/python benchmarks/report.py --figures

evidence-loss: .venv/.installed ## train with LPIPS-Sat as a loss, unless done for these weights
	$(BIN)/python benchmarks/loss.py '$(EUROSAT)'
	$(BIN)/python benchmarks/report.py

docs: .venv/.installed ## build the documentation into site/
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	$(BIN)/mkdocs build --strict

build: .venv/.installed ## build the sdist and the wheel into dist/
	@rm -rf build dist
	$(BIN)/python -m build

clean: ## remove what was built or cached, .venv and demo included
	rm -rf .venv build dist demo site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
