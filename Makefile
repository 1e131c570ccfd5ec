# One command each. Every target does its own set-up; a second call does no work twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := fltrust tests tools examples benchmarks notebooks

# Flower must not phone home, look for updates or install anything while it runs.
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo test test-flower strangers clients check bench format protos cli-docs clean

help: ## what there is to run
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: $(STAMP) ## virtual environment with the pinned dependencies

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("fltrust needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

demo: $(STAMP) ## a federation under trust, with an attack, told as a story
	$(BIN)/python -m examples.demo

test: $(STAMP) ## every test
	$(BIN)/python -m pytest -n 3 --dist loadfile -m "not e2e and not client"
	$(BIN)/python -m pytest -n 2 --dist load -m e2e

test-flower: $(STAMP) ## the Flower-facing tests on every other Flower minor that installs
	$(BIN)/python tools/test_flower_versions.py

strangers: $(STAMP) ## environments of the verifiers and registries that the tests try ours on
	$(BIN)/python -m tools.strangers

clients: strangers ## certbot, curl, openssl, Envoy and others against ours, for real
	$(BIN)/python -m pytest -m client

check: $(STAMP) ## lint, types, import contract, generated files
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/generate_protos.py --check
	$(BIN)/python tools/generate_cli_docs.py --check

bench: $(STAMP) ## measure, and write docs/benchmarks.md
	$(BIN)/python -m benchmarks

format: $(STAMP) ## format the code
	$(BIN)/ruff check --fix-only --quiet $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

protos: $(STAMP) ## generate fltrust/wire/pb from protos/
	$(BIN)/python tools/generate_protos.py

cli-docs: $(STAMP) ## write docs/reference/cli.md from --help
	$(BIN)/python tools/generate_cli_docs.py

clean: ## remove what the targets above made
	rm -rf $(VENV) .venv-flwr-* .venv-strangers build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .demo
