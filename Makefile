# One command each: `make bench` shows the product, `make test` proves it. `make help` lists the rest.

.DEFAULT_GOAL := help
.SUFFIXES:
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
OUT := out/bench
# The first interpreter that will do, the versions that constraints.txt was made with first;
# `make PYTHON=/path/to/python3.12 bench` names another one.
FITS := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON := $(shell for p in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	"$$p" -c '$(FITS)' >/dev/null 2>&1 && echo "$$p" && break; done)

READY := $(VENV)/.ready
# Tests start hundreds of processes: compiled modules are kept, also where Python is told to write none beside the sources.
COMPILED := PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX='$(CURDIR)/$(VENV)/pycache'
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq --constraint constraints.txt

# 100 requests per stage, so that the 99th percentile means something; about two minutes in all.
# From 8 answers at a time on the endpoint slows down: the sweep shows it.
SIMULATOR := ttft=150ms,itl=7ms,capacity=8,jitter=0.1
SWEEP := --llm-sweep 1,2,4,8,16 --llm-requests 100 --llm-output-tokens 60,15

.PHONY: help bench bench-bedrock test test-system truth accuracy lint docs setup clean

help:
	@echo 'make bench         sweep the simulated endpoint, print the two tables; files in $(OUT)/'
	@echo 'make bench-bedrock the same with the simulated Bedrock: no AWS account needed; files in $(OUT)-bedrock/'
	@echo 'make test          the unit tests'
	@echo 'make test-system   whole runs of the commands. SUITE=runs, secrets, docs, crash, browser, llama, accuracy, deploy'
	@echo '                   or truth runs one folder of tests/system; SLOW=1 adds the tests of many minutes, and MINUTES=60'
	@echo '                   sets the length of the soak tests in SUITE=crash'
	@echo 'make truth         every derived figure against data whose right answer is known by construction, as a table'
	@echo 'make accuracy      measured times against the times at which the server sent, and the CPU cost; TRUTH=PATH: on'
	@echo '                   a native server, against a plain aiohttp client; BOTO3=1: also boto3 alone;'
	@echo '                   LADDER=1 BUSY=1 TLS=1: the reported health'
	@echo 'make lint          ruff and mypy'
	@echo 'make docs          write the generated pages of docs/ from the tables in the code'
	@echo 'make setup         only the virtual environment that all of these use'
	@echo 'make clean         remove everything that these made, the virtual environment too'
	@echo 'PYTHON=...         another interpreter for the virtual environment, 3.11 or newer'

bench: $(READY)
	@rm -rf $(OUT)
	@$(BIN)/locust -f locustfiles/sweep.py --headless --only-summary --csv $(OUT)/run \
		--llm-simulator $(SIMULATOR) $(SWEEP) --llm-report
	@echo 'Files: $(OUT)/'

bench-bedrock: $(READY)
	@rm -rf $(OUT)-bedrock
	@$(BIN)/locust -f locustfiles/bedrock.py --headless --only-summary --csv $(OUT)-bedrock/run \
		--llm-model anthropic.claude-3-haiku-20240307-v1:0 \
		--llm-simulator $(SIMULATOR) $(SWEEP) --llm-report
	@echo 'Files: $(OUT)-bedrock/'

test: $(READY)
	@$(COMPILED) $(BIN)/python -m pytest -m alone
	@$(COMPILED) $(BIN)/python -m pytest -m "not alone" --numprocesses 2 --dist worksteal

# The browser is the system's: Debian's is installed when this runs as root, CHROMIUM=/path names another one.
test-system: $(READY)
	@case '$(SUITE)' in ''|browser|crash) $(PIP) --no-build-isolation --editable '.[dev,web]' ;; esac
	@case '$(SUITE)' in ''|browser) \
		[ -n "$$CHROMIUM" ] || command -v chromium >/dev/null || { \
		[ "$$(id -u)" = 0 ] && apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || { echo \
		'This needs Chromium. Install it (Debian: apt-get install chromium) or name one: make CHROMIUM=/path test-system' \
		>&2; \
		exit 1; } ;; esac
	@$(COMPILED) $(if $(SLOW),FUZZ_EXAMPLES=10 )MINUTES='$(MINUTES)' CHROMIUM="$$CHROMIUM" $(BIN)/python -m pytest \
		$(if $(SLOW),,-m 'not slow') tests/system/$(SUITE) $(if $(SLOW),$(if $(filter crash,$(SUITE)),tests/unit/fuzz))

truth: $(READY)
	@$(BIN)/python -m tests.system.truth.main

accuracy: $(READY)
	@$(BIN)/python -m tests.system.accuracy.main $(if $(TRUTH),--truth "$(TRUTH)") $(if $(LADDER),--ladder) $(if $(BOTO3),--boto3) \
		$(if $(BUSY),--busy) $(if $(TLS),--tls)

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

docs: $(READY)
	@$(BIN)/python docs/generate.py

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@'$(PYTHON)' -c '$(FITS)' >/dev/null 2>&1 || { echo \
		'This needs Python 3.11 or newer with its venv module (Debian: python3-venv), and "$(PYTHON)" is not that.' \
		'Install one, or name it: make PYTHON=/path/to/python3.12 ...' >&2; exit 1; }
	@echo 'Setting up $(VENV) with $(PYTHON); the packages come from the network, once ...'
	@'$(PYTHON)' -m venv --clear $(VENV)
	@$(PIP) setuptools
	@$(PIP) --no-build-isolation --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
