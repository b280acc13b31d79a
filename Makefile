# Works on a fresh machine with Python 3.11 or later, make and pip: everything else is installed
# into .venv. PYTHON=python3.13 make test takes another Python, into a venv of its own.
PYTHON ?= python3
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
VENV := .venv/$(VERSION)
BIN := $(VENV)/bin
# Tests wait a part of their time, for fsyncs, servers and timers.
JOBS ?= $(shell echo $$(( $$(nproc) + 1 )))
# The slow ones wait more: with three for two cores a third of both stood idle.
SLOW_JOBS ?= $(shell echo $$(( $$(nproc) + 2 )))

# The tests start shardtool some thousand times: it is compiled once, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo demo-cluster docs test test-all planted mutants check bench clean

help:
	@echo "make demo   build a real data directory and take it through the main job"
	@echo "make demo-cluster  the same for a cluster of three, by the Ansible playbook"
	@echo "make test   run every test but the slow ones"
	@echo "make test-all  run the slow ones too: each kill, each error, fuzzing, mutants"
	@echo "make planted  plant faults in copies of the code, and insist that a test finds each"
	@echo "make mutants  all mutants of what deletes, proves and restores: hours; goes on where it was"
	@echo "make docs   write anew what the pages, man pages and completion take from the code"
	@echo "make check  the quick gate: ruff, mypy --strict, unit tests"
	@echo "make bench  side by side with du, gdu, cp, restic, rm and LevelDB; a table of ratios"
	@echo "make clean  remove .venv and what the others made"

# A stamp for each set of packages, so that a second run starts at once.
$(VENV)/demo.stamp: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "shardtool needs Python 3.11 or later; $(PYTHON) is $(VERSION): make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fixtures]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml $(VENV)/demo.stamp
	@echo "installing what the tests need into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(VENV)/demo.stamp
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh fixtures/demo.sh

demo-cluster: $(VENV)/dev.stamp
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh deploy/ansible/demo.sh

check: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q -n $(JOBS) -m 'not slow' tests/unit

test: $(VENV)/dev.stamp
	$(BIN)/pytest -q -n $(JOBS) --dist worksteal -m 'not slow and not planted'

test-all: test
	$(BIN)/pytest -q -n $(SLOW_JOBS) --dist worksteal -m slow

planted: $(VENV)/dev.stamp
	$(BIN)/pytest -q -n $(JOBS) --dist worksteal -m planted

docs: $(VENV)/dev.stamp
	$(BIN)/python -m docs.generate
	$(BIN)/python -m docs.examples

mutants: $(VENV)/dev.stamp
	$(BIN)/python -m tests.mutants.run --in .venv/mutants

# All of it takes an hour or more and 16 GB (a million files); BENCH_SIZE=medium a quarter of an hour,
# small a minute or two. What is measured against has to be there:
# apt install gdu restic g++ libleveldb-dev
BENCH_SIZE ?= full

bench: $(VENV)/dev.stamp
	$(BIN)/python -m bench --size $(BENCH_SIZE)

clean:
	rm -rf .venv demo-data demo-cluster .mypy_cache .ruff_cache .pytest_cache .hypothesis
