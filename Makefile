# From nothing but Python and make:
#   make demo   a virtual environment, then a detector that learns while you watch
#   make test   the same environment, then the tests but the slow ones
# Running either again installs nothing anew: .env and .dev in the environment note what was done.

PYTHON ?= python3
STACK ?= onedl
VENV ?= $(if $(filter onedl,$(STACK)),.venv,.venv-$(STACK))
PYTEST_ARGS ?=
TIER ?= not slow
WORKERS ?= auto
DEMO_ARGS ?=
CHECK_ARGS ?=
OUT ?= work_dirs/gpu_check
DATA ?=

BIN := $(VENV)/bin
CONSTRAINTS := constraints/$(STACK).txt
PIP := $(BIN)/python -m pip --disable-pip-version-check install --constraint $(CONSTRAINTS)

.DEFAULT_GOAL := help
.PHONY: help env demo test test-all test-slow configs configs-full soak docs check-install test-timm lint clean

help:
	@echo 'make env     create $(VENV) and install mmresnest with the $(STACK) stack'
	@echo 'make demo    the same, then train on drawn shapes, evaluate and show the results'
	@echo 'make test      the same as env, then run the tests but the slow ones: minutes'
	@echo 'make test-all  the same with the slow ones; make test-slow runs those alone'
	@echo 'make configs       only the tests of the configs: each is built, stepped and predicted with'
	@echo 'make configs-full  the same at full size, from random weights: minutes a config'
	@echo 'make soak    200 kills, every broken-off training, 10,000 broken files, a long training: about an hour'
	@echo 'make docs    the site of README, docs/ and docstrings, built into site/'
	@echo 'make check-install  wheel and sdist, each installed into an empty environment and used there'
	@echo 'make test-timm      networks beside timm and in detectors, operators beside torchvision, in .venv-timm (torch with CUDA: 6.4 GB)'
	@echo 'make gpu-check  equality, speed and a training on a CUDA GPU, into OUT=$(OUT), DATA=DIR to train on: 8 minutes'
	@echo 'make lint    the same as env, then ruff (rules and format), codespell and mypy'
	@echo 'make clean   remove $(VENV), work_dirs, site and what builds leave behind'
	@echo
	@echo 'PYTHON=$(PYTHON)   the Python (3.10 or newer) to build the environment from'
	@echo 'STACK=$(STACK)      onedl or openmmlab: which mm libraries'
	@echo 'VENV=$(VENV)       where the environment is; one stack per environment'
	@echo 'PYTEST_ARGS=, DEMO_ARGS=, CHECK_ARGS=   handed on to pytest, mmresnest train and check-install'
	@echo 'WORKERS=$(WORKERS)         test processes: auto is one a core, at most 8; 0 runs in this one'
	@echo
	@echo 'On Linux pip fetches torch with CUDA, several GB. Without a GPU, save that with'
	@echo '  PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo'

env: $(BIN)/.env-$(STACK)

demo: env
	$(BIN)/mmresnest train configs/faster_rcnn_resnest50_fpn.py --demo $(DEMO_ARGS)

# One process a core with one thread each: threads of several processes wait for each other. Tests of
# a module share a process (tests/conftest.py), which makes what they share once. A process that dies
# is not replaced: pytest-xdist hands out its finished modules again, and waits for them forever.
test: $(BIN)/.dev-$(STACK)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8 \
	  --max-worker-restart 0 --dist loadgroup -m '$(TIER)' $(PYTEST_ARGS)

test-all: TIER =
test-all: test

test-slow: TIER = slow
test-slow: test

configs: TIER =
configs: PYTEST_ARGS += tests/config/test_configs.py
configs: export MMRESNEST_EVERY_CONFIG = 1
configs: test

# One at a time and with all cores: a step at full size fills the memory of a workstation.
configs-full: $(BIN)/.dev-$(STACK)
	MMRESNEST_FULL_CONFIGS=1 $(BIN)/python -m pytest tests/config/test_configs.py -k test_config $(PYTEST_ARGS)

# The long forms of tests that CI runs short. The training is last, and alone: it is timed and drawn.
soak: $(BIN)/.dev-$(STACK)
	MMRESNEST_SOAK=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rP $(PYTEST_ARGS) \
	  tests/engine/test_kills.py tests/engine/test_exact_resume.py tests/analysis/test_check_data.py tests/engine/test_saving.py tests/security/test_hostile.py
	$(BIN)/python tools/soak.py

# --strict: a link or an anchor that leads nowhere is an error.
docs: $(BIN)/.dev-$(STACK)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo 'written: site/index.html'

check-install: $(BIN)/.dev-$(STACK)
	$(BIN)/python tools/check_install.py --stack $(STACK) $(CHECK_ARGS)

# It says so where there is no space or no index for it; whatever else goes wrong fails.
test-timm:
	PYTHON=$(PYTHON) tools/test_timm.sh $(PYTEST_ARGS)

gpu-check: env
	$(BIN)/mmresnest benchmark --gpu-check '$(OUT)' $(if $(DATA),--data '$(DATA)')

lint: $(BIN)/.dev-$(STACK)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

clean:
	rm -rf $(VENV) work_dirs site build dist mmresnest.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis

$(BIN)/python:
	@test -f $(CONSTRAINTS) || { echo "make: STACK=$(STACK) is neither onedl nor openmmlab" >&2; exit 2; }
	@command -v $(PYTHON) >/dev/null || { \
	  echo "make: there is no $(PYTHON); install Python 3.10 or newer, or name one: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "make: $$($(PYTHON) -V 2>&1) is too old; name Python 3.10 or newer: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "make: $(PYTHON) cannot create environments; install its venv package (Debian, Ubuntu: apt install python3-venv)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# One stack per environment: two distributions of one import name overwrite each other's files.
$(BIN)/.env-$(STACK): setup.py $(CONSTRAINTS) | $(BIN)/python
	@set -- $(filter-out $@,$(wildcard $(BIN)/.env-*)); test $$# -eq 0 || { \
	  echo "make: $(VENV) holds another stack ($$1); give another VENV, or 'make clean VENV=$(VENV)' first" >&2; exit 2; }
	$(PIP) --editable '.[$(STACK),report]'
	@touch $@

$(BIN)/.dev-$(STACK): setup.py $(CONSTRAINTS) | $(BIN)/.env-$(STACK)
	$(PIP) --editable '.[$(STACK),report,dev]'
	@touch $@
