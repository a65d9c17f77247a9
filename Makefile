# Needs Python 3.10 or newer and make; everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: train test test-slow test-slurm coverage lint types docs

train: .venv/ready ## train the default: saformer_tiny on digits
	$(BIN)/python train.py $(ARGS)

test: .venv/ready-dev ## the everyday tests
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" --durations=15 $(ARGS)

test-slow: .venv/ready-dev ## what takes longer, among it the full default training
	$(BIN)/python -m pytest -n 2 -m "slow and not slurm" --durations=15 $(ARGS)

test-slurm: .venv/ready-dev ## sweeps, several ranks and requeues, on a Slurm of this machine alone
	$(BIN)/python -m pytest -m slurm --durations=15 $(ARGS)

coverage: .venv/ready-dev ## lines of src/ that the everyday tests reach, those of processes they start left out
	$(BIN)/python -m pytest -n 2 -m "not slow" --cov=saformer --cov-report=term-missing $(ARGS)

lint: .venv/ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/ready-dev
	$(BIN)/mypy

docs: .venv/ready-dev ## the site, into site/; a link that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.venv/ready: pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/ready-dev: .venv/ready
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@# An oracle of the energy tests; what it depends on serves its datasets, which they do not use.
	$(BIN)/pip install --quiet --no-deps neurobench==2.3.0
	touch $@
