"""What a config says of Beam, as Beam takes it."""

from __future__ import annotations

import pytest

from components.errors import BrokenInput
from pipeline.options import BeamOptions

ELSEWHERE = {"job_endpoint": "localhost:1", "environment_type": "EXTERNAL", "environment_config": "localhost:2"}


def test_options_become_arguments_lists_are_repeated_and_false_is_left_out():
    options = BeamOptions(runner="DataflowRunner", options={"a": 1, "b": ["x", "y"], "c": True, "d": False})
    assert options.pipeline_args("registry/ingraph:1") == [
        "--runner=DataflowRunner", "--a=1", "--b=x", "--b=y", "--c", "--sdk_container_image=registry/ingraph:1",
    ]  # fmt: skip


def test_the_image_that_the_options_name_wins():
    options = BeamOptions(runner="DataflowRunner", options={"sdk_container_image": "mine"})
    assert options.pipeline_args("registry/ingraph:1") == ["--runner=DataflowRunner", "--sdk_container_image=mine"]


@pytest.mark.parametrize("options", [{"runner": "DataflowRunner"}, {"runner": "PortableRunner"}])
def test_workers_in_containers_without_an_image_are_refused(options):
    with pytest.raises(BrokenInput, match=rf"beam\.runner is {options['runner']}, .* `--set cluster\.image="):
        BeamOptions(**options).pipeline_args()


def test_workers_that_are_no_containers_need_no_image():
    arguments = BeamOptions(runner="PortableRunner", options=ELSEWHERE).pipeline_args()
    assert arguments[:2] == ["--runner=PortableRunner", "--job_endpoint=localhost:1"]


def test_names_with_dashes_are_refused():
    with pytest.raises(ValueError, match="'--project': give names without dashes"):
        BeamOptions(options={"--project": "p"})
