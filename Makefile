# Each command does its own set-up: none needs another first. `make X` is short for `facet X`.
SHELL := /bin/bash
PATH := $(CURDIR)/.venv/bin:$(PATH)
export PATH
STAMP := .venv/.complete
# The program `facet`: this project's code with this environment, from any folder.
LAUNCHER := 'import sys' 'from pathlib import Path' \
    'sys.path.insert(0, str(Path(__file__).absolute().parents[2]))' \
    'if __name__ == "__main__":' '    from facet.cli import main' '    main()'
PYTHON ?= python3.11
RUN ?=
SOURCE ?=
NAME ?= class
COMMIT ?= HEAD
# These not from the environment, where other programs have such names.
QUICK :=
ENV :=
INTO :=
SET :=
JOBS ?= 0
A ?=
B ?=

.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

env: $(STAMP)  ## the environment in .venv, with the program `facet`: pinned, hashed, byte-code compiled

$(STAMP): requirements.lock requirements-dev.lock requirements-uv.lock facet/report/dvc_page.py
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --require-hashes -r requirements-uv.lock
	.venv/bin/python -m uv pip sync --quiet --compile-bytecode --python .venv/bin/python \
	    requirements.lock requirements-dev.lock requirements-uv.lock
	.venv/bin/python -m facet.report.dvc_page
	printf '%s\n' '#!$(CURDIR)/.venv/bin/python' $(LAUNCHER) > .venv/bin/facet
	chmod +x .venv/bin/facet
	touch $@

repro: $(STAMP)  ## the main job: the whole grid on all cores; RUN=a,b for a part, JOBS=n, SET='key=value' to try
	@python -m facet repro --run '$(RUN)' --jobs $(JOBS) $(foreach value,$(SET),--set '$(value)')

setting: $(STAMP)  ## lay settings/NAME.yaml over params.yaml: NAME=class
	@python -m facet setting '$(NAME)'

pictures: $(STAMP)  ## draw the network of RUN=faces_deep-0 into pictures/RUN
	@python -m facet pictures '$(RUN)'

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

watch: $(STAMP)  ## the runs in the terminal, by W&B's own viewer; needs no account
	@WANDB_CONFIG_DIR=$(CURDIR)/.wandb-data wandb leet wandb

prune: $(STAMP)  ## what W&B's folders take; removes the runs that are uploaded
	@python -m facet prune

test: $(STAMP)  ## all tests
	python -m pytest -n 2 --dist worksteal

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

COMPILE := python -m uv pip compile --quiet --upgrade --generate-hashes --no-header --no-annotate \
    --no-emit-index-url --no-emit-find-links -p 3.11

lock: $(STAMP)  ## write the lock files anew from pyproject.toml
	$(COMPILE) pyproject.toml -o requirements.lock
	$(COMPILE) pyproject.toml --group dev -c requirements.lock -o requirements-dev.lock
	$(COMPILE) --group uv -o requirements-uv.lock

clean:  ## remove what runs have made here; DVC's cache, W&B's runs and the environment stay
	rm -rf data metrics/runs metrics/costs metrics/manifests metrics/report.html .ckpt .workers
	rm -rf dvc_plots pictures review.json review.md
	git worktree prune

.PHONY: help env repro setting pictures netron report diff sync dashboard watch prune test bench \
    review portable calibrate lint lock clean
