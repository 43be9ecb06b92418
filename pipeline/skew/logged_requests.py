"""The requests to one model in files of PredictionLogs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from components.errors import BrokenInput
from pipeline.skew.read_records import Damage, read_records
from pipeline.skew.request_columns import Columns, request_columns


class LoggedRequests:
    """Reads files once, and counts what it passes over.

    Args:
        files: of TFRecords, gzipped where their names end with .gz; here or in an object store.
        model: whose requests are read.
        feature_of_input: name of an input -> the feature that it is; other inputs are left out.

    Attributes, complete after the iteration:
        requests: how many were read.
        seconds: when the first and the last of them were logged, since 1970; None where nothing says it.
        damaged: where files hold bytes that are no record of a request.
        unfinished: files that end in the middle of a record.
        other_models: how many requests went to which other models.
        other_inputs: how many requests had no input of this model, by their signature.
    """

    def __init__(self, files: Sequence[str], model: str, feature_of_input: Mapping[str, str]) -> None:
        self._files = files
        self._model = model
        self._feature_of_input = feature_of_input
        self.requests = 0
        self.seconds: tuple[int, int] | None = None
        self.damaged: list[str] = []
        self.unfinished: list[str] = []
        self.other_models: Counter[str] = Counter()
        self.other_inputs: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Columns]:
        """The features of each request, one row or more.

        Raises:
            BrokenInput: a file cannot be opened.
        """
        for path in self._files:
            for log in self._logs(path):
                columns = self._columns(log)
                if columns:
                    self.requests += 1
                    self._note_time(log.log_metadata.timestamp_secs)
                    yield columns

    def _logs(self, path: str) -> Iterator[prediction_log_pb2.PredictionLog]:
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

    def _columns(self, log: prediction_log_pb2.PredictionLog) -> Columns:
        name = _asked(log)
        if name != self._model:
            self.other_models[name or "(no name)"] += 1
            return {}
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

    def _note_time(self, seconds: int) -> None:
        if seconds:
            first, last = self.seconds or (seconds, seconds)
            self.seconds = min(first, seconds), max(last, seconds)


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
