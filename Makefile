# Two commands: `make serve` and `make test`. Each does all of its own set-up; the first run takes a minute or two.
PYTHON ?= python3
VENV ?= .venv
LOCK ?= requirements-dev.lock
BIN := $(VENV)/bin
export VENV LOCK BIN STRICT PORT WORKSPACE

.DEFAULT_GOAL := help
.PHONY: help serve test check quick lint types contracts secrets vulnerabilities install dev programs docs cover chaos fuzz \
	bench lock release licences clean

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: install ## Serve on http://127.0.0.1:8000 (PORT=, WORKSPACE=)
	@$(BIN)/agent-server serve $(if $(WORKSPACE),--workspace "$$WORKSPACE") $(if $(PORT),--port "$$PORT")

# Containers often set it: then every process of the tests would compile all sources anew.
test quick cover: export PYTHONDONTWRITEBYTECODE =

test: dev ## Run everything: checks, the scan for vulnerabilities, all tests (STRICT=1: fail if one cannot run)
	@.ci/beside "$(AGAIN) types secrets lint contracts licences docs vulnerabilities" \
		"$(AGAIN) programs && $(BIN)/pytest -n 3 --dist worksteal"

check: dev ## Run lint, types, import contracts, the scans for secrets and licences, the site (under a minute)
	@$(MAKE) --no-print-directory -k -j 2 types secrets lint contracts licences docs

quick: dev ## Run the tests without those that kill, mutate and fill things
	@$(BIN)/pytest -n 3 --dist worksteal -m "not slow"

cover: dev ## Run all tests and say which lines none of them runs (half as fast)
	@$(BIN)/pytest -n 2 --cov --cov-report=term:skip-covered

chaos: dev ## Count what replicas lose that are killed, frozen and cut off under load and what a crowd is answered (ARGS="--turns 150 --kills 10", "--phases crowd")
	@$(BIN)/python -m tests.chaos $(ARGS)

fuzz: dev ## Send 10,000 requests made from the OpenAPI document and count what it does not describe (ARGS="--seed 1")
	@$(BIN)/python -m tests.fuzz $(ARGS)

bench: dev ## Measure what the server costs against the bare Agents SDK (ARGS="--quick", "--only cpu,idle --json FILE", "--readme")
	@$(BIN)/python -m bench $(ARGS)

install: $(VENV)/.installed ## Install what the server needs, into .venv

dev: $(VENV)/.dev ## Install what the tests need as well

docs: dev ## Build the documentation as a site in site/, and fail where a link leads nowhere
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

programs: dev ## Install the programs that tests need beside Python, where this user may (Debian, Ubuntu)
	@$(BIN)/python -m tests.needs

lock: ## Resolve the dependencies anew, with uv (ARGS=--upgrade: to the newest)
	$(COMPILE) $(ARGS) --extra build -o requirements.lock
	$(COMPILE) $(ARGS) --extra build --extra dev --extra docs --extra documents --extra neural --extra pdf -c requirements.lock -o requirements-dev.lock
	$(COMPILE) --upgrade --resolution lowest-direct --extra build --extra dev --extra documents --extra neural --extra pdf -o requirements-oldest.lock

release: dev ## Cut a release: version, changelog, commit and tag (VERSION=1.2.3)
	@$(BIN)/python .ci/release "$(VERSION)"

clean: ## Remove the virtual environment and the embedded database
	rm -rf $(VENV) .data

# The parts of `make check`, which runs them beside each other.
lint:
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types:
	@$(BIN)/mypy

contracts:
	@$(BIN)/lint-imports --no-logo

secrets:
	@.ci/secrets

licences:
	@$(BIN)/python .ci/licences
	@if git rev-parse --git-dir >/dev/null 2>&1; then $(BIN)/python .ci/release --check; fi

vulnerabilities:
	@.ci/vulnerabilities

# By a name of its own: make runs a line that names $(MAKE) with `make -n` as well.
AGAIN = $(MAKE) --no-print-directory -k

COMPILE = uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) .ci/install.py requirements.lock
	@touch $@

# This lock holds all of the other, so that one run of pip is enough for both.
$(VENV)/.dev: $(LOCK) pyproject.toml
	@$(PYTHON) .ci/install.py $(LOCK)
	@touch $(VENV)/.installed $@
