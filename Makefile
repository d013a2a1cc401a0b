# Every target does its own set-up in a fresh clone; Python >= 3.11, git and make are enough.
SHELL := /bin/sh
VENV ?= .venv
BIN := $(VENV)/bin
export TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
export PYTHON

PINS := pyproject.toml constraints.txt scripts/install scripts/install-torch
DEMO_BENCHMARK := rg:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=2
DEMO_LOG ?= log
# Beside the units, which run first: what fails cheaply fails early.
TIERS := $(filter-out tests/unit/ tests/bench/ tests/acceptance/ tests/fixtures/ tests/__pycache__/,$(wildcard tests/*/))

.PHONY: help demo install test acceptance bench lint docs build clean
help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 14

$(VENV)/.installed-demo: $(PINS)
	scripts/install $(VENV)
	@touch $@

$(VENV)/.installed: $(PINS)
	scripts/install $(VENV) docs,dev,hpo
	@touch $@ $(VENV)/.installed-demo

demo: $(VENV)/.installed-demo ## fine-tune SmolLM2-135M on two-term sums, three loops, and show the report
	$(BIN)/ftagent run --scenario llm --agent search --base-model smollm2-135m \
	  --benchmark '$(DEMO_BENCHMARK)' --loop-n 3 --limit 150 -o train_tokens=20000 \
	  --log-dir $(DEMO_LOG) --name demo

install: $(VENV)/.installed ## .venv with everything that tests need

# Apart: accelerate and transformers import DeepSpeed wherever they find it, which takes seconds.
$(VENV)/.deepspeed: $(VENV)/.installed scripts/install-deepspeed
	if scripts/install-deepspeed $(VENV); then touch $@; else echo "DeepSpeed could not be installed; its tests are skipped"; fi

lint: install ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs: install ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

test: lint docs $(VENV)/.deepspeed ## lint, documentation and every test but the long ones; FTAGENT_REQUIRE names what must not be skipped
	@echo "Required engines: $${FTAGENT_REQUIRE:-none} (docker, conda, data, deepspeed; absent ones are skipped, required ones fail)"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --durations=10 tests/unit
	$(BIN)/python -m pytest --durations=20 $(TIERS)

acceptance: install ## the long proofs; results go to docs/
	$(BIN)/python -m pytest --timeout 7200 tests/acceptance

bench: install ## measure the loop, environments, prompts, training, search and prediction; the numbers go to docs/performance.md
	$(BIN)/python tests/bench/bench_loop.py
	$(BIN)/python tests/bench/bench_local.py
	$(BIN)/python tests/bench/bench_docker.py
	$(BIN)/python tests/bench/bench_llm.py
	$(BIN)/python tests/bench/bench_prompts.py
	$(BIN)/python tests/bench/bench_data.py
	$(BIN)/python tests/bench/bench_mapping.py smollm2-135m
	$(BIN)/python tests/bench/bench_train.py smollm2-135m
	$(BIN)/python tests/bench/search/bench_search.py --seeds 30
	$(BIN)/python -m pip install -q -c constraints.txt lm-eval
	$(BIN)/python tests/bench/bench_predict.py smollm2-135m

build: install ## wheel and sdist into dist/
	$(BIN)/python -m build

clean: ## remove what the targets above made, but not runs
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
