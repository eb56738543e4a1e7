# make quickstart    set up, then align a tiny model in a small world: no download of models or data, no GPU, minutes
# make test          set up, then lint, types and tests (in two processes; WORKERS=8 for more)
# make pictures      set up, run the quickstart if it has not run, then take the pictures of its report for README
# make smollm2       set up, then get SmolLM2-135M-Instruct (98 MB) into models/ for examples/smollm2-hh.yaml
# make test-slow     set up, then the tests that take minutes
# make families      set up, then try every family of transformers (half an hour), and write the table of docs/models.md
# make transformers4 set up, then get transformers 4 beside it, for the slow tests of exports under it
# make bench         set up an environment of its own, then compare with TRL; bench-quick: a few minutes, rough
#
# All need Python 3.11 or newer and nothing else; another one is chosen with `make PYTHON=/path/to/python3.12 test`.
# Only relative paths, and `python -m` instead of scripts: a folder with a space in its name breaks neither.

FIND_PYTHON = for name in python3 python3.14 python3.13 python3.12 python3.11 python; do \
  if $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$name; break; fi; done
PYTHON ?= $(shell $(FIND_PYTHON))

RUN = .venv/bin/python -m
PIP = $(RUN) pip --disable-pip-version-check install --quiet --constraint constraints.txt
TESTS ?= tests
WORKERS ?= 2
# A file of tests stays in one process, so that what its tests share is made once; long files first (tests/conftest.py).
PYTEST = $(RUN) pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# More threads than cores make small tensors slower, and two test processes share the cores.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM = false
# The tests start hundreds of Python processes: compiled once, whatever the environment says.
export PYTHONDONTWRITEBYTECODE =

.PHONY: help quickstart pictures smollm2 test tests test-slow families transformers4 bench bench-quick lint types format clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

quickstart: .venv/.installed
	$(RUN) trueup quickstart

runs/quickstart/stages/report.html: .venv/.installed
	$(RUN) trueup quickstart

pictures: .venv/.installed-dev runs/quickstart/stages/report.html
	.venv/bin/python scripts/report_pictures.py runs/quickstart/stages/report.html

smollm2: .venv/.installed
	$(PIP) --editable '.[gguf]'
	.venv/bin/python scripts/get_smollm2.py

# Types and tests at once: the tests wait for servers and programs often enough.
test: lint
	@$(MAKE) --no-print-directory -j 2 types tests

tests: .venv/.installed-dev
	$(PYTEST) $(TESTS)

test-slow: .venv/.installed-dev
	TRUEUP_THOROUGH=1 $(PYTEST) -m "slow or properties" $(TESTS)

families: .venv/.installed-dev
	PYTHONPATH=tests $(RUN) families

transformers4: .venv/.installed-dev
	$(RUN) pip --disable-pip-version-check install --quiet --no-deps --target .venv/transformers4 "transformers==4.57.*" "huggingface_hub<1" "tokenizers>=0.22,<=0.23"

lint: .venv/.installed-dev
	$(RUN) ruff check .
	$(RUN) ruff format --check .

types: .venv/.installed-dev
	$(RUN) pyright

format: .venv/.installed-dev
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

clean:
	rm -rf .venv benchmarks/.env benchmarks/.cache .pytest_cache .ruff_cache .hypothesis dist

# torch first: it is most of the download, and nothing that follows may replace it.
.venv/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "trueup needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "setting up .venv with $(PYTHON) (once, some minutes)"
	"$(PYTHON)" -m venv .venv
	$(PIP) torch
	$(PIP) --editable .
	@touch $@

.venv/.installed-dev: .venv/.installed
	$(PIP) --editable '.[dev]'
	@touch $@

# -- the comparison with TRL: an environment of its own, beside it TRL's last release with PPO for one worker alone

BENCH = benchmarks/.env/bin/python -m
BENCH_PIP = $(BENCH) pip --disable-pip-version-check install --quiet

bench: benchmarks/.env/.installed
	$(BENCH) benchmarks $(BENCH_OPTIONS)

bench-quick: benchmarks/.env/.installed
	$(BENCH) benchmarks --quick $(BENCH_OPTIONS)

benchmarks/.env/.installed: pyproject.toml constraints.txt benchmarks/requirements.txt
	@test -n "$(PYTHON)" || { echo "trueup needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "setting up benchmarks/.env with $(PYTHON) (once, some minutes)"
	"$(PYTHON)" -m venv benchmarks/.env
	$(BENCH_PIP) --constraint constraints.txt torch
	$(BENCH_PIP) --constraint constraints.txt --editable '.[gguf]' --requirement benchmarks/requirements.txt
	$(BENCH_PIP) --no-deps --target benchmarks/.env/trl-1.9.2 trl==1.9.2
	@touch $@
