# `make help` lists what there is to do.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
BENCH := .venv/.bench
EXTRAS := operator balancer download dev bench

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: prerequisites $(INSTALLED) ## From nothing to a server that answers, scales up and comes back down
	@$(BIN)/python e2e/demo.py

.PHONY: test
test: prerequisites unit ## Everything: checks, unit tests, API tests, end-to-end tests on a cluster of their own
	@trap './e2e/cluster --name test down' EXIT; \
	./e2e/cluster --name test up; \
	$(BIN)/pytest tests/api e2e

.PHONY: unit
unit: check ## The quick part of `make test`: checks and unit tests
	@$(BIN)/pytest tests/unit tests/golden

.PHONY: test-long
test-long: $(INSTALLED) ## The unit tests with fifty times as many random inputs (ten minutes)
	@$(BIN)/pytest --hypothesis-profile=long tests/unit

.PHONY: e2e-long
e2e-long: prerequisites $(INSTALLED) ## End-to-end tests that take long: real KEDA, and 200 times fewer replicas under load
	@trap './e2e/cluster --name test down' EXIT; \
	./e2e/cluster --name test up; \
	$(BIN)/pytest -m long e2e

.PHONY: check
check: $(INSTALLED) ## Formatter, linter, types and import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

.PHONY: format
format: $(INSTALLED) ## Put the sources into shape
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: crds
crds: $(INSTALLED) ## Generate the CRDs and docs/reference from the API's models
	@$(BIN)/python -m slotkeeper.api.crd
	@$(BIN)/python -m slotkeeper.api.reference

.PHONY: goldens
goldens: $(INSTALLED) ## Generate the golden manifests in tests/golden
	@$(BIN)/python tests/support/goldens.py

.PHONY: lock
lock: $(INSTALLED) ## Pin the newest releases that pyproject.toml allows
	@$(BIN)/pip install --quiet uv
	@for extra in $(EXTRAS); do \
		$(BIN)/uv pip compile $(LOCK_FLAGS) --extra $$extra --output-file requirements/$$extra.txt pyproject.toml; \
	done
LOCK_FLAGS := --quiet --upgrade --universal --generate-hashes --no-emit-index-url --no-header

.PHONY: bench-balancer
bench-balancer: $(BENCH) ## The balancer beside nginx and HAProxy: tables and plots in bench/results
	@$(BIN)/python -m bench.balancer

.PHONY: bench-reconcile
bench-reconcile: prerequisites $(BENCH) ## The operator beside a plain client, up to 1,000 servers on nodes that kwok plays
	@PYTHONPATH=e2e $(BIN)/python -m bench.reconcile

.PHONY: bench-autoscale
bench-autoscale: $(BENCH) ## The autoscaler and other policies, in simulated time: tables and plots in bench/results
	@$(BIN)/python -m bench.autoscale

.PHONY: clean
clean: ## Remove the clusters, the caches and all else that was made here
	@./e2e/cluster clean
	@rm -rf .venv build bench/results .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Named in the first second, before anything is built.
.PHONY: prerequisites
prerequisites: python
	@./e2e/cluster prerequisites

.PHONY: python
python:
	@$(PYTHON) -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "missing: Python 3.11 or newer with venv. Install it with: apt-get install python3 python3-venv" >&2; \
		exit 1; }

# Without a cache, so that nothing stays outside the checkout. The locks name all that is needed: left
# to look for dependencies itself, an older pip takes the newest release for `coverage[toml]` beside
# the pinned `coverage`, and then misses its hash.
PIP_FLAGS := --quiet --disable-pip-version-check --no-cache-dir
$(INSTALLED): requirements/dev.txt pyproject.toml | python
	@echo "installing the Python packages of requirements/dev.txt into .venv"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install $(PIP_FLAGS) --require-hashes --no-deps --requirement requirements/dev.txt
	@$(BIN)/pip install $(PIP_FLAGS) --no-deps --no-build-isolation --editable .
	@touch $@

$(BENCH): requirements/bench.txt $(INSTALLED)
	@echo "installing the Python packages of requirements/bench.txt into .venv"
	@$(BIN)/pip install $(PIP_FLAGS) --require-hashes --no-deps --requirement requirements/bench.txt
	@touch $@
