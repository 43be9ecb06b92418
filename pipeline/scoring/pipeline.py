"""The Beam pipeline of batch scoring: a published model over files."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import apache_beam as beam
import numpy as np
import orjson
import tensorflow as tf
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.transforms.combiners import ToListCombineFn
from apache_beam.utils.shared import Shared

from components.errors import BrokenInput
from pipeline.options import IN_MEMORY_RUNNER, BeamOptions
from pipeline.runners.beam_speedups import apply_beam_speedups
from pipeline.runners.job_service import require_job_service
from pipeline.scoring.inputs import BadItem, Item, PublishedModel, Source, find_sources, read_items
from pipeline.scoring.outputs import ROW_WRITERS, Prediction, Shard, WriteShard, open_row_writer, publish_shards
from serving.client.table_columns import table_value
from serving.client.tensors import input_array
from serving.session_model import SessionModel
from serving.signatures.common import SERVING_DEFAULT

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
            return {name: np.array([_read_image(item.source)], np.object_) for name in self._model.inputs}
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
            outputs = dict(self._session.run(model.signature, columns, model.outputs))
            if model.decides:
                outputs |= self._session.run(SERVING_DEFAULT, columns)
        except tf.errors.OpError as error:
            if len(items) == 1:
                return [BadItem(items[0].source, items[0].line, str(error.message).partition("\n")[0])]
            return [self._answers([item], [each])[0] for item, each in zip(items, inputs, strict=True)]
        return [_answer(item, {name: outputs[name][row] for name in outputs}) for row, item in enumerate(items)]


def _read_image(path: str) -> bytes:
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
    probabilities = dict(zip(labels, outputs["probabilities"], strict=True))
    answered = _text(outputs["output_0"]) if "output_0" in outputs else labels[0]
    return Prediction(item.source, item.line, answered, probabilities[answered], probabilities)


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


_BAD_SUFFIX = ".errors.jsonl"


@dataclass(frozen=True)
class Scores:
    """What came of it.

    Attributes:
        scored: how many rows or photos.
        bad: how many have no score.
        first_bad: where the first of them is, and why.
        files: with the predictions.
        bad_files: with the bad items.
    """

    scored: int
    bad: int
    first_bad: str
    files: list[str]
    bad_files: list[str]

    @property
    def bad_share(self) -> float:
        """The share of bad items in all of them."""
        return self.bad / (self.scored + self.bad)


def score(
    model: PublishedModel,
    inputs: Sequence[str],
    output: str,
    options: BeamOptions,
    image: str | None = None,
    renamed_inputs: Mapping[str, str] | None = None,
) -> Scores:
    """Write what a model says about every row or photo; nothing is under the final names until all of it is.

    Args:
        model: what is asked.
        inputs: files, folders and patterns, see find_files.
        output: the file of predictions, whose ending says the format. What cannot be scored goes to a file beside it.
        options: what runs the pipeline. One worker keeps the order of the inputs.
        image: what remote workers run.
        renamed_inputs: input of the model -> what the column is called in the files, where it differs.

    Raises:
        BrokenInput: the inputs cannot be read, or the output cannot be written; nothing is left of it.
    """
    check_output(output)
    sources = find_sources(model, inputs, renamed_inputs or {})
    tables = [file for source in sources if source.kind != "photos" for file in source.files]
    if Path(output).resolve() in (Path(file).resolve() for file in tables):
        raise BrokenInput(f"{output} is an input and the output; --output has to name another file")
    folder, _, name = output.rpartition("/")
    unfinished = f"{folder or '.'}/.{name}.{uuid.uuid4().hex}"
    try:
        FileSystems.mkdirs(unfinished)
    except (OSError, BeamIOError) as error:
        raise BrokenInput(f"{output}: the folder cannot be written to: {error}; --output says where it goes") from error
    try:
        _run_pipeline(model, sources, unfinished, Path(name).suffix, options, image)
        return _finish(unfinished, output, inputs)
    finally:
        _remove(unfinished)


def _remove(folder: str) -> None:
    if "://" not in folder:
        shutil.rmtree(folder, ignore_errors=True)
        return
    (found,) = FileSystems.match([f"{folder}/*"])
    FileSystems.delete([file.path for file in found.metadata_list])


def check_output(output: str) -> None:
    """Raise BrokenInput unless the name says a format that can be written."""
    if Path(output).suffix not in ROW_WRITERS:
        raise BrokenInput(f"--output {output}: expected a file name that ends with {', '.join(ROW_WRITERS)}")


def _run_pipeline(
    model: PublishedModel, sources: Sequence[Source], folder: str, suffix: str, options: BeamOptions, image: str | None
) -> None:
    apply_beam_speedups()
    arguments = options.pipeline_args(image)
    require_job_service(arguments)
    with beam.Pipeline(argv=arguments) as pipeline:
        # Not shuffled, and so in their order and never all in memory, where one worker does everything.
        batches = (
            pipeline
            | "Sources" >> beam.Create(list(sources), reshuffle=False)
            | "Read" >> beam.FlatMap(read_items).with_output_types(list[Item | BadItem])
        )
        if not _has_one_worker(options):
            batches |= "Spread" >> beam.Reshuffle()
        answers = batches | "Score" >> beam.ParDo(ScoreBatch(model)).with_outputs(BAD, main="scored")
        written = [
            answers.scored | "WriteScored" >> beam.ParDo(WriteShard(folder, suffix, False)).with_output_types(Shard),
            answers[BAD] | "WriteBad" >> beam.ParDo(WriteShard(folder, ".jsonl", True)).with_output_types(Shard),
        ]
        _ = (
            written
            | "Shards" >> beam.Flatten()
            | "AllShards" >> beam.CombineGlobally(ToListCombineFn())
            | "WriteList" >> beam.Map(_write_list, _list_of(folder))
        )


def _has_one_worker(options: BeamOptions) -> bool:
    return options.runner == IN_MEMORY_RUNNER and str(options.options.get("direct_num_workers", 1)) == "1"


def _list_of(folder: str) -> str:
    return f"{folder}/shards.json"


def _write_list(shards: list[Shard], path: str) -> None:
    with FileSystems.create(path) as file:
        file.write(orjson.dumps([asdict(shard) for shard in shards]))


def _finish(folder: str, output: str, inputs: Sequence[str]) -> Scores:
    with FileSystems.open(_list_of(folder)) as file:
        shards = sorted((Shard(**each) for each in orjson.loads(file.read())), key=lambda shard: shard.first)
    scored = [shard for shard in shards if not shard.is_bad]
    bad = [shard for shard in shards if shard.is_bad]
    for shard in bad:
        if shard.ends_run:
            raise BrokenInput(f"{shard.reason}; nothing was written")
    if not shards:
        raise BrokenInput(f"{', '.join(inputs)}: there are no rows; expected at least one")
    paths = [shard.path for shard in scored]
    if not paths:  # an output without rows, rather than none
        paths = [f"{folder}/empty{Path(output).suffix}"]
        open_row_writer(paths[0]).close()
    bad_output = f"{output.removesuffix(Path(output).suffix)}{_BAD_SUFFIX}"
    return Scores(
        scored=sum(shard.rows for shard in scored),
        bad=sum(shard.rows for shard in bad),
        first_bad=bad[0].reason if bad else "",
        bad_files=publish_shards([shard.path for shard in bad], bad_output),
        files=publish_shards(paths, output),
    )
