# Everything a newcomer runs. `make demo` and `make test` need Python 3.11+ and a package index.
# On Linux the default torch is a CUDA build of several GB; to take PyTorch's CPU build instead,
# give the address of its wheel index: make demo TORCH_INDEX=<see pytorch.org, "Get started", CPU>
PYTHON ?= python3
TORCH_INDEX ?=
BIN := .venv/bin
STAMP := .venv/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check
INDEX := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.DEFAULT_GOAL := help
.PHONY: help install demo serve test lint types imports check lock clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

install: $(STAMP)  ## create the environment in .venv

$(STAMP): pyproject.toml constraints.txt
	@echo "creating the environment in .venv (a few minutes the first time) ..." >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install --quiet --progress-bar on $(INDEX) -c constraints.txt -e '.[dev]'
	@touch $@

demo: install  ## build a real knowledge base and index, serve it, link sentences over HTTP
	$(BIN)/bioelx demo

serve: install  ## the demo's application, staying up on http://127.0.0.1:8000/ui
	$(BIN)/bioelx demo --build-only
	RAY_AUTH_MODE=disabled RAY_USAGE_STATS_ENABLED=0 RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S=60 \
		$(BIN)/serve run deployments:app

test: install  ## the tests
	$(BIN)/python -m pytest

lint: install  ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install  ## static types
	$(BIN)/mypy

imports: install  ## who may import whom
	$(BIN)/lint-imports

check: lint types imports test  ## all that CI runs

lock:  ## resolve constraints.txt anew (needs uv; UV_FIND_LINKS must hold a CPU build of torch)
	@head -2 constraints.txt > .constraints.new
	uv pip compile pyproject.toml --all-extras --upgrade --python-version 3.11 --quiet \
		--python-platform x86_64-unknown-linux-gnu --no-annotate --no-header \
		--no-emit-index-url --no-emit-find-links | sed 's/+cpu$$//' >> .constraints.new
	mv .constraints.new constraints.txt

clean:  ## remove the environment and caches of tools (not the cache of built things)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
