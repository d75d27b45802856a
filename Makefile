# make chat    talk to a model            make ask Q="…"   one answer
# make test    the whole test suite       make bench       every figure of the README
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export Q

.PHONY: chat ask test lint bench clean

chat: $(VENV)/.installed
	@$(BIN)/ondevice models pull --if-missing
	@$(BIN)/ondevice chat

ask: $(VENV)/.installed
	@$(BIN)/ondevice models pull --if-missing
	@$(BIN)/ondevice ask "$$Q"

test: $(VENV)/.installed-dev lint
	@echo "==> Running the tests"
	@$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	@echo "==> Checking style (ruff) and types (mypy)"
	@$(BIN)/ruff check .
	@$(BIN)/mypy

bench: $(VENV)/.installed-dev
	@$(BIN)/ondevice models pull smollm2-135m --if-missing
	@for script in $$(ls bench/*.py | grep -v -e frame.py -e bitstack.py); do echo "==> $$script" >&2; $(BIN)/python $$script || exit 1; done

$(VENV)/bin/python:
	@echo "==> Making a virtual environment in $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ondevice needs Python 3.11 or newer; say make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "==> Installing ondevice and what it needs."
	@echo "    The first time llama.cpp is compiled for this processor: 5 to 10 minutes on 2 cores."
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.installed
	@echo "==> Installing the tools of the test suite"
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --quiet -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
