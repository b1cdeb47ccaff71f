# Two commands do everything: `make train` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TEST_STAMP := $(VENV)/.installed-for-tests
export MLFLOW_TRACKING_URI ?= sqlite:///$(CURDIR)/mlflow.db
export MLFLOW_DISABLE_TELEMETRY := true
export PIP_DISABLE_PIP_VERSION_CHECK := 1
WORKERS ?= 2
# Apart from the lock: its metadata ask for numpy<2, though it runs with 2 (docs/decisions/labels-with-dockq.md).
DOCKQ := DockQ==2.1.3

.PHONY: help train test test-rest test-all soak server server-stop lint types install install-tests clean

help:  ## Show this help.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

train: install  ## Install if needed, then train on the demo data set as an MLflow Project.
	@echo "==> training: mlflow run . -e train --env-manager local --experiment-name dynamic_topoqa"
	@$(BIN)/python -c "from topotrain.tracking.store import prepare_store; prepare_store('$(MLFLOW_TRACKING_URI)', 'dynamic_topoqa')"
	@PATH="$(CURDIR)/$(BIN):$$PATH" mlflow run . -e train --env-manager local --experiment-name dynamic_topoqa
	@echo "==> look at it: $(BIN)/topotrain ui     (then open http://127.0.0.1:5000)"

# What starts a server, a browser or mlflow run, or takes tens of seconds.
REST := server or project or browser or long
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test: install-tests  ## Install if needed, then run the tests that need no server and no browser: 6,000 in some minutes.
	@echo "==> testing: pytest on $(WORKERS) processes; make test-all is everything"
	@$(PYTEST) -m "not ($(REST))" $(PYTEST_ARGS)

test-rest: install-tests  ## The other tests: servers, browsers, mlflow run, several machines.
	@$(PYTEST) -m "$(REST)" $(PYTEST_ARGS)

test-all: test test-rest  ## Every test.

SOAK_SEED ?= 1
SOAK_SIZE ?= 1
SOAK_JSON ?= soak.json
soak: install  ## Attack runs for an hour: kills, outages, many writers (docs/reliability.md); SOAK_SEED=1 SOAK_SIZE=0.1 SOAK_JSON=FILE.
	@PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m soak --seed $(SOAK_SEED) --size $(SOAK_SIZE) --json $(SOAK_JSON) $(SOAK_PARTS)

server: install  ## MLflow on PostgreSQL with users, on loopback (docs/server.md); what runs already goes on.
	@$(BIN)/python deploy/server/server.py start

server-stop:  ## Stop it; what it keeps stays.
	@$(BIN)/python deploy/server/server.py stop

lint: install  ## Style.
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: install-tests  ## Types.
	@$(BIN)/mypy

install: $(STAMP)  ## Make .venv with the locked packages.

install-tests: $(TEST_STAMP)  ## And what only tests need: the engines of a cluster.

$(STAMP): requirements.lock pyproject.toml
	@echo "==> installing the locked packages into $(VENV) (once; some minutes)"
	@"$(PYTHON)" -c 'import sys; sys.exit(0 if sys.version_info[:2] >= (3, 11) else "error: Python 3.11 or newer is needed; give it as make PYTHON=...")'
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet -r requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --editable .
	@$(BIN)/python -m pip install --quiet --no-deps $(DOCKQ) 2>/dev/null \
		|| echo "==> $(DOCKQ) could not be built (it needs a C compiler): topotrain label is not available"
	@touch $(STAMP)

$(TEST_STAMP): $(STAMP) requirements-test.lock
	@echo "==> installing what the tests need beside these (once)"
	@$(BIN)/python -m pip install --quiet -r requirements-test.lock
	@touch $(TEST_STAMP)

clean:  ## Remove .venv and caches; runs stay.
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache
