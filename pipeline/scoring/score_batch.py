"""Ask the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import apache_beam as beam
import numpy as np
import tensorflow as tf
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.utils.shared import Shared

from pipeline.scoring.bad_item import BadItem
from pipeline.scoring.item import Item
from pipeline.scoring.prediction import Prediction
from pipeline.scoring.published_model import PublishedModel
from serving.client.input_array import input_array
from serving.client.table_value import table_value
from serving.session_model import SessionModel

BAD = "bad"

Inputs = Mapping[str, np.ndarray]


class ScoreBatch(beam.DoFn):
    """A list of items -> a list of their predictions, and under the tag BAD a list of those that have none.

    The model is loaded once in each worker process, as TensorFlow Serving loads it.

    Args:
        model: what is asked.
    """

    def __init__(self, model: PublishedModel) -> None:
        super().__init__()
        self._model = model
        self._shared = Shared()

    def setup(self) -> None:
        """Load the model, where this process has not."""
        path = self._model.path
        self._session: SessionModel = self._shared.acquire(lambda: SessionModel(path))

    def process(self, batch: list[Item | BadItem]) -> Iterator[object]:
        """Score a batch; one bad item never spoils the others."""
        bad = [item for item in batch if isinstance(item, BadItem)]
        items, inputs = [], []
        for item in batch:
            if isinstance(item, Item):
                try:
                    inputs.append(self._inputs(item))
                    items.append(item)
                except ValueError as error:
                    bad.append(BadItem(item.source, item.line, str(error)))
        answers = self._answers(items, inputs) if items else []
        bad += [answer for answer in answers if isinstance(answer, BadItem)]
        predictions = [answer for answer in answers if isinstance(answer, Prediction)]
        if predictions:
            yield predictions
        if bad:
            yield beam.pvalue.TaggedOutput(BAD, sorted(bad, key=lambda item: (item.source, item.line or 0)))

    def _inputs(self, item: Item) -> Inputs:
        """One value for each input, as `ingraph predict` sends it. Raises ValueError where a field is none."""
        if self._model.takes == "photos":
            return {name: np.array([_read_photo(item.source)], np.object_) for name in self._model.inputs}
        values = {}
        for name, description in self._model.inputs.items():
            try:
                values[name] = input_array(name, [table_value(item.fields[name], description.dtype)], description.dtype)
            except ValueError as error:
                raise ValueError(f"column {name}: {error}") from None
        return values

    def _answers(self, items: Sequence[Item], inputs: Sequence[Inputs]) -> list[Prediction | BadItem]:
        model = self._model
        columns = {name: np.concatenate([each[name] for each in inputs]) for name in model.inputs}
        try:
            outputs = self._session.run(model.signature, columns, model.outputs)
        except tf.errors.OpError as error:
            if len(items) == 1:
                return [BadItem(items[0].source, items[0].line, str(error.message).partition("\n")[0])]
            return [self._answers([item], [each])[0] for item, each in zip(items, inputs, strict=True)]
        return [_answer(item, {name: outputs[name][row] for name in outputs}) for row, item in enumerate(items)]


def _read_photo(path: str) -> bytes:
    try:
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            content: bytes = file.read()
    except (OSError, BeamIOError) as error:
        raise ValueError(f"the file cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return content


def _answer(item: Item, outputs: Mapping[str, np.ndarray]) -> Prediction | BadItem:
    reason = _text(outputs.get("error", b""))
    if reason:
        return BadItem(item.source, item.line, reason)
    if "labels" not in outputs:
        (label,) = outputs.values()
        if not label:
            return BadItem(item.source, item.line, "the model gives no label")
        return Prediction(item.source, item.line, _text(label), None, {})
    labels = [_text(label) for label in outputs["labels"]]
    probabilities = list(outputs["probabilities"])
    return Prediction(
        item.source, item.line, labels[0], probabilities[0], dict(zip(labels, probabilities, strict=True))
    )


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
