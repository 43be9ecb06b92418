"""The local runner: Beam with its speed-ups answers as Beam does; the allocator and oneDNN."""

from __future__ import annotations

import ctypes
import email.mime.text
import json
import logging
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import threading
import types
import xml.dom
from importlib import metadata

import apache_beam as beam
import pyarrow as pa
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from apache_beam.internal.cloudpickle import cloudpickle
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, SetupOptions, StandardOptions
from apache_beam.runners.worker import statecache
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms import userstate
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import CombiningValueStateSpec, TimerSpec, on_timer
from tensorflow_transform import graph_tools, tf2_utils
from tensorflow_transform.beam import analyzer_cache
from tensorflow_transform.beam.analysis_graph_builder import get_analysis_cache_entry_keys
from tfx.proto.orchestration import pipeline_pb2
from tfx_bsl.tfxio import tf_example_record

from components.serving_check import model_process
from pipeline.runners import beam_speedups, local
from pipeline.runners.beam_speedups import SPEEDUPS, apply_beam_speedups
from pipeline.runners.local import BEAM_PIPELINE_ARGS, LocalRunner
from pipeline.tasks import TASKS
from serving.loading import onednn

# Read before any test puts something of ours in their place.
SUBMODULES_THAT_BEAM_FINDS = cloudpickle._find_imported_submodules
SIZE_THAT_BEAM_FINDS = statecache.get_deep_size
SOURCE_KEYS_THAT_TRANSFORM_FINDS = graph_tools._retrieve_source_keys
BATCHES_THAT_TFX_READS = tf_example_record.TFExampleRecord.BeamSource
INPUTS_THAT_TRANSFORM_SUPPLIES = tf2_utils.supply_missing_inputs


class Doubling(beam.DoFn):
    def process(self, element: int, window=beam.DoFn.WindowParam):
        yield 2 * element


def test_options_are_those_that_beam_parses_and_changing_one_changes_no_other():
    arguments = ["--runner=DirectRunner", "--direct_num_workers=3", "--requirements_file=a.txt"]
    plain = {
        view: PipelineOptions(arguments).view_as(view).get_all_options() for view in (StandardOptions, SetupOptions)
    }
    apply_beam_speedups()
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
    apply_beam_speedups()
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
    apply_beam_speedups()

    def function():
        return email.mime.text, xml.dom, os.path

    mentioned = [email, xml, os, json, None, 3]

    def found():
        return cloudpickle._find_imported_submodules(function.__code__, mentioned)

    assert found() == SUBMODULES_THAT_BEAM_FINDS(function.__code__, mentioned)
    assert {email.mime, email.mime.text, xml.dom} <= set(found())
    late = types.ModuleType("email.path")
    monkeypatch.setitem(sys.modules, "email.path", late)
    assert late in found()
    monkeypatch.delitem(sys.modules, "email.path")
    assert late not in found()


def test_state_weighs_what_it_holds_and_not_what_modules_hold():
    apply_beam_speedups()
    for state in [b"x" * 1000], {"a": [b"x" * 1000, b"y" * 100_000]}, Doubling(), json.dumps, sys:
        assert statecache.get_deep_size(state) == SIZE_THAT_BEAM_FINDS(state)


COLLECTED: list[pa.RecordBatch] = []


def collect(batch: pa.RecordBatch) -> None:
    COLLECTED.append(batch)


@pytest.mark.parametrize("raw_column", [None, "raw"])
def test_examples_of_files_are_those_that_tfx_reads_in_batches_of_four_mebibytes_or_eight_thousand(
    tmp_path, raw_column
):
    apply_beam_speedups()
    sizes = {"few.gz": [8] * 9000, "none.gz": [], "large.gz": [3 * 2**20] * 3, "plain": [5]}
    for name, lengths in sizes.items():
        with tf.io.TFRecordWriter(str(tmp_path / name), "GZIP" if name.endswith(".gz") else "") as writer:
            for number, length in enumerate(lengths):
                example = tf.train.Example()
                example.features.feature["number"].int64_list.value.append(number)
                example.features.feature["text"].bytes_list.value.append(b"x" * length)
                writer.write(example.SerializeToString())
    source = tf_example_record.TFExampleRecord(
        f"{tmp_path}/*", telemetry_descriptors=["test"], raw_record_column_name=raw_column
    )
    sources = {"ours": source.BeamSource(), "theirs": BATCHES_THAT_TFX_READS(source), "of 2": source.BeamSource(2)}
    found = {}
    for name, read in sources.items():
        COLLECTED.clear()
        with beam.Pipeline(argv=BEAM_PIPELINE_ARGS) as pipeline:
            _ = pipeline | read | beam.Map(collect)
        found[name] = [*COLLECTED]
    assert sorted(batch.num_rows for batch in found["ours"]) == [1, 1, 2, 808, 8192]
    assert max(batch.num_rows for batch in found["of 2"]) == 2
    rows = {name: sorted(str(row) for batch in batches for row in batch.to_pylist()) for name, batches in found.items()}
    assert len(rows["ours"]) == 9004 and rows["ours"] == rows["theirs"] == rows["of 2"]


def test_the_more_columns_a_schema_has_the_more_examples_are_in_a_batch(tmp_path):
    apply_beam_speedups()
    with tf.io.TFRecordWriter(f"{tmp_path}/texts.gz", "GZIP") as writer:
        for number in range(2000):
            example = tf.train.Example()
            example.features.feature["text"].bytes_list.value.append(b"%1000d" % number)
            writer.write(example.SerializeToString())
    for columns, expected in [(1, 256), (2, 384), (4, 640)]:  # the first 128 times n that have 128 KiB for each
        spec = {"text": tf.io.VarLenFeature(tf.string)}
        spec |= {f"number{place}": tf.io.VarLenFeature(tf.int64) for place in range(columns - 1)}
        schema = tft.DatasetMetadata.from_feature_spec(spec).schema
        COLLECTED.clear()
        with beam.Pipeline(argv=BEAM_PIPELINE_ARGS) as pipeline:
            source = tf_example_record.TFExampleRecord(f"{tmp_path}/*", telemetry_descriptors=["test"], schema=schema)
            _ = pipeline | source.BeamSource() | beam.Map(collect)
        assert {batch.num_rows for batch in COLLECTED[:-1]} == {expected}
        texts = [int(text[0]) for batch in COLLECTED for text in batch.column("text").to_pylist()]
        assert texts == list(range(2000))


def test_the_sources_of_an_analyzer_are_those_that_transform_finds():
    apply_beam_speedups()
    with tf.Graph().as_default():
        inputs = {name: tf.compat.v1.sparse_placeholder(tf.float32, [None, None]) for name in ("a", "b")}
        inputs |= {
            "dense": tf.compat.v1.placeholder(tf.float32, [None]),
            "unused": tf.raw_ops.Placeholder(dtype="int64"),
        }
        of_some = tf.reduce_sum(inputs["a"].values) + tf.reduce_sum(inputs["dense"])
        for tensors in [of_some], [inputs["b"].dense_shape, of_some], []:
            expected = SOURCE_KEYS_THAT_TRANSFORM_FINDS(tensors, inputs)
            assert graph_tools._retrieve_source_keys(tensors, inputs) == expected
        assert graph_tools._retrieve_source_keys([of_some], inputs) == {"a", "dense"}


@pytest.mark.parametrize("keys", [None, ["c", "text"]])
def test_columns_that_are_not_there_get_what_transform_supplies(keys):
    apply_beam_speedups()
    dtypes = {"a": tf.int64, "b": tf.int64, "text": tf.string, "c": tf.int64}

    def columns(supply) -> dict[str, tf.Tensor]:
        @tf.function(autograph=False)
        def supplied() -> dict[str, tf.Tensor]:
            inputs = {name: tf.compat.v1.sparse_placeholder(dtype, [None, None]) for name, dtype in dtypes.items()}
            inputs["dense"] = tf.raw_ops.Placeholder(dtype=tf.float32, shape=[None, 1])
            found = supply(inputs, 1, keys)
            assert all(found[name].shape.as_list() == inputs[name].shape.as_list() for name in found)
            return found

        return supplied()

    found, expected = columns(tf2_utils.supply_missing_inputs), columns(INPUTS_THAT_TRANSFORM_SUPPLIES)
    assert list(found) == list(expected)
    for given, wanted in zip(tf.nest.flatten(found, True), tf.nest.flatten(expected, True), strict=True):
        assert given.dtype == wanted.dtype and given.numpy().tolist() == wanted.numpy().tolist()


def test_a_pipeline_with_state_and_side_inputs_runs_on_the_local_runner():
    apply_beam_speedups()
    with beam.Pipeline(argv=BEAM_PIPELINE_ARGS) as pipeline:
        doubled = pipeline | beam.Create([1, 2, 3]) | beam.ParDo(Doubling())
        assert_that(doubled, equal_to([2, 4, 6]))
        total = beam.pvalue.AsSingleton(doubled | beam.CombineGlobally(sum))
        shares = doubled | beam.Map(lambda value, of: value / of, of=total)
        assert_that(shares, equal_to([2 / 12, 4 / 12, 6 / 12]), label="side input")
        counted = pipeline | "pairs" >> beam.Create([("a", 5), ("a", 5)]) | beam.ParDo(Counting())
        assert_that(counted, equal_to([(5, 1), (5, 2)]), label="state")


@pytest.mark.parametrize("speedup", SPEEDUPS, ids=lambda speedup: speedup.replaces)
def test_what_a_speedup_replaces_is_there_in_this_beam(speedup):
    pkgutil.resolve_name(speedup.replaces)


@pytest.fixture
def unpatched(monkeypatch) -> dict[str, object]:
    """Stand-ins for what the speed-ups replace, as if none had been applied."""
    monkeypatch.setattr(beam_speedups, "_applied", set())
    originals = {}
    for speedup in SPEEDUPS:
        owner, _, attribute = speedup.replaces.rpartition(".")
        originals[speedup.replaces] = object()
        monkeypatch.setattr(pkgutil.resolve_name(owner), attribute, originals[speedup.replaces])
    return originals


@pytest.mark.parametrize(
    ("package", "version", "tested"),
    [("apache_beam", "2.76.0", "2.77"), ("apache_beam", "3.77.0", "2.77"), ("tensorflow_transform", "1.22.0", "1.21")],
)
def test_another_release_is_not_patched_and_the_log_says_so_in_a_line(
    package, version, tested, unpatched, monkeypatch, caplog
):
    monkeypatch.setattr(beam_speedups, "version", lambda name: version if name == package else metadata.version(name))
    with caplog.at_level(logging.INFO):
        apply_beam_speedups()
    left = {replaced for replaced in unpatched if pkgutil.resolve_name(replaced) is unpatched[replaced]}
    assert left == {replaced for replaced in unpatched if replaced.startswith(package + ".")}
    assert [record.getMessage() for record in caplog.records] == [
        f"{package} {version} is not patched: the speed-ups were tested on {tested}.x; small data take longer"
    ]


@pytest.mark.parametrize("version", ["2.77.0", "2.77.1"])
def test_the_tested_releases_are_patched_and_the_log_says_nothing(version, unpatched, monkeypatch, caplog):
    monkeypatch.setattr(
        beam_speedups, "version", lambda name: version if name == "apache_beam" else metadata.version(name)
    )
    with caplog.at_level(logging.INFO):
        apply_beam_speedups()
    patched = {replaced: pkgutil.resolve_name(replaced) for replaced in unpatched}
    assert not set(map(id, patched.values())) & set(map(id, unpatched.values()))
    apply_beam_speedups()
    assert {replaced: pkgutil.resolve_name(replaced) for replaced in unpatched} == patched
    assert caplog.records == []


def test_the_preprocessing_is_traced_once_to_be_looked_at_and_each_look_sees_its_analyzers():
    apply_beam_speedups()
    specs = {name: tf.TensorSpec([None], tf.float32) for name in ("weighed", "passed", "unused")}
    traced = []

    def preprocessing_fn(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        traced.append(sorted(inputs))
        return {"weighed": tft.scale_to_0_1(inputs["weighed"]), "passed": inputs["passed"]}

    def other(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"passed": tft.scale_to_0_1(inputs["passed"])}

    keys = {analyzer_cache.DatasetKey("train")}
    caches = []
    for _ in range(2):
        assert tft.get_analyze_input_columns(preprocessing_fn, specs) == ["weighed"]
        assert sorted(tft.get_transform_input_columns(preprocessing_fn, specs)) == ["passed", "weighed"]
        caches.append(get_analysis_cache_entry_keys(preprocessing_fn, specs, keys, False))
    assert len(caches[0]) == 1
    assert caches[0] == caches[1]
    assert traced == [["passed", "unused", "weighed"]]

    fewer = {name: specs[name] for name in ("weighed", "passed")}
    assert tft.get_analyze_input_columns(preprocessing_fn, fewer) == ["weighed"]
    assert traced[1:] == [["passed", "weighed"]]
    assert tft.get_analyze_input_columns(other, specs) == ["passed"]


ALLOCATED = """
import ctypes
from pipeline.runners.local import keep_freed_memory, return_freed_memory

class MallocInfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype, libc.malloc.restype = MallocInfo, ctypes.c_void_p

def mapped_by_itself(size):
    before = libc.mallinfo2().hblks
    libc.malloc(ctypes.c_size_t(size))
    return libc.mallinfo2().hblks - before

libc.free(ctypes.c_void_p(libc.malloc(ctypes.c_size_t(16_000_000))))  # smaller blocks come from the heap now
found = [mapped_by_itself(4_000_000)]
return_freed_memory()
found += [mapped_by_itself(4_000_000)]
keep_freed_memory()
found += [mapped_by_itself(4_000_000)]
print(*found)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="mallinfo2 is of glibc 2.33 and later")
def test_large_blocks_are_mapped_where_freed_memory_returns_and_lie_in_the_heap_where_it_is_kept():
    said = subprocess.run([sys.executable, "-c", ALLOCATED], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["0", "1", "0"]


@pytest.mark.parametrize(
    ("example_gen", "expected"),
    [
        ("ImageExampleGen", "ImageExampleGen return keep Tuner keep Trainer keep Evaluator return keep"),
        ("TableExampleGen", "TableExampleGen Tuner Trainer Evaluator"),
    ],
)
def test_freed_memory_returns_while_photos_are_read_and_not_while_they_are_trained_on(
    example_gen, expected, monkeypatch
):
    done = []
    monkeypatch.setattr(local, "return_freed_memory", lambda: done.append("return"))
    monkeypatch.setattr(local, "keep_freed_memory", lambda: done.append("keep"))
    monkeypatch.setattr(local, "_launch", lambda node, pipeline: 0.0)
    pipeline = pipeline_of(example_gen, "Tuner", "Trainer", "Evaluator")
    LocalRunner("run", done.append, lambda node, seconds: None).run_with_ir(pipeline)
    assert " ".join(done) == expected


def pipeline_of(*names: str) -> pipeline_pb2.Pipeline:
    """Nodes of these names; the serving check waits for the Trainer."""
    pipeline = pipeline_pb2.Pipeline()
    for name in names:
        pipeline.nodes.add().pipeline_node.node_info.id = name
        if name == "ServingCheck":
            pipeline.nodes[-1].pipeline_node.upstream_nodes.append("Trainer")
    return pipeline


def test_the_serving_check_runs_beside_the_evaluator_and_is_told_in_its_turn(monkeypatch):
    checking, told = threading.Event(), []

    def launch(node, pipeline, recorded=lambda: None):
        if node.node_info.id == "ServingCheck":
            checking.set()
        if node.node_info.id == "Evaluator":
            assert not checking.wait(0.1)
            recorded()
            assert checking.wait(60)  # it has begun, and the Evaluator has not ended
        return {"Evaluator": 2.0, "ServingCheck": 1.5}.get(node.node_info.id, 0.0)

    monkeypatch.setattr(local, "_launch", launch)
    steps = pipeline_of("TableExampleGen", "Trainer", "Evaluator", "ServingCheck", "ServingPusher")
    LocalRunner("run", told.append, lambda node, seconds: told.append((node, seconds))).run_with_ir(steps)
    names = ["TableExampleGen", "Trainer", "Evaluator", "ServingCheck", "ServingPusher"]
    assert told[::2] == names
    assert dict(told[1::2]) == dict(zip(names, [0.0, 0.0, 2.0, 1.5, 0.0], strict=True))


def test_a_serving_check_of_photos_waits_until_the_evaluator_has_ended(monkeypatch):
    launched = []
    monkeypatch.setattr(local, "_launch", lambda node, pipeline: launched.append(node.node_info.id) or 0.0)
    monkeypatch.setattr(local, "return_freed_memory", lambda: None)
    monkeypatch.setattr(local, "keep_freed_memory", lambda: None)
    steps = ["ImageExampleGen", "Trainer", "Evaluator", "ServingCheck"]
    LocalRunner("run", lambda node: None, lambda node, seconds: None).run_with_ir(pipeline_of(*steps))
    assert launched == steps


def test_where_the_evaluator_fails_the_check_beside_it_is_interrupted_and_says_nothing(monkeypatch):
    sleeping = subprocess.Popen(["sleep", "60"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    asking, ended = threading.Event(), []

    def launch(node, pipeline, recorded=lambda: None):
        recorded()
        if node.node_info.id == "Evaluator":
            assert asking.wait(60)
            raise ZeroDivisionError
        if node.node_info.id == "ServingCheck":
            with model_process.ModelProcess(60) as process:
                asking.set()
                try:
                    process.load("nothing")
                except BaseException as error:
                    ended.append(type(error))
                    raise
        return 0.0

    monkeypatch.setattr(local, "_launch", launch)
    errors = tempfile.TemporaryFile()  # noqa: SIM115 (the check closes it)
    monkeypatch.setattr(model_process, "_ahead", [model_process.StartedProcess(sleeping, errors)])
    with pytest.raises(ZeroDivisionError):
        LocalRunner("run", lambda node: None, lambda node, seconds: None).run_with_ir(
            pipeline_of("Trainer", "Evaluator", "ServingCheck")
        )
    assert ended == [KeyboardInterrupt]
    assert sleeping.returncode == -signal.SIGKILL


def test_what_the_check_found_wrong_is_raised_when_its_turn_has_come(monkeypatch):
    def launch(node, pipeline, recorded=lambda: None):
        recorded()
        if node.node_info.id == "ServingCheck":
            raise FileNotFoundError
        return 0.0

    told = []
    monkeypatch.setattr(local, "_launch", launch)
    with pytest.raises(FileNotFoundError):
        LocalRunner("run", told.append, lambda node, seconds: None).run_with_ir(
            pipeline_of("Trainer", "Evaluator", "ServingCheck", "ServingPusher")
        )
    assert told == ["Trainer", "Evaluator", "ServingCheck"]


SWITCH = "TF_ENABLE_ONEDNN_OPTS"
IMPORTED = """
import os
from serving.loading import onednn
from pipeline.tasks import TASKS

with onednn(TASKS["image"].uses_onednn):
    import tensorflow
print(os.environ.get("TF_ENABLE_ONEDNN_OPTS"))
"""


def test_a_run_on_photos_imports_tensorflow_with_onednn_and_leaves_the_environment_as_it_was():
    environment = {name: value for name, value in os.environ.items() if name not in (SWITCH, "TF_CPP_MIN_LOG_LEVEL")}
    done = subprocess.run([sys.executable, "-c", IMPORTED], env=environment, capture_output=True, text=True, check=True)
    assert "oneDNN custom operations are on" in done.stderr
    assert done.stdout.strip() == "None"


@pytest.mark.parametrize("task", ["tabular", "text"])
def test_a_run_on_rows_or_texts_leaves_the_choice_to_tensorflow(task, monkeypatch):
    monkeypatch.delenv(SWITCH, raising=False)
    with onednn(TASKS[task].uses_onednn):
        assert SWITCH not in os.environ


def test_what_the_environment_says_holds(monkeypatch):
    monkeypatch.setenv(SWITCH, "0")
    with onednn(TASKS["image"].uses_onednn):
        assert os.environ[SWITCH] == "0"
    assert os.environ[SWITCH] == "0"
