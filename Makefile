PYTHON ?= python3
BIN := .venv/bin
# Small problems are faster on one thread, and the tests run on two workers.
TEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

.PHONY: setup demo test test-all check

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: setup
	$(BIN)/taskrobust demo
	$(BIN)/taskrobust demo vision

check: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

test: check
	$(TEST) -m "not slow"

test-all: check
	$(TEST)
