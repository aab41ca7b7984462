# make venv    build .venv with all extras          make demo     mock ALMA data in, a black-hole mass out
# make test    every test                           make check    linter, types, import order, documentation
# make docs    the documentation alone              make clean    remove what these commands made, .venv apart
#
# PYTHON=...   the Python to build .venv with (3.11 - 3.13)
# SHORT=1      with demo: few draws, to see the whole way in a few minutes (it will not converge)
# FRESH=1      with demo: fit anew instead of resuming from a checkpoint

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help venv demo demo-short test check docs clean

BIN := .venv/bin
STAMP := .venv/.installed
CACHE := $(CURDIR)/.venv/cache
# Nothing is written to the home directory: libraries keep their caches in .venv.
RUN := MPLCONFIGDIR=$(CACHE) NUMBA_CACHE_DIR=$(CACHE) XDG_CACHE_HOME=$(CACHE) XDG_CONFIG_HOME=$(CACHE)
WORKERS ?= 2
DATA := data_reduction/mock-ngc4697/recipe.toml
FIT := inference/mock-ngc4697/$(if $(SHORT),short,recipe).toml
POSTERIOR := inference/mock-ngc4697/products/$(if $(SHORT),short/,)posterior.nc

help:
	@sed -n '/^# make/,/^$$/s/^# \{0,1\}//p' Makefile

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@python="$(PYTHON)"; \
	if [ -z "$$python" ]; then for name in python3.11 python3.12 python3.13 python3; do \
	  if command -v $$name >/dev/null && $$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'; then python=$$name; break; fi; \
	done; fi; \
	if [ -z "$$python" ]; then echo "make: Python 3.11, 3.12 or 3.13 is needed, none found (PYTHON=/path/to/python names one)" >&2; exit 1; fi; \
	if [ ! -x $(BIN)/python ]; then "$$python" -m venv .venv || { echo "make: $$python cannot make virtual environments (Debian: install python3-venv)" >&2; exit 1; }; fi
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt casatools casadata || { echo \
	  "make: casatools has wheels for Python 3.11 - 3.13 on Linux x86-64 and macOS only, or the package index cannot be reached; got $$($(BIN)/python -VV | head -1) on $$(uname -sm)" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,casa,cluster,docs]"
	@mkdir -p $(CACHE) && touch $@

demo: $(STAMP)
	@code=0; $(RUN) $(BIN)/supermage simulate $(DATA); $(RUN) $(BIN)/supermage reduce $(DATA); \
	$(RUN) $(BIN)/supermage fit $(if $(FRESH),--fresh )$(FIT) || code=$$?; \
	if [ $$code -ne 0 ] && [ $$code -ne 2 ]; then exit $$code; fi; \
	$(RUN) $(BIN)/supermage report $(POSTERIOR); \
	$(if $(SHORT),exit 0,exit $$code)

demo-short:
	@$(MAKE) --no-print-directory demo SHORT=1
	@$(BIN)/python .ci/open_report.py inference/mock-ngc4697/products/short/report

test: $(STAMP)
	@OMP_NUM_THREADS=1 $(RUN) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

check: $(STAMP) docs
	$(BIN)/ruff check .
	$(BIN)/python -m mypy
	$(BIN)/python .ci/house.py

docs: $(STAMP)
	@$(RUN) $(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

clean:
	rm -rf docs/_build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -rf data_reduction/*/products inference/*/products models/*/products
