# Each command does its own set-up: none needs another first.
SHELL := /bin/bash
PATH := $(CURDIR)/.venv/bin:$(PATH)
export PATH
STAMP := .venv/.complete
PYTHON ?= python3.11
RUN ?=
SOURCE ?=
NAME ?= class
COMMIT ?= HEAD
# These not from the environment, where other programs have such names.
QUICK :=
ENV :=
INTO :=
JOBS ?= 0
A ?=
B ?=

.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

env: $(STAMP)  ## the environment in .venv: pinned, hashed, byte-code compiled

$(STAMP): requirements.lock requirements-dev.lock requirements-uv.lock tools/page.py
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --require-hashes -r requirements-uv.lock
	.venv/bin/python -m uv pip sync --quiet --compile-bytecode --python .venv/bin/python \
	    requirements.lock requirements-dev.lock requirements-uv.lock
	.venv/bin/python -m tools.page
	touch $@

repro: $(STAMP)  ## the main job: the whole grid on all cores; RUN=a,b for a part, JOBS=n
	@python -m tools.grid --run '$(RUN)' --jobs $(JOBS)

setting: $(STAMP)  ## lay settings/NAME.yaml over params.yaml: NAME=class
	@python -m tools.setting '$(NAME)'

pictures: $(STAMP)  ## draw the network of RUN=faces_deep-0 into pictures/RUN
	@python -m tools.pictures '$(RUN)'

netron: $(STAMP)  ## look at the saved model of RUN=faces_deep-0 in a browser
	@test -f 'data/runs/$(RUN)/model.keras' || \
	    { echo 'netron: data/runs/$(RUN)/model.keras: not found; say RUN=faces_deep-0' >&2; exit 1; }
	netron --host 127.0.0.1 --browse 'data/runs/$(RUN)/model.keras'

report: $(STAMP)  ## all results on one page, metrics/report.html; `make repro` ends with it
	@python -m tools.report

diff: $(STAMP)  ## what two commits differ in: A=COMMIT B=COMMIT; B is the working tree if not said
	@python -m tools.diff --a '$(A)' --b '$(B)'

sync: $(STAMP)  ## upload what W&B recorded offline; can be repeated
	@python -m tools.sync

dashboard: $(STAMP)  ## complete the W&B project from what is stored, save its workspace
	@python -m tools.dashboard

watch: $(STAMP)  ## the runs in the terminal, by W&B's own viewer; needs no account
	@WANDB_CONFIG_DIR=$(CURDIR)/.wandb-data wandb leet wandb

prune: $(STAMP)  ## what W&B's folders take; removes the runs that are uploaded
	@python -m tools.prune

test: $(STAMP)  ## all tests
	python -m pytest -n 2 --dist worksteal

bench: $(STAMP)  ## times: preparing real faces (../shared/data or SOURCE=), W&B's cost, starts, a repeat
	python -m tools.bench --source '$(SOURCE)'

review: $(STAMP)  ## make HEAD's result again and compare; RUN=a,b COMMIT=x; QUICK=1 runs nothing
	@python -m tools.review --run '$(RUN)' --commit '$(COMMIT)' --jobs $(JOBS) \
	    --env '$(ENV)' --into '$(INTO)' $(if $(QUICK),--quick)

portable: $(STAMP)  ## train all experiments for an epoch on emulated processors; same bytes?
	@tools/emulator.sh
	@python -m tools.portable

calibrate: $(STAMP)  ## how often a review on another architecture errs, by stored repeats and simulation
	@python -m tools.calibrate

lint: $(STAMP)  ## ruff and mypy
	ruff check .
	mypy

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
