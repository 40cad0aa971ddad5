# Commands for developers. `make help` lists them; each sets up what it needs.
#
# PYTHON=python3.13 make ...  runs a command with that interpreter, in its own environment.

.DEFAULT_GOAL := help
.NOTPARALLEL:
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

VENV := .venv
ifneq ($(origin PYTHON), undefined)
override PYTHON := $(or $(shell scripts/find-python $(PYTHON)), $(error PYTHON does not fit))
VENV := .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
endif
IN := $(VENV)/bin
PYTEST := $(IN)/python -m pytest

# Under the second Python runs what is about Python: every layer by itself, with fewer examples for each property, and the
# server and the command line as processes. `make unit PYTHON=...` runs all of it.
BRIEF := --hypothesis-profile=brief $(addprefix --ignore=tests/,compat demo stateful faults fuzz e2e bench golden \
	maintenance/rebuild/test_run.py maintenance/garbage_collection/test_collect.py maintenance/garbage_collection/test_races.py cli/agent/test_stream_backup.py cli/agent_keys cli/test_agent_key_option.py \
	agent/mount/test_file_system.py agent/trees/test_histories.py agent/backup/test_job.py agent/streams/test_device.py agent/streams/test_stream.py \
	service/operations/test_shared_api.py service/operations/test_shared_api_time.py catalog/test_rolling_upgrade.py)
SELECTION :=
# What `make quick` runs: tests that need no service and take seconds. Those among them that do need one are skipped.
QUICK := $(addprefix tests/,test_house.py test_tidy.py test_docs.py core model wire client chunks cli/reference/test_guide.py)
SERVICES := scripts/services run .build/services

READY := $(VENV)/.ready
SDK_2024 := .venv-sdk-2024/.ready
SDK_CURRENT := .venv-sdk-current/.ready
SDK_JAVASCRIPT := tests/compat/javascript/node_modules/.ready
LINTERS := .venv-linters/.ready

.PHONY: help demo quick test lint types unit stress bench format docs clean
.PHONY: pythons

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## back up and restore a real folder with a temporary server, and print the figures
	@$(IN)/python demo/demo.py

quick: $(READY) lint types ## lint, types, and the tests that need neither PostgreSQL nor Ceph: a few minutes at most
	env -u CRYO_TEST_POSTGRES -u CRYO_TEST_S3 -u CRYO_TEST_SERVICES \
	  $(PYTEST) -q -r fE -n 2 --dist loadfile --hypothesis-profile=brief $(QUICK)

test: $(READY) lint types ## everything that continuous integration checks: lint, types, the tests on two Pythons
	@$(SERVICES) $(MAKE) pythons

pythons: $(READY)
	@other=$$(scripts/find-python --other-than $(IN)/python); \
	if [ -z "$$other" ]; then \
	  echo "skipped: the tests under a second Python (found none beside $$($(IN)/python --version))"; \
	fi; \
	$(MAKE) unit; \
	if [ -n "$$other" ]; then $(MAKE) unit PYTHON="$$other" SELECTION="$(BRIEF)"; fi

lint: $(READY) ## style, formatting, import direction
	$(IN)/ruff check .
	$(IN)/ruff format --check .
	$(IN)/lint-imports --no-logo

types: $(READY) ## mypy, strict
	$(IN)/mypy --strict src

unit: $(READY) $(SDK_2024) $(SDK_CURRENT) $(SDK_JAVASCRIPT) $(LINTERS) ## the tests, with one Python
	@echo "== the tests under $$($(IN)/python --version)"
	@scripts/system-packages strace=strace || echo "skipped: the tests that trace system calls (need strace)"
	@scripts/system-packages faketime=faketime || echo "skipped: the tests of wrong clocks (need faketime)"
	@scripts/system-packages haproxy=haproxy || echo "skipped: the tests behind a load balancer (need haproxy)"
	$(SERVICES) $(PYTEST) -n 3 --dist loadfile $(SELECTION)

stress: $(READY) $(SDK_2024) $(SDK_CURRENT) $(SDK_JAVASCRIPT) ## the tests that take minutes or load the machine
	@scripts/system-packages strace=strace || echo "skipped: the tests that trace system calls (need strace)"
	@scripts/system-packages faketime=faketime || echo "skipped: the tests of wrong clocks (need faketime)"
	$(SERVICES) $(PYTEST) -m stress --hypothesis-profile=stress

bench: $(READY) ## compare with the disk, nginx and rclone on this machine
	@scripts/system-packages fio=fio nginx=nginx-light rclone=rclone || echo "skipped: what needs the programs named above"
	@$(IN)/python -m bench

format: $(READY) ## format the code
	$(IN)/ruff check --fix .
	$(IN)/ruff format .

docs: $(READY) ## write the generated pages of docs/
	$(IN)/python scripts/generate_docs.py

clean: ## remove everything that these commands made, including environments
	rm -rf .venv .venv-* .build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf tests/compat/javascript/node_modules src/cryostore.egg-info
	find src tests bench demo scripts -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints/runtime.txt constraints/dev.txt
	@scripts/make-venv $(VENV) "$(PYTHON)" constraints/dev.txt --editable

$(SDK_2024): constraints/sdk-2024.txt
	@scripts/make-venv .venv-sdk-2024 "$(PYTHON)" constraints/sdk-2024.txt

$(SDK_CURRENT): constraints/sdk-current.txt
	@scripts/make-venv .venv-sdk-current "$(PYTHON)" constraints/sdk-current.txt

$(LINTERS): constraints/linters.txt
	@scripts/make-venv .venv-linters "$(PYTHON)" constraints/linters.txt

$(SDK_JAVASCRIPT): tests/compat/javascript/package.json
	@scripts/install-javascript-sdk
