"""What spares Beam's repeated work gives the same answers as Beam."""

from __future__ import annotations

import functools
import inspect

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, SetupOptions, StandardOptions
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.typehints import decorators

from pipeline.runners.beam_introspection import remember_signatures
from pipeline.runners.beam_options import remember_parsed_options
from pipeline.runners.local import BEAM_PIPELINE_ARGS


class Doubling(beam.DoFn):
    def process(self, element: int, window=beam.DoFn.WindowParam):
        yield 2 * element


def test_signatures_are_those_of_inspect():
    remember_signatures()
    doubling = Doubling()
    for function in (
        doubling.process,
        Doubling.process,
        len,
        functools.partial(sorted, reverse=True),
        lambda x, y=2: x,
    ):
        for _ in range(2):
            assert decorators.inspect.signature(function) == inspect.signature(function)
    assert decorators.inspect.getmro is inspect.getmro


def test_a_signature_is_looked_up_once_per_function(monkeypatch):
    remember_signatures()
    asked = []
    original = inspect.signature
    monkeypatch.setattr(inspect, "signature", lambda function: asked.append(function) or original(function))

    class Fresh(beam.DoFn):
        def process(self, element):
            yield element

    for _ in range(3):
        decorators.get_signature(Fresh().process)
    assert len(asked) == 1


def test_options_are_those_that_beam_parses_and_changing_one_changes_no_other():
    arguments = ["--runner=DirectRunner", "--direct_num_workers=3", "--requirements_file=a.txt"]
    plain = {
        view: PipelineOptions(arguments).view_as(view).get_all_options() for view in (StandardOptions, SetupOptions)
    }
    remember_parsed_options()
    for _ in range(2):
        options = PipelineOptions(arguments)
        for view, expected in plain.items():
            assert options.view_as(view).get_all_options() == expected
        assert options.view_as(DirectOptions).direct_num_workers == 3
        options.view_as(DirectOptions).direct_num_workers = 7
        assert options.view_as(DirectOptions).direct_num_workers == 7
    assert PipelineOptions(arguments, runner="Other").view_as(StandardOptions).runner == "Other"


def test_a_pipeline_runs_on_the_local_runner():
    remember_signatures()
    remember_parsed_options()
    with beam.Pipeline(argv=BEAM_PIPELINE_ARGS) as pipeline:
        assert_that(pipeline | beam.Create([1, 2, 3]) | beam.ParDo(Doubling()), equal_to([2, 4, 6]))
