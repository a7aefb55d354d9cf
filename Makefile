# `make help` lists what there is. Everything sets itself up in .venv on a fresh Linux machine with Python 3.11 or newer.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin

.PHONY: help demo test check up bench clean docs

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

demo: .venv/ready ## run the main job end to end: preheat a file and an image, fetch them from another peer
	@$(BIN)/python scripts/demo.py

test: .venv/ready ## run all checks and tests
	@scripts/check

check: .venv/ready ## format, lint, types, import contracts, sizes, and the fast tests
	@scripts/check --fast

up: .venv/ready ## run the whole system on this machine until Ctrl-C
	@$(BIN)/darner up

bench: .venv/ready ## run all benchmarks; each prints ratios to a baseline of the same run
	@for file in bench/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

docs: .venv/ready ## write the generated reference pages anew
	@$(BIN)/python scripts/reference.py

clean: ## remove what the other targets made
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache

.venv/ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed and was not found"; exit 1; }
	@echo "setting up .venv with $(PYTHON)"
	@$(PYTHON) -m venv .venv || { echo "cannot make .venv; on Debian: apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@
