# make demo shows it, make test runs every check, make check is the fast loop while you write. Other targets are parts of these.
# PEERS=no: install only Python packages. Tests of servers that are missing are skipped, with the reason.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PEERS ?= yes
N ?= 100
unexport PYTHONDONTWRITEBYTECODE
UNIT := mail config reading lists database journal policy accounts gathering notices freezes outbox mailings counts holds \
	admission incidents observe store processes locale manual

.PHONY: demo test suite wheel check coverage kills fuzz story bench generated docs release deb peers lint types lock clean

demo: $(VENV)/.runtime
	$(BIN)/smtpguard demo

# The tests mostly wait for processes, so types and wheel run beside them.
test: $(VENV)/.dev peers lint
	$(MAKE) --no-print-directory -j3 suite types wheel

suite: $(VENV)/.dev
	$(BIN)/pytest -n auto --dist loadfile -rs

wheel: $(VENV)/.dev
	sh tests/wheel.sh

# The fast tests: no root, no other servers, no process trees.
check: $(VENV)/.dev lint types
	$(BIN)/pytest -n auto --dist loadfile -m "not peers and not faults" -k "not postgresql" tests/test_house.py tests/test_stability.py tests/cli/test_schema.py $(addprefix tests/,$(UNIT))

coverage: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet pytest-cov
	$(BIN)/pytest -n auto --dist loadfile --cov=smtpguard --cov-report=term:skip-covered

# Kill N processes while mail passes (make test kills 100): make kills N=1000
kills: $(VENV)/.dev
	KILLS=$(N) $(BIN)/pytest -o faulthandler_timeout=0 tests/faults/test_front.py -k kills

# Mail from so many seeds goes every way, and random histories (make test has a few): make fuzz N=100
fuzz: $(VENV)/.dev
	FUZZ="0 $(N)" $(BIN)/pytest -n auto -q tests/fuzz/test_ways.py tests/incidents/test_truth.py

# The story to so many people, stopped after 412, with what the report and the relay say of it; make test has a small one: make story N=10000
story: $(VENV)/.dev
	STORY=$(N) $(BIN)/pytest -o faulthandler_timeout=0 -n 0 -q -s tests/faults/test_stopped.py

bench: $(VENV)/.dev
	$(BIN)/python -m bench $(ARGS)

# Make all files of a release in dist/, and say which cannot be made here. For the Debian package alone: packaging/deb.sh.
release: $(VENV)-release/.made
	$(VENV)-release/bin/hadolint packaging/Containerfile
	BIN=$(abspath $(VENV)-release/bin) sh packaging/release.sh

# Install, upgrade and remove the Debian package on a clean root. Needs root and Debian's archive.
deb: $(VENV)/.dev
	BIN=$(abspath $(BIN)) sh tests/deb.sh

# Generate from code: JSON schemas, tables and reference pages of the docs, man pages, shell completion, message catalogues.
generated: $(VENV)/.dev
	$(BIN)/python -m tests.generated
	$(BIN)/python -m tests.messages

# Build the docs in build/site, for any web server; the site loads nothing from elsewhere. Its tools have their own environment.
docs: build/docs/.made
	NO_MKDOCS_2_WARNING=1 build/docs/bin/mkdocs build --strict

build/docs/.made: requirements-docs.lock
	test -x build/docs/bin/python || $(PYTHON) -m venv build/docs
	build/docs/bin/python -m pip install --quiet --require-hashes -r requirements-docs.lock
	touch $@

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

# Runtime dependencies only, pinned with hashes.
$(VENV)/.runtime: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps -e .
	touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --no-deps -e .
	touch $@ $(VENV)/.runtime

# The tools of a release have their own environment, so that they do not change the versions that the tests use.
$(VENV)-release/.made: requirements-release.lock
	test -x $(VENV)-release/bin/python || $(PYTHON) -m venv $(VENV)-release
	$(VENV)-release/bin/python -m pip install --quiet --require-hashes -r requirements-release.lock
	touch $@

# Install the servers that the tests use, where possible. Tests of a missing server are skipped, with the reason.
peers:
ifneq ($(PEERS),no)
	@sh tests/peers/install.sh
endif

lock: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 --all-extras pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 --all-extras --group dev pyproject.toml -o requirements-dev.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 --group release -o requirements-release.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 --constraints requirements-dev.lock --group docs -o requirements-docs.lock

clean:
	rm -rf $(VENV) $(VENV)-release build dist .mypy_cache .ruff_cache .hypothesis .coverage*
