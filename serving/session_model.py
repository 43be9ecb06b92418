"""A SavedModel loaded as TensorFlow Serving loads it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig
from tensorflow.python.client import pywrap_tf_session as tf_session
from tensorflow.python.saved_model import loader_impl


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What an operation reaches beyond the graph: files, other machines, or code that the graph does not show.
READING_FILES = _words(
    "ReadFile MatchingFiles MatchingFilesDataset ExperimentalMatchingFilesDataset Restore RestoreSlice RestoreV2 "
    "DTensorRestoreV2 LoadAndRemapMatrix GenerateVocabRemapping InitializeTableFromTextFile "
    "InitializeTableFromTextFileV2 TextLineReader TextLineReaderV2 WholeFileReader WholeFileReaderV2 "
    "FixedLengthRecordReader FixedLengthRecordReaderV2 TFRecordReader TFRecordReaderV2 LMDBReader RecordInput "
    "TextLineDataset TFRecordDataset TFRecordDatasetV2 FixedLengthRecordDataset FixedLengthRecordDatasetV2 "
    "CSVDataset CSVDatasetV2 ExperimentalCSVDataset SqlDataset ExperimentalSqlDataset LMDBDataset "
    "ExperimentalLMDBDataset LoadDataset SnapshotDatasetReader SnapshotNestedDatasetReader SnapshotChunkDataset "
    "ListSnapshotChunksDataset FixedUnigramCandidateSampler Skipgram"
)
WRITING_FILES = _words(
    "WriteFile Save SaveSlices SaveV2 MergeV2Checkpoints CacheDataset CacheDatasetV2 SaveDataset SaveDatasetV2 "
    "SnapshotDataset SnapshotDatasetV2 DatasetToTFRecord ExperimentalDatasetToTFRecord DistributedSave "
    "CreateSummaryFileWriter CreateSummaryDbWriter DebugIdentity DebugIdentityV2 DebugIdentityV3 DebugNanCount "
    "DebugNumericSummary DumpTensor CalibrationStatisticsSaver FileSystemSetConfiguration"
)
REACHING_OUT = _words(
    "RegisterDataset RegisterDatasetV2 DataServiceDataset DataServiceDatasetV2 DataServiceDatasetV3 "
    "DataServiceDatasetV4 RpcServer RpcServerStart RpcServerRegister RpcClient RpcCall PyFunc PyFuncStateless "
    "EagerPyFunc DatasetFromGraph MlirPassthroughOp"
)
# Which input names the file, of those that a loader runs on the SavedModel's own assets and variables.
_READING_OWN_FILES = {
    "InitializeTableFromTextFile": 1,
    "InitializeTableFromTextFileV2": 1,
    "Restore": 0,
    "RestoreSlice": 0,
    "RestoreV2": 0,
    "ReadFile": 0,
}


class FileOperationError(ValueError):
    """A SavedModel reads or writes what is not its own."""


@dataclass(frozen=True)
class ModelOperations:
    """What a SavedModel runs.

    Attributes:
        kinds: of every operation that a load or a request can reach.
        foreign: "kind (name of the node)" of those that reach files outside of the SavedModel's own assets and
            variables, other machines, or code that its graph does not show.
    """

    kinds: frozenset[str]
    foreign: tuple[str, ...]


def model_operations(meta_graph: meta_graph_pb2.MetaGraphDef) -> ModelOperations:
    """The operations that loading and requests can reach.

    They may read files whose names the loader gives: assets, and the checkpoint of the variables. A request may read an
    asset only by a variable that the load has filled with its name: what else stands in the graph for it is whatever
    its author wrote there, or what a client sends.
    """
    walk = _Walk(meta_graph)
    assets = {name.partition(":")[0] for name, _ in _assets(meta_graph)}
    signatures = meta_graph.signature_def.values()
    asked = [
        info.name.partition(":")[0]
        for signature in signatures
        for info in _tensor_infos(signature.outputs.values())
        if ":" in info.name
    ]
    sent = {_node_of(info.name) for signature in signatures for info in _tensor_infos(signature.inputs.values())}
    walk.request(asked, assets, sent)
    walk.load(_run_at_load(meta_graph), assets)
    saver = meta_graph.saver_def
    walk.load([_node_of(saver.restore_op_name)], {_node_of(saver.filename_tensor_name)})
    return ModelOperations(frozenset(walk.kinds), tuple(sorted(walk.foreign)))


def _tensor_infos(infos: Iterable[meta_graph_pb2.TensorInfo]) -> Iterator[meta_graph_pb2.TensorInfo]:
    """Those with a name of their own, and the parts of those that are composed."""
    for info in infos:
        match info.WhichOneof("encoding"):
            case "coo_sparse":
                sparse = info.coo_sparse
                for name in (sparse.values_tensor_name, sparse.indices_tensor_name, sparse.dense_shape_tensor_name):
                    yield meta_graph_pb2.TensorInfo(name=name)
            case "composite_tensor":
                yield from _tensor_infos(info.composite_tensor.components)
            case _:
                yield info


def _run_at_load(meta_graph: meta_graph_pb2.MetaGraphDef) -> list[str]:
    names = (
        [info.name for info in meta_graph.signature_def["__saved_model_init_op"].outputs.values()]
        if ("__saved_model_init_op" in meta_graph.signature_def)
        else []
    )
    for key in ("saved_model_main_op", "legacy_init_op"):
        if key in meta_graph.collection_def:
            names += meta_graph.collection_def[key].node_list.value
    return [name.partition(":")[0] for name in names]


def _assets(meta_graph: meta_graph_pb2.MetaGraphDef) -> list[tuple[str, str]]:
    """The tensor that the name of each asset is fed to, and its file below assets/."""
    protos = list(meta_graph.asset_file_def)
    if not protos and "saved_model_assets" in meta_graph.collection_def:
        for packed in meta_graph.collection_def["saved_model_assets"].any_list.value:
            protos.append(meta_graph_pb2.AssetFileDef.FromString(packed.value))
    return [(proto.tensor_info.name, proto.filename) for proto in protos]


@dataclass
class _Walk:
    """Goes through a graph and its functions, and notes what it meets."""

    meta_graph: meta_graph_pb2.MetaGraphDef
    kinds: set[str] = field(default_factory=set)
    foreign: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        library = self.meta_graph.graph_def.library
        self._nodes = {node.name: node for node in self.meta_graph.graph_def.node}
        self._functions = {function.signature.name: function for function in library.function}
        self._gradients = {gradient.function_name: gradient.gradient_func for gradient in library.gradient}
        self._alike: dict[bytes, list[str]] = {}  # implementations that TensorFlow may put in each other's place
        for name, function in self._functions.items():
            if "api_implements" in function.attr:
                self._alike.setdefault(function.attr["api_implements"].s, []).append(name)
        self._walked: set[tuple[str, frozenset[int]]] = set()
        every_node = [*self._nodes.values(), *(node for function in library.function for node in function.node_def)]
        self._variables = Counter(_shared_name(node) for node in every_node if node.op == "VarHandleOp")
        # Handles of variables by another way than a VarHandleOp: no variable can be told from another then.
        self._hidden_handles = any(
            node.op == "_VarHandlesOp" or (node.op == "Const" and node.attr["dtype"].type == types_pb2.DT_RESOURCE)
            for node in every_node
        )

    def load(self, roots: Iterable[str], given: Collection[str]) -> None:
        """What a load runs; `given` are the nodes that the loader feeds with names of files."""
        self._nodes_run(self._needed(roots), {*given, *self._filled_variables(given, barred=())})

    def request(self, roots: Iterable[str], assets: Collection[str], sent: Collection[str]) -> None:
        """What requests run, which feed `sent`."""
        needed = self._needed(roots)
        barred = {*sent, *(node.name for node in needed if node.op == "AssignVariableOp")}
        self._nodes_run(needed, self._filled_variables(assets, barred), barred)

    def _needed(self, roots: Iterable[str]) -> list[Any]:
        ahead = [name for name in roots if name in self._nodes]
        seen = set(ahead)
        while ahead:
            for source in self._nodes[ahead.pop()].input:
                name = _node_of(source)
                if name in self._nodes and name not in seen:
                    seen.add(name)
                    ahead.append(name)
        return [self._nodes[name] for name in seen]

    def _filled_variables(self, given: Collection[str], barred: Collection[str]) -> set[str]:
        """What reads a variable that holds such a name, and is never assigned anything else."""
        uses: dict[str, list[Any]] = {}
        for node in self._nodes.values():
            for source in node.input:
                uses.setdefault(_node_of(source), []).append(node)
        found: set[str] = set()
        for handle in self._nodes.values():
            if handle.op != "VarHandleOp" or self._hidden_handles or self._variables[_shared_name(handle)] != 1:
                continue
            users = uses.get(handle.name, [])
            assigned = [user for user in users if user.op == "AssignVariableOp"]
            others = {user.op for user in users} - {"AssignVariableOp", "ReadVariableOp", "VarIsInitializedOp"}
            values = {_node_of(user.input[1]) for user in assigned}
            involved = {handle.name, *values, *(user.name for user in users)}
            if assigned and not others and values <= set(given) and involved.isdisjoint(barred):
                found.update(user.name for user in users if user.op == "ReadVariableOp")
        return found

    def _nodes_run(self, nodes: Sequence[Any], given: set[str], barred: Collection[str] = ()) -> None:
        passing = [node for node in nodes if node.op == "Identity" and node.name not in barred]
        while grown := {node.name for node in passing if _node_of(node.input[0]) in given} - given:
            given |= grown
        for node in nodes:
            self._node_runs(node, [_node_of(source) in given for source in node.input if not source.startswith("^")])

    def _node_runs(self, node: Any, given: Sequence[bool]) -> None:
        self.kinds.add(node.op)
        own = node.op in _READING_OWN_FILES and given[_READING_OWN_FILES[node.op]]
        if not own and _reaches_out(node):
            self.foreign.add(f"{node.op} ({node.name})")
        called = {node.op}
        for value in node.attr.values():
            match value.WhichOneof("value"):
                case "func":
                    called.add(value.func.name)
                case "list":
                    called |= {function.name for function in value.list.func}
        arguments = frozenset(at for at, is_given in enumerate(given) if is_given)
        for name in called & self._functions.keys():
            self._function_runs(name, self._passed_on(node, arguments))

    def _passed_on(self, node: Any, given: frozenset[int]) -> frozenset[int]:
        """Which arguments of the functions that a node calls are its given ones, whenever it calls them."""
        match node.op:
            case "PartitionedCall" | "StatefulPartitionedCall":
                return given
            case "If" | "StatelessIf":
                return frozenset(at - 1 for at in given if at)  # the first one is the condition
            case "While" | "StatelessWhile":
                body = self._functions.get(node.attr["body"].func.name)
                return frozenset() if body is None else given & _kept_arguments(body)
        return frozenset()

    def _function_runs(self, name: str, given: frozenset[int]) -> None:
        if (name, given) in self._walked or name not in self._functions:
            return
        self._walked.add((name, given))
        function = self._functions[name]
        arguments = [argument.name for argument in function.signature.input_arg]
        self._nodes_run(function.node_def, {argument for at, argument in enumerate(arguments) if at in given})
        self._function_runs(self._gradients.get(name, ""), frozenset())
        if "api_implements" in function.attr:
            for other in self._alike[function.attr["api_implements"].s]:
                self._function_runs(other, frozenset())


def _kept_arguments(function: Any) -> set[int]:
    """The arguments that a function gives back in their own places."""
    identities = {node.name: node.input[0] for node in function.node_def if node.op == "Identity" and node.input}
    places = zip(function.signature.input_arg, function.signature.output_arg, strict=False)
    kept = set()
    for at, (argument, output) in enumerate(places):
        source, unseen = function.ret[output.name], dict(identities)
        # Each is passed once: in a graph that nobody has checked yet they may be each other's input.
        while source != argument.name and _node_of(source) in unseen:
            source = unseen.pop(_node_of(source))
        if source == argument.name:
            kept.add(at)
    return kept


def _shared_name(handle: Any) -> str:
    name: str = handle.attr["shared_name"].s.decode("utf-8", "replace") or handle.name
    return name


def _node_of(source: str) -> str:
    return source.removeprefix("^").partition(":")[0]


def _reaches_out(node: Any) -> bool:
    match node.op:
        case "PrintV2":
            return bool(node.attr["output_stream"].s.startswith(b"file:"))
        case "FixedUnigramCandidateSampler":
            return bool(node.attr["vocab_file"].s)
    return node.op in READING_FILES or node.op in WRITING_FILES or node.op in REACHING_OUT


def _check_operations(path: str, meta_graph: meta_graph_pb2.MetaGraphDef, foreign: Sequence[str]) -> None:
    if foreign:
        raise FileOperationError(
            f"the SavedModel reaches files or machines that are not its own by {', '.join(foreign[:5])}"
            f"{', …' if len(foreign) > 5 else ''}; expected operations on its own assets only; serve it with "
            "--allow-file-operations if you trust whoever made it"
        )
    root = os.path.realpath(path)
    for _, name in _assets(meta_graph):
        inside = not Path(name).is_absolute() and ".." not in Path(name).parts
        if "://" not in path:
            inside = inside and Path(os.path.realpath(Path(path) / "assets" / name)).is_relative_to(root)
        if not inside:
            raise FileOperationError(
                f"the SavedModel has an asset {name!r} outside of its own directory; expected a file below assets; "
                "serve it with --allow-file-operations if you trust whoever made it"
            )


class SessionModel:
    """A SavedModel in a session, tag set {serve}: what TensorFlow Serving runs, and nothing it could not run.

    Python's `tf.saved_model.load` accepts models that this loader, and so TensorFlow Serving, refuses. Threads may call
    `run` at the same time; `close` waits for none of them.

    Args:
        path: the directory that holds saved_model.pb.
        allow_file_operations: whether it may read and write files outside of its own assets.

    Attributes:
        signatures: by name.
        operations: what it runs.
        when_closed: called after it is closed.

    Raises:
        tf.errors.OpError, OSError, RuntimeError: the directory holds no SavedModel that a session can run.
        FileOperationError: it would reach files that are not its own, which is not allowed; nothing of it has run.
    """

    def __init__(self, path: str, allow_file_operations: bool = False) -> None:
        # Read once: what is checked is what is run.
        loader = loader_impl.SavedModelLoader(path)
        listed = loader.get_meta_graph_def_from_tags(["serve"])
        self.operations = model_operations(listed)
        if not allow_file_operations:
            _check_operations(path, listed, self.operations.foreign)
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph, config=_session_config())
        try:
            with graph.as_default():
                meta_graph = loader.load(self._session, ["serve"])
        except BaseException:
            self._session.close()
            raise
        self.signatures: Mapping[str, meta_graph_pb2.SignatureDef] = dict(meta_graph.signature_def)
        self.when_closed: Callable[[], None] = lambda: None
        self._tensors = {name: _SignatureTensors(graph, signature) for name, signature in self.signatures.items()}

    def run(
        self,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str] | None = None,
        timeout_seconds: float | None = None,
    ) -> dict[str, np.ndarray]:
        """The outputs of one signature, all of them or those named; strings are object arrays of bytes.

        A graph that takes longer than the time-out is stopped between two of its ops.

        Raises:
            KeyError: the model has no such signature, input or output.
            tf.errors.OpError: the graph refuses the values.
        """
        tensors = self._tensors[signature]
        fetches = sorted(self.signatures[signature].outputs if outputs is None else outputs)
        feeds: dict[Any, np.ndarray] = {}
        for name, array in inputs.items():
            reference, dtype = tensors.fed(name)
            feeds[reference] = np.asarray(array, dtype)
        values = self._run(feeds, [tensors.fetched(name) for name in fetches], timeout_seconds)
        return {name: _as_array(value) for name, value in zip(fetches, values, strict=True)}

    def unset_variables(self) -> list[str]:
        """The variables that a signature reads and that loading has not filled: every request would fail on them.

        What `tf.saved_model.save(model, signatures=…)` writes of a Keras 3 model is of this kind.
        """
        graph = self._session.graph
        outputs = [info.name for signature in self.signatures.values() for info in signature.outputs.values()]
        # A name is that of a tensor, or that of an operation without output, such as the one that initialises.
        handles = _variables_read([graph.get_operation_by_name(name.partition(":")[0]) for name in outputs if name])
        with graph.as_default():
            filled = self._session.run([_is_filled(handle) for handle in handles])
        return sorted(handle.name for handle, is_filled in zip(handles, filled, strict=True) if not is_filled)

    def close(self) -> None:
        """Free the session and its weights."""
        self._session.close()
        self.when_closed()

    def _run(
        self, feeds: Mapping[Any, np.ndarray], fetches: Sequence[tf.Tensor], timeout_seconds: float | None
    ) -> Sequence[Any]:
        options = None
        if timeout_seconds is not None:
            wanted = tf.compat.v1.RunOptions(timeout_in_ms=max(1, int(timeout_seconds * 1000)))
            options = tf_session.TF_NewBufferFromString(wanted.SerializeToString())
        try:
            # Not by Session.run, which refuses what does not have the shape of a placeholder. TensorFlow Serving leaves
            # that to the graph: it may take it all the same, or say better what is wrong with it.
            values: Sequence[Any] = self._session._do_run(None, [], fetches, feeds, options, None)
        except UnicodeDecodeError as error:
            # An op's message quotes a value that is no UTF-8, on which Python's session fails and loses the code.
            message = error.object.decode("utf-8", "replace")
            raise tf.errors.InvalidArgumentError(None, None, message) from error
        finally:
            if options is not None:
                tf_session.TF_DeleteBuffer(options)
        return values


def _session_config() -> tf.compat.v1.ConfigProto:
    # Threads of its own: else an operation that takes long, such as decoding, would hold up every other model.
    config = tf.compat.v1.ConfigProto(use_per_session_threads=True)
    # The first answer of a signature is mostly Grappler, which by default goes over the graph twice and copies each
    # constant again and again: 7.1 s of CPU time with InceptionV3, 3.3 s by one pass without the search for tensors to
    # swap, which is for GPUs. Without the passes in MLIR it is a seventh less for photos, and a sixth for texts.
    # Answers and their time are the same.
    rewriting = config.graph_options.rewrite_options
    rewriting.meta_optimizer_iterations = RewriterConfig.ONE
    rewriting.memory_optimization = RewriterConfig.NO_MEM_OPT
    rewriting.disable_tfg_optimizer = True
    return config


class _SignatureTensors:
    """The tensors that a signature names, each looked up once: looking up takes as long as running a small graph."""

    def __init__(self, graph: tf.Graph, signature: meta_graph_pb2.SignatureDef) -> None:
        self._graph = graph
        self._inputs = {name: info.name for name, info in signature.inputs.items()}
        self._outputs = {name: info.name for name, info in signature.outputs.items()}
        self._fed: dict[str, tuple[Any, type]] = {}
        self._fetched: dict[str, tf.Tensor] = {}

    def fed(self, name: str) -> tuple[Any, type]:
        """What an input's value is fed as, and its numpy type; a KeyError where there is no such input."""
        if name not in self._fed:
            tensor = self._graph.get_tensor_by_name(self._inputs[name])
            self._fed[name] = tensor.ref(), tensor.dtype.as_numpy_dtype
        return self._fed[name]

    def fetched(self, name: str) -> tf.Tensor:
        """The tensor of an output; a KeyError where there is no such output."""
        if name not in self._fetched:
            self._fetched[name] = self._graph.get_tensor_by_name(self._outputs[name])
        return self._fetched[name]


def _variables_read(operations: Sequence[tf.Operation]) -> list[tf.Operation]:
    """The handles of the variables from which these operations are computed."""
    ahead, seen = list(operations), set(operations)
    while ahead:
        operation = ahead.pop()
        for source in (*(tensor.op for tensor in operation.inputs), *operation.control_inputs):
            if source not in seen:
                seen.add(source)
                ahead.append(source)
    return [operation for operation in seen if operation.type == "VarHandleOp"]


def _is_filled(handle: tf.Operation) -> tf.Tensor:
    # One that the graph has, as it mostly does: a session copies a graph that has grown since it was loaded.
    for operation in handle.outputs[0].consumers():
        if operation.type == "VarIsInitializedOp":
            return operation.outputs[0]
    return tf.raw_ops.VarIsInitializedOp(resource=handle.outputs[0])


def _as_array(value: Any) -> np.ndarray:
    # A session returns a string scalar as plain bytes, which numpy would turn into its own fixed-width type.
    return np.array(value, np.object_) if isinstance(value, bytes) else np.asarray(value)
