# make compare: the embedded study, from nothing to a leaderboard and figures
# make test:    linters, types, tests
# Each makes the one .venv first, unless a stamp says that it already fits setup.cfg and constraints.txt.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/stamp-$(shell cat setup.cfg constraints.txt | $(PYTHON) -c "import hashlib,sys;print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest()[:16])")
OUT ?= runs/digits
WORKERS ?=

.PHONY: compare test lint venv clean
.DEFAULT_GOAL := compare

compare: $(STAMP)
	$(BIN)/cl-ext run benchmarks/digits.yaml --out $(OUT) $(if $(WORKERS),--workers $(WORKERS))

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest -n 2 tests

venv: $(STAMP)

$(STAMP): setup.cfg constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(0 if sys.version_info[:2] >= (3, 11) else 'cl_ext needs Python 3.11 or newer; $(PYTHON) is %d.%d: set PYTHON=' % sys.version_info[:2])"
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) runs
