"""What spares Beam's repeated work gives the same answers as Beam."""

from __future__ import annotations

import email.mime.text
import functools
import inspect
import json
import os
import sys
import types
import xml.dom

import apache_beam as beam
from apache_beam.internal.cloudpickle import cloudpickle
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, SetupOptions, StandardOptions
from apache_beam.runners.worker import statecache
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms import userstate
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import CombiningValueStateSpec, TimerSpec, on_timer
from apache_beam.typehints import decorators

from pipeline.runners.beam_speedups import (
    find_imported_submodules,
    hasten_beam,
    remember_dofn_specs,
    remember_parsed_options,
    remember_signatures,
    weigh_state_without_modules,
)
from pipeline.runners.local import BEAM_PIPELINE_ARGS

# Read before any test puts something of ours in their place.
SUBMODULES_THAT_BEAM_FINDS = cloudpickle._find_imported_submodules
SIZE_THAT_BEAM_FINDS = statecache.get_deep_size


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


COUNT = CombiningValueStateSpec("count", sum)
TIMER = TimerSpec("timer", TimeDomain.WATERMARK)
COUNT_PARAMETER = beam.DoFn.StateParam(COUNT)
TIMER_PARAMETER = beam.DoFn.TimerParam(TIMER)


class Counting(beam.DoFn):
    def process(self, element, count=COUNT_PARAMETER):
        count.add(1)
        yield element[1], count.read()

    @on_timer(TIMER)
    def end(self, timer=TIMER_PARAMETER):
        return []


class Adding:
    def add(self, element, count=COUNT_PARAMETER):
        yield element


def test_state_and_timers_of_a_dofn_are_those_that_beam_finds():
    remember_dofn_specs()
    plain = beam.ParDo(len).fn
    of_its_own = Doubling()
    of_its_own.process = Adding().add
    for _ in range(2):
        assert userstate.get_dofn_specs(Counting()) == ({COUNT}, {TIMER})
        assert userstate.get_dofn_specs(Doubling()) == (set(), set())
        assert userstate.get_dofn_specs(plain) == (set(), set())
        assert userstate.get_dofn_specs(of_its_own) == ({COUNT}, set())
    found, _ = userstate.get_dofn_specs(Counting())
    found.clear()
    assert userstate.get_dofn_specs(Counting())[0] == {COUNT}


def test_submodules_of_a_pickled_function_are_those_that_beam_finds(monkeypatch):
    def function():
        return email.mime.text, xml.dom, os.path

    mentioned = [email, xml, os, json, None, 3]

    def found():
        return find_imported_submodules(function.__code__, mentioned)

    assert found() == SUBMODULES_THAT_BEAM_FINDS(function.__code__, mentioned)
    assert {email.mime, email.mime.text, xml.dom} <= set(found())
    late = types.ModuleType("email.path")
    monkeypatch.setitem(sys.modules, "email.path", late)
    assert late in found()
    monkeypatch.delitem(sys.modules, "email.path")
    assert late not in found()


def test_state_weighs_what_it_holds_and_not_what_modules_hold():
    weigh_state_without_modules()
    for state in [b"x" * 1000], {"a": [b"x" * 1000, b"y" * 100_000]}, Doubling(), json.dumps, sys:
        assert statecache.get_deep_size(state) == SIZE_THAT_BEAM_FINDS(state)


def test_a_pipeline_with_state_and_side_inputs_runs_on_the_local_runner():
    hasten_beam()
    with beam.Pipeline(argv=BEAM_PIPELINE_ARGS) as pipeline:
        doubled = pipeline | beam.Create([1, 2, 3]) | beam.ParDo(Doubling())
        assert_that(doubled, equal_to([2, 4, 6]))
        total = beam.pvalue.AsSingleton(doubled | beam.CombineGlobally(sum))
        shares = doubled | beam.Map(lambda value, of: value / of, of=total)
        assert_that(shares, equal_to([2 / 12, 4 / 12, 6 / 12]), label="side input")
        counted = pipeline | "pairs" >> beam.Create([("a", 5), ("a", 5)]) | beam.ParDo(Counting())
        assert_that(counted, equal_to([(5, 1), (5, 2)]), label="state")
