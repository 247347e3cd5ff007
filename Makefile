# Three commands: `make app`, `make notebook` and `make test`.  All set up `.venv` first, from a fresh clone with only
# Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8501

# Files in the order of tests/conftest.py, the longest first; xdist's own would be by their numbers of
# tests, which leaves the browser for the end, and a core without work.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: app notebook test suite coverage lint types sample study bench trust lock clean

app: $(VENV)/.app
	$(BIN)/streamlit run app.py --server.port $(PORT)

# JupyterLab on the first lesson, in the same environment.
notebook: $(VENV)/.notebook
	$(BIN)/jupyter lab notebooks/00_five_lines.ipynb

# Types are checked beside the tests, which wait for a browser at times; both have to pass.
test: lint
	$(MAKE) --jobs=2 --keep-going types suite

suite: $(VENV)/.dev
	$(PYTEST)

# The same tests and how much of the library they run: at least 95 %.  Some minutes longer.
coverage: $(VENV)/.dev
	$(PYTEST) --cov --cov-report=term --cov-fail-under=95

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/pyright

# Rebuilds the sample family: about half an hour on two cores.
sample: $(VENV)/.app
	$(BIN)/python -m sample_models.build

# Runs what is missing of the study on both families, and its first table on the sample family, and
# writes docs/study.md.  The families are built before, by `python -m benchmarks.families
# text|vision`; all of it takes hours.
study: $(VENV)/.app
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	$(BIN)/python -m benchmarks.study run text
	$(BIN)/python -m benchmarks.study run vision
	$(BIN)/python -m benchmarks.study run sample --sections frontier
	$(BIN)/python -m benchmarks.study write

# Measures what docs/performance.md tells, in about half an hour on two cores; what lies in
# benchmarks/performance/results.json is not measured again (`make bench AGAIN=--again` does).
bench: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	$(BIN)/python -m benchmarks.performance run $(AGAIN)
	$(BIN)/python -m benchmarks.performance write

# What tests/trust tries in `make test`, 20,000 damaged files and 300 kills of it, with the tables of
# docs/trust.md: about an hour on two quiet cores.
SEED ?= 1
trust: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.trust.campaign --rounds 20000 --seed $(SEED) --write
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.trust.kills --kills 300 --seed $(SEED) --write
	$(BIN)/python -m tests.trust.crowd --browsers 10 --minutes 10 --seed $(SEED)

# The versions of everything that is installed here, for `pip install -c constraints.txt`.
lock: $(VENV)/.dev
	$(BIN)/python -m tests.trust.locked > constraints.txt

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 app"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.app: requirements.txt | $(VENV)/bin/python
	@echo "Installing PyTorch, Streamlit and what they need into $(VENV), once: some minutes"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.notebook: requirements-notebook.txt $(VENV)/.app
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-notebook.txt
	touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.app
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .coverage
