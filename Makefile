# make demo  serves on this machine with the mocker engine
# make test  passes the tests
# make test-engine  passes those with SGLang itself, on the CPU: 2.5 GB, installed by it
# make test-engine-all  passes more of them
# make checkov  looks for weak spots in the rendered manifests: 290 MB, installed by it
# make test-stacks  starts releases of Dynamo beside the pinned one, with the mocker: 1.5 GB, installed by it
PYTHON ?= python3
BIN := .venv/bin
ENGINE := .venv/engine
AIPERF := .venv/bench
CHECKOV := .venv/checkov
SIDE_BY_SIDE := -n 3 --dist loadfile
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

.PHONY: setup setup-bench setup-cpu-engine demo test test-engine test-engine-all test-stacks releases checkov lint unit bench lock clean

setup: .venv/.ready $(ENGINE)/.ready

.venv/.ready: requirements/dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12) and "make: cannot use Python %d.%d: set PYTHON to a Python 3.10, 3.11 or 3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python $(PIP_INSTALL) --require-hashes -r requirements/dev.txt
	$(BIN)/python $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	touch $@

# An environment of its own: ai-dynamo pins click<8.2, as in the image.
$(ENGINE)/.ready: requirements/engine.txt .venv/.ready
	$(PYTHON) -m venv $(ENGINE)
	$(ENGINE)/bin/python $(PIP_INSTALL) --require-hashes -r requirements/engine.txt
	touch $@

# What `glm47-runner bench` runs: 1.2 GB, a minute.
setup-bench: $(AIPERF)/.ready

$(AIPERF)/.ready: requirements/bench.txt .venv/.ready
	$(PYTHON) -m venv $(AIPERF)
	$(AIPERF)/bin/python $(PIP_INSTALL) --require-hashes -r requirements/bench.txt
	touch $@

$(CHECKOV)/.ready: requirements/checkov.txt .venv/.ready
	$(PYTHON) -m venv $(CHECKOV)
	$(CHECKOV)/bin/python $(PIP_INSTALL) --require-hashes -r requirements/checkov.txt
	touch $@

checkov: .venv/.ready $(CHECKOV)/.ready
	$(BIN)/python -m pytest -m checkov tests/k8s

demo: setup
	$(BIN)/glm47-runner demo

test: setup setup-bench
	$(BIN)/python -m pytest -n auto -m "not container and not slurm and not engine and not dynamo and not checkov and not releases"

# SGLang and Dynamo on the CPU, in ~/.cache/glm47-runner; installed once for each state of the lock files.
setup-cpu-engine: setup
	$(BIN)/python -m tests.support.cpu_engine

test-engine: setup-cpu-engine
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "engine and not engine_more and not releases" tests/engine

# What .ci/run has no time for. The last ones take root, and the Docker, Kubernetes and Slurm that .ci/run installs.
test-engine-all: setup-cpu-engine
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "engine and not releases" tests/engine
	$(BIN)/python -m pytest -m "engine_more and (container or slurm)" tests

# Releases of Dynamo, in ~/.cache/glm47-runner as well. `make releases` takes all of them.
test-stacks: setup
	$(BIN)/python -m tests.support.dynamo
	$(BIN)/python -m pytest -n 3 -m "dynamo and not releases" tests/stack tests/plan

# Every release on the registry: the padding edit, layouts, hints, FlashInfer; every engine test, on the pinned
# release and on the newer ones, 2.5 GB each; and the stacks on every release of Dynamo, which docs/releases.md tells.
releases: setup test-engine-all
	$(BIN)/python -m pytest -m releases -n auto tests/prepare tests/plan tests/supervise/failures
	$(BIN)/python -m pytest -m releases tests/engine
	$(BIN)/python -m pytest -n 3 -m dynamo tests/stack tests/plan
	$(BIN)/python bench/dynamo_releases.py

lint: .venv/.ready
	$(BIN)/python -m pytest tests/lint

bench: setup
	$(BIN)/python bench/supervision.py

lock:
	requirements/lock.sh

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache
