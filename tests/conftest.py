"""For all tests, and one run of the demo that several of them look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

# First of all: TFX's artifacts import setuptools, which refuses to come after anything that imported distutils.
import setuptools  # noqa: F401

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


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: number for number, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))
    # A file of tests stays in one process; those that look at the demo's run share one, so that it is run once.
    looking = {item.path for item in items if "heart_run" in getattr(item, "fixturenames", ())}
    for item in items:
        item.add_marker(pytest.mark.xdist_group("heart" if item.path in looking else item.path.name))


@pytest.fixture(scope="session")
def heart_run(tmp_path_factory: pytest.TempPathFactory) -> HeartRun:
    """`ingraph run configs/heart.yaml`, once for all tests; none of them may change what it left."""
    from tests.pipeline.conftest import HeartRun, ingraph

    workdir = tmp_path_factory.mktemp("heart")
    return HeartRun(workdir, ingraph("run", "configs/heart.yaml", "--workdir", str(workdir), fresh=True))
