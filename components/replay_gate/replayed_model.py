"""Requests for labels as they were logged, and models that answer them as a server does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from components.errors import BrokenInput
from serving.client.tensors import from_proto
from serving.server.errors import ServingError
from serving.server.signatures import CLASSES, INPUTS, SCORES, checked_request, run_checked, serialized_examples
from serving.session_model import FileOperationError, SessionModel
from serving.signatures.common import ANSWER, CLASSIFY, SERVING_DEFAULT, read_labels

EXAMPLES, SERVE_EXAMPLES = "examples", "serve_examples"
# What an answer is that is no label.
NO_LABEL = ""


@dataclass(frozen=True)
class LoggedRequest:
    """A request for labels.

    Attributes:
        signature: what was asked; "" of a classification by examples, for which models have different ones.
        inputs: input name -> array, whose first dimension are the rows.
        size: in bytes, roughly.
    """

    signature: str
    inputs: Mapping[str, np.ndarray]
    size: int

    @property
    def rows(self) -> int:
        return len(next(iter(self.inputs.values())))


def logged_request(log: prediction_log_pb2.PredictionLog) -> LoggedRequest:
    """The request of a record.

    Raises:
        ValueError: it asks for no labels, or its inputs are no rows.
    """
    match log.WhichOneof("log_type"):
        case "predict_log":
            request = log.predict_log.request
            name = log.log_metadata.model_spec.signature_name or request.model_spec.signature_name or SERVING_DEFAULT
            inputs = {name: _rows(from_proto(tensor)) for name, tensor in request.inputs.items()}
            if not inputs or len({len(values) for values in inputs.values()}) != 1:
                raise ValueError("its inputs do not have one value for each row")
            return LoggedRequest(name, inputs, request.ByteSize())
        case "classify_log":
            request = log.classify_log.request
            try:
                return LoggedRequest("", {EXAMPLES: serialized_examples(request.input)}, request.ByteSize())
            except ServingError as error:
                raise ValueError(error.message) from error
        case kind:
            raise ValueError(f"a {kind or 'record without a request'} asks for no label")


def _rows(values: np.ndarray) -> np.ndarray:
    """A column as [rows]; several values in a row stay."""
    return values.reshape(-1) if values.ndim < 2 or values.shape[1:] == (1,) else values


@dataclass(frozen=True)
class Answers:
    """What rows are answered.

    Attributes:
        labels: object [rows], str; NO_LABEL where there is none.
        reasons: object [rows], str; why a row has no label, "" where it has one.
    """

    labels: np.ndarray
    reasons: np.ndarray

    @classmethod
    def refused(cls, rows: int, reason: str) -> Answers:
        return cls(np.full(rows, NO_LABEL, object), np.full(rows, reason, object))

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("labels", "reasons")))


def labels_in(outputs: Mapping[str, np.ndarray], vocabulary: Sequence[str]) -> Answers:
    """The labels in the outputs of a signature, as its clients read them.

    Args:
        outputs: of `serving_default`, the label; of `classify`, labels, best first, and what is answered, if that is
            not always the best; of `serve_examples`, probabilities; of a classification, classes and scores.
        vocabulary: the labels in the order of the probabilities.

    Raises:
        ValueError: there is no label in them.
    """
    if "labels" in outputs:
        found = outputs[ANSWER] if ANSWER in outputs else outputs["labels"][:, 0]
        reasons = outputs.get("error", np.full(len(found), b"", object))
        return _answers(found, reasons)
    if "probabilities" in outputs and vocabulary:
        probabilities = outputs["probabilities"]
        usable = np.isfinite(probabilities).all(axis=1)
        best = np.array(vocabulary, object)[np.where(usable, probabilities.argmax(axis=1), 0)]
        return Answers(np.where(usable, best, NO_LABEL), np.where(usable, "", "the probabilities are no numbers"))
    if CLASSES in outputs:
        classes = outputs[CLASSES]
        best = outputs[SCORES].argmax(axis=1) if SCORES in outputs else np.zeros(len(classes), int)
        return _answers(classes[np.arange(len(classes)), best], np.full(len(classes), b"", object))
    if len(outputs) == 1:
        (only,) = outputs.values()
        if only.dtype.kind == "O" and only.ndim == 1:
            return _answers(only, np.full(len(only), b"", object))
    raise ValueError(f"the outputs {', '.join(sorted(outputs))} hold no label")


def _answers(labels: np.ndarray, reasons: np.ndarray) -> Answers:
    texts = np.array([_text(label) for label in labels.tolist()] + [None], object)[:-1]
    said = [_text(reason) for reason in reasons.tolist()]
    why = [reason or ("" if label else "no label is answered") for reason, label in zip(said, texts, strict=True)]
    without = np.array([bool(reason) for reason in why], bool)
    return Answers(np.where(without, NO_LABEL, texts), np.array([*why, None], object)[:-1])


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


class ReplayedModel:
    """A model that answers logged requests, checked and run as the server does it.

    Args:
        path: the directory that holds saved_model.pb.

    Raises:
        BrokenInput: no session can run it.
    """

    def __init__(self, path: str) -> None:
        try:
            self._model = SessionModel(path)
        except (tf.errors.OpError, OSError, RuntimeError, FileOperationError) as error:
            raise BrokenInput(f"{path}: the model cannot be loaded: {error}") from error
        try:
            self.labels = read_labels(path)
        except tf.errors.NotFoundError:
            self.labels = []

    def close(self) -> None:
        self._model.close()

    def run(self, request: LoggedRequest) -> Answers:
        """What it answers to a request.

        Raises:
            ServingError: what a client would be told.
            ValueError: the signature answers no labels.
        """
        name, inputs = self._asked(request)
        if name not in self._model.signatures:
            raise ServingError.from_tensorflow(
                tf.errors.NotFoundError(None, None, f"there is no signature {name!r} in the model")
            )
        feeds, fetches = checked_request(self._model.signatures[name], inputs)
        answers = labels_in(run_checked(self._model, name, feeds, fetches), self.labels)
        if len(answers.labels) != request.rows:
            raise ValueError(f"{len(answers.labels)} labels are answered to {request.rows} rows")
        return answers

    def _asked(self, request: LoggedRequest) -> tuple[str, Mapping[str, np.ndarray]]:
        if request.signature:
            return request.signature, request.inputs
        for name in (SERVING_DEFAULT, CLASSIFY):  # those that Classify can ask
            if name in self._model.signatures and set(self._model.signatures[name].inputs) == {INPUTS}:
                return name, {INPUTS: request.inputs[EXAMPLES]}
        return SERVE_EXAMPLES, request.inputs

    def answers(self, requests: Sequence[LoggedRequest]) -> Answers:
        """What it answers to the rows of requests with the same inputs; one that it refuses costs no other its label.

        Raises:
            ValueError: see `run`.
        """
        try:
            return self.run(merged(requests))
        except ServingError as error:
            if len(requests) > 1:
                return Answers.joined([self.answers([request]) for request in requests])
            return Answers.refused(requests[0].rows, error.message.partition("\n")[0])


def merged(requests: Sequence[LoggedRequest]) -> LoggedRequest:
    """The rows of requests with the same signature and the same inputs as one request."""
    if len(requests) == 1:
        return requests[0]
    names = requests[0].inputs
    inputs = {name: np.concatenate([request.inputs[name] for request in requests]) for name in names}
    return LoggedRequest(requests[0].signature, inputs, sum(request.size for request in requests))
