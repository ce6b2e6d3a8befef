# Two commands on a bare machine do everything: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
ROS_PACKAGES := robot_rl_bridge robot_rl_bringup

.PHONY: help demo test test-all test-mujoco4 check format setup setup-dev peers clean
help:
	@echo "make demo      install into $(VENV), then train, export, verify and run the hand over ROS 2 (about 8 minutes)"
	@echo "make test      install, then run the tests"
	@echo "make test-all  the same with the slow tests"
	@echo "make test-mujoco4  the simulation's tests on MuJoCo 4, in .venv-mujoco4"
	@echo "make check     formatting, lint, types, import rules"
	@echo "make setup     install only; setup-dev: with what tests and checks need"
	@echo "make peers     install SBX and EnvPool into .venv-peers, for \`robot-rl bench learner\` and \`bench env\`"
	@echo "make clean     remove $(VENV)"

# torch goes first: which build of it (CPU or CUDA) is up to the index or wheel folder that pip is pointed at.
$(VENV)/.installed: pyproject.toml constraints.txt $(wildcard ros_ws/src/*/setup.py)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "robot-rl needs Python 3.10 or newer; set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) setuptools -e '.[all]'
	for package in $(ROS_PACKAGES); do $(PIP) --no-deps --no-build-isolation -e ros_ws/src/$$package || exit 1; done
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e '.[dev]'
	# The vendor's Shadow hand, to check ours against; what it depends on (jax) is not needed for that.
	$(PIP) --no-deps mujoco-mjx
	touch $@

setup: $(VENV)/.installed
setup-dev: $(VENV)/.installed-dev

demo: setup
	$(BIN)/robot-rl demo

# Tests that keep real time do not share the cores with other tests.
test: setup-dev
	$(BIN)/python -m pytest -m 'not slow and not gpu and not hardware and not ros and not realtime' -n 2
	$(BIN)/python -m pytest -m '(ros or realtime) and not slow and not hardware'

test-all: setup-dev
	$(BIN)/python -m pytest -m 'not gpu and not hardware'

check: setup-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: setup-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# MuJoCo 4 installed over 3 leaves a package that does not import, so it gets its own environment, and that is never upgraded.
MUJOCO4 := .venv-mujoco4
MUJOCO4_PIP := $(MUJOCO4)/bin/python -m pip install --quiet --disable-pip-version-check -c $(MUJOCO4)/constraints.txt
$(MUJOCO4)/.installed: pyproject.toml constraints.txt
	rm -rf $(MUJOCO4)
	$(PYTHON) -m venv $(MUJOCO4)
	sed 's/^mujoco==.*/mujoco==4.0.0/; s/^mujoco-warp==.*/mujoco-warp==4.0.0/' constraints.txt > $(MUJOCO4)/constraints.txt
	$(MUJOCO4_PIP) torch
	$(MUJOCO4_PIP) -e '.[sim,warp,models,sb3]' pytest pytest-xdist pytest-timeout pytest-rerunfailures hypothesis pyyaml
	touch $@

# test_demo.py drives ROS 2, which is not installed there.
test-mujoco4: $(MUJOCO4)/.installed
	$(MUJOCO4)/bin/python -m pytest tests/sim -m 'not slow and not gpu and not hardware and not ros' --ignore=tests/sim/test_demo.py -n 2

# jax has its own ideas about versions, so it gets its own environment.
peers:
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check torch==$$(sed -n 's/^torch==//p' constraints.txt)
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check 'sbx-rl>=0.20' 'envpool>=1.2'

clean:
	rm -rf $(VENV) .venv-peers $(MUJOCO4)
