# Each target makes the virtual environment and installs what it needs on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-all lint bench bench-train bench-infer bench-gguf bench-understanding bench-published bench-serve bench-eval sanitize clean

NATIVE := CMakeLists.txt $(wildcard src/lmworks/kernels/native/*)

$(VENV)/base: pyproject.toml constraints.txt $(NATIVE)
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'lmworks needs Python 3.11 or newer; set PYTHON=python3.11')"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing lmworks into $(VENV) (PyTorch is the large part)"
	@$(PIP) torch==2.13.0
	@$(PIP) --editable .
	@touch $@

$(VENV)/test: $(VENV)/base
	@echo "installing what the tests compare with"
	@$(PIP) --editable '.[test]'
	@touch $@

$(VENV)/lint: $(VENV)/base
	@$(PIP) --editable '.[lint]'
	@touch $@

$(VENV)/bench: $(VENV)/test
	@$(PIP) --editable '.[bench]'
	@touch $@

demo: $(VENV)/base
	@sh examples/demo.sh $(BIN)/lmworks

# Files are dealt out to two processes; a test computes with one thread, see tests/conftest.py.
test: $(VENV)/test
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-all: $(VENV)/test
	$(BIN)/python -m pytest -m "slow or not slow" --timeout 1800
	$(MAKE) sanitize

lint: $(VENV)/lint
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy

bench: $(VENV)/bench
	$(BIN)/python benchmarks/opening.py
	$(BIN)/python benchmarks/training.py $(if $(GSM8K),--data $(GSM8K))
	$(BIN)/python benchmarks/memory.py $(if $(GSM8K),--data $(GSM8K))
	$(BIN)/python benchmarks/families.py
	$(BIN)/python benchmarks/understanding.py $(UNDERSTANDING)
	$(if $(PARAGRAPH),$(BIN)/python benchmarks/tiny.py --text $(PARAGRAPH))

bench-train: $(VENV)/bench
	$(BIN)/python benchmarks/training.py $(if $(GSM8K),--data $(GSM8K)) $(TRAIN)

# INFER="--large" also measures a model of 1.1 billion weights; llama.cpp is compiled on first use, where it can be.
bench-infer: $(VENV)/bench
	@sh benchmarks/install_peers.sh $(BIN)/python
	$(BIN)/python benchmarks/inference.py $(INFER)

# llama.cpp opens what lmworks exports; GGUF="--data TEXT" names the text of the quality table.
bench-gguf: $(VENV)/bench
	@sh benchmarks/install_peers.sh $(BIN)/python
	$(BIN)/python benchmarks/gguf_agreement.py $(GGUF)

bench-understanding: $(VENV)/bench
	$(BIN)/python benchmarks/understanding.py $(UNDERSTANDING)
	$(BIN)/python benchmarks/embedding.py

# SERVE="--soak 5" asks for five minutes and compares every answer; the servers of the others are installed on first use.
bench-serve: $(VENV)/bench
	@sh benchmarks/install_peers.sh $(BIN)/python servers
	$(BIN)/python benchmarks/serving.py $(SERVE)

# EVAL="--data FILE" asks the questions of a JSONL file with query, choices and gold.
bench-eval: $(VENV)/bench
	$(BIN)/python benchmarks/evaluation.py $(EVAL)

bench-published: $(VENV)/bench
	$(BIN)/python benchmarks/published_adaptation.py $(PUBLISHED)

sanitize: $(VENV)/test
	@$(PIP) cmake ninja nanobind
	sh tests/sanitize.sh $(BIN)/python address,undefined
	sh tests/sanitize.sh $(BIN)/python thread

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
