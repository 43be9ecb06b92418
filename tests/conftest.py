"""For all tests, and one run of the demo that several of them look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

# First of all: TFX's artifacts import setuptools, which refuses to come after anything that imported distutils.
import setuptools  # noqa: F401

if TYPE_CHECKING:
    from tests.pipeline.conftest import HeartRun


@pytest.fixture(scope="session")
def heart_run(tmp_path_factory: pytest.TempPathFactory) -> HeartRun:
    """`ingraph run configs/heart.yaml`, once for all tests; none of them may change what it left."""
    from tests.pipeline.conftest import HeartRun, ingraph

    workdir = tmp_path_factory.mktemp("heart")
    return HeartRun(workdir, ingraph("run", "configs/heart.yaml", "--workdir", str(workdir)))
