# Each target does all set-up by itself, and only once: see .ci/setup.sh.
#   make demo      five nodes, one of them cheating, three certified answers
#   make devnet    the same network, kept running; Ctrl-C stops it
#   make test      all tests                    (WORKERS=0: one process; ARGS="-k name" to choose)
#   make lint      ruff and basedpyright
#   make simulate  N=1000 SEED=1: that many seeded schedules of the consensus simulator, resumable
#   make fuzz      TYPE=transaction RUNS=1000000: that many mutated inputs into one decoder and what is behind it, or TYPE=all; resumable
#   make docs      the generated reference pages, docs/configuration.md and docs/rpc.md
#   make bench     speed and size, with the machine's description
#   ALLOW_CUDA=1   allows the large CUDA build of torch where no CPU build can be had; PYTHON=… chooses the interpreter
SHELL := /bin/bash
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: demo devnet test lint format simulate fuzz bench docs setup setup-dev

N ?= 1000
SEED ?= 1
TYPE ?= all
RUNS ?= 100000
WORKERS ?= 2
ARGS ?=

PY := .venv/bin/python -P
# The checkout's path is in the stamp's name, because a virtual environment does not survive being moved.
PLACE := $(shell pwd -P | cksum | cut -d' ' -f1)
RUN_READY := .venv/.ready-run-$(PLACE)
DEV_READY := .venv/.ready-dev-$(PLACE)
FUZZ_READY := .venv/.ready-fuzz-$(PLACE)
INPUTS := pyproject.toml constraints.txt .ci/setup.sh

demo: $(RUN_READY)
	@.venv/bin/quorate devnet demo $(ARGS)

devnet: $(RUN_READY)
	@.venv/bin/quorate devnet up --cheat 3=small-model $(ARGS)

# One thread each: two test processes with two torch threads each stand in one another's way on two cores.
test: $(DEV_READY)
	@OMP_NUM_THREADS=1 $(PY) -m pytest --import-mode=importlib -n $(WORKERS) $(ARGS)

lint: $(DEV_READY)
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/basedpyright --level error

format: $(DEV_READY)
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

simulate: $(DEV_READY)
	@$(PY) -m tests.simulation --schedules $(N) --seed $(SEED) $(ARGS)

# At low priority: a long run should not be felt. What it has done is in build/fuzz, and is gone on from.
fuzz: $(FUZZ_READY)
	@OMP_NUM_THREADS=1 nice -n 19 $(PY) -m tests.fuzz $(TYPE) --runs $(RUNS) --seed $(SEED) $(ARGS)

docs: $(DEV_READY)
	@$(PY) -m tests.docs

bench: $(RUN_READY)
	@.venv/bin/quorate bench $(or $(ARGS),ledger)

setup: $(RUN_READY)

setup-dev: $(DEV_READY)

$(RUN_READY): $(INPUTS)
	@.ci/setup.sh run $@

$(DEV_READY): $(INPUTS)
	@.ci/setup.sh dev $@

$(FUZZ_READY): $(DEV_READY)
	@.ci/setup.sh fuzz $@
