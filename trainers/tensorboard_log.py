"""What TensorBoard shows of a training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2, text_format, wrappers_pb2
from google.protobuf.message import Message

_SUCCESS, _FAILURE = 1, 2
# TensorBoard's HParamsPluginData (tensorboard/plugins/hparams/plugin_data.proto), as far as it is written here: a
# SessionStartInfo with hyperparameters alone has the wire format of a Struct, a SessionEndInfo with a status alone
# that of a number.
_SCHEMA = """
    name: "trainers/tensorboard_log.proto" package: "ingraph" syntax: "proto3"
    dependency: "google/protobuf/struct.proto" dependency: "google/protobuf/wrappers.proto"
    message_type {
        name: "HParamsPluginData"
        field { name: "session_start_info" number: 3 type: TYPE_MESSAGE type_name: ".google.protobuf.Struct" }
        field { name: "session_end_info" number: 4 type: TYPE_MESSAGE type_name: ".google.protobuf.Int32Value" }
    }
"""
_POOL = descriptor_pool.Default()
_POOL.AddSerializedFile(text_format.Parse(_SCHEMA, descriptor_pb2.FileDescriptorProto()).SerializeToString())
_PluginData = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("ingraph.HParamsPluginData"))


def write_tensorboard_log(
    folder: str,
    curves: Mapping[str, Sequence[float]],
    hyperparameters: Mapping[str, Any],
    metrics: Mapping[str, float],
    failed: bool = False,
) -> None:
    """Write an event file: curves and metrics as scalars, hyperparameters for the HParams dashboard.

    TensorBoard itself is not needed for it, and is not among the packages that TensorFlow brings: what it reads is
    written by TensorFlow's core ops.

    Args:
        folder: a run in TensorBoard; local or in an object store.
        curves: name -> a value an epoch, under `epoch/`.
        hyperparameters: name -> value; none where nothing was tuned.
        metrics: name -> value at the end, under `held_out/`.
        failed: whether the training came to nothing.
    """
    with tf.summary.create_file_writer(folder).as_default():
        if hyperparameters:
            values = {name: _value(value) for name, value in hyperparameters.items()}
            _write_hparams(session_start_info=struct_pb2.Struct(fields=values))
        for name, curve in curves.items():
            for epoch, value in enumerate(curve):
                _write_scalar(f"epoch/{name}", value, epoch)
        for name, value in metrics.items():
            _write_scalar(f"held_out/{name}", value, 0)
        if hyperparameters:
            _write_hparams(session_end_info=wrappers_pb2.Int32Value(value=_FAILURE if failed else _SUCCESS))


def _write_scalar(tag: str, value: float, step: int) -> None:
    metadata = tf.compat.v1.SummaryMetadata(data_class=1)  # DATA_CLASS_SCALAR
    metadata.plugin_data.plugin_name = "scalars"
    tf.summary.write(tag, tf.constant(value, tf.float32), step, metadata)


def _write_hparams(**content: Message) -> None:
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = "hparams"
    metadata.plugin_data.content = _PluginData(**content).SerializeToString(deterministic=True)
    (kind,) = content
    tf.summary.write(f"_hparams_/{kind}", tf.zeros([0]), 0, metadata)


def _value(value: Any) -> struct_pb2.Value:
    if isinstance(value, bool):
        return struct_pb2.Value(bool_value=value)
    if isinstance(value, int | float):
        return struct_pb2.Value(number_value=value)
    return struct_pb2.Value(string_value=value if isinstance(value, str) else json.dumps(value))
