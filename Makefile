# make demo       install, then the whole chain on a small grid: 27 runs -> a fitted law and a report
# make test       install, then the tests
# make test-slow  install, then the longer proofs
# make bench      install, then the benchmarks of one CPU: half an hour, on a machine that does nothing else
# make xpk        xpk in .venv-xpk, an environment of its own: it pins an older protobuf than ours
# make lint       ruff, and which folder may import which (import-linter)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
XPK := .venv-xpk
XPK_VERSION := 1.16.0
# Two processes, a test file at a time: most of the time is XLA compiling, on one core.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile
DEMO := demo
BENCH := build/bench.json
CONFIG := configs/smoke.py
JOBS := 2

export JAX_PLATFORMS ?= cpu

.PHONY: demo install test test-slow bench xpk lint clean-demo
.DELETE_ON_ERROR:

install: $(VENV)/.installed

$(VENV)/.installed: setup.py constraints.txt
	@echo "== install into $(VENV)"
	@began=$$(date +%s); \
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV); \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]' && \
	echo "-- install took $$(( $$(date +%s) - began )) s"
	@touch $@

# Every stage does what is left to do and says how long it took; stopped anywhere, `make demo` goes on there.
define stage
@echo "== moe-jax $(1)"; began=$$(date +%s); $(BIN)/moe-jax $(1); code=$$?; \
echo "-- took $$(( $$(date +%s) - began )) s"; exit $$code
endef

demo: install
	$(call stage,prepare --config=$(CONFIG))
	$(call stage,sweep --config=$(CONFIG) --workdir=$(DEMO) --jobs=$(JOBS))
	$(call stage,collect --workdir=$(DEMO))
	$(call stage,fit --workdir=$(DEMO))
	$(call stage,report --workdir=$(DEMO))

clean-demo:
	rm -rf $(DEMO)

test: install
	$(PYTEST)

test-slow: install $(VENV)/.bench $(XPK)/.installed
	$(PYTEST) -m slow

# Torch and transformers, the peers, lm-evaluation-harness, libtpu, TPU's compiler, and Weights & Biases: the longer proofs
# use them.
$(VENV)/.bench: setup.py constraints.txt | install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,bench,plan,wandb,harness]'
	@touch $@

bench: $(VENV)/.bench
	$(BIN)/python -m experiments.benchmarks.bench --out=$(BENCH)

xpk: $(XPK)/.installed

$(XPK)/.installed: Makefile
	$(PYTHON) -m venv --clear $(XPK)
	$(XPK)/bin/python -m pip install --quiet --disable-pip-version-check xpk==$(XPK_VERSION)
	@touch $@

lint: install
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports
