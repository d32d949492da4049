# raypipe. `make` lists the targets; `make demo` and `make test` set up what they need.
PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin

# Ray starts many processes: with this variable set each would compile every module again.
unexport PYTHONDONTWRITEBYTECODE

# A file's tests run in one process: what they share is made once.
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup demo test unit lint format serve bench proto lock clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	$(BIN)/python -m compileall -q $(VENV)/lib >/dev/null 2>&1 || true
	@touch $@

setup: $(VENV)/.installed ## make the virtual environment from the hashed lock file

demo: setup ## from five real tables to a served model and a prediction over HTTP
	$(BIN)/raypipe run --project examples/flights --predict examples/flights/request.json

test: setup ## all tests: unit, then those on a local Ray cluster, then the quality of models
	$(BIN)/python -m pytest $(PARALLEL) tests/unit
	$(BIN)/python -m pytest tests/cluster tests/model

unit: setup ## the tests that need no Ray, without the slow ones: under two minutes
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow" tests/unit

lint: setup ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

serve: setup ## serve the example's champion until Ctrl-C
	$(BIN)/raypipe serve --project examples/flights

bench: setup ## measure raypipe beside what a user would pick instead
	$(BIN)/python benchmarks/run.py

proto: setup ## compile the messages of the gRPC protocol
	cd raypipe/serving/v2_grpc && $(abspath $(BIN))/python -m grpc_tools.protoc -I . --descriptor_set_out=inference.binpb inference.proto

lock: setup ## resolve pyproject.toml into requirements.lock again
	$(BIN)/python -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --extra dev pyproject.toml --output-file requirements.lock

clean: ## remove the virtual environment and what the examples made
	rm -rf $(VENV) examples/*/.raypipe
