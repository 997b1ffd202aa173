# `make run` tries the service on this machine; `make test` and `make test-all` check it. Only Python 3.11+ and make are
# needed.

PYTHON ?= python3
PORT ?= 8000
SITE_PORT ?= 8080
SITE := examples/booking-site
VENV := .venv
BIN := $(VENV)/bin
SEEDED := instance/.demo-seeded
# Without the tests that start, damage or inspect a server of their own, and without test_page_costs.py, which compares
# plans that one connection caches.
BEHIND_PGBOUNCER := $(addprefix tests/,accounts api checkout concurrency consultations demo idempotency locking payments \
    prove/fuzz prove/model prove/command refunds gateway_webhooks test_constraints.py test_no_network_in_transactions.py)

# The demo has its own database, whatever DATABASE_URL is in .env. Flask puts the file into instance/.
run: export DATABASE_URL = sqlite:///demo.db
run: export APP_ENV = development
run: export PORT := $(PORT)
run: export SITE_PORT := $(SITE_PORT)
# High rate limits, so that a visitor of the demo does not run into them.
run: export RATELIMIT_PAYMENTS = 1000 per minute
run: export RATELIMIT_FAILED_LOGINS = 100 per minute

CHECKS := check-types check-security check-imports check-lint check-format

.PHONY: run test test-all run-tests prove prove-all prove-ha prove-pgbouncer defences lint-openapi check $(CHECKS) format clean pins bench bench-quick bench-locking bench-growth bench-flame translations known-holes errors-page

run: $(VENV)/.installed-site
	@test $(PORT) != $(SITE_PORT) || { echo "PORT and SITE_PORT are both $(PORT). Choose another one: SITE_PORT=9001 make run" >&2; exit 1; }
	@for name in PORT SITE_PORT; do \
	    $(BIN)/python -c 'import os, socket, sys; socket.create_server(("127.0.0.1", int(os.environ[sys.argv[1]])))' $$name 2>/dev/null || \
	    { eval port=\$$$$name; echo "Port $$port of 127.0.0.1 is not free. Choose another one: $$name=9000 make run" >&2; exit 1; }; \
	done
	@test -f instance/demo.db || rm -f $(SEEDED) instance/booking-site.db
	@$(MAKE) --no-print-directory --silent $(SEEDED)
	@link=$$(PUBLIC_URL=http://127.0.0.1:$(PORT) $(BIN)/flask --app wsgi demo link) && \
	    sed "s|{port}|$(PORT)|g; s|{site_port}|$(SITE_PORT)|g; s|{link}|$$link|" payments_app/demo/banner.txt
	@exec $(BIN)/flask --app wsgi demo run

# Some machines forbid Python to keep what it compiled. A lane starts some hundred processes, each of which would compile
# the service again.
unexport PYTHONDONTWRITEBYTECODE

PYTEST = $(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

# While you work: all but the proofs, the faults, the deployment, and what repeats another test's promise.
test: TESTS := -m "not repeat" $(addprefix --ignore tests/,prove faults deploy ha)
# What CI runs.
test-all: TESTS :=

# mypy takes as long as all other checks together, and the tests leave the processors some of their time: it runs
# beside them.
test test-all: $(VENV)/.installed-dev
	@$(MAKE) --no-print-directory -j check-types run-tests TESTS='$(TESTS)'

run-tests: $(filter-out check-types,$(CHECKS)) $(VENV)/.compiled
	$(PYTEST) $(TESTS)

# Python compiles a module when it first loads it. All processes of the first run would do so at the same time, each for
# itself.
$(VENV)/.compiled: $(VENV)/.installed-dev
	@$(BIN)/pytest --collect-only --quiet > $@ || { cat $@; rm $@; exit 1; }

# The proofs in their long forms, and the other tests that have a long form (tests/test_long_forms.py). docs/proof.md
# describes the proofs and how to replay a failure. The figures are written to the folder PROOF_FIGURES.
prove: export PROOF_FIGURES ?= instance/proof
prove: $(VENV)/.installed-dev
	$(PYTEST) --long $(addprefix tests/,prove faults concurrency browser/test_docs_page.py db/test_transaction.py \
	    deploy/test_spread.py documents/test_export.py gateway_webhooks/test_refund_events.py \
	    gateways/test_paymongo_chaos.py gateways/test_stripe_hosted.py health/test_listener.py locking/test_metrics.py \
	    webhook_endpoints/test_clock_jumps.py webhook_endpoints/test_kills.py)

# A PostgreSQL that fails over by itself (Patroni, etcd), through every fault while people pay; writes the tables of
# docs/high-availability.md. One test after the other, because they share one cluster.
prove-ha: export PROOF_FIGURES ?= instance/proof
prove-ha: $(VENV)/.installed-dev
	$(BIN)/pytest --long tests/ha
	$(BIN)/python -m tests.ha.table

# All proofs in their long forms, one after the other.
prove-all: prove
	@$(MAKE) --no-print-directory prove-ha
	@$(MAKE) --no-print-directory prove-pgbouncer

# Writes docs/defences.md: attacks the service with each defence switched off.
defences: $(VENV)/.installed-dev
	$(BIN)/python -m tests.prove.defences.table

# Writes docs/errors.md, from the catalogue of problems.
errors-page: $(VENV)/.installed-dev
	$(BIN)/python -m tests.support.errors_page

# The tests again, with a PgBouncer in transaction mode in front of PostgreSQL.
prove-pgbouncer: $(VENV)/.installed-dev
	$(BIN)/python -m tests.support.pgbouncer $(BIN)/pytest -n auto --dist loadfile -k "not sqlite and not test_page_costs" $(BEHIND_PGBOUNCER)

# Checks the OpenAPI document with Redocly's linter, which needs Node.js; docs/openapi.md.
lint-openapi: $(VENV)/.installed
	@mkdir -p instance
	@$(BIN)/flask --app wsgi openapi print > instance/openapi.json
	npx --yes @redocly/cli@2.77.0 lint --extends recommended-strict instance/openapi.json

# Checks the pinned packages for known vulnerabilities. Needs a network, because it queries PyPI. --strict: a package
# that cannot be checked is a failure. pip-audit has its own environment: the service does not need it.
known-holes: HOLES := instance/known-holes/bin
known-holes:
	$(PYTHON) -m venv instance/known-holes
	$(HOLES)/pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	$(HOLES)/pip-audit --strict --require-hashes --disable-pip \
	    -r requirements-pip.txt -r requirements.txt -r requirements-dev.txt -r requirements-bench.txt

# At the same time: mypy takes one core for as long as all others together.
check: $(VENV)/.installed-dev
	@$(MAKE) --no-print-directory -j $(CHECKS)

check-lint:
	$(BIN)/ruff check .

check-format:
	$(BIN)/ruff format --check .

check-types:
	$(BIN)/mypy

check-imports:
	$(BIN)/lint-imports

check-security:
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive payments_app config.py gunicorn.conf.py wsgi.py migrations

# Writes each requirements*.txt from its requirements*.in: exact versions with the hashes of all their files, for every platform
# and for Python 3.11 and newer. Pinned versions stay as they are; `make pins UPGRADE=--upgrade` upgrades all of them,
# `make pins UPGRADE="--upgrade-package flask"` one. uv has its own environment: the service does not need it.
pins: PINS := instance/pins/bin
pins:
	$(PYTHON) -m venv instance/pins
	$(PINS)/pip install --quiet --disable-pip-version-check uv==0.13.9
	for name in requirements-pip requirements requirements-dev requirements-bench $(SITE)/requirements; do \
	    $(PINS)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	        --no-emit-index-url --custom-compile-command "make pins" $(UPGRADE) $$name.in -o $$name.txt || exit 1; \
	done

# Measures this service, its upper limit and its peers; writes to bench/results/. See docs/performance.md.
bench: $(VENV)/.installed-bench
	$(BIN)/python -m bench

# One short round, only to check that the benchmark runs.
bench-quick: $(VENV)/.installed-bench
	$(BIN)/python -m bench --rounds 1 --seconds 1 --memory-requests 3000 --batches 1 --results instance/bench

# Writes a flame graph of one worker that creates payments to bench/results/. py-spy needs permission to trace
# processes.
bench-flame: $(VENV)/.installed-bench
	$(BIN)/python -m bench.flame create

# Measures the tables of docs/locking.md, in about four minutes.
bench-locking: $(VENV)/.installed-dev
	$(BIN)/python -m bench.locking

# Confirms a million payments and measures how tables and indexes grow; writes to bench/results/.
bench-growth: $(VENV)/.installed-dev
	$(BIN)/python -m bench.growth

# Run it after a text was added or changed. A new text is empty in the catalogue until it is translated; a test fails
# then.
translations: $(VENV)/.installed
	$(BIN)/pybabel -q extract -F babel.cfg -k N_ -k LocalizedMessage --no-location --sort-output --omit-header -o $(VENV)/messages.pot .
	$(BIN)/pybabel -q update -N --ignore-obsolete -w 120 -i $(VENV)/messages.pot -d payments_app/translations
	# Without the header's dates and names: git has them.
	sed -i '/^"\(POT-Creation-Date\|PO-Revision-Date\|Report-Msgid-Bugs-To\|Last-Translator\|Language-Team\)/d' payments_app/translations/*/LC_MESSAGES/messages.po
	$(BIN)/pybabel -q compile -d payments_app/translations

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) instance

# Migrates and seeds the demo's database if there is a new migration; otherwise `make run` starts at once.
$(SEEDED): $(wildcard migrations/versions/*.py)
	@mkdir -p instance
	@$(BIN)/flask --app wsgi db upgrade
	@$(BIN)/flask --app wsgi demo seed
	@touch $@

# pip would compile all modules, most of which are never loaded: a third of its time.
PIP_INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check --no-compile

$(VENV)/.installed: requirements-pip.txt requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; try make PYTHON=python3.11"; exit 1; }
	@test -d $(VENV) || { echo "Making a virtual environment in $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing the packages of the service"
	@$(PIP_INSTALL) -r requirements-pip.txt
	@$(PIP_INSTALL) -r requirements.txt
	@touch $@

$(VENV)/.installed-site: $(SITE)/requirements.txt $(VENV)/.installed
	@$(PIP_INSTALL) -r $(SITE)/requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	@echo "Installing the packages of the tests"
	@$(PIP_INSTALL) -r requirements-dev.txt
	@touch $@

$(VENV)/.installed-bench: requirements-bench.txt $(VENV)/.installed-dev
	@echo "Installing the packages of the benchmark"
	@$(PIP_INSTALL) -r requirements-bench.txt
	@touch $@
