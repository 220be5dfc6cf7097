# Every target sets up what it needs by itself: `make demo` on a fresh machine is enough.
.DEFAULT_GOAL := help
.PHONY: help setup demo run test test-slow test-browser check audit bench chaos lock clean

BIN := .venv/bin
ARGS ?=
# More than the two cores of a small machine: tests wait for half of their time.
TEST_PROCESSES ?= 3
export PYTHON

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Create .venv with everything locked in requirements-dev.txt; at once when nothing changed
	@.ci/setup

demo: setup ## Take a few payments through the whole service and show what happens
	@$(BIN)/payments demo $(ARGS)

run: setup ## Run API and worker on port 8009 with SQLite and an own Valkey, data in var/; Ctrl-C stops
	@$(BIN)/payments up $(ARGS)

test: setup ## Run the tests, on SQLite and on a real PostgreSQL and Valkey that they start themselves
	@$(BIN)/python -m pytest -m "not slow and not browser" -q -n $(TEST_PROCESSES) $(ARGS)

test-slow: setup ## Run the slow tests: kills, restarts and floods
	@$(BIN)/python -m pytest -m "slow and not browser" $(ARGS)

test-browser: setup ## Open the pages of the service in a real Chromium; needs Debian's chromium or CHROMIUM=/path
	@chromium=$$(.ci/browser) && CHROMIUM=$$chromium $(BIN)/python -m pytest -m browser $(ARGS)

check: setup ## Check format, lint, types, which room imports which, the Dockerfiles, and that no secret is in a file
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/hadolint Dockerfile.api Dockerfile.worker
	@.ci/secrets

audit: ## Look the locked packages up among known vulnerabilities; needs the network
	@.ci/uv tool run --quiet pip-audit --strict --disable-pip --require-hashes --requirement requirements-dev.txt || \
		{ echo "Not clean, or not looked up: pip-audit and the list of vulnerabilities come over the network." >&2; exit 1; }

bench: setup ## Measure throughput and latency
	@$(BIN)/python -m bench $(ARGS)

chaos: setup ## Break everything under load and judge it; ARGS="--seconds 600 --seed 7 --json FILE"
	@$(BIN)/python -m tests.chaos $(ARGS)

LOCK := .ci/uv pip compile --quiet --universal --python-version 3.13 --generate-hashes \
	--custom-compile-command "make lock"
CLIENTS := tests/support/generated_clients

lock: ## Write the requirements from pyproject.toml; newer versions with ARGS=--upgrade
	@$(LOCK) pyproject.toml --extra local --extra build --output-file requirements.txt $(ARGS)
	@$(LOCK) pyproject.toml --extra local --extra build --extra dev --constraint requirements.txt \
		--output-file requirements-dev.txt $(ARGS)
	@$(LOCK) $(CLIENTS)/requirements.in --output-file $(CLIENTS)/requirements.txt $(ARGS)

clean: ## Remove .venv and caches; data in var/ stays
	@rm -rf .venv var/uv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
