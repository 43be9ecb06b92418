"""What the signatures of all tasks share: missing values, raw features, labels, and the export."""

from __future__ import annotations

import itertools
import keyword
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tensorflow.python.saved_model.fingerprinting_utils import write_fingerprint

from serving.answers import Decision, UnknownRule
from serving.missing_values import MISSING_FLOAT, MISSING_INTEGER, missing_value


def is_missing(values: tf.Tensor) -> tf.Tensor:
    """Which values are missing: a bool tensor of the same shape.

    Floats that are NaN, infinite or of magnitude 1e38 and above count as missing, and so do blank strings.
    """
    if values.dtype == tf.string:
        return tf.equal(tf.strings.length(tf.strings.strip(values)), 0)
    if values.dtype.is_integer:
        return tf.equal(values, tf.constant(MISSING_INTEGER, values.dtype))
    # Not as "not smaller than": the graph optimizer turns that into "at least", which NaN is not.
    far_out = tf.greater_equal(tf.abs(values), tf.constant(-MISSING_FLOAT, values.dtype))
    return tf.logical_or(tf.math.is_nan(values), far_out)


Features = Mapping[str, Any]
FeatureSpec = Mapping[str, tf.io.FixedLenFeature | tf.io.VarLenFeature]


def raw_features(values: Mapping[str, tf.Tensor], spec: FeatureSpec) -> dict[str, tf.Tensor | tf.SparseTensor]:
    """A request's columns, [batch] or [batch, 1] each, in the forms in which the schema describes the features.

    Args:
        values: by name; NaN, blank strings and what else is_missing finds are values that are not there.
        spec: of these features, and maybe of others.
    """
    flat = {name: tf.reshape(column, [-1]) for name, column in values.items()}
    raw = {
        name: tf.reshape(column, [-1, *spec[name].shape])
        for name, column in flat.items()
        if isinstance(spec[name], tf.io.FixedLenFeature)
    }
    of_dtype: dict[tf.DType, list[str]] = {}
    for name, column in flat.items():
        if name not in raw:
            of_dtype.setdefault(column.dtype, []).append(name)
    # The columns of a dtype are looked through together: the time of a model's first answer grows with its nodes.
    for names in of_dtype.values():
        together = tf.stack([flat[name] for name in names])
        known = ~is_missing(together)
        present = tf.where(known)  # column by column
        rows = tf.stack([present[:, 1], tf.zeros_like(present[:, 1])], axis=1)
        counts = tf.math.count_nonzero(known, axis=1)
        shape = tf.stack([tf.shape(together, tf.int64)[1], 1])
        indices = tf.split(rows, counts, num=len(names))
        found = tf.split(tf.gather_nd(together, present), counts, num=len(names))
        raw |= {name: tf.SparseTensor(*parts, shape) for name, *parts in zip(names, indices, found, strict=True)}
    return {name: raw[name] for name in values}


def parse_examples(examples: tf.Tensor, spec: FeatureSpec) -> dict[str, tf.Tensor | tf.SparseTensor]:
    """Serialized tf.Examples as raw features; a feature that an example lacks is missing, never an error."""
    lenient = {
        name: tf.io.FixedLenFeature(feature.shape, feature.dtype, default_value=missing_value(feature.dtype.name))
        if isinstance(feature, tf.io.FixedLenFeature) and not feature.shape
        else feature
        for name, feature in spec.items()
    }
    parsed: dict[str, tf.Tensor | tf.SparseTensor] = tf.io.parse_example(examples, lenient)
    return parsed


# The output of classify that is what serving_default answers, of models where that is not always the best label.
ANSWER = "answer"
# The file name of the vocabulary, among the assets of Transform's graph and of the export.
VOCABULARY = "labels"


class Labels(tf.Module):
    """The label vocabulary as an asset of the SavedModel, and the lookups on it.

    Args:
        vocabulary: a text file with one label a line; line i names class i.
        decision: which label is answered; None for the most probable one.
        unknown: when serving_default answers a label that is not in the vocabulary; None for never.
    """

    def __init__(self, vocabulary: str, decision: Decision | None = None, unknown: UnknownRule | None = None) -> None:
        super().__init__(name="labels")
        self._decision = None if decision is None else (_lines(vocabulary).index(decision.label), decision.threshold)
        self._unknown = unknown
        initializer = tf.lookup.TextFileInitializer(
            vocabulary, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE
        )
        self._table = tf.lookup.StaticHashTable(initializer, default_value="")

    def answered(self, probabilities: tf.Tensor) -> tf.Tensor:
        """string [batch]: what serving_default answers: the best label, the one of the decision, or that for unknown.

        Args:
            probabilities: float32 [batch, classes].
        """
        chosen = self.chosen(probabilities)
        label = self._table.lookup(chosen)
        if self._unknown is None:
            return label
        return tf.where(self._unknown.replaces(probabilities, chosen), self._unknown.label, label)

    def chosen(self, probabilities: tf.Tensor) -> tf.Tensor:
        """int64 [batch]: the number of the label that is answered, where that is not the one for unknown.

        Args:
            probabilities: float32 [batch, classes].
        """
        if self._decision is None:
            return tf.argmax(probabilities, axis=-1)
        number, threshold = self._decision
        decided = tf.range(tf.shape(probabilities)[1]) == number
        others = tf.argmax(tf.where(decided, -1.0, probabilities), axis=-1)
        is_decided = probabilities[:, number] >= tf.constant(threshold, tf.float32)
        return tf.where(is_decided, tf.constant(number, tf.int64), others)

    def answer_beside(self, probabilities: tf.Tensor) -> dict[str, tf.Tensor]:
        """What classify has beside its ranking: serving_default's answer, where that is not always the best label."""
        return {} if self._decision is None and self._unknown is None else {ANSWER: self.answered(probabilities)}

    def ranked(self, probabilities: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
        """The `count` best labels, string [batch, count], and their probabilities, float32 [batch, count]."""
        values, indices = tf.math.top_k(probabilities, k=count)
        return self._table.lookup(tf.cast(indices, tf.int64)), values


def read_labels(saved_model: str) -> list[str]:
    """The label vocabulary of an exported model, in the order of its probabilities.

    Args:
        saved_model: the directory that holds saved_model.pb.

    Raises:
        tf.errors.NotFoundError: the export has no label vocabulary.
    """
    return _lines(f"{saved_model}/assets/{VOCABULARY}")


def _lines(path: str) -> list[str]:
    with tf.io.gfile.GFile(path, "rb") as file:
        return [line.decode() for line in file.read().splitlines()]


SERVING_DEFAULT = "serving_default"
CLASSIFY = "classify"
SERVE_EXAMPLES = "serve_examples"
TRANSFORM_FEATURES = "transform_features"

# The label's number among the transformed features.
LABEL = "label"


class ServedModel(tf.Module):
    """What an export holds; attributes of tf.Module type bring their tables and assets along.

    Args:
        signatures: signature name -> function of the raw inputs, and the specs of those inputs by name.
        resources: what the functions use of tables and assets.
    """

    def __init__(
        self,
        signatures: Mapping[str, tuple[Callable[..., Mapping[str, tf.Tensor]], Mapping[str, tf.TensorSpec]]],
        resources: Mapping[str, Any],
    ) -> None:
        super().__init__(name="served_model")
        self.resources = dict(resources)
        self.arguments = {name: argument_names(inputs) for name, (_, inputs) in signatures.items()}
        self.concrete_signatures = {
            name: _concrete(name, function, inputs, self.arguments[name])
            for name, (function, inputs) in signatures.items()
        }
        # Variables that no module holds, as a forest's tables.
        graphs = [signature.graph for signature in self.concrete_signatures.values()]
        self.tables = list({table.ref(): table for graph in graphs for table in graph.variables}.values())


def _concrete(
    name: str,
    function: Callable[..., Mapping[str, tf.Tensor]],
    inputs: Mapping[str, tf.TensorSpec],
    arguments: Mapping[str, str],
) -> Any:
    def called(**values: tf.Tensor) -> Mapping[str, tf.Tensor]:
        return function(**{one: values[argument] for one, argument in arguments.items()})

    called.__name__ = name  # of the graph's functions
    specs = {arguments[one]: tf.TensorSpec(spec.shape, spec.dtype, arguments[one]) for one, spec in inputs.items()}
    # Without autograph, which takes seconds and finds nothing to convert.
    return tf.function(called, autograph=False).get_concrete_function(**specs)


def argument_names(inputs: Iterable[str]) -> dict[str, str]:
    """Name of each input -> the name that the argument of a tf.function may have for it, mostly the same.

    TensorFlow takes ASCII letters, digits and underscores, after a letter; no word of Python's, and no two names that
    differ in case alone. In a SignatureDef an input may have any name.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(inputs, key=lambda name: (_ARGUMENT.fullmatch(name) is None, name)):
        plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
        if not _ARGUMENT.fullmatch(plain) or keyword.iskeyword(plain) or plain == "self":
            plain = f"input_{plain}"
        others = (f"{plain}_{number}" for number in itertools.count(2))
        found[name] = plain if plain.lower() not in taken else next(one for one in others if one.lower() not in taken)
        taken.add(found[name].lower())
    return {name: found[name] for name in inputs}


_ARGUMENT = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def export(model: ServedModel, path: str) -> None:
    """Write the SavedModel; TensorFlow Serving's session loader accepts it, for it has no Keras variable."""
    tf.saved_model.save(model, path, signatures=model.concrete_signatures)
    if any(name != argument for names in model.arguments.values() for name, argument in names.items()):
        _name_inputs(path, model.arguments)


def _name_inputs(path: str, arguments: Mapping[str, Mapping[str, str]]) -> None:
    """Give the inputs of the signatures of a SavedModel the names that clients use."""
    file = f"{path}/saved_model.pb"
    with tf.io.gfile.GFile(file, "rb") as content:
        saved = saved_model_pb2.SavedModel.FromString(content.read())
    for signature, names in arguments.items():
        inputs = saved.meta_graphs[0].signature_def[signature].inputs
        named = {name: inputs[argument].SerializeToString() for name, argument in names.items()}
        inputs.clear()
        for name, info in named.items():
            inputs[name].ParseFromString(info)
    with tf.io.gfile.GFile(file, "wb") as content:
        content.write(saved.SerializeToString(deterministic=True))
    write_fingerprint(path)


def freeze(function: Callable[..., tf.Tensor], *inputs: tf.TensorSpec) -> Callable[..., tf.Tensor]:
    """The function with its variables as constants: all signatures share it, so the weights are in the file once."""
    frozen = frozen_function(function, *inputs)
    (output,) = frozen.outputs
    return graph_function(frozen.graph.as_graph_def(), frozen.inputs, output)


# Bytes of a constant that lies beside the functions of an export.
_LARGE = 1024


def graph_function(
    graph: graph_pb2.GraphDef, inputs: Sequence[tf.Tensor], output: tf.Tensor
) -> Callable[..., tf.Tensor]:
    """A function of a graph for any number of signatures.

    Its large constants become inputs that are always the same tensors: in an export they lie beside the functions, of
    which TensorFlow makes copies when a model is loaded and for each signature. InceptionV3 is loaded in 1.1 s of CPU
    time instead of 2.9 (TensorFlow 2.21). Those that only rows are gathered from, such as embeddings, become variables:
    there is nothing to compute of them ahead of a request, and no signature has a copy.

    Args:
        graph: without variables.
        inputs: its tensors that are fed.
        output: its tensor that is fetched.
    """
    graph = type(graph).FromString(graph.SerializeToString())
    gathered = _gathered(graph)
    constants: dict[str, tf.Tensor | tf.Variable] = {}
    for node in graph.node:
        if node.op == "Const" and node.attr["value"].tensor.ByteSize() > _LARGE:
            values = tf.make_ndarray(node.attr["value"].tensor)
            make = partial(tf.Variable, trainable=False) if node.name in gathered else tf.constant
            constants[f"{node.name}:0"] = make(values)
            node.op = "Placeholder"
            del node.attr["value"]
            node.attr["shape"].shape.CopyFrom(tf.TensorShape(values.shape).as_proto())
    names = [tensor.name for tensor in inputs]

    def imported(*values: tf.Tensor) -> tf.Tensor:
        fed = dict(zip([*names, *constants], values, strict=True))
        (fetched,) = tf.graph_util.import_graph_def(graph, fed, [output.name], name="")
        fetched.set_shape(output.shape)
        return fetched

    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in (*inputs, *constants.values())]
    concrete = tf.function(imported, autograph=False).get_concrete_function(*specs)
    return lambda *values: concrete(*values, *map(tf.convert_to_tensor, constants.values()))


def _gathered(graph: graph_pb2.GraphDef) -> set[str]:
    """The nodes of which all that is used are gathered rows."""
    used: dict[str, list[tuple[graph_pb2.NodeDef, int]]] = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            if not name.startswith("^"):
                used.setdefault(name.partition(":")[0], []).append((node, place))

    def only_gathered(name: str) -> bool:
        return name in used and all(
            (node.op == "GatherV2" and place == 0) or (node.op == "Identity" and only_gathered(node.name))
            for node, place in used[name]
        )

    return {node.name for node in graph.node if only_gathered(node.name)}


def frozen_function(function: Callable[..., tf.Tensor], *inputs: tf.TensorSpec) -> Any:
    """A concrete function with one graph of core operations: its variables are constants, its calls are inlined."""
    return convert_variables_to_constants_v2(tf.function(function, autograph=False).get_concrete_function(*inputs))
