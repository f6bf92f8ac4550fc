# Set-up reuses the active virtual environment, or makes .venv; every target sets up what it needs.
PYTHON ?= python3
VENV ?= $(if $(VIRTUAL_ENV),$(VIRTUAL_ENV),.venv)
BIN := $(VENV)/bin
STAMP := $(VENV)/.divacli-$(subst /,_,$(CURDIR))
# One more than there are cores: tests of servers and browsers wait.
WORKERS ?= $(shell $(PYTHON) -c "import os; print(min(8, (os.cpu_count() or 1) + 1))")
PYTHON_OLDEST ?= python3.11

.PHONY: help setup demo fuzz test faults coverage test-oldest test-wheel lint docs bench clean

help:
	@echo "make demo   set up, then find planted label errors in real images (offline, about a minute)"
	@echo "make test   set up, then run the tests"
	@echo "make test-oldest  run the tests with the oldest dependencies that are allowed, in .venv-oldest"
	@echo "make test-wheel   build, install the wheel into an empty .venv-wheel, and run diva demo there"
	@echo "make faults    kill commands in all phases, 200 times, and restart a job of torchrun"
	@echo "make coverage  run the tests and see which branches they take: all of divacli/ridge"
	@echo "make lint   style, types and the documentation's links"
	@echo "make docs   build the documentation into site/"
	@echo "make fuzz   fuzz all readers of files, 155,000 inputs (Linux on x86-64)"
	@echo "make bench  measure speed, memory and what each command gains (hours)"
	@echo "make clean  remove what the other targets made"

setup: $(STAMP)

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/diva demo --overwrite

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -rs

coverage: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -rs \
		--cov --cov-report=term:skip-covered --cov-fail-under=90
	$(BIN)/python -m coverage report --include='divacli/ridge/*' --fail-under=100 --format=total

faults: setup
	DIVA_KILLS=all OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/faults/test_kills.py tests/cli/test_torchrun.py

test-oldest:
	test -x .venv-oldest/bin/python || $(PYTHON_OLDEST) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints-oldest.txt --editable '.[dev]'
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -rs

test-wheel: setup
	rm -rf dist .venv-wheel
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	folder=$$(mktemp -d) && cd "$$folder" && env -i PATH="$$PATH" HOME="$$folder" $(CURDIR)/.venv-wheel/bin/diva demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/mypy divacli benchmarks fuzz
	$(BIN)/mypy --strict --follow-imports=silent divacli/ridge
	$(BIN)/mkdocs build --quiet --strict

docs: setup
	$(BIN)/mkdocs build --strict

fuzz: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	OMP_NUM_THREADS=1 $(BIN)/python -m fuzz --findings fuzz-findings

bench: setup
	$(BIN)/python -m benchmarks.solve
	$(BIN)/python -m benchmarks.scaling
	$(BIN)/python -m benchmarks.embedding
	$(BIN)/python -m benchmarks.cuda
	$(BIN)/python -m benchmarks.report
	$(BIN)/python -m benchmarks.ridge_choice
	$(BIN)/python -m benchmarks.mislabel
	$(BIN)/python -m benchmarks.votes
	$(BIN)/python -m benchmarks.duplicates
	$(BIN)/python -m benchmarks.pays
	$(BIN)/python -m benchmarks.extend
	$(BIN)/python -m benchmarks.aggregate
	$(BIN)/python -m benchmarks.reweight
	$(BIN)/python -m benchmarks.augment
	$(BIN)/python -m benchmarks.train

clean:
	rm -rf .venv .venv-oldest .venv-wheel build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage diva-demo diva-out
