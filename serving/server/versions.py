"""Versions of a model: found in the base path, loaded, warmed up, and ended."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import input_pb2, prediction_log_pb2

from serving.client.errors import CanonicalCode
from serving.client.tensors import from_proto
from serving.model_store import ModelStoreError, SignatureError, parse_version_number, verify_signature
from serving.server.config import LoadPolicy, lies_below
from serving.server.errors import ServingError, invalid_argument
from serving.server.signatures import (
    DEFAULT_SIGNATURE,
    INPUTS,
    classification_outputs,
    regression_outputs,
    run_signature,
    serialized_examples,
)
from serving.session_model import FileOperationError, SessionModel


class BasePathMissingError(Exception):
    """The base path is not there now, which says nothing about its versions."""


def version_paths(base_path: str) -> dict[int, str]:
    """The paths below a base path whose names are numbers, by number.

    Raises:
        BasePathMissingError: there is no such directory, or it cannot be listed.
    """
    try:
        if not tf.io.gfile.isdir(base_path):
            raise BasePathMissingError(f"there is no directory {base_path}")
        names = sorted(name.rstrip("/") for name in tf.io.gfile.listdir(base_path))
    except tf.errors.OpError as error:
        raise BasePathMissingError(f"{base_path} cannot be listed: {error.message}") from error
    numbers = {name: parse_version_number(name) for name in names}
    return {number: tf.io.gfile.join(base_path, name) for name, number in numbers.items() if number is not None}


class VersionState(IntEnum):
    """The states of tensorflow.serving.ModelVersionStatus, with its numbers."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(eq=False)
class ServedVersion:
    """A version that is, was or is to be served; for the event loop's own thread only.

    Attributes:
        requests: how many use the model.
        tried: whether it has been available, or its load has failed as often as somebody waits for it.
        unwanted: set when it is to go.
    """

    number: int
    path: str
    state: VersionState = VersionState.START
    code: CanonicalCode = CanonicalCode.OK
    message: str = ""
    model: SessionModel | None = None
    tried: bool = False
    unwanted: asyncio.Event = field(default_factory=asyncio.Event)
    requests: int = 0
    _users: int = 0  # requests, and work in threads that nobody may wait for any longer
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def use(self) -> Iterator[SessionModel]:
        """The model, which is not closed before the end of the block."""
        assert self.model is not None
        self._users += 1
        self.requests += 1
        try:
            yield self.model
        finally:
            self.requests -= 1
            self._release()

    def start(self, executor: Executor, work: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        """Call `work(*arguments)` in a thread; the model is not closed before it is done, whoever waits for it.

        Whoever waits may cancel the future; the thread goes on. Not `run_in_executor`, whose result goes through three
        turns of the event loop with the shield that this would need.
        """
        loop = asyncio.get_running_loop()
        answer = loop.create_future()

        def call() -> None:
            try:
                result = work(*arguments)
            except BaseException as error:
                loop.call_soon_threadsafe(self._deliver, answer, None, error)
            else:
                loop.call_soon_threadsafe(self._deliver, answer, result, None)

        executor.submit(call)
        self._users += 1
        return answer

    async def wait_until_idle(self) -> None:
        """Return when nobody uses the model any more."""
        while self._users:
            self._idle.clear()
            await self._idle.wait()

    def _deliver(self, answer: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        self._release()
        if answer.done():  # whoever has waited has gone
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)

    def _release(self) -> None:
        self._users -= 1
        self._idle.set()


WARM_UP_FILE = "assets.extra/tf_serving_warmup_requests"
MAXIMUM_RECORDS = 1000

Outputs = Callable[[meta_graph_pb2.SignatureDef], tuple[str, ...]]


def warm_up(model: SessionModel, version_path: str) -> None:
    """Replay the version's warm-up requests, where it has some.

    Raises:
        ServingError: a record is no PredictionLog or of a kind that cannot be replayed, there are too many, or one
            failed.
        tf.errors.OpError: the file is none of TFRecords.
    """
    path = tf.io.gfile.join(version_path, WARM_UP_FILE)
    if not tf.io.gfile.exists(path):
        return
    for number, record in enumerate(tf.data.TFRecordDataset(path).as_numpy_iterator(), 1):
        if number > MAXIMUM_RECORDS:
            raise invalid_argument(f"Number of warmup records exceeds the maximum ({MAXIMUM_RECORDS})")
        try:
            log = prediction_log_pb2.PredictionLog.FromString(record)
        except Exception as error:
            raise invalid_argument(f"Failed to parse warmup record {number}") from error
        _replay(model, log)


def _replay(model: SessionModel, log: prediction_log_pb2.PredictionLog) -> None:
    match log.WhichOneof("log_type"):
        case None:
            return
        case "predict_log":
            _predict(model, log.predict_log.request)
        case "classify_log":
            _infer(model, log.classify_log.request.model_spec, log.classify_log.request.input, classification_outputs)
        case "regress_log":
            _infer(model, log.regress_log.request.model_spec, log.regress_log.request.input, regression_outputs)
        case "multi_inference_log":
            request = log.multi_inference_log.request
            for task in request.tasks:
                regress = task.method_name.endswith("/regress")
                _infer(model, task.model_spec, request.input, regression_outputs if regress else classification_outputs)
        case kind:
            raise ServingError(CanonicalCode.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")


def _predict(model: SessionModel, request: Any) -> None:
    try:
        inputs: Mapping[str, Any] = {alias: from_proto(proto) for alias, proto in request.inputs.items()}
    except ValueError as error:
        raise invalid_argument(f"tensor parsing error: {error}") from error
    run_signature(model, _signature(model, request.model_spec), inputs, tuple(request.output_filter))


def _infer(model: SessionModel, spec: Any, examples: input_pb2.Input, outputs: Outputs) -> None:
    signature = _signature(model, spec)
    names = outputs(model.signatures[signature])
    run_signature(model, signature, {INPUTS: serialized_examples(examples)}, names)


def _signature(model: SessionModel, spec: Any) -> str:
    signature: str = spec.signature_name or DEFAULT_SIGNATURE
    if signature not in model.signatures:
        raise ServingError(CanonicalCode.FAILED_PRECONDITION, f'Serving signature key "{signature}" not found.')
    return signature


def load_version(path: str, policy: LoadPolicy, roots: Sequence[str] = ()) -> SessionModel:
    """Load the SavedModel of a version directory and replay its warm-up requests, where it has some.

    Args:
        path: the directory.
        policy: what may be loaded.
        roots: where it has to lie, links followed; () where it may lie anywhere.

    Raises:
        ServingError: the directory holds no model that a session can run, or a warm-up request failed;
            PERMISSION_DENIED, it lies outside of the roots, reaches files that are not its own, or is not signed as it
            has to be.
    """
    if roots and not lies_below(path, roots):
        raise ServingError(CanonicalCode.PERMISSION_DENIED, f"{path} lies outside of what --allow-reload-config names.")
    if policy.signature_keys:
        return _load_signed(path, policy)
    return _load_and_warm_up(path, policy)


def _load_signed(path: str, policy: LoadPolicy) -> SessionModel:
    """Load a copy that nobody else can write to, so that what was verified is what is loaded and read later."""
    folder = tempfile.mkdtemp(prefix="ingraph-version-")
    remove = partial(shutil.rmtree, folder, ignore_errors=True)
    number = parse_version_number(path.rstrip("/").rpartition("/")[2])
    try:
        assert number is not None  # what a base path is searched for
        verify_signature(path, number, policy.signature_keys, Path(folder))
        model = _load_and_warm_up(folder, policy)
    except BaseException as error:
        remove()
        match error:
            case SignatureError():
                raise ServingError(CanonicalCode.PERMISSION_DENIED, str(error)) from error
            case ModelStoreError() | OSError():
                raise ServingError(CanonicalCode.UNAVAILABLE, str(error)) from error
            case ServingError():
                raise ServingError(error.code, error.message.replace(folder, path)) from error
        raise
    model.when_closed = remove
    return model


def _load_and_warm_up(path: str, policy: LoadPolicy) -> SessionModel:
    try:
        model = _load(path, policy.allow_file_operations)
        try:
            _check_variables(model)
            if policy.warm_up:
                warm_up(model, path)
        except BaseException:
            model.close()
            raise
    except tf.errors.OpError as error:
        raise ServingError.from_tensorflow(error) from error
    return model


def _load(path: str, allow_file_operations: bool) -> SessionModel:
    if not any(tf.io.gfile.exists(tf.io.gfile.join(path, f"saved_model.{kind}")) for kind in ("pb", "pbtxt")):
        raise ServingError(
            CanonicalCode.NOT_FOUND,
            "Specified file path does not appear to contain a SavedModel bundle (should have a file called "
            f"`saved_model.pb`)\nSpecified file path: {path}",
        )
    try:
        return SessionModel(path, allow_file_operations)
    except FileOperationError as error:
        raise ServingError(CanonicalCode.PERMISSION_DENIED, str(error)) from error
    except tf.errors.OpError as error:
        raise ServingError.from_tensorflow(error) from error
    except OSError as error:
        raise ServingError(CanonicalCode.DATA_LOSS, str(error)) from error
    except Exception as error:
        # Python's loader raises almost anything for a graph that parses and still is none: no {serve} tag, unknown ops.
        raise invalid_argument(str(error)) from error


def _check_variables(model: SessionModel) -> None:
    unset = model.unset_variables()
    if unset:
        raise ServingError(
            CanonicalCode.FAILED_PRECONDITION,
            f"The signatures read variables that loading does not fill: {', '.join(unset)}. "
            "tf.saved_model.save does this to a Keras 3 model; write it by keras.export.ExportArchive.",
        )
