# Everything sets itself up: python3 >= 3.11 and make are all that is assumed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: help run test check lint types bench bench-large crash clean install uninstall deb
.DEFAULT_GOAL := help

help:
	@echo "make run    the daemon with simulated modems: nothing to configure"
	@echo "make test   the tests"
	@echo "make check  format, lint, types, tests"
	@echo "make bench  what it reaches on this machine, in 15 minutes; make bench ARGS=\"drain-32-200 --repeat 3\", ARGS=--list"
	@echo "make bench-large  the same with ten million messages: 9 GB of disk, named with ARGS=\"--dir DIR\""
	@echo "make crash  kills it some hundred times and looks for what is lost or doubled: docs/crash.md"
	@echo "make install, make uninstall   into PREFIX=/opt/gatewayd, as a service: docs/install.md"
	@echo "make deb    the Debian package, into dist/"

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "gatewayd needs Python 3.11 or newer; try: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "python3 has no venv module here (Debian: apt install python3-venv)"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

run: $(STAMP)
	@$(BIN)/python -m gatewayd demo $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

check: lint types test

bench: $(STAMP)
	$(BIN)/python -m bench $(ARGS)

bench-large: $(STAMP)
	$(BIN)/python -m bench --large --out build/bench-large.json $(ARGS)

crash: $(STAMP)
	$(BIN)/python -m tests.crash $(ARGS)

# Not with the Python of $(VENV): the service's user must be able to run it.
install uninstall:
	@PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" INSTALL_PYTHON="$(INSTALL_PYTHON)" packaging/install.sh $@

deb:
	@packaging/build-deb.sh

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
