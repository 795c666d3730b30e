# make demo | make test | make check: all they need is Python 3.11+, make and pip.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

BENCH := .venv/bench
AZURITE := .venv/azurite

# Without it every process compiles raylabel again, and each that runs tests all tests.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help env demo demo-s3 test test-fast test-slow bench docs check format clean

help:
	@echo "make demo       label the demo photos on this machine and draw the result"
	@echo "make demo-s3    the same with photos, manifest, weights and tables in buckets of an S3 server"
	@echo "make test       the tests (ten to fifteen minutes on two cores)"
	@echo "make test-fast  those that need neither a Ray nor a server"
	@echo "make test-slow  the long ones: kills, stopped jobs, growth"
	@echo "make bench      raylabel next to its peers and the floors (an hour): tests/benchmarks/RESULTS.md"
	@echo "make docs       writes docs/cli.md from the command line, and runs docs/quickstart.ipynb anew"
	@echo "make check      format, lint and types, changing nothing; before a commit, with make test"
	@echo "make format     formats, and fixes what the linter can fix"

env: $(STAMP)

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (a few minutes the first time) ..."
	@$(BIN)/pip install -qq --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: env
	@rm -rf build/demo
	@$(BIN)/raylabel run infra/demo/job.yaml
	@$(BIN)/raylabel show build/demo/run --draw build/demo/pictures
	@$(BIN)/raylabel index build/demo/run
	@$(BIN)/raylabel search build/demo/run cat

demo-s3: env
	@rm -rf build/demo-s3
	@$(BIN)/python -m infra.demo.s3 build/demo-s3

# A server for the tests of az://; without npm they are skipped. Later versions want Node.js 22.
$(AZURITE)/.installed: | $(STAMP)
	@mkdir -p $(AZURITE)
	@if npm install --silent --no-fund --no-audit --prefix $(AZURITE) azurite@3.35.0; \
	then touch $@; else echo "no Azurite, as npm is missing or failed: the tests of az:// are skipped"; fi

# Four at a time, as much of a whole job is waiting; tests/conftest.py deals them out.
test: env $(AZURITE)/.installed
	@$(BIN)/python -m pytest -n 4

# What needs neither a Ray nor a server.
test-fast: env
	@$(BIN)/python -m pytest -n 2 -m 'not slow and not ray and not server'

# Clusters of several nodes on one machine go alone: beside other jobs they take longer than the tests wait.
NODES := tests/integration/test_nodes.py

test-slow: env $(AZURITE)/.installed
	@$(BIN)/python -m pytest -m slow $(NODES)
	@$(BIN)/python -m pytest -m slow -n 2 --ignore $(NODES)

# Peers ask for other versions of what raylabel uses: they get an environment of their own on top of it.
$(BENCH)/.installed: $(STAMP)
	@$(PYTHON) -m venv $(BENCH)
	@$(BIN)/python -c "import site; print(site.getsitepackages()[0])" > "$$($(BENCH)/bin/python -c 'import site; print(site.getsitepackages()[0])')/raylabel.pth"
	@$(BENCH)/bin/pip install -qq --disable-pip-version-check --editable '.[bench]'
	@touch $@

bench: env $(BENCH)/.installed
	@$(BIN)/python -m tests.benchmarks.contest --peers $(BENCH)/bin/python $(ARGS)

docs: env
	@$(BIN)/python -m tests.cli_page > docs/cli.md
	@$(BIN)/python -m tests.notebook

check: env
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: env
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
