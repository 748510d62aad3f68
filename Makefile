PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: setup quickstart test test-all test-rest chaos fuzz check bench experiments schema pictures docs notebook dist clean

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt rivals/pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' -e rivals
	touch $@

quickstart: setup
	$(BIN)/aae-sweep run sweeps/quickstart.yaml

# Temporary files in memory where there is some: most tests wait for the disks of their databases.
# Containers get theirs on a disk, which an engine elsewhere can mount.
MEMORY := $(if $(wildcard /dev/shm/.),PYTEST_DEBUG_TEMPROOT=/dev/shm)
PYTEST := $(MEMORY) $(BIN)/python -m pytest
SPREAD := --dist loadfile --no-loadscope-reorder

# The unit tests, and the core for real: one sweep whose worker and driver are killed, Parzen actors,
# the report in a browser. The core begins: its sweep takes longer than any other file. It waits for
# most of that time, hence a process more than the two cores of a small machine.
CORE := tests/integration/test_faults.py tests/e2e/browser/test_report_in_a_browser.py

test: setup
	$(PYTEST) -n 3 $(SPREAD) $(CORE) tests/unit rivals/tests
	@echo "Left out: further faults, databases, containers, chaos, MLflow's pages. Run: make test-all"

test-all: test test-rest

test-rest: setup
	$(PYTEST) -n 2 $(SPREAD) tests/integration tests/e2e/browser tests/e2e/chaos tests/e2e/editor \
		$(CORE:%=--ignore=%)
	$(BIN)/python -m pytest tests/e2e/cluster

# Long rounds of faults (docs/faults.md): make chaos ROUNDS=5 SEED=0 FAULTS="worker driver"
chaos: setup
	CHAOS_ROUNDS=$(or $(ROUNDS),1) CHAOS_SEED=$(or $(SEED),0) CHAOS_FAULTS="$(FAULTS)" \
		$(BIN)/python -m pytest -s tests/e2e/chaos

# Damaged inputs of each kind: make fuzz EXAMPLES=20000
fuzz: setup
	FUZZ_EXAMPLES=$(or $(EXAMPLES),2000) $(BIN)/python -m pytest -q --durations=0 tests/unit/test_fuzz.py

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

# Writes the tables of docs/experiments.md and the READMEs' figures from results/.
experiments: setup
	$(BIN)/python docs/experiments.py

# Writes the JSON Schema that the shipped sweep files name.
schema: setup
	$(BIN)/aae-sweep schema --builtin > sweeps/schema.json

pictures: setup
	$(BIN)/python docs/pictures.py

# Builds the documentation site into site/, without the network; warnings are errors.
docs: setup
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/python docs/commands.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "Open site/index.html, or serve site/ to have its search: $(BIN)/python -m http.server -d site"

# Runs examples/sweep.ipynb and keeps its output.
notebook: setup
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[notebook]'
	cd examples && AAE_HOME=../aae-home/notebook ../$(BIN)/jupyter execute --inplace --timeout=1800 sweep.ipynb

# Builds a source distribution, and the wheel from it, into dist/.
dist: setup
	rm -rf dist
	$(BIN)/python -m build --no-isolation

clean:
	rm -rf .venv build dist site *.egg-info
