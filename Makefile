# Run `make` for the list of targets. Everything is installed into .venv (test-tpu: .venv-tpu); nothing else is
# touched.

VENV := .venv
BIN := $(VENV)/bin

# The Python that makes .venv: by default the first of PYTHONS that will do.
PYTHON ?=
PYTHONS := python3.13 python3.12 python3.11 python3

# What .venv was made for, else what this machine has.
ACCELERATOR ?= $(shell cat $(VENV)/.accelerator 2>/dev/null \
	|| { nvidia-smi -L >/dev/null 2>&1 && echo gpu; } || echo cpu)
# Detected once for each run of make.
override ACCELERATOR := $(strip $(ACCELERATOR))
ifeq ($(filter cpu gpu tpu,$(ACCELERATOR)),)
$(error ACCELERATOR is '$(ACCELERATOR)'; it must be cpu, gpu or tpu)
endif

LOCK := requirements-$(ACCELERATOR).lock
DEV_LOCK := requirements-dev.lock
STAMP := $(VENV)/.installed-$(ACCELERATOR)
DEV_STAMP := $(STAMP)-dev

GIN_FILE ?= gin/quickstart.gin
WORKDIR ?= runs/quickstart
PYTEST_FLAGS ?=
KILL_FLAGS ?=
FUZZ_FLAGS ?=
BENCH_OUTPUT ?= runs/bench
BENCH_FLAGS ?=
RIGHT_PYTHON := sys.exit(not (3, 11) <= sys.version_info < (3, 14))
UV ?= $(shell command -v uv || echo $(BIN)/uv)
LOCK_FLAGS ?=

PIP := $(BIN)/python -m pip --disable-pip-version-check
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --custom-compile-command "make lock" $(LOCK_FLAGS) pyproject.toml

.PHONY: help setup train test soak test-tpu test-gpu bench bench-check bench-gpu bench-schedules lint format lock clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' Makefile
	@echo "Options: ACCELERATOR=cpu|gpu|tpu (now $(ACCELERATOR)), PYTHON=/path/to/python3.12"

setup: $(STAMP)  ## Make .venv with the pinned dependencies, again only when a lock changes

train: $(STAMP)  ## Set up, train GIN_FILE into WORKDIR (the quickstart), evaluate on the test split
	$(BIN)/python -m engine.train --gin_file=$(GIN_FILE) --workdir=$(WORKDIR)
	$(BIN)/python -m engine.evaluate --workdir=$(WORKDIR) --split=test

test: lint  ## Set up, then run lint and pytest (PYTEST_FLAGS="-k name -x")
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

soak: $(DEV_STAMP)  ## Run what takes hours: tests, 30 killed trainings (KILL_FLAGS="--runs=3"), 300 random ones (FUZZ_FLAGS="--count=9")
	$(BIN)/python -m pytest -m soak --timeout=3600 $(PYTEST_FLAGS)
	$(BIN)/python -m tests.helpers.kill_soak $(KILL_FLAGS)
	$(BIN)/python -m tests.helpers.fuzz $(FUZZ_FLAGS)

test-tpu:  ## Lower every task for a TPU, without one (TensorFlow's TPU build, in .venv-tpu)
	$(MAKE) VENV=.venv-tpu ACCELERATOR=tpu .venv-tpu/.installed-tpu-dev
	TPU_SKIP_MDS_QUERY=1 .venv-tpu/bin/python -m pytest -m tpu --durations=0 --durations-min=1 $(PYTEST_FLAGS) tests/tpu

test-gpu:  ## Lower every task for a GPU, without one (TensorFlow's CUDA build, in .venv-gpu)
	$(MAKE) VENV=.venv-gpu ACCELERATOR=gpu .venv-gpu/.installed-gpu-dev
	.venv-gpu/bin/python -m pytest -m gpu --durations=0 --durations-min=1 $(PYTEST_FLAGS) tests/gpu

bench: $(DEV_STAMP)  ## Compare training steps with PyTorch's and a bare loop's, and whole runs with steps (BENCH_FLAGS="--tables=step,overhead --torch_python=PYTHON --facades=FOLDER")
	$(BIN)/python -m tests.benchmarks.whole_run.tables --output=$(BENCH_OUTPUT) $(BENCH_FLAGS)

bench-check: $(DEV_STAMP)  ## The same, and fail where a ratio is 15 % below the recorded one
	$(BIN)/python -m tests.benchmarks.whole_run.tables --check --output=$(BENCH_OUTPUT) $(BENCH_FLAGS)

bench-gpu: $(DEV_STAMP)  ## Compare training steps on a GPU, with XLA and mixed precision, in ten minutes (BENCH_FLAGS="--torch_python=PYTHON")
	$(BIN)/python -m tests.benchmarks.training_step.on_gpu --output=$(BENCH_OUTPUT) $(BENCH_FLAGS)

bench-schedules: $(DEV_STAMP)  ## Compare batch schedules, an hour or more (BENCH_FLAGS="--facades=FOLDER --seeds=1")
	$(BIN)/python tests/benchmarks/batch_schedules.py --output=$(BENCH_OUTPUT) $(BENCH_FLAGS)

lint: $(DEV_STAMP)  ## Check the code: ruff (rules and format), mypy (types)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEV_STAMP)  ## Mend and format the code with ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:  ## Resolve pyproject.toml into the locks again (needs uv; LOCK_FLAGS=--upgrade for newer versions)
	@command -v "$(UV)" >/dev/null || { echo "make lock needs uv: pip install uv" >&2; exit 2; }
	$(COMPILE) --extra cpu --output-file requirements-cpu.lock
	$(COMPILE) --extra dev --constraint requirements-cpu.lock --output-file $(DEV_LOCK)
	$(COMPILE) --extra gpu --constraint requirements-cpu.lock --output-file requirements-gpu.lock
	$(COMPILE) --extra tpu --constraint $(DEV_LOCK) --output-file requirements-tpu.lock

clean:  ## Remove caches and build leftovers (.venv, runs/ and datasets/ stay)
	rm -rf build *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find engine models data tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Two TensorFlow builds cannot share one .venv: another ACCELERATOR starts it anew, and so does a
# .venv whose Python is gone or outside the range.
$(STAMP): $(LOCK) pyproject.toml
	@if $(BIN)/python -c 'import pip, sys; $(RIGHT_PYTHON)' 2>/dev/null \
	    && [ "$$(cat $(VENV)/.accelerator 2>/dev/null || echo $(ACCELERATOR))" = $(ACCELERATOR) ]; then exit 0; fi; \
	for python in $(or $(PYTHON),$(PYTHONS)); do \
	  if "$$python" -c 'import ensurepip, sys, venv; $(RIGHT_PYTHON)' >/dev/null 2>&1; then \
	    echo "$$python -m venv --clear $(VENV)"; \
	    exec "$$python" -m venv --clear $(VENV); \
	  fi; \
	done; \
	echo "No Python 3.11 to 3.13 with its venv module among: $(or $(PYTHON),$(PYTHONS)). Install one" \
	  "(Debian and Ubuntu: also python3-venv) or name it with PYTHON=/path/to/python3.12." >&2; \
	exit 2
	@echo $(ACCELERATOR) > $(VENV)/.accelerator
	$(PIP) install --require-hashes -r $(LOCK)
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV_STAMP): $(STAMP) $(DEV_LOCK)
	$(PIP) install --quiet --require-hashes -r $(DEV_LOCK)
	@touch $@
