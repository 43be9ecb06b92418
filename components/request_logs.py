"""Logged requests: read from files of PredictionLogs, and written as examples."""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
import tensorflow as tf
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import input_pb2, prediction_log_pb2

from components.errors import BrokenInput
from components.table_file import find_files
from serving.client.tensors import from_proto
from serving.server.request_log import SUFFIX

# The length and its checksum, the record, its checksum:
# https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_HEAD_BYTES = _LENGTH.size + _CHECKSUM.size
_READ_BYTES = 2**20
# Where a length may stand: no message is empty or has 4 GiB.
_POSSIBLE_LENGTH = re.compile(rb"(?!\0{4})(?=[\s\S]{4}\0{4})")


@dataclass(frozen=True)
class Damage:
    """Bytes that are no record.

    Attributes:
        offset: where they begin.
        at_end: whether the file ends in the middle of a record, as one does that is still being written.
    """

    offset: int
    at_end: bool


def read_records(file: BinaryIO) -> Iterator[bytes | Damage]:
    """The records of a file in their order; what is damaged is passed over, up to the next whole record.

    Raises:
        OSError, EOFError: the file cannot be read any further; a gzipped one may be cut off.
    """
    ahead = _Ahead(file)
    damage: Damage | None = None
    while ahead.peek(1):
        record, is_cut_off = _next_record(ahead)
        if record is None:
            damage = damage or Damage(ahead.offset, is_cut_off)
            ahead.skip(1)
            ahead.skip_to_length()
            continue
        if damage is not None:
            yield replace(damage, at_end=False)
            damage = None
        yield record
        ahead.skip(_HEAD_BYTES + len(record) + _CHECKSUM.size)
    if damage is not None:
        yield damage


def _next_record(ahead: _Ahead) -> tuple[bytes | None, bool]:
    """The record that begins here, None where none does; and whether the file ends before it does."""
    head = ahead.peek(_HEAD_BYTES)
    if len(head) < _HEAD_BYTES:
        return None, True
    if head[_LENGTH.size :] != _checksum(head[: _LENGTH.size]):
        return None, False
    (length,) = _LENGTH.unpack_from(head)
    whole = ahead.peek(_HEAD_BYTES + length + _CHECKSUM.size)
    if len(whole) < _HEAD_BYTES + length + _CHECKSUM.size:
        return None, True
    record = whole[_HEAD_BYTES : -_CHECKSUM.size]
    return (record if whole[-_CHECKSUM.size :] == _checksum(record) else None), False


def _checksum(content: bytes) -> bytes:
    crc = google_crc32c.value(content)
    return _CHECKSUM.pack(((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


class _Ahead:
    """A file of which one can look at the bytes that come next."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._read = b""
        self._position = 0  # in what was read
        self.offset = 0  # in the file

    def peek(self, size: int) -> bytes:
        """The next bytes; fewer at the end of the file."""
        if len(self._read) - self._position < size:
            parts = [self._read[self._position :]]
            missing = size - len(parts[0])
            while missing > 0 and (part := self._file.read(max(missing, _READ_BYTES))):
                parts.append(part)
                missing -= len(part)
            self._read, self._position = b"".join(parts), 0
        return self._read[self._position : self._position + size]

    def skip(self, size: int) -> None:
        """Go on."""
        self._position += size
        self.offset += size

    def skip_to_length(self) -> None:
        """Go on to where the length of a record may stand, or to the end."""
        while (found := _POSSIBLE_LENGTH.search(self._read, self._position)) is None:
            searched = len(self._read) - self._position - (_LENGTH.size - 1)
            self.skip(max(searched, 0))
            if len(rest := self.peek(_LENGTH.size)) < _LENGTH.size:
                self.skip(len(rest))
                return
        self.skip(found.start() - self._position)


Value = bytes | int | float
# Name of an input -> a value for each row, None where the row has none.
Columns = dict[str, list[Value | None]]

# The input of signatures that take serialized tf.Examples.
_EXAMPLES = "examples"


def request_columns(log: prediction_log_pb2.PredictionLog) -> Columns:
    """The inputs of a request for a prediction, a classification, a regression or several of them.

    Raises:
        ValueError: the log is of another kind, or the inputs are no rows.
    """
    match log.WhichOneof("log_type"):
        case "predict_log":
            return _of_tensors(log.predict_log.request.inputs)
        case "classify_log" | "regress_log" | "multi_inference_log" as kind:
            return _of_examples(_examples(getattr(log, kind).request.input))
        case kind:
            raise ValueError(f"a {kind or 'record without a request'} holds no inputs that can be compared")


def _of_tensors(tensors: Mapping[str, Any]) -> Columns:
    columns = {name: np.ravel(from_proto(tensor)).tolist() for name, tensor in tensors.items()}
    if list(columns) == [_EXAMPLES]:
        return _of_examples(_parsed(record) for record in columns[_EXAMPLES])
    if len({len(values) for values in columns.values()}) > 1:
        raise ValueError("the inputs do not have one value for each row")
    return columns


def _parsed(record: Any) -> tf.train.Example:
    try:
        return tf.train.Example.FromString(record)
    except Exception as error:
        raise ValueError("the input examples holds no serialized tf.Example") from error


def _examples(input_: input_pb2.Input) -> Iterable[tf.train.Example]:
    """Each example with the features of the context, which belong to all of them."""
    if input_.WhichOneof("kind") != "example_list_with_context":
        return input_.example_list.examples
    with_context = []
    for example in input_.example_list_with_context.examples:
        merged = tf.train.Example()
        merged.CopyFrom(input_.example_list_with_context.context)
        merged.MergeFrom(example)
        with_context.append(merged)
    return with_context


def _of_examples(examples: Iterable[tf.train.Example]) -> Columns:
    rows = [
        {name: value for name, feature in example.features.feature.items() if (value := _first(feature)) is not None}
        for example in examples
    ]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _first(feature: tf.train.Feature) -> Value | None:
    kind = feature.WhichOneof("kind")
    values = getattr(feature, kind).value if kind else ()
    return values[0] if values else None


def find_logs(places: Sequence[str]) -> list[str]:
    """The request logs at places, the oldest first where a server of ours has named them.

    Args:
        places: files, folders and patterns, see components.table_file.find_files.

    Raises:
        BrokenInput: there is none at one of them.
    """
    return [file for place in places for file in find_files(place, (SUFFIX, f"{SUFFIX}.gz"))]


class PredictionLogs:
    """Reads files once, as a stream, and counts what it passes over.

    Args:
        files: of TFRecords, gzipped where their names end with .gz; here or in an object store.
        model: whose requests are read.

    Attributes, complete after the iteration:
        seconds: when the first and the last request of those that were used were logged, since 1970; None where nothing
            says it.
        damaged: where files hold bytes that are no record of a request.
        unfinished: files that end in the middle of a record.
        other_models: how many requests went to which other models.
    """

    def __init__(self, files: Sequence[str], model: str) -> None:
        self._files = files
        self._model = model
        self.seconds: tuple[int, int] | None = None
        self.damaged: list[str] = []
        self.unfinished: list[str] = []
        self.other_models: Counter[str] = Counter()

    def logs(self) -> Iterator[prediction_log_pb2.PredictionLog]:
        """What is logged of the model.

        Raises:
            BrokenInput: a file cannot be opened.
        """
        for path in self._files:
            for log in self._logs_of(path):
                name = _asked(log)
                if name == self._model:
                    yield log
                else:
                    self.other_models[name or "(no name)"] += 1

    def _logs_of(self, path: str) -> Iterator[prediction_log_pb2.PredictionLog]:
        try:
            with FileSystems.open(path) as file:
                for number, record in enumerate(read_records(file), 1):
                    if isinstance(record, Damage):
                        if record.at_end:
                            self.unfinished.append(path)
                        else:
                            self.damaged.append(f"{path}, byte {record.offset:,}")
                        continue
                    try:
                        yield prediction_log_pb2.PredictionLog.FromString(record)
                    except DecodeError:
                        self.damaged.append(f"{path}, record {number:,}")
        except EOFError:
            self.unfinished.append(path)
        except (OSError, BeamIOError) as error:
            raise BrokenInput(f"{path}: the request log cannot be read: {error}") from error

    def note_time(self, log: prediction_log_pb2.PredictionLog) -> None:
        """That a request was used."""
        seconds = log.log_metadata.timestamp_secs
        if seconds:
            first, last = self.seconds or (seconds, seconds)
            self.seconds = min(first, seconds), max(last, seconds)

    def passed_over(self) -> list[str]:
        """What was passed over, in words."""
        found = []
        if self.damaged:
            found.append(f"{_counted(len(self.damaged), 'damaged record')}: {_places(self.damaged)}")
        if self.unfinished:
            found.append(f"the last record of {_places(self.unfinished)}, which is cut off, or still being written")
        if self.other_models:
            others = _counted(self.other_models.total(), "request")
            found.append(f"{others} to other models: {', '.join(self.other_models)}")
        return found


SHOWN_PLACES = 3


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" + "s" * (count != 1)


def _places(places: Sequence[str]) -> str:
    more = f" and {len(places) - SHOWN_PLACES:,} more" if len(places) > SHOWN_PLACES else ""
    return ", ".join(places[:SHOWN_PLACES]) + more


class LoggedRequests(PredictionLogs):
    """The features of requests.

    Args:
        files: see PredictionLogs; likewise `model`.
        feature_of_input: name of an input -> the feature that it is; other inputs are left out.

    Attributes, complete after the iteration, beside those of PredictionLogs:
        requests: how many were read.
        other_inputs: how many requests had no input of this model, by their signature.
    """

    def __init__(self, files: Sequence[str], model: str, feature_of_input: Mapping[str, str]) -> None:
        super().__init__(files, model)
        self._feature_of_input = feature_of_input
        self.requests = 0
        self.other_inputs: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Columns]:
        """The features of each request, one row or more.

        Raises:
            BrokenInput: a file cannot be opened.
        """
        for log in self.logs():
            columns = self._columns(log)
            if columns:
                self.requests += 1
                self.note_time(log)
                yield columns

    def _columns(self, log: prediction_log_pb2.PredictionLog) -> Columns:
        try:
            inputs = request_columns(log)
        except ValueError:
            inputs = {}
        columns = {
            self._feature_of_input[name]: values for name, values in inputs.items() if name in self._feature_of_input
        }
        if not any(columns.values()):
            self.other_inputs[log.log_metadata.model_spec.signature_name or "(no name)"] += 1
            return {}
        return columns


def _asked(log: prediction_log_pb2.PredictionLog) -> str:
    """The model; a log without metadata says it in the request."""
    if log.log_metadata.model_spec.name:
        return str(log.log_metadata.model_spec.name)
    kind = log.WhichOneof("log_type")
    if kind in ("predict_log", "classify_log", "regress_log"):
        return str(getattr(log, kind).request.model_spec.name)
    if kind == "multi_inference_log":
        return str(next((task.model_spec.name for task in log.multi_inference_log.request.tasks), ""))
    return ""
