# Daily work. Everything runs in .venv, which manage.py makes and keeps in step with requirements/dev.txt.
PYTHON ?= python3
BIN := .venv/bin
TOOLS := .dev/container-tools
# The checks must not meet a running stack or somebody's database.
ALONE := DATABASE_URL= AGENT_JOBS_DATA_DIR=/dev/null/none
LOCK := UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes
SETS := base embedded dev container

.DEFAULT_GOAL := help
.PHONY: help env check format test test-live test-browser bench fuzz sbom chaos chaos-smoke lock check-container up

help:
	@echo "make check            format, lint, types, import contracts, migrations, OpenAPI schema, requirements, a short fuzz,"
	@echo "                      and make chaos-smoke (SMOKE=0 leaves that out)"
	@echo "make test             the test suite: manage.py test"
	@echo "make test-live        the tests with real processes, which wait for seconds: manage.py test -m live"
	@echo "make test-browser     the console in Debian's chromium, with pictures in .dev/screens/: apt-get install chromium"
	@echo "make bench            this service and bare Celery, side by side; conversations; POSTs beside open streams;"
	@echo "                      next times of schedules"
	@echo "make chaos            break the service on purpose: DURATION=180 SEED=7 EXPERIMENT=E1,E4 (all of them without)"
	@echo "make chaos-smoke      four of these experiments for a minute in all"
	@echo "make fuzz             generated requests against the whole OpenAPI document (SEED=1 EXAMPLES=50)"
	@echo "make sbom             what the service is made of, with hashes and licences, as CycloneDX: sbom.json"
	@echo "make format           put the code into its form"
	@echo "make lock             resolve requirements/*.in anew (make lock UPGRADE=--upgrade for newer versions)"
	@echo "make check-container  Dockerfile, docker-compose.yml and .env.example, without a container engine"
	@echo "make up               the service in this terminal: manage.py up"

env:
	@$(PYTHON) manage.py bootstrap dev

check: env
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(ALONE) $(BIN)/python -W ignore::RuntimeWarning manage.py makemigrations --check --dry-run
	$(ALONE) $(BIN)/python manage.py spectacular --validate --fail-on-warn --file /dev/null
	$(BIN)/python .ci/requirements_in_step.py
	$(BIN)/python -m tests.fuzz --examples=8 --phases=examples,fuzzing,stateful
ifneq ($(SMOKE),0)
	$(BIN)/python -m tests.chaos --smoke --seed $(or $(SEED),7)
endif

format: env
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test:
	$(PYTHON) manage.py test

test-live:
	$(PYTHON) manage.py test -m live

test-browser: env
	PICTURES=1 $(BIN)/python -m pytest -q -n0 -m browser tests/browser

# What the service is made of, with hashes and licences, as CycloneDX; nothing is asked of the network.
sbom: env
	$(BIN)/python .ci/sbom.py sbom.json

fuzz: env
	$(BIN)/python -m tests.fuzz --seed=$(or $(SEED),1) --examples=$(or $(EXAMPLES),50)

# BENCHMARK= one or several modules of tests/benchmarks; all without. __main__ compares the service with bare Celery.
BENCHMARK ?= __main__ agents streams webhook_calls next_times schedule_firing fairness many_jobs job_counts executor_calls \
	console_pages
bench: env
	set -e; for name in $(BENCHMARK); do $(BIN)/python -m tests.benchmarks.$$name; done

# EXPERIMENT= one or several by comma; all without. A seed that is not given is drawn and printed.
chaos: env
	$(BIN)/python -m tests.chaos $(if $(DURATION),--duration $(DURATION)) $(if $(SEED),--seed $(SEED)) \
		$(if $(EXPERIMENT),--experiment $(EXPERIMENT))

chaos-smoke: env
	$(BIN)/python -m tests.chaos --smoke --seed $(or $(SEED),7)

up:
	$(PYTHON) manage.py up

lock: env
	for set in $(SETS); do $(LOCK) $(UPGRADE) -o requirements/$$set.txt requirements/$$set.in || exit 1; done

# In an environment of its own: the tools' pins are not the service's.
check-container: env
	@test -x $(TOOLS)/bin/python || $(BIN)/python -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/container.txt
	$(TOOLS)/bin/python tests/container/check.py
