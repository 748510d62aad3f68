PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: setup quickstart test chaos check bench experiments pictures clean

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

quickstart: setup
	$(BIN)/aae-sweep run sweeps/quickstart.yaml

test: setup
	$(BIN)/python -m pytest

# Long rounds of faults (docs/faults.md): make chaos ROUNDS=5 SEED=0 FAULTS="worker driver"
chaos: setup
	CHAOS_ROUNDS=$(or $(ROUNDS),1) CHAOS_SEED=$(or $(SEED),0) CHAOS_FAULTS="$(FAULTS)" \
		$(BIN)/python -m pytest -s tests/e2e/chaos

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Prints tables; all figures go to benchmarks/results/*.json.
bench: setup
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/train_step.py --pack
	$(BIN)/python benchmarks/parzen.py
	$(BIN)/python benchmarks/sweep_overhead.py
	$(BIN)/python benchmarks/scaling.py

# Writes the tables of docs/experiments.md and the README's figures from results/.
experiments: setup
	$(BIN)/python docs/experiments.py

pictures: setup
	$(BIN)/python docs/pictures.py

clean:
	rm -rf .venv build *.egg-info
