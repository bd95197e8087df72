# Two commands for a newcomer: `make demo` and `make test`. Every target makes .venv first when it is not there.

PYTHON ?= python3
TORCH  ?= torch==2.13.0
BIN    := .venv/bin
# The stamp is keyed on what pyproject.toml says, not on when it was written: a fresh checkout of the same file is ready.
STAMP  := .venv/.ready-$(shell cksum < pyproject.toml | cut -d' ' -f1)

# The quick run leaves out `slow`; CI=true runs it too.
MARKERS := $(if $(filter true,$(CI)),not nightly,not nightly and not slow)
ONE_THREAD := OMP_NUM_THREADS=1

.PHONY: help setup demo test test-nightly lint lint-format lint-style lint-floors lint-types format bench bench-patterns bench-coverage bench-engine bench-demo bench-loop bench-precision bench-recovery bench-loading bench-distillation bench-latency bench-int8 bench-cifar bench-criteria bench-methods bench-coding bench-hostile bench-deep-compression bench-binary clean

help:
	@echo "make demo            train, prune, prove and report on real handwritten digits"
	@echo "make test            all tests but the slow ones; CI=true make test runs those too"
	@echo "make test-nightly    the long generated-network search"
	@echo "make lint            formatter, linter, types, floors"
	@echo "make format          let the formatter and the linter mend what they can"
	@echo "make bench           every benchmark, one after another (hours); each is bench-NAME:"
	@echo "                     patterns engine loading loop recovery distillation latency int8 demo criteria coverage cifar methods coding hostile binary"
	@echo "make clean           remove .venv and caches"

setup: $(STAMP)

# PyTorch first and pinned: timm and torchvision would otherwise choose a build for us.
$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Espalier needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev,bench]"
	@rm -f .venv/.ready-*
	@touch $@

demo: setup
	$(BIN)/espalier demo

test: setup
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 -m "$(MARKERS)"

test-nightly: setup
	$(ONE_THREAD) ESPALIER_HYPOTHESIS=nightly $(BIN)/python -m pytest -n 2

lint: lint-format lint-style lint-floors lint-types

lint-format: setup
	$(BIN)/ruff format --check .

lint-style: setup
	$(BIN)/ruff check .

lint-floors: setup
	$(BIN)/lint-imports

lint-types: setup
	$(BIN)/pyright --pythonpath $(BIN)/python

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: bench-patterns bench-engine bench-loading bench-loop bench-precision bench-recovery bench-distillation bench-latency bench-int8 bench-demo \
	bench-criteria bench-coding bench-hostile bench-coverage bench-cifar bench-methods bench-deep-compression bench-binary

bench-patterns: setup
	$(ONE_THREAD) $(BIN)/python -m benchmarks.patterns

bench-coverage: setup
	$(ONE_THREAD) $(BIN)/python -m benchmarks.coverage

bench-engine: setup
	$(ONE_THREAD) $(BIN)/python -m benchmarks.engine

bench-loading: setup
	$(ONE_THREAD) $(BIN)/python -m benchmarks.loading

bench-recovery: setup
	$(ONE_THREAD) $(BIN)/python -m benchmarks.recovery

bench-loop: setup
	$(ONE_THREAD) $(BIN)/python -m benchmarks.loop

bench-precision: setup
	$(ONE_THREAD) $(BIN)/python -m benchmarks.precision

bench-distillation: setup
	$(ONE_THREAD) $(BIN)/python -m benchmarks.distillation

bench-latency: setup
	$(ONE_THREAD) $(BIN)/python -m benchmarks.latency

bench-criteria: setup
	$(ONE_THREAD) $(BIN)/python -m benchmarks.criteria

# ExecuTorch is no part of `dev`: pip install 'espalier[executorch]' has it take part.
bench-int8: setup
	$(ONE_THREAD) $(BIN)/python -m benchmarks.int8

bench-cifar: setup
	$(ONE_THREAD) $(BIN)/python -m benchmarks.cifar

bench-methods: setup
	$(ONE_THREAD) $(BIN)/python -m benchmarks.methods

bench-coding: setup
	$(ONE_THREAD) $(BIN)/python -m benchmarks.coding --peers

bench-hostile: setup
	$(ONE_THREAD) $(BIN)/python -m benchmarks.hostile

bench-deep-compression: setup
	$(ONE_THREAD) $(BIN)/python -m benchmarks.deep_compression

# MNIST=FOLDER trains too.
bench-binary: setup
	$(ONE_THREAD) $(BIN)/python -m benchmarks.binary $(if $(MNIST),--mnist $(MNIST))

bench-demo: setup
	$(ONE_THREAD) $(BIN)/python -m benchmarks.demo

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .import_linter_cache
