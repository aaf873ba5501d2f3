# Two commands matter: `make run` and `make test`. Each creates what it needs and does its job.
# `make -f path/to/ds4-agent/Makefile run` opens the agent in the directory you stand in.

HERE   := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := $(HERE)/.venv
BIN    := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: run test check lint types format oracle bench nano-train nano-eval clean

run: $(VENV)/.installed
	@$(BIN)/ds4-agent $(ARGS)

test: $(VENV)/.installed-test
	cd $(HERE) && $(PYTEST) -q -n 2 --dist loadgroup

check: lint types test

lint: $(VENV)/.installed-test
	cd $(HERE) && $(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(VENV)/.installed-test
	cd $(HERE) && $(BIN)/mypy engine tools sessions agent tui training bench

format: $(VENV)/.installed-test
	cd $(HERE) && $(BIN)/ruff check --fix . && $(BIN)/ruff format .

# The live oracles (torch, transformers, deepseek-recipe): `make test` then compares with them too.
oracle: $(VENV)/.installed-oracle

bench: $(VENV)/.installed-oracle
	cd $(HERE) && $(BIN)/python -m bench $(ARGS)

nano-train: $(VENV)/.installed-oracle
	cd $(HERE) && $(BIN)/python -m training $(ARGS)

nano-eval: $(VENV)/.installed-test
	cd $(HERE) && $(BIN)/python -m training.evaluate $(ARGS)

clean:
	rm -rf $(VENV) $(HERE)/build $(HERE)/dist

# Stamps: a step runs again only when pyproject.toml changed.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "ds4-agent needs Python 3.11 or newer: install python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "ds4-agent needs Python 3.11 or newer; $(PYTHON) is older (set PYTHON=...)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python $(HERE)/pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e $(HERE)
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e "$(HERE)[test]"
	@touch $@

# torch is named alone first: it may lie on disk as a CPU build, which a joint resolve would not take.
$(VENV)/.installed-oracle: $(VENV)/.installed-test
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e "$(HERE)[test,oracle]"
	@touch $@
