# Every target first makes its own environment (VENV) and installs the package into
# it in place, with the versions of CONSTRAINTS. A second run installs nothing, unless
# pyproject.toml or the constraints have changed since.
#
#   make demo         explain a sentence and a picture with the built-in models
#   make test         all tests but the long sweeps
#   make test-slow    the long sweeps
#   make test-lowest  all tests but the long sweeps, on the oldest supported versions
#   make docs         the documentation; warnings are errors, nothing is fetched
#   make tutorials    run the notebooks, and store their outputs in place
#   make check        formatting, lint, types; `make -k check` goes on after a failure
#
# Another interpreter:  make test PYTHON=python3.12 VENV=.venv-3.12
# A part of the tests:  make test PYTEST_ARGS="tests/core -x"
# The tests run in as many processes as there are cores, up to four. One after another,
# in one process:      make test WORKERS=0

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
PYTEST_ARGS ?=
WORKERS ?= logical

BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	--constraint $(CONSTRAINTS) --editable
# Each process takes a stretch of the tests in their order, so that what a module or a
# package shares is made about once, and the first to finish takes half of what another
# has left: one file holds most of the long sweeps.
PYTEST = $(BIN)/python -m pytest --numprocesses $(WORKERS) --maxprocesses 4 \
	--dist worksteal

.PHONY: demo test test-slow test-lowest tutorials docs check check-format \
	check-lint check-types
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(BIN)/captum-transformer-lrp demo

test: $(VENV)/.installed-dev
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

test-slow: $(VENV)/.installed-dev
	$(PYTEST) -m slow $(PYTEST_ARGS)

test-lowest:
	$(MAKE) test VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt

docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -W --keep-going docs docs/_build/html
	@echo "Open $(CURDIR)/docs/_build/html/index.html"

tutorials: $(VENV)/.installed-dev
	$(BIN)/python scripts/run_tutorials.py

check: check-format check-lint check-types

check-format: $(VENV)/.installed-dev
	$(BIN)/python -m ruff format --check .

check-lint: $(VENV)/.installed-dev
	$(BIN)/python -m ruff check .

check-types: $(VENV)/.installed-dev
	$(BIN)/python -m mypy

# pip is the last thing that `venv` puts in place: an environment without it is one
# that was not finished.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "captum_transformer_lrp needs Python 3.10 or newer, and" \
			"'$(PYTHON)' says '$$($(PYTHON) --version 2>&1)'." \
			"Name another interpreter: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; \
		exit 1; }
	@echo "Making the environment $(VENV) with $$($(PYTHON) --version 2>&1)."
	@$(PYTHON) -m venv $(VENV)

# The second depends on the first so that `make -j demo test` never runs two
# installations into one environment at once.
$(VENV)/.installed: pyproject.toml $(CONSTRAINTS) | $(BIN)/pip
	@echo "Installing into $(VENV); PyTorch is large, so the first time takes minutes."
	@$(INSTALL) '.[all]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing the development tools into $(VENV)."
	@$(INSTALL) '.[all,dev]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	@echo "Installing what builds the documentation into $(VENV)."
	@$(INSTALL) '.[all,docs]'
	@touch $@
