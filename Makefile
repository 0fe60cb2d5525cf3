# Every target works on a fresh machine with Python >= 3.11 and make. PYTHON chooses the interpreter.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: app test setup lint demo bench clean
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
	$(BIN)/python -m app.demo

bench: $(READY)          ## speed against public peers, printed as tables
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[bench]"
	$(BIN)/python -m tests.benchmarks

setup: $(READY)

# One resolver run sees torch and torchvision together; the constraints are the versions this was tested with.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Loss Atlas needs Python 3.11 or newer; set PYTHON=')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) build *.egg-info
