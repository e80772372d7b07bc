# Two commands matter: `make demo` and `make test`. Both work on a fresh clone with Python 3.11 to 3.13 and make; each
# builds what it needs and no more. Stamps carry a digest of what an environment was made from: the second run is quick.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules
SHELL := /bin/sh

BIN := .venv/bin
PYTHON ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# No tool may look for an account or its metadata endpoint; the region is the one that the linters check against.
export AWS_EC2_METADATA_DISABLED := true
export AWS_DEFAULT_REGION ?= eu-west-1
export SAM_CLI_TELEMETRY := 0

digest = $(shell cat $(1) infra/environments/make_venv.sh | cksum | tr -d ' ')
RUN := .venv/.run-$(call digest,requirements/pip.txt requirements/run.txt pyproject.toml)
DEV := .venv/.test-$(call digest,requirements/pip.txt requirements/test.txt pyproject.toml)
SAM := .venv-sam/.sam-$(call digest,requirements/pip.txt requirements/sam.txt)
CHECKOV := .venv-checkov/.checkov-$(call digest,requirements/pip.txt requirements/checkov.txt)
MINISTACK := .venv-ministack/.ministack-$(call digest,requirements/pip.txt requirements/ministack.txt)
LAMBDA_REQUIREMENTS := $(sort $(wildcard functions/*/requirements.txt frontend_api/requirements.txt))
LAMBDA_WHEELS := .venv-ministack/.wheels-$(call digest,requirements/ministack.txt requirements/run.txt $(LAMBDA_REQUIREMENTS))

# The test environment holds all that the demo needs: where it stands, nothing else is installed.
ENOUGH_TO_RUN := $(if $(wildcard $(DEV)),$(DEV),$(RUN))

.PHONY: help
help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

# ---------------------------------------------------------------------------------------------- environments

.PHONY: setup
setup: $(DEV) ## Build .venv with all that the product, its tests and its checks need

$(RUN):
	@infra/environments/make_venv.sh .venv requirements/run.txt $@ $(PYTHON)

$(DEV):
	@infra/environments/make_venv.sh .venv requirements/test.txt $@ $(PYTHON)

$(SAM):
	@infra/environments/make_venv.sh .venv-sam requirements/sam.txt $@ $(PYTHON)

$(CHECKOV):
	@infra/environments/make_venv.sh .venv-checkov requirements/checkov.txt $@ $(PYTHON)

$(MINISTACK):
	@infra/environments/make_venv.sh .venv-ministack requirements/ministack.txt $@ $(PYTHON)

# What the functions bring along, as wheels for this machine: the second emulator runs them from zips built of these.
$(LAMBDA_WHEELS): $(MINISTACK)
	@infra/environments/lambda_wheels.sh .venv-ministack $@ $(LAMBDA_REQUIREMENTS)

.PHONY: packages
packages:
	@infra/environments/debian_packages.sh sipp=sip-tester

# ------------------------------------------------------------------------------------------------------- demo

.PHONY: demo
demo: $(ENOUGH_TO_RUN) ## Record, seal, find, play and verify a real call (ONCE=1: then stop)
	@$(BIN)/dualtone demo $(if $(ONCE),--once)

# ----------------------------------------------------------------------------------------------------- checks

.PHONY: test
test: checks packages $(LAMBDA_WHEELS) ## Run every check and test, as CI does
	$(BIN)/python -m pytest $(PYTEST)

.PHONY: test-all
test-all: checks packages $(LAMBDA_WHEELS) sam-build test-pythons fuzz ## Also build for Lambda, try other Pythons, fuzz, run the long tests
	$(BIN)/python -m pytest -m "long or not long" $(PYTEST)

.PHONY: checks
checks: format-check lint types arrows definition-check template-sam template-cfn template-checkov ## Run the checks without the tests

.PHONY: format-check
format-check: $(DEV)
	$(BIN)/ruff format --check --quiet .

.PHONY: lint
lint: $(DEV)
	$(BIN)/ruff check --quiet .

.PHONY: types
types: $(DEV)
	$(BIN)/mypy

.PHONY: arrows
arrows: $(DEV)
	PYTHONPATH=frontend_api $(BIN)/lint-imports --no-logo

.PHONY: definition-check
definition-check: $(DEV)
	$(BIN)/python -m infra.api.generate --check

# `sam validate` wants credentials to be there, not to be true.
.PHONY: template-sam
template-sam: $(SAM)
	AWS_ACCESS_KEY_ID=none AWS_SECRET_ACCESS_KEY=none .venv-sam/bin/sam validate --lint --region $(AWS_DEFAULT_REGION)

.PHONY: template-cfn
template-cfn: $(DEV)
	$(BIN)/python -m infra.template_checks

.PHONY: template-checkov
template-checkov: $(CHECKOV)
	.venv-checkov/bin/checkov --skip-download --quiet --compact --framework cloudformation --file template.yaml

# Builds the zips as they are deployed. Lambda's Python is 3.13, and so must be the one that builds.
.PHONY: sam-build
sam-build: $(SAM)
	@python=$$(infra/environments/find_python.sh 3.13); \
	if [ -n "$$python" ]; then \
	  PATH="$$(dirname "$$python"):$$PATH" .venv-sam/bin/sam build --region $(AWS_DEFAULT_REGION); \
	else \
	  echo "Python 3.13 is not installed: sam build is left out."; \
	fi

.PHONY: test-pythons
test-pythons: packages
	@infra/environments/test_pythons.sh 3.12 3.13

# ------------------------------------------------------------------------------------------------------ bench

.PHONY: bench
bench: bench-packages $(ENOUGH_TO_RUN) ## Measure; bench-agent, bench-finalize, bench-vault: one of it (JSON=1: one JSON object as the last line)
	@$(BIN)/python -m tests.bench $(if $(JSON),--json)

.PHONY: bench-agent bench-finalize bench-vault
bench-agent: bench-packages
bench-agent bench-finalize bench-vault: $(ENOUGH_TO_RUN)
	@$(BIN)/python -m tests.bench --only $(@:bench-%=%) $(if $(JSON),--json)

# rtpengine is the peer in C; without it its figures are null.
.PHONY: bench-packages
bench-packages:
	@infra/environments/debian_packages.sh rtpengine=rtpengine-daemon

.PHONY: fuzz
fuzz: $(ENOUGH_TO_RUN) ## Feed every parser 100,000 changed messages
	@$(BIN)/python -m tests.fuzz

# ----------------------------------------------------------------------------------------------------- upkeep

.PHONY: format
format: $(DEV) ## Format the code and sort its imports
	$(BIN)/ruff check --quiet --select I --fix .
	$(BIN)/ruff format --quiet .

.PHONY: definition
definition: $(DEV) ## Write the API's routes into template.yaml and its description into frontend_api/openapi.json
	$(BIN)/python -m infra.api.generate
	$(BIN)/python -m infra.api.describe

.PHONY: lock
lock: $(DEV) ## Pin and hash requirements/*.in anew
	cd requirements && for name in pip run agent test sam checkov ministack; do \
	  CUSTOM_COMPILE_COMMAND="make lock" ../$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras \
	    --no-emit-options --output-file=$$name.txt $$name.in || exit 1; \
	done

.PHONY: clean
clean: ## Remove what builds, tests and tools leave (the environments stay)
	rm -rf .aws-sam .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage build *.egg-info

.PHONY: distclean
distclean: clean ## Remove the environments too
	rm -rf .venv .venv-*
