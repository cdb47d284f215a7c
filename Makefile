# Everything is installed into .venv/ and .cache/ of this checkout; nothing outside it changes.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:

BIN := .venv/bin
ARGS ?=
INPUTS ?= 100000
PAIRS ?= 2400
SEED ?= $(shell date +%s)
MINUTES ?= 60
# The only tool whose folder cannot be set in pyproject.toml.
export HYPOTHESIS_STORAGE_DIRECTORY := $(CURDIR)/.cache/hypothesis

.PHONY: help setup demo serve test testbed differential playground playground-stop torture lint soak fuzz bench lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' Makefile

setup: ## install everything into .venv (quick when nothing changed)
	@.ci/setup

demo: setup ## start the webhook on a sample cluster and show it at work
	@$(BIN)/python -m webhook.demo $(ARGS)

serve: setup ## run the webhook on the sample cluster; options: ARGS="--port 9443"
	@$(BIN)/migration-guard serve --inventory webhook/demo/inventory $(ARGS)

lint: setup ## style, types and the order of the layers
	@echo "ruff check: style and likely mistakes"
	@$(BIN)/ruff check
	@echo "ruff format: layout"
	@$(BIN)/ruff format --check
	@echo "mypy: types"
	@$(BIN)/mypy
	@echo "lint-imports: the order of the layers"
	@$(BIN)/lint-imports --no-logo --cache-dir .cache/import-linter

testbed: setup ## build the programs of the test bed, once (docs/testing.md)
	@$(BIN)/python -m tests.testbed.bed.build

test: setup lint testbed ## all checks, then all tests; options of pytest: ARGS="-k affinity"
	@$(BIN)/python -m pytest -q $(ARGS)

playground: setup testbed ## a real cluster with the guard, nodes and VMs to try things on; Ctrl-C ends it
	@$(BIN)/python -m tests.testbed.bed.playground

playground-stop: setup ## end a playground from another terminal
	@$(BIN)/python -m tests.testbed.bed.playground stop

differential: setup testbed ## the model beside the real scheduler and virt-controller: PAIRS=2400 SEED=1 (else new pairs)
	@DIFFERENTIAL_PAIRS=$(PAIRS) DIFFERENTIAL_SEED=$(SEED) DIFFERENTIAL_ALL=yes \
		$(BIN)/python -m pytest -q -rP tests/testbed/test_against_the_scheduler.py \
		tests/testbed/test_against_virt_controller.py $(ARGS)

soak: setup ## an hour of reviews, reloads and attacks; shorter: MINUTES=15
	@$(BIN)/python -m tests.server.soak --minutes $(MINUTES)

# In rounds, each a process of its own: Hypothesis remembers all inputs of a run, 26 KB each.
fuzz: setup ## 100,000 damaged reviews, new ones every time; fewer: INPUTS=2000
	@left=$(INPUTS); while [ $$left -gt 0 ]; do \
		round=$$(( left < 5000 ? left : 5000 )); left=$$(( left - round )); \
		echo "$$round inputs, $$left left"; \
		FUZZ_INPUTS=$$round $(BIN)/python -m pytest -q -k fuzz tests/server $(ARGS) || exit 1; \
	done

torture: setup testbed ## kill a server under load 200 times, stop its database for a minute: the audit must have all
	@AUDIT_KILLS=200 AUDIT_OUTAGE_SECONDS=60 $(BIN)/python -m pytest -q tests/audit/test_served_audit.py $(ARGS)
	@EVACUATION_RETRIES_FOR=120 $(BIN)/python -m pytest -q -rP \
		tests/testbed/test_guarded_audit.py -k tried_again_and_again

bench: setup ## run every benchmark in bench/
	@set -e; for file in bench/*.py; do \
		[ -e "$$file" ] || { echo "bench/ holds no benchmark"; exit 1; }; \
		echo "== $$file: $$(sed -n '1s/"""//gp' "$$file")"; \
		$(BIN)/python "$$file"; \
	done

lock: ## write the lock files anew from setup.cfg; newest versions: ARGS=--upgrade
	@.ci/lock $(ARGS)

clean: ## remove .venv, .cache and everything else that was built
	@rm -rf .venv .cache .hypothesis build dist *.egg-info
	@find webhook tests bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
