"""Speed-ups of Apache Beam and TensorFlow Transform: patches that spare repeated work; what they compute is the same.

Each is a row of SPEEDUPS, at the end. Most pay on small data, where Beam spends its time on building and starting a
pipeline: together they take what `ingraph run` does up to Transform from about 10 to 6 s for the 303 rows of heart, and
for 200 columns save some 12 of 33 s. For 100,000 rows it takes 8.5 instead of 17 s, by how files are read. A patch that
gains less than 3 % of all of these is not worth its lines.

The figures are CPU time on two cores, imports apart, as `python -m benchmarks.beam_speedups` measures it.
"""

from __future__ import annotations

import copy
import functools
import logging
import pkgutil
import sys
import types
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from types import CodeType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

# The releases that are patched, by package.
TESTED_RELEASES = {"apache_beam": ("2.77",), "tensorflow_transform": ("1.21",), "tfx_bsl": ("1.21",)}


@dataclass(frozen=True)
class Speedup:
    """A patch of one attribute of a library.

    Attributes:
        replaces: the attribute, as `pkgutil.resolve_name` takes it.
        replacement: makes what takes its place from what was there.
        why: the work that it spares.
        gain: the share of the CPU time that it saves beside the others.
    """

    replaces: str
    replacement: Callable[[Any], Any]
    why: str
    gain: str


_applied: set[Speedup] = set()


def apply_beam_speedups(speedups: Sequence[Speedup] | None = None) -> None:
    """Patch what is in this process; a release beside TESTED_RELEASES is left as it is, with a line in the log.

    Applying a patch again changes nothing.

    Args:
        speedups: all by default.

    Raises:
        AttributeError: a library does not have what one replaces.
    """
    patched = set()
    for package, releases in TESTED_RELEASES.items():
        found = version(package)
        if ".".join(found.split(".")[:2]) in releases:
            patched.add(package)
        else:
            logging.getLogger(__name__).warning(
                "%s %s is not patched: the speed-ups were tested on %s.x; small data take longer",
                package,
                found,
                ".x, ".join(releases),
            )
    for speedup in SPEEDUPS if speedups is None else speedups:
        if speedup not in _applied and speedup.replaces.partition(".")[0] in patched:
            path, _, attribute = speedup.replaces.rpartition(".")
            owner = pkgutil.resolve_name(path)
            setattr(owner, attribute, speedup.replacement(getattr(owner, attribute)))
            _applied.add(speedup)


def _dofn_specs_with_cache(get_dofn_specs: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """userstate.get_dofn_specs that reads the parameters of a DoFn's methods once per class."""
    known: WeakKeyDictionary[type, tuple[set[Any], set[Any]]] = WeakKeyDictionary()

    def specs(dofn: Any) -> tuple[set[Any], set[Any]]:
        # A method that was given to this object alone, as the ParDo of a bound method has it.
        if any(isinstance(value, types.MethodType) for value in vars(dofn).values()):
            found: tuple[set[Any], set[Any]] = get_dofn_specs(dofn)
            return found
        if type(dofn) not in known:
            known[type(dofn)] = get_dofn_specs(dofn)
        states, timers = known[type(dofn)]
        return set(states), set(timers)

    return specs


def _options_with_cache(parse: Callable[..., None]) -> Callable[..., None]:
    """PipelineOptions.__init__ that builds an argument parser once per kind of options and arguments."""
    parsed: dict[tuple[type, tuple[str, ...]], Any] = {}

    def init(self: Any, flags: list[str] | None = None, **overrides: Any) -> None:
        if flags is None or isinstance(flags, str) or overrides:
            parse(self, flags, **overrides)
            return
        key = type(self), tuple(flags)
        if key not in parsed:
            parse(self, flags)
            parsed[key] = copy.deepcopy(self._visible_options)
            return
        self._flags = flags
        self._visible_options = copy.deepcopy(parsed[key])
        self._all_options = dict(vars(self._visible_options))

    return init


def _size_without_modules(get_deep_size: Callable[..., int]) -> Callable[..., int]:
    """The size of state by Beam's own filter alone, which leaves out modules and functions."""
    import objsize
    from apache_beam.runners.worker import statecache

    return functools.partial(
        objsize.get_deep_size,
        get_size_func=statecache._size_func,
        get_referents_func=statecache._get_referents_func,
        filter_func=statecache._filter_func,
        exclude_modules_globals=False,
    )


def _submodules_by_index(find: Callable[..., Any]) -> Callable[[CodeType, Iterable[object]], list[ModuleType]]:
    """cloudpickle's search for the submodules that a function's code mentions, in an index of the imported modules."""
    index = _ModuleIndex()

    def find_imported_submodules(code: CodeType, dependencies: Iterable[object]) -> list[ModuleType]:
        packages = [module for module in dependencies if isinstance(module, ModuleType) and module.__package__]
        names = set(code.co_names)
        return [
            sys.modules[name]
            for package in packages
            for name in index.submodules(package.__name__)
            if name in sys.modules and names.issuperset(name[len(package.__name__) + 1 :].split("."))
        ]

    return find_imported_submodules


class _ModuleIndex:
    """The names in sys.modules by the packages they lie in, made anew after an import."""

    def __init__(self) -> None:
        self._made_of: tuple[int, str] | None = None
        self._names: dict[str, list[str]] = {}

    def submodules(self, package: str) -> list[str]:
        # An import puts a name at the end.
        now = len(sys.modules), next(reversed(sys.modules))
        if now != self._made_of:
            self._made_of, self._names = now, _by_package(list(sys.modules))
        return self._names.get(package, [])


def _by_package(modules: Iterable[str]) -> dict[str, list[str]]:
    names = defaultdict(list)
    for module in modules:
        parent = module.rpartition(".")[0]
        while parent:
            names[parent].append(module)
            parent = parent.rpartition(".")[0]
    return dict(names)


def _traced_once(trace: Callable[..., Any]) -> Callable[..., Any]:
    """trace_preprocessing_function that keeps the last graph that was asked for to be looked at only.

    A graph that is to be saved has a folder for its assets, and is traced as ever.
    """
    from tensorflow_transform.analyzer_nodes import TENSOR_REPLACEMENTS

    kept: list[Any] = []

    def traced(
        preprocessing_fn: Any, input_specs: Any, use_tf_compat_v1: bool, base_temp_dir: str | None = None
    ) -> Any:
        if base_temp_dir is not None or use_tf_compat_v1:
            kept.clear()
            return trace(preprocessing_fn, input_specs, use_tf_compat_v1, base_temp_dir)
        if not kept or kept[0] is not preprocessing_fn or kept[1] != input_specs:
            found = trace(preprocessing_fn, input_specs, use_tf_compat_v1)
            kept[:] = [preprocessing_fn, dict(input_specs), found, found[0].get_collection(TENSOR_REPLACEMENTS)]
        graph = kept[2][0]
        # Who looks at it empties the collection.
        graph.clear_collection(TENSOR_REPLACEMENTS)
        for replacement in kept[3]:
            graph.add_to_collection(TENSOR_REPLACEMENTS, replacement)
        return kept[2]

    return traced


def _shared_defaults(supply: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """supply_missing_inputs with one default for all sparse columns of a dtype, instead of ten nodes for each."""
    import tensorflow as tf

    def supplied(
        structured_inputs: Mapping[str, Any], batch_size: int, missing_keys: Iterable[str] | None = None
    ) -> dict[str, Any]:
        names = list(missing_keys or structured_inputs)
        if tf.executing_eagerly():
            return supply(structured_inputs, batch_size, names)
        result: dict[str, Any] = {}
        first: dict[Any, Any] = {}
        for name in names:
            tensor = structured_inputs[name]
            if not isinstance(tensor, tf.SparseTensor):
                result |= supply(structured_inputs, batch_size, [name])
                continue
            sort = tensor.dtype, tensor.shape.rank
            if sort not in first:
                (first[sort],) = supply(structured_inputs, batch_size, [name]).values()
                result[name] = first[sort]
                continue
            parts = {
                part: tf.raw_ops.PlaceholderWithDefault(
                    input=getattr(first[sort], part).op.inputs[0], shape=getattr(tensor, part).shape
                )
                for part in ("indices", "values", "dense_shape")
            }
            result[name] = tf.SparseTensor(**parts)
        return result

    return supplied


def _source_keys_at_once(_: Callable[..., set[str]]) -> Callable[..., set[str]]:
    """_retrieve_source_keys that looks each input up, instead of comparing each with all others."""
    from tensorflow_transform import graph_tools
    from tensorflow_transform.tf_utils import hashable_tensor_or_op

    def source_keys(sourced_tensors: Iterable[Any], structured_inputs: Mapping[str, Any]) -> set[str]:
        sinks = [tensor.op for tensor in sourced_tensors]
        sources = graph_tools.retrieve_sources(sinks, ignore_control_dependencies=True)
        found = {hashable_tensor_or_op(source) for source in sources}
        return {
            name
            for name, value in structured_inputs.items()
            if any(hashable_tensor_or_op(part) in found for part in graph_tools._decompose_tensor_or_op(value))
        }

    return source_keys


def _sampled_often(init: Callable[..., None]) -> Callable[..., None]:
    """StateSampler.__init__ whose thread sleeps 5 ms at most, and so is waited for no longer at the end of a bundle."""

    def initialized(self: Any, prefix: str, counter_factory: Any, sampling_period_ms: int = 5) -> None:
        init(self, prefix, counter_factory, sampling_period_ms)

    return initialized


# Each batch costs every column some time, however many records it has: TFDV 0.4 ms. So much of each column is enough;
# Transform makes a hundred times its size of a text.
_MOST_RECORDS, _BYTES_OF_A_COLUMN = 8192, 2**17


def _read_many_at_once(beam_source: Callable[..., Any]) -> Callable[..., Any]:
    """TFExampleRecord.BeamSource that reads the records of a file some MiB at a time, where no size is asked for.

    Other runners than the one in memory get what TFX has.
    """
    import apache_beam as beam
    import pyarrow as pa
    from apache_beam.io import fileio
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder
    from tfx_bsl.tfxio.record_based_tfxio import AppendRawRecordColumn

    from serving.reference_predictions import read_record_batches

    def source(self: Any, batch_size: int | None = None) -> Any:
        if batch_size is not None:
            return beam_source(self, batch_size)
        patterns, raw_column, schema = self._file_pattern, self.raw_record_column_name, self._GetSchemaForDecoding()
        decoder_of = [] if schema is None else [schema.SerializeToString()]
        enough = {} if schema is None else {"enough_bytes": _BYTES_OF_A_COLUMN * len(schema.feature)}

        def record_batches(file: Any) -> Iterator[pa.RecordBatch]:
            decoder = ExamplesToRecordBatchDecoder(*decoder_of)
            for records in read_record_batches([file.path], _MOST_RECORDS, **enough):
                examples = records.tolist()
                decoded = decoder.DecodeBatch(examples)
                yield decoded if raw_column is None else AppendRawRecordColumn(decoded, raw_column, examples)

        def read(begin: Any) -> Any:
            if not isinstance(begin.pipeline.runner, FnApiRunner):
                return begin | beam_source(self)
            return (
                begin
                | "FilePatterns" >> beam.Create(patterns)
                | "Files" >> fileio.MatchAll()
                | "Reshuffle" >> beam.Reshuffle()
                | "RecordBatches" >> beam.FlatMap(record_batches).with_output_types(pa.RecordBatch)
            )

        return beam.ptransform_fn(read)()

    return source


SPEEDUPS = (
    Speedup(
        replaces="apache_beam.transforms.userstate.get_dofn_specs",
        replacement=_dofn_specs_with_cache,
        why="The parameters of the same DoFn's methods are inspected at five places per stage, 2,600 times for heart.",
        gain="18 % of heart, 5 % of 100,000 rows",
    ),
    Speedup(
        replaces="apache_beam.options.pipeline_options.PipelineOptions.__init__",
        replacement=_options_with_cache,
        why="Each view of the options (`view_as`) builds a parser for the same arguments anew, 2,900 times for heart.",
        gain="16 % of heart, 5 % of 100,000 rows",
    ),
    Speedup(
        replaces="apache_beam.runners.worker.statecache.get_deep_size",
        replacement=_size_without_modules,
        why="objsize lists what every imported module holds, for each value whose size is asked, and leaves it out.",
        gain="6 % of heart, 1 % of 100,000 rows",
    ),
    Speedup(
        replaces="apache_beam.internal.cloudpickle.cloudpickle._find_imported_submodules",
        replacement=_submodules_by_index,
        why="The names of all 10,000 imported modules are compared for each package that a pickled function mentions.",
        gain="4 % of heart, 1 % of 100,000 rows",
    ),
    Speedup(
        replaces="tensorflow_transform.impl_helper.trace_preprocessing_function",
        replacement=_traced_once,
        why="The preprocessing is traced five times to see which columns, caches and data sets it needs.",
        gain="7 % of heart",
    ),
    Speedup(
        replaces="tensorflow_transform.graph_tools._retrieve_source_keys",
        replacement=_source_keys_at_once,
        why="Each input of an analyzer is compared with each column of the table.",
        gain="2 % of 200 columns, 6 % of 800 columns: the time grows with their square",
    ),
    Speedup(
        replaces="tensorflow_transform.tf2_utils.supply_missing_inputs",
        replacement=_shared_defaults,
        why="Of columns that are not there, as the label is in serving, each has ten nodes of its own.",
        gain="2 % of heart, 16 % of 200 columns",
    ),
    Speedup(
        replaces="tfx_bsl.tfxio.tf_example_record.TFExampleRecord.BeamSource",
        replacement=_read_many_at_once,
        why="Each record passes a dozen functions of Python on its way to a batch, and each batch costs every column.",
        gain="8 % of heart, 34 % of 100,000 rows",
    ),
    Speedup(
        replaces="apache_beam.runners.worker.statesampler.StateSampler.__init__",
        replacement=_sampled_often,
        why="Each bundle ends with waiting for a thread that sleeps up to 200 ms.",
        gain="4 % of heart by the clock (103 bundles: 0.12 instead of 0.48 s), no CPU time",
    ),
)
