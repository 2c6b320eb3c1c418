# Each command does its own set-up: none needs another first. `make X` is short for `facet X`.
SHELL := /bin/bash
# Another folder for another Python: make test VENV=.venv-3.13 PYTHON=python3.13
VENV := .venv
PATH := $(abspath $(VENV))/bin:$(PATH)
export PATH
STAMP := $(VENV)/.complete
# The program `facet`, and the project on Python's path: from any folder, and where PYTHONSAFEPATH
# keeps the folder out that a program is started in. A folder that is this environment's grandparent.
LAUNCHER := 'import runpy' 'if __name__ == "__main__":' \
    '    runpy.run_module("facet", run_name="__main__")'
PYTHON ?=
NO_PYTHON = make: $(if $(PYTHON),PYTHON=$(PYTHON) is no,there is no) Python 3.11, 3.12 or 3.13; \
    install one (uv python install 3.13) or name one (make env PYTHON=/path/to/python3.13)
VERSION := import sys; print("%d.%d" % sys.version_info[:2])
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
RUN ?=
SOURCE ?=
NAME ?= class
COMMIT ?= HEAD
# These not from the environment, where other programs have such names.
QUICK :=
ENV :=
INTO :=
UPGRADE :=
SET :=
CLUSTER :=
JOBS ?= 0
FUZZ_SECONDS ?= 3600
A ?=
B ?=

.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-12s%s\n", $$1, $$2}'

env: $(STAMP)  ## the environment in .venv, with the program `facet`: pinned, hashed, byte-code compiled

$(STAMP): requirements.lock requirements-dev.lock requirements-cluster.lock requirements-uv.lock \
        $(VENV)/pyvenv.cfg | $(if $(PYTHON),asked-python)
	@$(VENV)/bin/python -c '$(SUPPORTED)' || { echo "make: $(VENV) has Python" \
	    "$$($(VENV)/bin/python -c '$(VERSION)'), not 3.11 to 3.13; rm -rf $(VENV)" >&2; exit 1; }
	$(VENV)/bin/python -m pip install --quiet --require-hashes -r requirements-uv.lock
	$(VENV)/bin/python -m uv pip sync --quiet --compile-bytecode --python $(VENV)/bin/python \
	    requirements.lock requirements-dev.lock requirements-cluster.lock requirements-uv.lock
	printf '%s\n' '#!$(abspath $(VENV))/bin/python' $(LAUNCHER) > $(VENV)/bin/facet
	chmod +x $(VENV)/bin/facet
	for site in $(VENV)/lib/python*/site-packages; do \
	    test ! -d $$site || echo ../../../.. > $$site/facet.pth; done
	touch $@

# Made anew where its Python has gone.
ifneq ($(shell test -x $(VENV)/bin/python || echo gone),)
.PHONY: $(VENV)/pyvenv.cfg
endif
$(VENV)/pyvenv.cfg:
	@test ! -e $(VENV) -o -e $@ || test -z "$$(ls -A $(VENV))" || { echo "make: $(VENV) is no" \
	    "environment made by venv, and not empty: name another folder, or remove it" >&2; exit 1; }
	@for python in $(or $(PYTHON),python3.11 python3.12 python3.13 python3); do \
	    if $$python -c '$(SUPPORTED)' 2> /dev/null; then \
	        echo "$$python -m venv --clear $(VENV)"; exec $$python -m venv --clear $(VENV); \
	    fi; \
	done; \
	echo "$(NO_PYTHON)" >&2; exit 1

asked-python:
	@$(PYTHON) -c '$(SUPPORTED)' 2> /dev/null || { echo "$(NO_PYTHON)" >&2; exit 1; }; \
	there=$$($(VENV)/bin/python -c '$(VERSION)'); asked=$$($(PYTHON) -c '$(VERSION)'); \
	test "$$there" = "$$asked" || { echo "make: $(VENV) has Python $$there, PYTHON=$(PYTHON) is" \
	    "$$asked; keep both with VENV=.venv-$$asked, or rm -rf $(VENV)" >&2; exit 1; }

repro: $(STAMP)  ## the main job: the whole grid on all cores; RUN=a,b for a part, JOBS=n, CLUSTER=, SET='key=value' to try
	@python -m facet repro --run '$(RUN)' --jobs $(JOBS) --cluster '$(CLUSTER)' \
	    $(foreach value,$(SET),--set '$(value)')

setting: $(STAMP)  ## lay settings/NAME.yaml over params.yaml: NAME=class
	@python -m facet setting '$(NAME)'

pictures: $(STAMP)  ## draw the network of RUN=faces_deep-0 into pictures/RUN
	@python -m facet pictures '$(RUN)'

demo: $(STAMP)  ## a page on which to try the model of RUN=faces_deep-0 in a browser
	@python -m facet demo '$(RUN)'

netron: $(STAMP)  ## look at the saved model of RUN=faces_deep-0 in a browser
	@test -f 'data/runs/$(RUN)/model.keras' || \
	    { echo 'netron: data/runs/$(RUN)/model.keras: not found; say RUN=faces_deep-0' >&2; exit 1; }
	netron --host 127.0.0.1 --browse 'data/runs/$(RUN)/model.keras'

report: $(STAMP)  ## all results on one page, metrics/report.html; `make repro` ends with it
	@python -m facet report

diff: $(STAMP)  ## what two commits differ in: A=COMMIT B=COMMIT; B is the working tree if not said
	@python -m facet diff --a '$(A)' --b '$(B)'

sync: $(STAMP)  ## upload what W&B recorded offline; can be repeated
	@python -m facet sync

dashboard: $(STAMP)  ## complete the W&B project from what is stored, save its workspace
	@python -m facet dashboard

watch: $(STAMP)  ## the runs in the terminal, by W&B's own viewer; needs no account; RUN=a,b
	@python -m facet watch --run '$(RUN)'

prune: $(STAMP)  ## what W&B's folders take; removes the runs that are uploaded
	@python -m facet prune

PYTEST := python -m pytest -n 3
test: $(STAMP)  ## the tests to run before each push
	$(PYTEST) -m 'not slow'

test-all: $(STAMP)  ## all tests: also emulated processors, many kills, all disks and layouts
	@facet/portability/emulator.sh || echo "no emulator: its tests are skipped"
	$(PYTEST)

torture: $(STAMP)  ## kill the grid at 200 random moments, fill its disks; each time it must end as if undisturbed
	KILLS=200 python -m pytest -x -s tests/faults/test_disk.py tests/faults/test_sudden_death.py \
	    tests/grid/test_cluster.py

fuzz: $(STAMP)  ## feed all readers mutated files for an hour, or FUZZ_SECONDS=; faults go to tests/faults/seeds
	python -m tests.faults.fuzz $(FUZZ_SECONDS)

bench: $(STAMP)  ## times: preparing real faces (../shared/data or SOURCE=), W&B, starts, augmenting, downloading
	python -m facet bench --source '$(SOURCE)'

review: $(STAMP)  ## make HEAD's result again and compare; RUN=a,b COMMIT=x; QUICK=1 runs nothing
	@python -m facet review --run '$(RUN)' --commit '$(COMMIT)' --jobs $(JOBS) \
	    --env '$(ENV)' --into '$(INTO)' $(if $(QUICK),--quick)

portable: $(STAMP)  ## all experiments, or RUN=, for an epoch on emulated processors; same bytes?
	@facet/portability/emulator.sh
	@python -m facet portable --run '$(RUN)'

calibrate: $(STAMP)  ## how often a review on another architecture errs, by stored repeats and simulation
	@python -m facet calibrate

lint: $(STAMP)  ## ruff (linter and formatter), mypy, GitHub's workflows
	ruff check .
	ruff format --check .
	mypy
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	zizmor --offline --quiet .github/workflows

# One set of files for each Python and system, with one version of a package for all: the same bytes.
COMPILE := python -m uv pip compile --quiet $(if $(UPGRADE),--upgrade) --generate-hashes --no-header \
    --no-annotate --no-emit-index-url --no-emit-find-links --universal --fork-strategy fewest -p 3.11

lock: $(STAMP)  ## write the lock files from pyproject.toml; UPGRADE=1: all packages at their newest
	$(COMPILE) pyproject.toml -o requirements.lock
	$(COMPILE) pyproject.toml --group dev -c requirements.lock -o requirements-dev.lock
	$(COMPILE) --group cluster -c requirements-dev.lock -o requirements-cluster.lock
	$(COMPILE) --group uv -o requirements-uv.lock

clean: $(STAMP)  ## remove what commands have made here; DVC's cache, W&B's runs and your own files stay
	@python -m facet clean

.PHONY: help env repro setting pictures demo netron report diff sync dashboard watch prune test test-all torture fuzz bench \
    review portable calibrate lint lock clean asked-python
