# Every target works on a fresh machine with Python >= 3.11 and make. PYTHON chooses the interpreter.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PEERS  := .venv-peers
PEERS_READY := $(PEERS)/.ready
PEERS_PINS  := tests/benchmarks/constraints.txt

.PHONY: app test setup lint demo bench bench-setup bench-check gpu clean
.DEFAULT_GOAL := app

app: $(READY)            ## set up and open the app on the embedded digits
	$(BIN)/loss-atlas

test: $(READY) lint      ## set up, lint, check types, run every test (two at a time; the browser last, alone)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not browser"
	$(BIN)/python -m pytest -m browser tests/browser

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

demo: $(READY)           ## the main job without a browser: an HTML report, its path printed
	$(BIN)/loss-atlas demo

bench: $(PEERS_READY)    ## speed against public peers in ten minutes, printed as tables
	$(PEERS)/bin/python -m tests.benchmarks

gpu: $(READY)            ## every CUDA path against the CPU, then times, on one card within eight minutes
	$(BIN)/python -m tests.benchmarks.bench_gpu

bench-setup: $(PEERS_READY)

bench-check: $(READY)    ## do the peers' versions still resolve? Installs nothing
	$(BIN)/python -m pip install --dry-run --quiet --constraint $(PEERS_PINS) --editable ".[bench]"

setup: $(READY)

# One resolver run sees torch and torchvision together; the constraints are the versions this was tested with.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Loss Atlas needs Python 3.11 or newer; set PYTHON=')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(READY)

# The peers live apart: landscaper needs topopy, which needs numpy < 2 and networkx < 3. Ours is installed beside them,
# with the same torch, so that ratios come from one process.
$(PEERS_READY): pyproject.toml $(PEERS_PINS)
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --constraint $(PEERS_PINS) --editable ".[bench]"
	touch $(PEERS_READY)

clean:
	rm -rf $(VENV) $(PEERS) build *.egg-info
