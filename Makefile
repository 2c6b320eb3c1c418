# Each command does its own set-up: none needs another first.
SHELL := /bin/bash
PATH := $(CURDIR)/.venv/bin:$(PATH)
export PATH
STAMP := .venv/.complete
PYTHON ?= python3.11
RUN ?=
SOURCE ?=
NAME ?= class
JOBS ?= 0

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

bench: $(STAMP)  ## preparing the real faces beside the class's way; needs ../shared/data or SOURCE=
	python -m tools.bench --source '$(SOURCE)'

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
	rm -rf data metrics/runs metrics/costs .ckpt .workers dvc_plots pictures
	git worktree prune

.PHONY: help env repro setting sync dashboard watch prune test bench lint lock clean
