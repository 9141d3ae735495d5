# What contributors type. `make demo` and `make test` need nothing but Python 3.11 or newer, make and a package index.
# Environments are made once and kept; PYTHON=... chooses the interpreter of the first one.

VENV := .venv
PYTHON_OF_VENV := $(VENV)/bin/python

# Folders that a checkout lacks are left out, so that a part can be tested alone.
TESTS ?= $(wildcard tests/unit tests/contract tests/cancellation tests/faults tests/remote tests/chaos tests/typing \
                    tests/examples tests/test_*.py)
# What needs Ray, joblib, scikit-learn, Dask or FastAPI.
ENGINE_TESTS ?= tests/engines tests/examples/test_anywhere.py
# What is run again on the other versions of Python that this machine has: on the oldest and the newest all that is
# portable; on those between them what leans on the interpreter, namely processes, pickles, event loops, threads, signals
# and the end of programs.
ENDS := $(wildcard tests/faults/test_blocking_ends.py tests/faults/test_shutdown.py)
PORTABLE_TESTS ?= $(wildcard tests/unit tests/contract) $(ENDS)
DELICATE_TESTS ?= $(wildcard tests/contract tests/unit/child tests/unit/futures tests/unit/blocking) $(ENDS)
OTHER_VERSIONS ?= 3.11 3.12 3.13

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-here test-others test-engines chaos lint docs format bench clean

help:
	@echo 'make demo    measure the standard library with all CPUs, and compare with one (ARGS="--json", ...)'
	@echo 'make test    all tests here, then the portable ones on the other Pythons of this machine (ARGS="-k map", ...)'
	@echo 'make test-engines   those with Ray, joblib, scikit-learn, Dask and FastAPI, which are installed for it'
	@echo 'make chaos   break everything at random for a minute, and see whether the rules hold (ARGS="--seconds 3600 --seed 7")'
	@echo 'make lint    ruff, mypy and pyright'
	@echo 'make docs    the documentation as a site, in build/docs; every warning is an error'
	@echo 'make format  let ruff mend what it can'
	@echo 'make bench   side by side with the rivals that can be installed (ARGS=...)'
	@echo 'make clean   remove environments and caches'

demo:
	@.ci/venv $(VENV)
	@$(VENV)/bin/aioparallel demo $(ARGS)

test: test-here test-others

test-here:
	@.ci/venv $(VENV) test,notebook
	@.ci/pytest $(PYTHON_OF_VENV) $(TESTS) $(ARGS)

test-others: $(OTHER_VERSIONS:%=test-%)

# The version of the first environment has been tested already; one that is not installed is left out.
test-3.%:
	@if $(PYTHON_OF_VENV) -V | grep -q ' 3\.$*\.'; then exit 0; fi; \
	.ci/venv $(VENV)-3.$* test 3.$* || { status=$$?; test $$status -eq 3 && exit 0 || exit $$status; }; \
	.ci/pytest $(VENV)-3.$*/bin/python -m "not ray and not one_host" \
	$(if $(filter 3.$*,$(firstword $(OTHER_VERSIONS)) $(lastword $(OTHER_VERSIONS))),$(PORTABLE_TESTS),$(DELICATE_TESTS)) $(ARGS)

# What needs other engines lives in an environment of its own, for Ray and scikit-learn are large. Those with Ray run
# in one process, and share one Ray: it takes a dozen processes, and all CPUs for seconds to start.
test-engines:
	@.ci/venv $(VENV)-engines test,engines
	@.ci/pytest $(VENV)-engines/bin/python $(ENGINE_TESTS) $(ARGS)
	@.ci/pytest $(VENV)-engines/bin/python -n0 -m ray $(ENGINE_TESTS) tests/contract tests/unit/executors/test_ray.py $(ARGS)

chaos:
	@.ci/venv $(VENV) test
	@$(PYTHON_OF_VENV) -m tests.chaos $(ARGS)

lint:
	@.ci/venv $(VENV) lint
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/pyright --pythonpath $(PYTHON_OF_VENV)

# Nothing is fetched but the packages that it is built with.
docs:
	@.ci/venv $(VENV)-docs docs
	$(VENV)-docs/bin/sphinx-build -W --keep-going -q -c docs -d build/doctrees $(ARGS) . build/docs
	@echo "See build/docs/index.html"

format:
	@.ci/venv $(VENV) lint
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

# Rivals live in an environment of their own. They are installed one by one: what cannot be installed is left out.
bench:
	@.ci/venv $(VENV)-bench
	@$(VENV)-bench/bin/python -c 'import tomllib; \
	print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["bench"], sep="\n")' | \
	while read -r rival; do \
	    $(VENV)-bench/bin/python -m pip install --quiet --quiet --disable-pip-version-check "$$rival" || echo "Left out: $$rival"; \
	done
	$(VENV)-bench/bin/python -m benchmarks $(ARGS)

clean:
	rm -rf $(VENV) $(VENV)-3.* $(VENV)-bench $(VENV)-docs $(VENV)-engines build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -prune -exec rm -rf {} +
