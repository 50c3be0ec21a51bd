# Thin aliases; scripts/ does the work, and needs no make. Settings go through: make run BACKEND=real ONCE=1

export BACKEND ONCE LISTEN STATE VIRT_TYPE VENV PYTHON

BIN = $(or $(VENV),.venv)/bin

.PHONY: help run test test-clients check bench docs lock clean torture

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

run:  ## a cloud and its demonstration, until Ctrl-C (BACKEND=real ONCE=1 LISTEN= STATE= VIRT_TYPE=)
	@scripts/run

test:  ## set up everything, all checks, all tests (ARGS="tests/unit -k name": only these)
	@scripts/test $(ARGS)

test-clients:  ## build and try what others publish (Flannel) on real machines; needs Go (ARGS="-k vxlan")
	@scripts/test-clients $(ARGS)

check:  ## format, lint, types, imports, and the tests that need no root
	@scripts/setup-python dev
	@scripts/check
	@$(BIN)/python -m pytest -q -m "not real"

bench:  ## every figure that we aim at, beside what others do (ARGS="start native", ARGS=--quick)
	@scripts/setup-python dev
	@$(BIN)/python -m bench $(ARGS)

torture:  ## kill loaded servers, break every step on libvirt and LXD; an hour (ARGS=sim, ARGS="real --seed 7")
	@scripts/torture $(ARGS)

docs:  ## write anew what is generated in docs/: openapi.json, transitions.md, roles.md
	@scripts/setup-python dev
	@$(BIN)/python scripts/generate_docs.py

lock:  ## write requirements/*.lock anew (UPGRADE=1: with the newest versions)
	@scripts/setup-python dev
	@scripts/lock $(if $(UPGRADE),--upgrade)

clean:  ## remove .venv, caches and built files
	rm -rf .venv build dist .iaas .mypy_cache .ruff_cache .pytest_cache .import_linter_cache iaas.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
