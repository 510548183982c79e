# Two commands do everything: make demo, make test. make check is for while you write; the others are parts of these.
# PEERS=no: install nothing beside Python packages; tests of other servers that are not there skip, and say so.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PEERS ?= yes
N ?= 100
unexport PYTHONDONTWRITEBYTECODE
UNIT := mail config reading lists database journal policy accounts gathering notices freezes outbox mailings counts holds \
	admission incidents observe store processes manual

.PHONY: demo test suite wheel check coverage kills bench generated docs release deb peers lint types lock clean

demo: $(VENV)/.runtime
	$(BIN)/smtpguard demo

# The tests wait for each other's processes more than they compute: what else is to be looked at goes on beside them.
test: $(VENV)/.dev peers lint
	$(MAKE) --no-print-directory -j3 suite types wheel

suite: $(VENV)/.dev
	$(BIN)/pytest -n auto --dist loadfile -rs

wheel: $(VENV)/.dev
	sh tests/wheel.sh

# No root, no other server, no whole process tree.
check: $(VENV)/.dev lint types
	$(BIN)/pytest -n auto --dist loadfile -m "not peers and not faults" -k "not postgresql" tests/test_house.py $(addprefix tests/,$(UNIT))

coverage: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet pytest-cov
	$(BIN)/pytest -n auto --dist loadfile --cov=smtpguard --cov-report=term:skip-covered

# So many processes are killed while mail passes, of which a hundred are in make test: make kills N=1000
kills: $(VENV)/.dev
	KILLS=$(N) $(BIN)/pytest tests/faults/test_front.py -k kills

bench: $(VENV)/.dev
	$(BIN)/python -m bench $(ARGS)

# Everything of a release, into dist/; what cannot be made here is said. The package alone: packaging/deb.sh.
release: $(VENV)-release/.made
	$(VENV)-release/bin/hadolint packaging/Containerfile
	BIN=$(abspath $(VENV)-release/bin) sh packaging/release.sh

# The Debian package on a clean root: installed, upgraded, removed. It wants root and Debian's archive.
deb: $(VENV)/.dev
	BIN=$(abspath $(BIN)) sh tests/deb.sh

# JSON schemas, tables and reference pages of the docs, man pages, completion, and what the catalogues have to translate: made from code.
generated: $(VENV)/.dev
	$(BIN)/python -m tests.generated
	$(BIN)/python -m tests.messages

# The docs as a site in build/site, which needs nothing from anywhere: any web server may have it. Its tools have a place of their own.
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

# The runtime dependencies alone, pinned with hashes.
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

# What makes a release has dependencies of its own, which are not to change those of the tests.
$(VENV)-release/.made: requirements-release.lock
	test -x $(VENV)-release/bin/python || $(PYTHON) -m venv $(VENV)-release
	$(VENV)-release/bin/python -m pip install --quiet --require-hashes -r requirements-release.lock
	touch $@

# The real peers, where they can be installed; a peer that is missing is skipped with the reason.
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
	rm -rf $(VENV) $(VENV)-release build dist .mypy_cache .ruff_cache .hypothesis
