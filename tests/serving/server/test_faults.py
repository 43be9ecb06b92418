"""Faults of models and of the machine, and the codes that clients see."""

from __future__ import annotations

import gc
import os
import shutil
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import op_def_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.client import pywrap_tf_session as tf_session

from serving.client.connection import RetryPolicy
from serving.client.errors import CanonicalCode, PredictionError
from serving.client.grpc import GrpcClient
from serving.server import models
from serving.server.app import EmbeddedServer
from serving.server.config import BatchingParameters
from serving.server.errors import ServingError
from serving.server.inference import Inference
from serving.server.versions import load_version
from serving.session_model import REACHING_OUT, READING_FILES, WRITING_FILES, SessionModel
from tests.serving.server.conftest import QUICK, QUICK_OPTIONS, Rest
from tests.serving.server.test_versions import answer_of, serving, statuses, wait_until


def half_copied(version: Path) -> None:
    (version / "variables" / "variables.data-00000-of-00001").unlink()


def truncated_variables(version: Path) -> None:
    data = version / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:2])


def truncated_index(version: Path) -> None:
    index = version / "variables" / "variables.index"
    index.write_bytes(index.read_bytes()[:-20])


def noise(version: Path) -> None:
    (version / "saved_model.pb").write_bytes(os.urandom(10_000))


def truncated_graph(version: Path) -> None:
    graph = version / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[: graph.stat().st_size // 2])


def empty_graph(version: Path) -> None:
    (version / "saved_model.pb").write_bytes(b"")


def a_file_instead_of_a_directory(version: Path) -> None:
    shutil.rmtree(version)
    version.write_text("not a directory")


def a_link_to_itself(version: Path) -> None:
    """What cannot be opened, not even by root."""
    shutil.rmtree(version)
    version.symlink_to(version.name)


def unreadable_directory(version: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything; a_link_to_itself is what it cannot")
    version.chmod(0)


def noise_for_warm_up(version: Path) -> None:
    (version / "assets.extra").mkdir()
    (version / "assets.extra" / "tf_serving_warmup_requests").write_bytes(os.urandom(1000))


@pytest.mark.parametrize(
    "damage",
    [
        half_copied,
        truncated_variables,
        truncated_index,
        noise,
        truncated_graph,
        empty_graph,
        a_file_instead_of_a_directory,
        a_link_to_itself,
        unreadable_directory,
        noise_for_warm_up,
    ],
)
def test_a_damaged_version_is_named_in_the_status_and_the_good_one_keeps_serving(
    tmp_path, half_plus_two_versions, damage: Callable[[Path], None]
):
    base_path = tmp_path / "models"
    half_plus_two_versions(base_path, 1)
    half_plus_two_versions(tmp_path / "others", 2)
    damage(tmp_path / "others" / "2")

    with serving(base_path) as server:
        (tmp_path / "others" / "2").rename(base_path / "2")
        wait_until(lambda: statuses(server).get(2, ("", ""))[0] == "END")

        assert statuses(server)[1] == ("AVAILABLE", "OK")
        assert answer_of(server) == 1.0
        document = Rest(server.rest_port).call("GET", "/v1/models/m/versions/2").json
        [status] = document["model_version_status"]
        assert status["status"]["error_code"] != "OK"
        assert status["status"]["error_message"]
        assert str(tmp_path) not in status["status"]["error_message"]

        half_plus_two_versions(base_path, 3)
        wait_until(lambda: answer_of(server) == 3.0)


def test_a_base_path_that_is_a_file_for_a_while_unloads_nothing(tmp_path, half_plus_two_versions):
    base_path = tmp_path / "models"
    half_plus_two_versions(base_path, 1)

    with serving(base_path) as server:
        base_path.rename(tmp_path / "away")
        base_path.write_text("in its place")
        threading.Event().wait(0.3)
        assert answer_of(server) == 1.0
        base_path.unlink()
        (tmp_path / "away").rename(base_path)
        half_plus_two_versions(base_path, 2)
        wait_until(lambda: answer_of(server) == 2.0)


def loaded_models() -> weakref.WeakSet[SessionModel]:
    gc.collect()
    return weakref.WeakSet(thing for thing in gc.get_objects() if isinstance(thing, SessionModel))


@pytest.mark.parametrize("batching", [None, BatchingParameters()])
def test_unloaded_and_failed_versions_leave_no_session_and_no_thread_behind(tmp_path, half_plus_two_versions, batching):
    before, threads = loaded_models(), threading.active_count()
    half_plus_two_versions(tmp_path, 1)

    with EmbeddedServer({"m": str(tmp_path)}, replace(QUICK_OPTIONS, batching=batching)) as server:
        for number in range(2, 6):
            half_plus_two_versions(tmp_path, number)
            wait_until(lambda number=number: answer_of(server) == float(number))
            (tmp_path / f"{number}" / "saved_model.pb").rename(tmp_path / "graph")
            (tmp_path / f"{number + 100}").mkdir()
            wait_until(lambda number=number: statuses(server).get(number + 100) == ("END", "NOT_FOUND"))
            (tmp_path / f"{number + 100}").rmdir()
            (tmp_path / "graph").rename(tmp_path / f"{number}" / "saved_model.pb")
        wait_until(lambda: all(state == "END" for number, (state, _) in statuses(server).items() if number != 5))
        assert len(loaded_models() - before) == 1

    assert len(loaded_models() - before) == 0
    wait_until(lambda: threading.active_count() <= threads)


def test_of_the_versions_that_are_gone_the_status_names_only_the_newest(tmp_path, half_plus_two_versions, monkeypatch):
    monkeypatch.setattr(models, "REMEMBERED_VERSIONS", 3)
    half_plus_two_versions(tmp_path, 1)
    with serving(tmp_path) as server:
        for number in range(11, 17):
            (tmp_path / str(number)).mkdir()
            wait_until(lambda number=number: number in statuses(server))
            (tmp_path / str(number)).rmdir()
        half_plus_two_versions(tmp_path, 20)
        wait_until(lambda: answer_of(server) == 20.0)

        assert {16, 15, 14} <= statuses(server).keys() <= {20, 16, 15, 14, 1}


def test_a_saved_model_whose_requests_would_all_fail_is_not_loaded(tmp_path, half_plus_two_versions):
    """Python's loader takes it, and a session fails on the variables, which it does not find."""
    half_plus_two_versions(tmp_path / "models", 1)
    network = keras.Sequential([keras.Input([1]), keras.layers.Dense(1)])
    signature = tf.function(lambda x: {"y": network(x)}, input_signature=[tf.TensorSpec([None, 1], tf.float32)])
    tf.saved_model.save(network, str(tmp_path / "2"), signatures={"serving_default": signature})
    assert tf.saved_model.load(str(tmp_path / "2")).signatures["serving_default"](tf.ones([1, 1]))["y"].shape == [1, 1]

    with serving(tmp_path / "models") as server:
        (tmp_path / "2").rename(tmp_path / "models" / "2")
        wait_until(lambda: statuses(server).get(2) == ("END", "FAILED_PRECONDITION"))

        assert answer_of(server) == 1.0


def save_signature(path: Path, function: Callable[[tf.Tensor], tf.Tensor]) -> None:
    """A model of one string input and one string output."""

    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
        def predict(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"output_0": function(text)}

    module = Module()
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.predict})


def change_graph(path: Path, change: Callable[[Any], None]) -> None:
    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    change(saved.meta_graphs[0])
    (path / "saved_model.pb").write_bytes(saved.SerializeToString())


def save_table(path: Path, vocabulary: Path) -> None:
    """A lookup in a vocabulary, which is an asset, as exports of Transform have it."""
    vocabulary.write_text("cat\ndog\n")

    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            lines = tf.lookup.TextFileInitializer(
                str(vocabulary),
                key_dtype=tf.int64,
                key_index=tf.lookup.TextFileIndex.LINE_NUMBER,
                value_dtype=tf.string,
                value_index=tf.lookup.TextFileIndex.WHOLE_LINE,
            )
            self.table = tf.lookup.StaticHashTable(lines, default_value="")
            self.weight = tf.Variable(1, dtype=tf.int64)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="x")])
        def predict(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"output_0": self.table.lookup(x * self.weight)}

    module = Module()
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.predict})


def reads(path: Path, secret: Path) -> None:
    save_signature(path, lambda text: tf.map_fn(tf.io.read_file, text))


def writes(path: Path, secret: Path) -> None:
    def write(text: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies([tf.io.write_file(str(secret.with_name("written")), text[0])]):
            return tf.identity(text)

    save_signature(path, write)


def reads_in_a_branch_of_a_branch(path: Path, secret: Path) -> None:
    def branch(text: tf.Tensor) -> tf.Tensor:
        inner = tf.function(lambda: tf.cond(text[0] == "b", lambda: tf.io.read_file(str(secret)), lambda: text[0]))
        return tf.cond(text[0] == "a", lambda: text[0], inner)[None]

    save_signature(path, branch)


def reads_by_a_data_set(path: Path, secret: Path) -> None:
    def lines(text: tf.Tensor) -> tf.Tensor:
        return tf.data.TextLineDataset(text).batch(10).take(1).get_single_element()

    save_signature(path, lines)


def prints_into_a_file(path: Path, secret: Path) -> None:
    def tell(text: tf.Tensor) -> tf.Tensor:
        tf.print(text, output_stream=f"file://{secret.with_name('written')}")
        return tf.identity(text)

    save_signature(path, tell)


def writes_while_it_is_loaded(path: Path, secret: Path) -> None:
    written = str(secret.with_name("written"))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        text = tf.compat.v1.placeholder(tf.string, [None])
        signature = tf.compat.v1.saved_model.predict_signature_def({"text": text}, {"output_0": tf.identity(text)})
        builder = tf.compat.v1.saved_model.Builder(str(path))
        main_op = tf.io.write_file(written, "written")
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature}, main_op=main_op)
        builder.save()


def asset_of_somebody_else(path: Path, secret: Path) -> None:
    save_table(path, path.parent / "words")

    def point_away(graph: Any) -> None:
        graph.asset_file_def[0].filename = f"../../{secret.name}"

    change_graph(path, point_away)


def asset_that_is_a_link(path: Path, secret: Path) -> None:
    save_table(path, path.parent / "words")
    asset = path / "assets" / "words"
    asset.unlink()
    asset.symlink_to(secret)


def vocabulary_that_is_no_asset(path: Path, secret: Path) -> None:
    save_table(path, path.parent / "words")
    change_graph(path, lambda graph: graph.ClearField("asset_file_def"))


def vocabulary_named_by_a_second_handle(path: Path, secret: Path) -> None:
    """The variable that holds the asset's path is assigned another one, by a handle of the same name."""
    save_table(path, path.parent / "words")

    def assign_again(graph: Any) -> None:
        nodes = {node.name: node for node in graph.graph_def.node}
        handle, assign = graph.graph_def.node.add(), graph.graph_def.node.add()
        handle.CopyFrom(nodes["Variable"])
        handle.name = "again"
        handle.attr["shared_name"].s = nodes["Variable"].attr["shared_name"].s or b"Variable"
        other = graph.graph_def.node.add(name="other", op="Const")
        other.attr["dtype"].type = tf.string.as_datatype_enum
        other.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(str(secret)))
        assign.CopyFrom(nodes["Variable/Assign"])
        assign.name = "assign_again"
        assign.input[:] = ["again", "other", "^Variable/Assign"]
        nodes["ReadVariableOp"].input.append("^assign_again")

    change_graph(path, assign_again)


def save_table_of_a_loop(path: Path, vocabulary: Path, other: str) -> None:
    """A request fills a table from its asset in each turn of a loop, or after the first from another file."""
    vocabulary.write_text("cat\ndog\n")

    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.asset = tf.saved_model.Asset(str(vocabulary))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="x")])
        def predict(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            def turn(step: tf.Tensor, name: tf.Tensor, words: tf.Tensor) -> tuple[tf.Tensor, ...]:
                table = tf.raw_ops.AnonymousHashTable(key_dtype=tf.int64, value_dtype=tf.string)
                tf.raw_ops.InitializeTableFromTextFileV2(
                    table_handle=table, filename=name, key_index=-1, value_index=-2, vocab_size=-1, delimiter="\t"
                )
                words = tf.raw_ops.LookupTableFindV2(table_handle=table, keys=x, default_value="")
                words = tf.reshape(words, tf.shape(x))
                return step + 1, tf.constant(other) if other else name, words

            start = 0, tf.identity(self.asset.asset_path), tf.fill(tf.shape(x), "")
            return {"output_0": tf.while_loop(lambda step, *_: step < 2, turn, start)[2]}

    module = Module()
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.predict})


def vocabulary_that_a_loop_changes(path: Path, secret: Path) -> None:
    save_table_of_a_loop(path, path.parent / "words", str(secret))


def vocabulary_that_a_loop_never_gives_back(path: Path, secret: Path) -> None:
    """What the loop gives back in the place of the asset's path is two operations that are each other's input."""
    save_table_of_a_loop(path, path.parent / "words", "")

    def turn_in_a_circle(graph: Any) -> None:
        functions = {function.signature.name: function for function in graph.graph_def.library.function}
        [body] = [
            functions[node.attr["body"].func.name]
            for function in functions.values()
            for node in function.node_def
            if node.op in ("While", "StatelessWhile")
        ]
        for name, source in (("first", "second"), ("second", "first")):
            node = body.node_def.add(name=name, op="Identity", input=[f"{source}:output:0"])
            node.attr["T"].type = tf.string.as_datatype_enum
        for argument, output in zip(body.signature.input_arg, body.signature.output_arg, strict=True):
            if argument.type == tf.string.as_datatype_enum:
                body.ret[output.name] = "first:output:0"

    change_graph(path, turn_in_a_circle)


def vocabulary_that_a_request_names(path: Path, secret: Path) -> None:
    """The place of the asset's path is an input, and what fills the table from it an output."""
    save_table(path, path.parent / "words")

    def expose(graph: Any) -> None:
        signature = graph.signature_def["serving_default"]
        signature.inputs["x"].name = graph.asset_file_def[0].tensor_info.name
        [initializer] = [node.name for node in graph.graph_def.node if node.name == "StatefulPartitionedCall_1"]
        signature.outputs["output_0"].name = f"{initializer}:0"

    change_graph(path, expose)


def restores_what_a_request_names(path: Path, secret: Path) -> None:
    """The file that a load restores variables from is an input of the signature, and the restoring its output."""
    save_table(path, path.parent / "words")

    def expose(graph: Any) -> None:
        signature = graph.signature_def["serving_default"]
        signature.inputs["x"].name = graph.saver_def.filename_tensor_name
        signature.inputs["x"].dtype = tf.string.as_datatype_enum
        signature.outputs["output_0"].name = graph.saver_def.save_tensor_name
        signature.outputs["output_0"].dtype = tf.string.as_datatype_enum

    change_graph(path, expose)


@pytest.mark.parametrize(
    ("save", "kind"),
    [
        (reads, "ReadFile"),
        (writes, "WriteFile"),
        (reads_in_a_branch_of_a_branch, "ReadFile"),
        (reads_by_a_data_set, "TextLineDataset"),
        (prints_into_a_file, "PrintV2"),
        (writes_while_it_is_loaded, "WriteFile"),
        (asset_of_somebody_else, "outside of its own directory"),
        (asset_that_is_a_link, "outside of its own directory"),
        (vocabulary_that_is_no_asset, "InitializeTableFromTextFileV2"),
        (vocabulary_named_by_a_second_handle, "InitializeTableFromTextFileV2"),
        (vocabulary_that_a_loop_changes, "InitializeTableFromTextFileV2"),
        (vocabulary_that_a_loop_never_gives_back, "InitializeTableFromTextFileV2"),
        (vocabulary_that_a_request_names, "InitializeTableFromTextFileV2"),
        (restores_what_a_request_names, "SaveV2"),
    ],
)
def test_a_model_that_reaches_files_outside_of_its_own_assets_is_not_loaded(tmp_path, save, kind):
    secret = tmp_path / "secret"
    secret.write_text("hunter2\n")
    save(tmp_path / "1", secret)

    with pytest.raises(ServingError, match=kind) as raised:
        load_version(str(tmp_path / "1"), QUICK)

    assert raised.value.code is CanonicalCode.PERMISSION_DENIED
    assert "--allow-file-operations" in raised.value.message
    assert not (tmp_path / "written").exists()


def test_a_model_that_reads_files_is_served_where_that_is_allowed(tmp_path):
    (tmp_path / "secret").write_text("hunter2")
    reads(tmp_path / "models" / "1", tmp_path / "secret")
    body = {"instances": [str(tmp_path / "secret")]}
    refusing = replace(QUICK_OPTIONS, load_policy=replace(QUICK, load_retries=0))
    allowing = replace(QUICK_OPTIONS, load_policy=replace(QUICK, allow_file_operations=True))

    with EmbeddedServer({"m": str(tmp_path / "models")}, refusing) as server:
        assert statuses(server) == {1: ("END", "PERMISSION_DENIED")}
        assert Rest(server.rest_port).predict("m", body).status == 404
    with EmbeddedServer({"m": str(tmp_path / "models")}, allowing) as server:
        assert Rest(server.rest_port).predict("m", body).json == {"predictions": ["hunter2"]}


def test_a_loop_may_read_the_vocabulary_of_its_model(tmp_path):
    save_table_of_a_loop(tmp_path / "1", tmp_path / "words", "")

    model = load_version(str(tmp_path / "1"), QUICK)

    assert "While" in model.operations.kinds or "StatelessWhile" in model.operations.kinds


def test_vocabularies_and_variables_of_a_model_are_its_own(tmp_path):
    save_table(tmp_path / "1", tmp_path / "words")

    model = load_version(str(tmp_path / "1"), QUICK)

    assert model.run("serving_default", {"x": np.array([1, 0])})["output_0"].tolist() == [b"dog", b"cat"]
    assert {"InitializeTableFromTextFileV2", "RestoreV2", "LookupTableFindV2"} <= model.operations.kinds
    assert model.operations.foreign == ()
    model.close()


def test_every_operation_of_tensorflow_that_takes_the_name_of_a_file_is_known():
    """A newer TensorFlow may bring others."""
    serialized = tf_session.TF_GetBuffer(tf_session.TF_GetAllOpList())
    names = {"filename", "filenames", "file_pattern", "path", "paths", "directory", "logdir", "address", "debug_urls"}
    names |= {"prefix", "ckpt_path", "new_vocab_file", "shard_dir", "snapshot_path", "chunk_file", "patterns"}
    found = {
        op.name
        for op in op_def_pb2.OpList.FromString(serialized).op
        if names & {part.name for part in (*op.input_arg, *op.attr)}
    }

    known = READING_FILES | WRITING_FILES | REACHING_OUT
    assert len(found) > 40
    assert found - known <= {"Cumsum"}


# http_server.cc, ToHTTPStatusCode.
HTTP_STATUS = {
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
    "UNAUTHENTICATED": 401,
}


@pytest.fixture(params=HTTP_STATUS)
def code(request, monkeypatch) -> CanonicalCode:
    """What every call of a model ends with."""
    code = CanonicalCode[request.param]

    async def fail(*_: object, **__: object) -> None:
        raise ServingError(code, f"it ended with {code.name}")

    monkeypatch.setattr(Inference, "run", fail)
    return code


def test_a_canonical_code_is_answered_with_its_http_status(code, rest):
    answer = rest.predict("half_plus_two", {"instances": [1.0]})
    assert answer.status == HTTP_STATUS[code.name]
    assert answer.error == f"it ended with {code.name}"


def test_a_canonical_code_reaches_a_grpc_client_unchanged(code, server):
    with (
        GrpcClient(port=server.grpc_port, retry=RetryPolicy(attempts=1)) as client,
        pytest.raises(PredictionError) as raised,
    ):
        client.predict("half_plus_two", {"x": [1.0]})
    assert raised.value.code is code
    assert raised.value.message == f"it ended with {code.name}"
