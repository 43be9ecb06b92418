# What a person or CI types; `make help` lists it. Everything runs in .venv, which the first target makes.

PYTHON ?= python3.11
MODELS ?= $(wildcard models/*)
CONFIGS := configs/heart.yaml configs/reviews.yaml configs/digits.yaml

# With GPU=1, CUDA's libraries come with the rest, from the package index.
READY := .venv/.ready$(if $(GPU),-gpu)
UV := .venv/tools/bin/uv
LOCK_OPTIONS := --quiet --no-header --generate-hashes --python-version 3.11

.PHONY: setup help run test suite lint browser screenshots load idle bench bench-compare month portable flink spark overhead fuzz compat airflow-check protos lock doctor clean

setup: $(READY)  ## make .venv: locked dependencies and ingraph itself (the default target; GPU=1: with CUDA's libraries)

$(READY): requirements.lock requirements-setup.lock setup.py tools/bootstrap.py $(if $(GPU),requirements-gpu.lock)
	@command -v "$(PYTHON)" >/dev/null || { \
	    echo "set-up stopped: there is no $(PYTHON) on the PATH; install Python 3.11, or make PYTHON=/path/to/python3.11" >&2; \
	    exit 1; }
	@"$(PYTHON)" tools/bootstrap.py $(if $(GPU),--gpu)

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# The first is ready long before the others are.
run: $(READY)  ## train, check and publish the demo models
	@set -e; for config in $(CONFIGS); do \
	    .venv/bin/ingraph run "$$config"; \
	    test "$$config" != "$(firstword $(CONFIGS))" || printf '\n%s\n  %s\n\n' \
	        "while the next ones are trained, in another terminal, with a page to try it on:" \
	        ".venv/bin/ingraph serve --model heart=models/heart --ui"; \
	done

test: $(READY)  ## lint and all tests, side by side
	@$(MAKE) --no-print-directory --jobs 2 lint suite

# A process more than there are cores, since some tests wait for others. Which stay in one, tests/conftest.py says.
suite: $(READY)
	.venv/bin/python -m pytest --numprocesses $$(($$(nproc) + 1)) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: $(READY)  ## ruff and mypy
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

browser: $(READY)  ## unpack Debian's Chromium in .venv/browser, for the tests of the pages that people look at
	@.venv/bin/python tests/browser/install_chromium.py

# Of what `make run` leaves, by the browser of `make browser`.
screenshots: $(READY)  ## pictures of the playground and of a report, for the documentation
	.venv/bin/python -m tests.browser.make_screenshots

load: $(READY)  ## five minutes of load on the embedded server while its model changes, and five beside hostile clients
	.venv/bin/python -m benchmarks.serving.load
	.venv/bin/python -m benchmarks.serving.load --hostile

idle: $(READY)  ## five times 10,000 connections to the embedded server that ask nothing
	.venv/bin/python -m benchmarks.serving.idle

# Photos of INGRAPH_TEST_DATA are measured where that is set.
bench: $(READY)  ## all benchmarks, up to an hour, into docs/benchmarks.md (SHORT=1: 5 minutes, on the screen)
	.venv/bin/python -m benchmarks $(if $(SHORT),--short)

bench-compare: $(READY)  ## the same beside the last committed results (RESULTS=file: of an earlier run)
	.venv/bin/python -m benchmarks.compare $(if $(SHORT),--short) $(RESULTS)

overhead: $(READY)  ## what the embedded server costs beside calling the model in process
	.venv/bin/python -m benchmarks.serving.overhead
	.venv/bin/python -m benchmarks.serving.throughput

month: $(READY)  ## thirty days of retraining, with a server and a client beside it
	.venv/bin/python -m benchmarks.retraining_month

portable: $(READY)  ## all tasks' ingestion and Transform by Beam workers in other processes
	INGRAPH_LONG_TESTS=1 .venv/bin/python -m pytest tests/pipeline/runners/test_beam_engine.py

flink: $(READY)  ## the runs of heart, reviews and digits on a cluster of Flink beside local ones; needs Java 17 and Maven
	INGRAPH_FLINK=1 .venv/bin/python -m pytest -rP tests/pipeline/runners/test_beam_engine.py -k flink

spark: $(READY)  ## the run of heart on a cluster of Spark beside the local one; needs Java 17 and Maven
	INGRAPH_SPARK=1 .venv/bin/python -m pytest -rP tests/pipeline/runners/test_beam_engine.py -k spark

doctor: $(READY)  ## say whether this machine has what ingraph needs
	@.venv/bin/ingraph doctor

fuzz: $(READY)  ## ten minutes of requests that nobody would write, against the embedded server
	.venv/bin/python -m benchmarks.serving.fuzz --seconds 600

# The published models in the TensorFlow of TensorFlow Serving's images, in an environment of its own.
# Beside them, where INGRAPH_TEST_DATA has the table adult: a linear model, a network, trees, a blend and a wrapped forest.
TABLES := $(if $(INGRAPH_TEST_DATA),$(addprefix .venv/compat/tables/,linear network trees blend wrapped))
compat: $(READY)  ## load the published models (MODELS) in tensorflow-cpu 2.19.1, and compare the answers
	test -x .venv/compat/bin/python || $(UV) venv --quiet --python "$(PYTHON)" .venv/compat
	$(UV) pip install --quiet --python .venv/compat/bin/python tensorflow-cpu==2.19.1
	$(UV) pip install --quiet --python .venv/compat/bin/python --no-deps tensorflow-serving-api==2.19.1
	$(if $(TABLES),.venv/bin/python -m benchmarks.tabular.wrapped --export .venv/compat/tables)
	.venv/bin/python deploy/check_exports.py $(MODELS) $(TABLES) --save .venv/compat/answers.npz
	.venv/compat/bin/python deploy/check_exports.py $(MODELS) $(TABLES) --compare .venv/compat/answers.npz

# Airflow and TFX want different versions of the same packages.
airflow-check: $(READY)  ## read and run the DAG file of a schedule by Airflow, in an environment of its own
	test -x .venv/airflow/bin/python || $(UV) venv --quiet --python "$(PYTHON)" .venv/airflow
	$(UV) pip install --quiet --python .venv/airflow/bin/python apache-airflow==3.3.2
	.venv/bin/python -m pytest tests/pipeline/schedules/test_schedule_airflow.py

protos: $(READY)  ## generate serving/client/messages_pb2.py from its .proto file
	.venv/bin/python -m grpc_tools.protoc -I. --python_out=. serving/client/messages.proto

# Not after $(READY): a changed setup.py would have the old lock installed first.
lock:  ## resolve the dependencies into the three lock files
	@test -x $(UV) || $(MAKE) setup
	$(UV) pip compile $(LOCK_OPTIONS) --output-file requirements-setup.lock requirements-setup.in
	$(UV) pip compile $(LOCK_OPTIONS) --extra dev --override requirements-override.in \
	    --python-platform x86_64-manylinux_2_39 --output-file requirements.lock setup.py
	$(UV) pip compile $(LOCK_OPTIONS) --extra gpu --constraint requirements.lock --override requirements-override.in \
	    --python-platform x86_64-manylinux_2_39 setup.py | awk '/^[a-z]/ { kept = /^nvidia-/ } kept' > requirements-gpu.lock

clean:  ## remove what tests and tools leave; .venv, runs and models stay
	rm -rf build .mypy_cache .pytest_cache .ruff_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
