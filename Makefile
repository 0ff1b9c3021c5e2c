# `make demo` and `make test` work on a fresh clone: they make an environment in .venv first.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin

.PHONY: demo app test browser-test quality style clean

$(VENV)/.installed: setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --upgrade pip
	$(BIN)/pip install -e ".[dev]"
	touch $@

$(VENV)/.installed-app: $(VENV)/.installed
	$(BIN)/pip install -e ".[app]"
	touch $@

$(VENV)/.installed-browser: $(VENV)/.installed-app
	$(BIN)/pip install -e ".[browser]"
	touch $@

# trains a small model on drawn scenes, then evaluates it on scenes it has not seen
demo: $(VENV)/.installed
	$(BIN)/accelerate launch --num_processes 1 --mixed_precision no --dynamo_backend no --num_machines 1 \
		examples/train_lotlip.py --output_dir outputs/demo --overwrite_output_dir
	$(BIN)/python examples/evaluate_retrieval.py --model_name_or_path outputs/demo \
		--output_file outputs/demo/retrieval.json
	$(BIN)/python examples/zero_shot_classification.py --model_name_or_path outputs/demo \
		--output_file outputs/demo/zero_shot.json

outputs/demo/model.safetensors:
	$(MAKE) demo

outputs/scenes: | $(VENV)/.installed
	$(BIN)/python examples/draw_scenes.py --output_dir $@ --num_scenes 512

# serves a page on which drawn scenes are searched with the model of `make demo`
app: $(VENV)/.installed-app outputs/demo/model.safetensors outputs/scenes
	$(BIN)/python examples/search_app.py --model_name_or_path outputs/demo --images outputs/scenes \
		--sentence_score left_out

test: $(VENV)/.installed
	$(BIN)/python -m pytest tests --numprocesses auto --maxprocesses 4

# needs a Chromium: apt-get install chromium
browser-test: $(VENV)/.installed-browser
	$(BIN)/python -m pytest tests/test_search_app.py -m browser

quality: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

style: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) outputs build *.egg-info
