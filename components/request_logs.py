"""Logged requests and their answers, read from files of PredictionLogs as a stream."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple

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
from serving.signatures.common import ANSWER

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


# What a photo is known by: its file's SHA-256, in hexadecimal digits.
PHOTO_KEY = "sha256"
# Beside it, where all features are read: the file.
PHOTO_FILE = "file"


class Row(NamedTuple):
    """An answered row.

    Attributes:
        features: what was asked, by feature.
        answered: the label; "" where there is none.
        probabilities: of the labels; None where the answer holds none.
        labels: which labels these are of.
    """

    features: Mapping[str, Any]
    answered: str
    probabilities: Sequence[float] | None
    labels: Sequence[str]


_Answer = tuple[str, Sequence[float] | None, Sequence[str]]
# By the number of a data type: where a message holds its values, unless they are packed.
_FIELDS = {1: "float_val", 2: "double_val", 3: "int_val", 7: "string_val", 9: "int64_val"}


def _values(tensor: Any, size: int) -> Sequence[Any]:
    """The values of a TensorProto that has so many; as from_proto, but for a quick way to the commonest forms."""
    values: Sequence[Any] = getattr(tensor, _FIELDS.get(tensor.dtype, ""), ())
    return values if len(values) == size else from_proto(tensor).ravel().tolist()


class AnswerReader:
    """Reads the rows of logged answers.

    Args:
        wanted: the features to read; the others are left alone. None for all.
        feature_of_input: the feature behind each input of another name.
        vocabularies: version -> its labels in the order of its probabilities.
    """

    def __init__(
        self,
        wanted: Sequence[str] | None,
        feature_of_input: Mapping[str, str],
        vocabularies: Mapping[int, Sequence[str]],
    ) -> None:
        self._wanted = None if wanted is None else frozenset(wanted)
        self._feature_of_input = feature_of_input
        self._vocabularies = vocabularies

    def rows(self, log: prediction_log_pb2.PredictionLog, version: int) -> list[Row]:
        """The rows of a record that this version has answered.

        Raises:
            ValueError: it holds no labels, or its inputs are no rows.
        """
        match log.WhichOneof("log_type"):
            case "predict_log":
                answers = self._of_outputs(log.predict_log.response.outputs, version)
                inputs = self._of_inputs(log.predict_log.request.inputs, len(answers))
            case "classify_log":
                answers = [_of_classes(one.classes) for one in log.classify_log.response.result.classifications]
                inputs = self._of_examples(_examples(log.classify_log.request.input))
            case kind:
                raise ValueError(f"a {kind or 'record without a request'} holds no label")
        if len(inputs) != len(answers):
            raise ValueError("it has not one answer for each row")
        return [Row(features, *answer) for features, answer in zip(inputs, answers, strict=True)]

    def _of_inputs(self, tensors: Mapping[str, Any], rows: int) -> list[dict[str, Any]]:
        if len(tensors) == 1 and _EXAMPLES in tensors:
            return self._of_examples(map(_parsed, _values(tensors[_EXAMPLES], rows)))
        found: list[dict[str, Any]] = [{} for _ in range(rows)]
        renamed, wanted = self._feature_of_input, self._wanted
        for name in tensors:
            feature = renamed.get(name, name)
            if wanted is not None and feature not in wanted:
                continue
            values = _values(tensors[name], rows)
            if len(values) != rows:
                raise ValueError("its inputs do not have one value for each row")
            if feature == PHOTO_KEY:
                files = list(map(photo_file, values))
                values = list(map(file_key, files))
                if wanted is None:
                    for row, file in zip(found, files, strict=True):
                        row[PHOTO_FILE] = file
            if rows == 1:  # as most requests have
                found[0][feature] = values[0]
                continue
            for row, value in zip(found, values, strict=True):
                row[feature] = value
        if rows and not found[0]:
            raise ValueError("its inputs hold nothing that a row could be known by")
        return found

    def _of_examples(self, examples: Iterable[tf.train.Example]) -> list[dict[str, Any]]:
        found = []
        for example in examples:
            row: dict[str, Any] = {}
            for name, value in example.features.feature.items():
                feature = self._feature_of_input.get(name, name)
                if self._wanted is None or feature in self._wanted:
                    row[feature] = _first(value)
                    if feature == PHOTO_KEY:
                        file = photo_file(row[feature] or b"")
                        row |= {PHOTO_KEY: file_key(file)} | ({PHOTO_FILE: file} if self._wanted is None else {})
            found.append(row)
        return found

    def _of_outputs(self, outputs: Mapping[str, Any], version: int) -> list[_Answer]:
        if "labels" in outputs and "probabilities" in outputs:
            return _ranked(outputs)
        if "probabilities" in outputs:
            vocabulary = self._vocabularies.get(version)
            if not vocabulary:
                raise ValueError(f"version {version} is not there any more, whose labels its probabilities are of")
            size = len(vocabulary)
            probabilities = _values(outputs["probabilities"], _rows(outputs["probabilities"]) * size)
            each = [probabilities[place : place + size] for place in range(0, len(probabilities), size)]
            return [(vocabulary[max(range(size), key=one.__getitem__)], one, vocabulary) for one in each]
        if len(outputs) == 1:
            (only,) = outputs.values()
            if only.dtype == tf.string.as_datatype_enum:
                return [(_label(label), None, ()) for label in _values(only, _rows(only))]
        raise ValueError(f"its outputs {', '.join(sorted(outputs))} hold no label")


def _ranked(outputs: Mapping[str, Any]) -> list[_Answer]:
    rows = _rows(outputs["labels"])
    size = outputs["labels"].tensor_shape.dim[1].size
    labels = [_label(label) for label in _values(outputs["labels"], rows * size)]
    probabilities = _values(outputs["probabilities"], rows * size)
    reasons = _values(outputs["error"], rows) if "error" in outputs else [b""] * rows
    given = _values(outputs[ANSWER], rows) if ANSWER in outputs else None
    found: list[_Answer] = []
    for row in range(rows):
        place = slice(row * size, row * size + size)
        answer = labels[place.start] if given is None else _label(given[row])
        found.append(("", None, ()) if reasons[row] else (answer, probabilities[place], labels[place]))
    return found


def _of_classes(classes: Any) -> _Answer:
    labels, scores = [one.label for one in classes], [one.score for one in classes]
    return labels[max(range(len(scores)), key=scores.__getitem__)], scores, labels


def _rows(tensor: Any) -> int:
    dimensions = tensor.tensor_shape.dim
    return int(dimensions[0].size) if len(dimensions) else 1


@lru_cache(10_000)
def _label(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def photo_file(value: bytes) -> bytes:
    """The file of a photo, which is sent as it is or in base64, in either alphabet."""
    if value[:1].isascii() and not value.startswith((b"GIF8", b"BM")):
        text = value.strip()
        with suppress(binascii.Error):  # then it is the file itself
            return base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    return value


def file_key(file: bytes) -> str:
    """What a photo is known by, by its file."""
    return hashlib.sha256(file).hexdigest()


def version_of(log: prediction_log_pb2.PredictionLog) -> int:
    """The version that answered; 0 where nothing says it."""
    if log.log_metadata.model_spec.HasField("version"):
        return int(log.log_metadata.model_spec.version.value)
    kind = log.WhichOneof("log_type")
    answered = getattr(log, kind).response.model_spec if kind in ("predict_log", "classify_log") else None
    return int(answered.version.value) if answered is not None else 0
