# `make run` tries the service on this machine; `make test` and `make test-all` check it. Only Python 3.11+ and make are needed.

PYTHON ?= python3
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin
SEEDED := instance/.demo-seeded
# Not those that start, spoil or look into a server of their own, and not test_page_costs.py, which compares plans that
# one connection keeps.
BEHIND_PGBOUNCER := $(addprefix tests/,accounts api checkout concurrency consultations demo idempotency locking payments \
    prove/fuzz prove/model prove/command refunds gateway_webhooks test_constraints.py test_no_network_in_transactions.py)

# The demo has a database of its own, whatever .env says of the real one. Flask puts it into instance/.
run: export DATABASE_URL = sqlite:///demo.db
run: export APP_ENV = development
run: export PORT := $(PORT)
# Nobody who tries it out is to be stopped by a limit.
run: export RATELIMIT_PAYMENTS = 1000 per minute
run: export RATELIMIT_FAILED_LOGINS = 100 per minute

CHECKS := check-types check-security check-imports check-lint check-format

.PHONY: run test test-all prove prove-pgbouncer defences check $(CHECKS) format clean pins bench bench-quick bench-locking bench-growth bench-flame translations known-holes errors-page

run: $(VENV)/.installed
	@$(BIN)/python -c 'import socket; socket.create_server(("127.0.0.1", $(PORT)))' 2>/dev/null || \
	    { echo "Port $(PORT) of 127.0.0.1 is not free. Choose another one: PORT=9000 make run" >&2; exit 1; }
	@test -f instance/demo.db || rm -f $(SEEDED)
	@$(MAKE) --no-print-directory --silent $(SEEDED)
	@sed 's/{port}/$(PORT)/g' payments_app/demo/banner.txt
	@exec $(BIN)/gunicorn

# Some machines forbid Python to keep what it compiled. A lane starts some hundred processes, each of which would compile
# the service again.
unexport PYTHONDONTWRITEBYTECODE

PYTEST = $(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

# While you work: all but the proofs, the faults and the deployment.
test: $(VENV)/.installed-dev check
	$(PYTEST) $(addprefix --ignore tests/,prove faults deploy)

# What CI runs.
test-all: $(VENV)/.installed-dev check
	$(PYTEST)

# The proofs in their long forms: what they try, and how to replay a failure, is in docs/proof.md. Besides, the tests
# elsewhere that have a long form. Its figures land in the folder that PROOF_FIGURES names.
prove: export PROOF_FIGURES ?= instance/proof
prove: $(VENV)/.installed-dev
	$(PYTEST) --long $(addprefix tests/,prove concurrency browser/test_docs_page.py webhooks/test_refund_events.py)

# Writes docs/defences.md, from trying what each defence is for.
defences: $(VENV)/.installed-dev
	$(BIN)/python -m tests.prove.defences.table

# Writes docs/errors.md, from the catalogue of problems.
errors-page: $(VENV)/.installed-dev
	$(BIN)/python -m tests.support.errors_page

# What the service promises, again: with a PgBouncer in transaction mode before PostgreSQL.
prove-pgbouncer: $(VENV)/.installed-dev
	$(BIN)/python -m tests.support.pgbouncer $(BIN)/pytest -n auto --dist loadfile -k "not sqlite and not test_page_costs" $(BEHIND_PGBOUNCER)

# Whether a hole is known in what is pinned. Asks PyPI, so it needs a network; --strict: what cannot be asked about is
# no pass. pip-audit has an environment of its own: nothing runs on it.
known-holes: HOLES := instance/known-holes/bin
known-holes:
	$(PYTHON) -m venv instance/known-holes
	$(HOLES)/pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	$(HOLES)/pip-audit --strict --require-hashes --disable-pip \
	    -r requirements.txt -r requirements-dev.txt -r requirements-bench.txt

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

# From each requirements*.in the requirements*.txt with exact versions and the hashes of all files of each, for every
# platform and for Python 3.11 and newer. What is pinned stays as it is; `make pins UPGRADE=--upgrade` takes the newest
# of all, `make pins UPGRADE="--upgrade-package flask"` of one. uv has an environment of its own: nothing runs on it.
pins: PINS := instance/pins/bin
pins:
	$(PYTHON) -m venv instance/pins
	$(PINS)/pip install --quiet --disable-pip-version-check uv==0.13.9
	for name in requirements requirements-dev requirements-bench; do \
	    $(PINS)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	        --no-emit-index-url --custom-compile-command "make pins" $(UPGRADE) $$name.in -o $$name.txt || exit 1; \
	done

# Into bench/results/: this service beside its limit and its peers. See docs/performance.md.
bench: $(VENV)/.installed-bench
	$(BIN)/python -m bench

# One short round, only to see that it runs.
bench-quick: $(VENV)/.installed-bench
	$(BIN)/python -m bench --rounds 1 --seconds 1 --memory-requests 3000 --results instance/bench

# Into bench/results/: a flame graph of one worker that creates payments. py-spy has to be allowed to look at it.
bench-flame: $(VENV)/.installed-bench
	$(BIN)/python -m bench.flame create

# The tables of docs/locking.md, in about four minutes.
bench-locking: $(VENV)/.installed-dev
	$(BIN)/python -m bench.locking

# Into bench/results/: a million payments, all of them confirmed, and what that does to tables and indexes.
bench-growth: $(VENV)/.installed-dev
	$(BIN)/python -m bench.growth

# After a text was added or changed. What is new stands empty in the catalogue until it is translated, and a test says so.
translations: $(VENV)/.installed
	$(BIN)/pybabel -q extract -F babel.cfg -k N_ -k LocalizedMessage --no-location --sort-output --omit-header -o $(VENV)/messages.pot .
	$(BIN)/pybabel -q update -N --ignore-obsolete -w 120 -i $(VENV)/messages.pot -d payments_app/translations
	# Its header says when and by whom: git knows.
	sed -i '/^"\(POT-Creation-Date\|PO-Revision-Date\|Report-Msgid-Bugs-To\|Last-Translator\|Language-Team\)/d' payments_app/translations/*/LC_MESSAGES/messages.po
	$(BIN)/pybabel -q compile -d payments_app/translations

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) instance

# Migrated and seeded again whenever there is a new migration; otherwise a start costs nothing but the start.
$(SEEDED): $(wildcard migrations/versions/*.py)
	@mkdir -p instance
	@$(BIN)/flask --app wsgi db upgrade
	@$(BIN)/flask --app wsgi demo seed
	@touch $@

$(VENV)/.installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; try make PYTHON=python3.11"; exit 1; }
	@test -d $(VENV) || { echo "Making a virtual environment in $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing what the service runs"
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	@echo "Installing what the tests run"
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(VENV)/.installed-bench: requirements-bench.txt $(VENV)/.installed-dev
	@echo "Installing what the benchmark runs"
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	@touch $@
