# Two commands: `make serve` and `make test`. Each does all of its own set-up; the first run takes a minute or two.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8000
WORKSPACE ?= .

.DEFAULT_GOAL := help
.PHONY: help install dev serve test cover lint lock bench chaos fuzz clean

help: ## Say what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1|/' | column -t -s '|'

install: $(VENV)/.installed ## Install what the server needs, into .venv

dev: $(VENV)/.dev ## Install what the tests need as well

serve: install ## Serve on http://127.0.0.1:8000 (PORT=, WORKSPACE=)
	@$(BIN)/agent-server serve --workspace $(WORKSPACE) --port $(PORT)

test: dev ## Run lint, types, import contracts, scans for secrets and vulnerabilities, and tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@BIN=$(BIN) .ci/secrets
	@BIN=$(BIN) .ci/vulnerabilities
	@$(BIN)/pytest -n 2

cover: dev ## Run the tests and say which lines none of them runs (half as fast)
	@$(BIN)/pytest -n 2 --cov --cov-report=term:skip-covered

lint: dev ## Only lint, types, import contracts and the scan for secrets
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports && BIN=$(BIN) .ci/secrets

lock: ## Resolve the dependencies anew
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		pyproject.toml --extra build -o requirements.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		pyproject.toml --extra build --extra dev -c requirements.lock -o requirements-dev.lock

chaos: dev ## Count what replicas lose that are killed, frozen and cut off under load (ARGS="--turns 150 --kills 10")
	@$(BIN)/python -m tests.chaos $(ARGS)

fuzz: dev ## Send 10,000 requests made from the OpenAPI document and count what it does not describe (ARGS="--seed 1")
	@$(BIN)/python -m tests.fuzz $(ARGS)

bench: dev ## Measure what turns, followers, streams and recovery cost (about ten minutes)
	@for each in isolation turns followers streams "recovery --kills 10"; do $(BIN)/python -m bench.$$each || exit 1; done

clean: ## Remove the virtual environment and the embedded database
	rm -rf $(VENV) .data

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; this is " + sys.version.split()[0] + ". Set PYTHON=") if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.lock pyproject.toml | $(BIN)/python
	@echo "Installing the locked dependencies into $(VENV) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.installed
	@echo "Installing the tools of the tests into $(VENV) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@
