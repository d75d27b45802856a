# make chat    talk to a model            make ask Q="…"   one answer
# make test    the whole test suite       make bench       every figure of the README
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
BENCHES := attention footprint memory memory_chat memory_torture memory_use moe neurons prediction \
	products resident schemas sizing stack state threads tui window
export Q

.PHONY: chat ask test lint bench clean

chat: $(VENV)/.installed
	@$(BIN)/ondevice models pull --if-missing
	@$(BIN)/ondevice chat

ask: $(VENV)/.installed
	@$(BIN)/ondevice models pull --if-missing
	@$(BIN)/ondevice ask "$$Q"

test: $(VENV)/.installed-dev lint
	@echo "==> Running the tests: 10 to 15 minutes on 2 cores"
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not alone"
	@$(BIN)/python -m pytest -m alone

lint: $(VENV)/.installed-dev
	@echo "==> Checking style (ruff) and types (mypy)"
	@$(BIN)/ruff check .
	@$(BIN)/mypy

bench: $(VENV)/.installed-dev
	@$(BIN)/ondevice models pull smollm2-135m --if-missing
	@for name in $(BENCHES); do \
		echo "==> bench/$$name.py" >&2; $(BIN)/python bench/$$name.py || exit 1; done

# What is missing is said before anything is made or downloaded. cmake and ninja come with pip.
define FIND_MISSING
fail() { echo "ondevice cannot be installed yet: $$1" >&2; exit 1; }
runs() { for each; do $$each --version >/dev/null 2>&1 && return; done; return 1; }
$(PYTHON) -c '' 2>/dev/null || fail "there is no Python that runs as $(PYTHON). Install Python 3.11 or newer (Debian, Ubuntu: sudo apt install python3 python3-venv; Fedora: sudo dnf install python3; Arch: sudo pacman -S python; macOS: brew install python; pyenv: pyenv global VERSION), or say make PYTHON=/path/to/python3."
$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || fail "$$($(PYTHON) --version) is too old or too new. It takes Python 3.11 to 3.14; if you have one, say make PYTHON=python3.12."
$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || fail "this Python has no venv module. Debian, Ubuntu: sudo apt install python3-venv."
runs "$${CC:-cc}" gcc clang && runs "$${CXX:-c++}" g++ clang++ || fail "there is no compiler for C and C++. Debian, Ubuntu: sudo apt install build-essential; Fedora: sudo dnf install gcc-c++; Arch: sudo pacman -S base-devel; macOS: xcode-select --install."
endef
export FIND_MISSING

$(VENV)/bin/python:
	@eval "$$FIND_MISSING"
	@echo "==> Making a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@eval "$$FIND_MISSING"
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
