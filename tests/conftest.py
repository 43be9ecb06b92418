"""For all tests, and one run of the demo that several of them look at."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# First of all: TFX's artifacts import setuptools, which refuses to come after anything that imported distutils.
import setuptools  # noqa: F401

# What is imported stays: without this the collector walks over it again and again, a tenth of the time of the tests.
gc.disable()

# The processes that share the files keep all processors busy: more threads in each only wait for one another.
for threads in ("TF_NUM_INTRAOP_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(threads, "1")

if TYPE_CHECKING:
    from tests.pipeline.conftest import HeartRun

# They begin first, the longest ones before the others: none is left with a long one at the end. Those of the demo's run
# share a process.
LONGEST_FILES = (
    "test_compiled_pipelines.py",
    "test_run_heart.py",
    "test_run_stops.py",
    "test_tabular_trainer.py",
    "test_run_wrap.py",
    "test_text_encoders.py",
    "test_retrain.py",
    "test_run_reviews.py",
    "test_run_digits.py",
    "test_devices.py",
    "test_text_models.py",
    "test_beam_engine.py",
    "test_image_warm_start.py",
    "test_image_trainer.py",
    "test_run_mixed_table.py",
    "test_image_signatures.py",
    "test_replay_and_truth.py",
    "test_load.py",
    "test_explanations.py",
    "test_playground.py",
    "test_blending.py",
    "test_text_preprocessing.py",
    "test_run_bigquery.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: number for number, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


def pytest_collection_finish() -> None:
    """Beam as it runs in `ingraph run`, also for tests that build a pipeline of their own."""
    gc.freeze()
    gc.set_threshold(10_000, 10, 20)  # graphs are many objects and few cycles: a twenty-fifth of the time of the tests
    gc.enable()
    if "apache_beam" in sys.modules:
        from pipeline.runners.beam_speedups import apply_beam_speedups

        apply_beam_speedups()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file of tests stays in one process; those that look at the demo's run share one, so that it is run once."""
    from xdist.scheduler import LoadFileScheduling

    tests = Path(__file__).parent
    looking = {
        str(path.relative_to(tests.parent)) for path in tests.rglob("test_*.py") if "heart_run" in path.read_text()
    }

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "heart_run" if file in looking else file

    return Scheduling(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def heart_run(tmp_path_factory: pytest.TempPathFactory) -> HeartRun:
    """`ingraph run configs/heart.yaml`, once for all tests; none of them may change what it left."""
    from tests.pipeline.conftest import HeartRun, ingraph

    workdir = tmp_path_factory.mktemp("heart")
    return HeartRun(workdir, ingraph("run", "configs/heart.yaml", "--workdir", str(workdir), fresh=True))
