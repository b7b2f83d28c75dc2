# A newcomer's index: everything that this repository can do, one target each.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STACK ?= embedded

.PHONY: help install run test test-full test-production lint console-types schemas docs bench peers simulate chaos fuzz mutate sbom clean lock vendor

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# --require-hashes: nothing gets in that the lock file does not name by its hash.
$(VENV)/.installed: locks/embedded.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed, and $(PYTHON) is older or missing: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) comes without venv or ensurepip: install them (Debian: apt-get install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "Downloading and installing the packages that locks/embedded.lock names; quiet for a while the first time"
	$(BIN)/python -m pip install --quiet --require-hashes -r locks/embedded.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.installed-dev: locks/dev.lock $(VENV)/.installed
	@echo "Downloading and installing what the tests need on top, by locks/dev.lock"
	$(BIN)/python -m pip install --quiet --require-hashes -r locks/dev.lock
	touch $@

install: $(VENV)/.installed ## a virtual environment in .venv with everything the product needs

# 130: Ctrl-C is how it ends.
run: install ## start the whole product with an example, and keep serving (Ctrl-C stops it)
	@$(BIN)/bulkreg demo || [ $$? -eq 130 ]

# What tests have written stays in the system's temporary folder only when one has failed.
# Tests of faults and of the database wait about half of their time, so two more at once than there are cores: each worker has servers of its own,
# and a module's tests stay together. Given servers are shared.
WORKERS ?= $(if $(filter external,$(STACK)),0,$(shell expr $$(getconf _NPROCESSORS_ONLN) + 2))
# One hash seed, or the order of sets differs from run to run, and a simulation's seed does not repeat it.
HASH_SEED ?= 0
# Any text: modules, and the tests of each, run in an order drawn from it. Without one they run as they stand.
ORDER ?=
# Far from UTC, and by no whole hours, because a machine that runs on UTC hides a local time that is taken for UTC.
ZONE ?= Asia/Kathmandu
# Bytecode is written even where the shell forbids it. Otherwise each worker compiles all test modules, and each process of a role the product.
PYTEST := BULKREG_TEST_STACK=$(STACK) BULKREG_TEST_ORDER=$(ORDER) PYTHONHASHSEED=$(HASH_SEED) TZ=$(ZONE) PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -o tmp_path_retention_policy=failed -n $(WORKERS) --dist loadscope --no-loadscope-reorder

# Generated examples are the same in each run here, so that a red one is about what was changed; `make test-full` draws new ones.
test: $(VENV)/.installed-dev ## the whole suite, in ten to twenty minutes on two cores (STACK=embedded|containers|external ORDER=…)
	$(PYTEST) --hypothesis-profile=ci -m "not full" $(ARGS)

test-full: $(VENV)/.installed-dev ## the long forms too
	$(PYTEST) -m "not production" $(ARGS)

# As root in a network of its own, so that the tests can drop packets between the servers, and nobody else's.
IN_OWN_NETWORK = $(if $(filter 0,$(shell id -u)),$(if $(shell command -v unshare),unshare --net -- sh -c 'ip link set lo up && exec "$$@"' sh env BULKREG_TEST_OWN_NETWORK=1))

# A network of its own reaches no package registry, so Kafka is downloaded before.
FETCH_KAFKA := $(BIN)/python -c "from compose.embedded.kafka import fetch; fetch()"

test-production: $(VENV)/.installed-dev ## a cluster under the faults of docs/cluster.md, a real run under Prometheus, the chart on a cluster
	$(FETCH_KAFKA)
	$(or $(IN_OWN_NETWORK),env) $(PYTEST) -n 0 -m production $(ARGS) tests/cluster tests/production

lint: $(VENV)/.installed-dev ## ruff, mypy --strict, import directions, spelling, and the console's types where npm is installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory console-types; else \
	  echo "npm is not installed, so the types of the console's scripts are not checked (Debian: apt-get install npm)"; fi

TYPESCRIPT := $(VENV)/typescript

$(TYPESCRIPT)/node_modules/.package-lock.json: locks/console-types/package-lock.json $(VENV)/.installed
	@mkdir -p $(TYPESCRIPT)
	@cp locks/console-types/*.json $(TYPESCRIPT)
	npm ci --prefix $(TYPESCRIPT) --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

console-types: $(TYPESCRIPT)/node_modules/.package-lock.json ## the types in the console's scripts (JSDoc), checked by TypeScript
	node $(TYPESCRIPT)/node_modules/typescript/bin/tsc -p api/console

schemas: $(VENV)/.installed-dev ## write the events' JSON Schemas and AsyncAPI again; refuses an incompatible change
	$(BIN)/python -m schemas.publish
	$(BIN)/python -m schemas.asyncapi

docs: $(VENV)/.installed-dev ## write the tables of docs/operations.md again, from the settings, the metrics and the logged actions
	$(BIN)/python -m compose.operations_page
	$(BIN)/python -m compose.observability.dashboards

bench: $(VENV)/.installed-dev ## items per second beside the database limit, in the same run
	$(BIN)/bulkreg bench

# Other libraries have dependencies that are not the product's.
$(VENV)/peers/.installed: locks/peers.lock $(VENV)/.installed
	$(BIN)/python -m venv $(VENV)/peers
	$(VENV)/peers/bin/python -m pip install --quiet --require-hashes -r locks/peers.lock
	touch $@

peers: $(VENV)/peers/.installed ## other libraries for a comparison: bulkreg bench --peers

# A long one has no limit of time, and says in the end where it has been.
simulate: $(VENV)/.installed-dev ## the product under everything that may happen, at random (STEPS=100000 SEED=… HASH_SEED=…)
	BULKREG_SIMULATION_STEPS=$(STEPS) BULKREG_SIMULATION_SEED=$(SEED) \
	  $(PYTEST) -n 0 -s -m "not full" tests/simulation/test_simulation.py

# Faults, and the order in which clients act, come from the seed; which meets which does not.
SECONDS ?= 180
SEED ?=
REPORT ?= chaos.html
FAULT ?=

CLUSTER ?=

chaos: $(VENV)/.installed-dev ## the real thing under load while everything is killed, then the verdict (SECONDS=3600 SEED=… FAULT=… REPORT=… CLUSTER=1)
	$(FETCH_KAFKA)
	$(if $(CLUSTER),$(or $(IN_OWN_NETWORK),env)) $(BIN)/python -m tests.chaos $(if $(CLUSTER),--cluster) --seconds "$(SECONDS)" --seed "$(SEED)" --only "$(FAULT)" --report "$(REPORT)"

TARGET ?=

fuzz: $(VENV)/.installed-dev ## what strangers could send, at random, against a budget (TARGET=bodies SECONDS=1800 SEED=…)
	$(BIN)/python -m tests.fuzz $(TARGET) --seconds "$(SECONDS)" --seed "$(SEED)"

COUNT ?= 200
ONLY ?=

mutate: $(VENV)/.installed-dev ## plausible mistakes in copies of the product: does the suite notice? (COUNT=400 SEED=… ONLY=orchestrator/storage/)
	$(BIN)/python -m tests.mutation --count $(COUNT) --seed $(or $(SEED),14) --only $(or $(ONLY),"") --workers $(WORKERS)

# The tool has an environment of its own, because the product does not need it.
$(VENV)/sbom/.installed: locks/sbom.lock $(VENV)/.installed
	$(BIN)/python -m venv $(VENV)/sbom
	$(VENV)/sbom/bin/python -m pip install --quiet --require-hashes -r locks/sbom.lock
	touch $@

SBOM ?= sbom.json

sbom: $(VENV)/sbom/.installed ## the bill of materials of what a deployment installs, as CycloneDX: locks/runtime.lock (SBOM=sbom.json)
	$(VENV)/sbom/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --validate -o $(SBOM) locks/runtime.lock

lock: $(VENV)/.installed-dev ## resolve the dependencies again
	echo "hatchling>=1.27" | $(BIN)/uv pip compile - $(LOCK_FLAGS) --no-annotate -o locks/build.lock
	echo "cyclonedx-bom>=7" | $(BIN)/uv pip compile - $(LOCK_FLAGS) --no-annotate -o locks/sbom.lock
	$(BIN)/uv pip compile pyproject.toml $(LOCK_FLAGS) --extra tracing -o locks/runtime.lock
	$(BIN)/uv pip compile pyproject.toml $(LOCK_FLAGS) --extra tracing --extra embedded -o locks/embedded.lock
	$(BIN)/uv pip compile pyproject.toml $(LOCK_FLAGS) --extra tracing --extra embedded --extra dev -o locks/dev.lock
	echo "dbos pgqueuer[asyncpg] procrastinate psycopg[binary,pool] uvloop" | tr ' ' '\n' | $(BIN)/uv pip compile - $(LOCK_FLAGS) --no-annotate -o locks/peers.lock

LOCK_FLAGS := --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --upgrade

vendor: $(VENV)/.installed ## fetch the browser files of api/vendored/manifest.json again, by npm
	$(BIN)/python -m api.vendored.renew

clean: ## remove the environment and the data of `make run`
	rm -rf $(VENV) .bulkreg .mypy_cache .ruff_cache .pytest_cache .hypothesis
