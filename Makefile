# `make demo` and `make test` work on a fresh clone: they make an environment in .venv first.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin

.PHONY: demo test docs docs-serve quality style clean

$(VENV)/.installed: setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --upgrade pip
	$(BIN)/pip install -e ".[dev]"
	touch $@

# trains a small model on drawn scenes, then evaluates it on scenes it has not seen
demo: $(VENV)/.installed
	$(BIN)/accelerate launch --num_processes 1 --mixed_precision no --dynamo_backend no --num_machines 1 \
		examples/train_lotlip.py --output_dir outputs/demo --overwrite_output_dir
	$(BIN)/python examples/evaluate_retrieval.py --model_name_or_path outputs/demo \
		--output_file outputs/demo/retrieval.json
	$(BIN)/python examples/zero_shot_classification.py --model_name_or_path outputs/demo \
		--output_file outputs/demo/zero_shot.json

test: $(VENV)/.installed
	$(BIN)/python -m pytest tests --numprocesses auto --maxprocesses 4

# a warning, a dead link or anchor for instance, fails
docs: $(VENV)/.installed
	$(BIN)/mkdocs build --strict

# the same at http://127.0.0.1:8000, built anew when a page changes
docs-serve: $(VENV)/.installed
	$(BIN)/mkdocs serve

quality: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

style: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) outputs build *.egg-info
