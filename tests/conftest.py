"""For all tests, and one run of the demo that several of them look at."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# First of all: TFX's artifacts import setuptools, which refuses to come after anything that imported distutils.
import setuptools  # noqa: F401

# The processes that share the files keep all processors busy: more threads in each only wait for one another.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

if TYPE_CHECKING:
    from tests.pipeline.conftest import HeartRun

# Whole pipelines. They begin first: where several processes share the files, none is left with a long one at the end.
LONGEST_FILES = (
    "test_retrain.py",
    "test_run_digits.py",
    "test_compiled_pipelines.py",
    "test_tune_command.py",
    "test_run_wrap.py",
    "test_run_reviews.py",
    "test_job_service.py",
    "test_run_heart.py",
    "test_run_mixed_table.py",
    "test_tabular_trainer.py",
    "test_run_bigquery.py",
    "test_run_stops.py",
    "test_score_command.py",
    "test_skew.py",
    "test_reports.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: number for number, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


def pytest_collection_finish() -> None:
    """Beam as it runs in `ingraph run`, also for tests that build a pipeline of their own."""
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
