# Every verb sets up what it needs by itself (tools/bootstrap.py), from a bare python3, go, git and make.
PYTHON ?= python3
BIN := .venv/bin
SETUP := $(PYTHON) tools/bootstrap.py
# the environment alone: what needs no Pulumi does not wait for it
VENV := $(SETUP) --venv-only
TOOLS := tools/bootstrap.py tools/locks.py tools/conformance.py tools/verbs.py tools/provision \
	tools/langhost/language_host.py tools/standins/command.py tools/standins/tailscale.py
TOOLS_PATH := tools:tools/langhost:tools/standins
STARTED := $(shell date +%s)

.DEFAULT_GOAL := help
.PHONY: help demo test check fmt bench chaos lock docs setup clean

help: ## list the verbs
	@$(PYTHON) tools/verbs.py

demo: ## the whole fleet on this machine: rent, transcribe, drain, destroy
	@$(SETUP)
	@$(BIN)/python -m tools.demo

test: check ## set up, check, and run all tests
	@$(SETUP)
	@$(BIN)/pytest -n 2 --dist loadfile --ignore tests/unit
	@echo "make test: all green in $$(( $$(date +%s) - $(STARTED) )) s"

check: ## lint, types, imports, locks, unit tests; under a minute, no network
	@$(VENV)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/python tools/locks.py check
	@$(BIN)/mypy
	@MYPYPATH=$(TOOLS_PATH) $(BIN)/mypy --disable-error-code import-untyped $(TOOLS)
	@MYPYPATH=. $(BIN)/mypy -p tools.chaos
	@$(BIN)/lint-imports
	@$(BIN)/pytest -n 2 --dist loadfile tests/unit

fmt: ## format, and mend what the linter can mend
	@$(VENV)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: ## measure; BENCH=--no-limit leaves out a quarter of an hour under 60 calls a minute
	@$(SETUP)
	@$(BIN)/python -m tools.bench $(BENCH)

chaos: ## faults and kills at every request, each with one more command after it; ARGS="--quick", "--only PATTERN"
	@$(SETUP)
	@$(BIN)/python -m tools.chaos $(ARGS)

lock: ## renew the locks (needs a package index)
	@$(VENV)
	@$(BIN)/python tools/locks.py renew

docs: ## generate docs/config.md
	@$(VENV)
	@$(BIN)/python -m podfleet.configdocs > docs/.config.md && mv docs/.config.md docs/config.md

setup: ## only set up: Python environment, Pulumi engine, plugins
	@$(SETUP)

clean: ## remove what is of this checkout and not in git; stacks' state and passphrase, and the cache of engines, stay
	@rm -rf .venv dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@for each in .podfleet/*; do case "$$each" in */state|*/passphrase) ;; *) rm -rf "$$each" ;; esac; done
