# The commands of this repository; `make help` lists them. CI runs `make test`.

PYTHON ?= $(if $(shell python3.11 --version 2>/dev/null),python3.11,python3)
BIN := .venv/bin

# A process compiles on one core, and compiles the programs of a test file once.
IN_PARALLEL := --numprocesses 2 --dist loadfile --no-loadscope-reorder
# Every package is pinned, so nothing is resolved; .ci/run checks that none is missing.
# uv is faster than pip, but does not read pip's settings: where uv fails, pip installs.
INSTALL = { $(BIN)/pip install --quiet uv && $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps $(1); } \
	|| $(BIN)/pip install --quiet --no-deps $(1)

AN4_RUNS := $(foreach seed,0 1 2,runs/an4_cpu-$(seed))

# Without bytecode on disk, each process that a test starts would compile TensorFlow's modules anew, for 6 s.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help docs notebook quickstart reproduce-an4 $(AN4_RUNS) test test-all soak soak-serve check format lock
.DEFAULT_GOAL := help

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

quickstart: .venv/installed ## make a small spoken corpus, train on it, evaluate and transcribe
	$(BIN)/python main.py --config configs/quickstart.py
	$(BIN)/python main.py transcribe runs/quickstart $$(ls datasets/synthetic/audio/en-gb-scotland*.wav | head -n 3)

reproduce-an4: $(AN4_RUNS) ## train on AN4 with three seeds and print a table, with and without a language model; AN4=FILE names a copy of the archive
	$(BIN)/python main.py summary $^ > runs/an4_cpu.md
	@cat runs/an4_cpu.md

# The runs go one after the other even with -j, because each takes all cores. Finished and evaluated runs do nothing.
.NOTPARALLEL:
$(AN4_RUNS): runs/an4_cpu-%: .venv/installed
	$(BIN)/python main.py --config configs/an4_cpu.py --seed $* --workdir $@ $(if $(AN4),--data.archive $(AN4))
	test -f runs/an4.arpa || $(BIN)/python main.py lm build datasets/an4/train.jsonl datasets/an4/dev.jsonl --order 3 --out runs/an4.arpa
	ls $@/evaluations/an4-test+an4*.json >/dev/null 2>&1 || $(BIN)/python main.py evaluate $@ --lm runs/an4.arpa

test: check ## run the checks and the tests that take minutes, as CI does
	$(BIN)/pytest $(IN_PARALLEL) --quick-compilation -m "not slow"

test-all: check ## run the checks and all tests, which takes long
	$(BIN)/pytest $(IN_PARALLEL)

soak: .venv/installed-dev ## train on AN4 for an hour with a kill every few minutes and other faults; continues where it stopped
	$(BIN)/python -m tests.soak

soak-serve: .venv/installed-dev ## use a server with 64 clients for an hour, some of them badly; every text must be right
	$(BIN)/python -m tests.soak_serve

notebook: .venv/installed-dev ## run docs/notebook and keep its outputs for the site; reads AN4, which takes minutes
	$(BIN)/jupytext --quiet --to ipynb docs/notebook/one-batch.md
	$(BIN)/jupyter-execute --inplace --timeout 900 docs/notebook/one-batch.ipynb

docs: .venv/installed-dev ## make the site of docs/ in docs/_build
	JAX_PLATFORMS=cpu $(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build
	@echo docs/_build/index.html

check: .venv/installed-dev ## check formatting, lint, types and the direction of imports
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev ## format the code and apply lint's fixes
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

lock: .venv/installed-dev ## pin the newest versions that pyproject.toml allows
	$(BIN)/pip install --quiet uv
	.ci/lock $(BIN)/uv

# A stamp is newer than the requirements if they are installed.
.venv/installed: requirements.txt requirements-dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(call INSTALL,-r requirements.txt $$(grep '^espeakng-loader==' requirements-dev.txt))
	touch $@

.venv/installed-dev: requirements.txt requirements-dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(call INSTALL,-r requirements-dev.txt)
	touch $@ .venv/installed
