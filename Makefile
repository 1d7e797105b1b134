# The commands of this repository; `make help` lists them. CI runs `make test`.

PYTHON ?= $(if $(shell python3.11 --version 2>/dev/null),python3.11,python3)
BIN := .venv/bin

.PHONY: help quickstart test test-all soak check format lock
.DEFAULT_GOAL := help

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

quickstart: .venv/installed ## make a small spoken corpus, train on it, evaluate and transcribe
	$(BIN)/python main.py --config configs/quickstart.py
	$(BIN)/python main.py transcribe runs/quickstart $$(ls datasets/synthetic/audio/en-gb-scotland*.wav | head -n 3)

test: check ## the checks and the tests that take minutes; what CI runs
	$(BIN)/pytest -m "not slow"

test-all: check ## the checks and all tests, however long
	$(BIN)/pytest

soak: .venv/installed-dev ## train on AN4 for an hour with a kill every few minutes and other faults; goes on where it stopped
	$(BIN)/python -m tests.soak

check: .venv/installed-dev ## formatting, lint, types and the direction of imports
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev ## format the code and mend what lint can mend
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

lock: .venv/installed-dev ## pin the newest versions that pyproject.toml allows
	$(BIN)/pip install --quiet uv
	.ci/lock $(BIN)/uv

# Each stamp is newer than the requirements that were installed last.
.venv/installed: requirements.txt requirements-dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -r requirements.txt $$(grep '^espeakng-loader==' requirements-dev.txt)
	touch $@

.venv/installed-dev: requirements.txt requirements-dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -r requirements-dev.txt
	touch $@ .venv/installed
