# `make run` and `make test` do all the set-up that they need: a virtual environment in .venv, from pinned versions. `make run`
# installs what the program needs, the others also what its tests need.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Tests wait more than they compute: six processes for two cores.
WORKERS ?= 6
# A test that hangs ends its process, and the run with its name: with a new process xdist 3.8 may wait for good (its issue 1323).
TEST = $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadgroup --no-loadscope-reorder --max-worker-restart 0
export PYTHONDONTWRITEBYTECODE =
export PIP_CONSTRAINT = $(CURDIR)/constraints.txt

.PHONY: run test lint style types imports audit compiled unit parts explore mutants soak fuzz bench dist image clean

run: $(VENV)/installed
	$(BIN)/reaper demo

test: $(VENV)/ready
	$(MAKE) --jobs 3 lint compiled
	$(MAKE) unit

# Each a target of its own: the audit waits for its service while the others compute.
lint: style types imports audit

style: $(VENV)/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/ready
	$(BIN)/mypy

imports: $(VENV)/ready
	$(BIN)/lint-imports

audit: $(VENV)/ready
	$(BIN)/python -m devkit.audit

# Once, and not by each of the processes: they begin at the same time.
compiled: $(VENV)/ready
	@$(BIN)/python -m pytest --collect-only --quiet >/dev/null

unit: $(VENV)/ready
	$(TEST)

# What another version of Python may do otherwise, without engines and without the tests that start the program.
PARTS = core sweep library providers leases journal metrics proxy daytona
parts: $(VENV)/ready
	$(TEST) -m "not engine" $(PARTS:%=tests/%)

# Generated cases that no run has had: those of the tests are the same in each run.
explore: $(VENV)/ready
	$(TEST) -m hypothesis --hypothesis-profile explore

mutants: $(VENV)/ready
	REAPER_MUTANTS=all $(TEST) tests/promise tests/model

# Runs of the model for so long in each mode, from this seed on; what was run and found is added to tests/model/soak.json.
SEED ?= 0
HOURS ?= 1
soak: $(VENV)/ready
	$(BIN)/python -m tests.model soak --seed $(SEED) --hours $(HOURS)

# Every parser of bytes that others wrote: make fuzz SECONDS=3600 TARGETS="docker_rows orders"
SECONDS ?= 60
fuzz: $(VENV)/ready
	$(PIP) --quiet --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(TARGETS)

bench: $(VENV)/ready
	$(BIN)/python -m benchmarks

dist: $(VENV)/ready
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m devkit.sbom >dist/bench_reaper-$(VERSION).cdx.json

# Where no index is reached: make image DOCKER_BUILD="docker build --build-arg BASE=... --build-arg PIP_OPTIONS=..."
DOCKER_BUILD ?= docker build
DOCKER ?= docker
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' reaper/__init__.py)

image:
	$(DOCKER_BUILD) --tag reaper:$(VERSION) --build-arg VERSION=$(VERSION) \
	  --build-arg REVISION=$(shell git rev-parse HEAD) --build-arg CREATED=$(shell date -u +%Y-%m-%dT%H:%M:%SZ) .
	mkdir -p dist
	$(DOCKER) run --rm --interactive --network none --entrypoint python3 reaper:$(VERSION) - \
	  <devkit/sbom.py >dist/reaper-$(VERSION).image.cdx.json

clean:
	rm -rf $(VENV) .venv-3.* .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

PIP = $(BIN)/pip --disable-pip-version-check install

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 $@")'
	@echo "Installing reaper and the packages that it needs into $(VENV): about 70 MB, once."
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	@touch $@

$(VENV)/ready: $(VENV)/installed
	@echo "Installing what the tests need, too: about 400 MB, once."
	$(PIP) --quiet --editable '.[dev]'
	@touch $@
