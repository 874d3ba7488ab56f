# Two commands do everything on a fresh machine with Python 3.11+, make and a C compiler:
#   make docs    builds the site into docs/
#   make test    runs every page and every test
# Each sets up what it needs in .venv by itself. `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
export PATH := $(CURDIR)/$(BIN):$(PATH)
export MPLBACKEND ?= agg

.PHONY: help docs test test-slow test-browser test-arm train bench fuzz sanitize mutate coverage release preview prepare setup clean

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /	/' | expand -t 14

docs: setup ## build the site into docs/, with Quarto where it is installed
	@$(PY) scripts/build_docs.py

test: setup ## run every page, each alone and from the wheel, every test, and check the built site
	@$(PY) scripts/build_docs.py
	$(PY) -m pytest

test-slow: setup ## the same with real training and long fault injection; uses CIFAR-10 where it is found
	nbdev_test --flags slow --n_workers 1 --timing
	$(PY) -m pytest -m slow

test-browser: setup docs ## run every cell in the browser, through its own button, in an hour (PAGES="pooling optim", NOTE=1 to write down the counts)
	$(PY) -m pytest -m "slow or not slow" tests/test_browser_run.py

test-arm: setup ## build the kernels for 64-bit ARM and run their tests under emulation (Debian or Ubuntu: qemu-user, gcc-aarch64-linux-gnu)
	$(PY) scripts/arm.py $(ARGS)

train: setup ## train the ConvNet on the embedded pictures, in about a minute
	$(BIN)/cs231n-lit train

bench: setup ## time every layer beside its naive version, NumPy and PyTorch (if installed)
	$(PY) benchmarks/bench.py
	$(PY) benchmarks/four_ways.py

fuzz: setup ## random layers on the compiled kernels, against float64 NumPy, for 10 minutes (SECONDS=60, ARGS="--wide --seed 1")
	$(PY) scripts/fuzz.py --seconds $(or $(SECONDS),600) $(ARGS)

sanitize: setup ## look for memory errors in the compiled kernels: thousands of random calls, in minutes (needs GCC)
	$(PY) scripts/sanitize.py

mutate: setup ## how good are the tests? Spoil one thing at a time in seven modules and the kernels, in an hour (MODULES="layers optim" for some, MODULES=kernels)
	$(PY) scripts/mutate.py $(MODULES)

coverage: setup ## which lines and branches do the pages and the tests run?
	$(PY) -m pip install --quiet coverage
	$(PY) -m coverage erase
	$(PY) -m coverage run -m pytest
	$(PY) -m coverage run $(BIN)/nbdev_test --n_workers 0
	$(PY) -m coverage combine --quiet
	$(PY) -m coverage report

release: setup ## give the changes a version and today's date, everywhere at once (VERSION=0.2.0)
	$(PY) scripts/release.py $(VERSION)

preview: docs ## serve the built site on http://localhost:8000
	$(PY) -m http.server 8000 --bind 127.0.0.1 --directory docs

prepare: setup ## before a commit: export and clean the notebooks, write README.md, run the tests
	nbdev_export
	nbdev_clean
	$(PY) scripts/make_readme.py
	$(MAKE) test

clean: ## remove everything that is built, the environment too
	rm -rf $(VENV) _proc build dist *.egg-info cs231n_lit/*.so cs231n_lit/kernels/*.so runs
	find docs -mindepth 1 -not -name .gitignore -delete

setup: $(VENV)/.ready

# The environment is made again when what it is made from changes: metadata, build script, kernels.
$(VENV)/.ready: settings.ini pyproject.toml setup.py $(wildcard cs231n_lit/kernels/[a-z]*.py)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"cs231n_lit needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}. Name another one: make PYTHON=python3.12")'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || { echo "No virtual environment could be made: on Debian and Ubuntu, install python3-venv."; exit 1; }
	@echo "Setting up $(VENV) (once; a few minutes on a slow network)"
	@$(PY) -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	-@test ! -d .git || nbdev_install_hooks >/dev/null
	@touch $@
