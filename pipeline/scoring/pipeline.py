"""The Beam pipeline of batch scoring: a published model over files."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.transforms.combiners import ToListCombineFn
from apache_beam.utils.shared import Shared

from components.errors import BrokenInput
from components.table_example_gen.executor import in_threads
from components.table_example_gen.options import TableReading
from components.table_example_gen.serialization import NUMBER, WHOLE, example_type
from pipeline.runners.beam_engine import IN_MEMORY_RUNNER, BeamOptions, start_engine
from pipeline.runners.beam_speedups import apply_beam_speedups
from pipeline.scoring.inputs import BadItem, Batch, PublishedModel, Source, as_texts, find_sources, read_items
from pipeline.scoring.outputs import ROW_WRITERS, Predictions, Shard, WriteShard, open_row_writer, publish_shards
from serving.client.metadata import TensorDescription
from serving.client.table_columns import table_value
from serving.client.tensors import data_type_named, input_array
from serving.missing_values import missing_value
from serving.session_model import SessionModel
from serving.signatures.common import ANSWER

BAD = "bad"

Inputs = Mapping[str, np.ndarray]


class Score(beam.DoFn):
    """A batch, or a source, -> predictions, and under the tag BAD lists of the items that have none.

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

    def process(self, element: Batch | Source) -> Iterator[object]:
        """Score what it holds; of a source, as many batches at a time as there are cores."""
        batches = [element] if isinstance(element, Batch) else read_items(element)
        for predictions, bad in in_threads(partial(scored, self._session, self._model), batches):
            yield from predictions
            if bad:
                yield beam.pvalue.TaggedOutput(BAD, bad)


def scored(session: SessionModel, model: PublishedModel, batch: Batch) -> tuple[list[Predictions], list[BadItem]]:
    """What a model says of a batch, and the items without an answer: one of these never spoils the others."""
    if not len(batch):
        return [], list(batch.bad)
    arrays, reasons = _photos(batch, model) if model.takes == "photos" else model_inputs(batch, model.inputs)
    bad = list(batch.without(reasons).bad)
    predictions = []
    for answers in _answers(session, model, batch, arrays, np.setdiff1d(np.arange(len(batch)), list(reasons))):
        if isinstance(answers, Predictions):
            predictions.append(answers)
        else:
            bad += answers
    return predictions, sorted(bad, key=lambda item: (item.source, item.line or 0))


def model_inputs(batch: Batch, inputs: Mapping[str, TensorDescription]) -> tuple[dict[str, np.ndarray], dict[int, str]]:
    """One value for each row and input, as `ingraph predict` sends it; and the rows of which a field is none, and why.

    Args:
        batch: rows.
        inputs: of the signature.
    """
    arrays: dict[str, np.ndarray] = {}
    reasons: dict[int, str] = {}
    for name, description in inputs.items():
        arrays[name], of_column = _input(name, batch.columns[name], description.dtype)
        for row, reason in of_column.items():
            reasons.setdefault(row, f"column {name}: {reason}")
    return arrays, reasons


def _input(name: str, column: pa.Array, dtype: str) -> tuple[np.ndarray, dict[int, str]]:
    if dtype == "string":
        texts = as_texts(column)
        texts = pc.if_else(pc.equal(pc.utf8_trim_whitespace(texts), ""), missing_value(dtype), texts)
        return pc.cast(texts, pa.binary()).to_numpy(zero_copy_only=False), {}
    wanted = data_type_named(dtype).dtype
    numbers = _numbers(column, wanted) if wanted.kind in "iuf" else None
    if numbers is not None:
        filled = pc.fill_null(numbers, pa.scalar(missing_value(dtype), numbers.type))
        return filled.to_numpy(zero_copy_only=False).astype(wanted), {}
    # Of the values some are none, or are written as pyarrow does not read them.
    encoded = as_texts(column).dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    values, reasons = np.zeros(len(encoded.dictionary), wanted), {}
    for place, text in enumerate(encoded.dictionary.to_pylist()):
        try:
            values[place] = input_array(name, [table_value(text, dtype)], dtype)[0]
        except ValueError as error:
            reasons[place] = str(error)
    return values[codes], {int(row): reasons[codes[row]] for row in np.flatnonzero(np.isin(codes, list(reasons)))}


# Beyond it a float holds no longer every whole number.
_EXACT = 2.0**53


def _numbers(column: pa.Array, wanted: np.dtype[Any]) -> pa.Array | None:
    """float64, or int64 where whole numbers are wanted, null for missing; None: each value has to be looked at."""
    try:
        if example_type(column.type) in (WHOLE, NUMBER):
            found = pc.cast(column, pa.int64() if pa.types.is_integer(column.type) else pa.float64())
            if pa.types.is_floating(found.type):  # where pandas has nothing
                found = pc.if_else(pc.is_nan(found), pa.scalar(None, pa.float64()), found)
        else:
            texts = pc.utf8_trim_whitespace(as_texts(column))
            texts = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
            found = _parsed(texts, wanted)
        if wanted.kind == "f":
            return pc.cast(found, pa.float64(), safe=False)
        if pa.types.is_floating(found.type):
            if pc.any(pc.invert(pc.less(pc.abs(found), _EXACT))).as_py():  # nor does NaN
                return None
            found = pc.cast(found, pa.int64())  # refuses what is not whole
        bounds = pc.min_max(found).as_py()
        known = np.iinfo(wanted)
        fits = bounds["min"] is None or (known.min <= bounds["min"] and bounds["max"] <= known.max)
        return found if fits else None
    except pa.ArrowInvalid:
        return None


def _parsed(texts: pa.StringArray, wanted: np.dtype[Any]) -> pa.Array:
    if wanted.kind != "f" and not pc.any(pc.match_substring(texts, "x", ignore_case=True)).as_py():
        with suppress(pa.ArrowInvalid):  # 63.0 is a whole number as well
            return pc.cast(texts, pa.int64())
    return pc.cast(texts, pa.float64())


def _photos(batch: Batch, model: PublishedModel) -> tuple[Inputs, dict[int, str]]:
    """The content of each file for each input, and why those that cannot be read cannot."""
    contents, reasons = np.full(len(batch), b"", np.object_), {}
    for row, source in enumerate(batch.sources.to_pylist()):
        try:
            contents[row] = _read_image(source)
        except ValueError as error:
            reasons[row] = str(error)
    return dict.fromkeys(model.inputs, contents), reasons


def _answers(
    session: SessionModel, model: PublishedModel, batch: Batch, arrays: Inputs, rows: np.ndarray
) -> Iterator[Predictions | list[BadItem]]:
    """What the model says of these rows, and those of which it says nothing."""
    if not len(rows):
        return
    try:
        outputs = session.run(model.signature, {name: array[rows] for name, array in arrays.items()}, model.outputs)
    except tf.errors.OpError as error:
        if len(rows) > 1:
            for half in np.array_split(rows, 2):
                yield from _answers(session, model, batch, arrays, half)
            return
        outputs, reasons = {}, {0: str(error.message).partition("\n")[0]}
    else:
        reasons = _reasons(outputs)
    answered = batch.take(rows).without(reasons)
    if reasons:
        yield list(answered.bad)
    if len(answered):
        kept = np.setdiff1d(np.arange(len(rows)), list(reasons))
        yield _predictions(answered, {name: values[kept] for name, values in outputs.items()})


def _read_image(path: str) -> bytes:
    try:
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            content: bytes = file.read()
    except (OSError, BeamIOError) as error:
        raise ValueError(f"the file cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return content


def _reasons(outputs: Inputs) -> dict[int, str]:
    """Of the rows that have no answer."""
    if "labels" not in outputs:
        (labels,) = outputs.values()
        return {int(row): "the model gives no label" for row in np.flatnonzero(labels == b"")}
    if "error" not in outputs:
        return {}
    errors = outputs["error"]
    return {int(row): errors[row].decode("utf-8", "replace") for row in np.flatnonzero(errors != b"")}


def _predictions(batch: Batch, outputs: Inputs) -> Predictions:
    if "labels" not in outputs:
        (labels,) = outputs.values()
        ranked, probabilities = labels[:0], np.empty([len(labels), 0], np.float32)
        of_labels = pa.nulls(len(labels), pa.float32())
    else:
        ranked, probabilities = outputs["labels"], np.asarray(outputs["probabilities"], np.float32)
        labels = outputs.get(ANSWER, ranked[:, 0])
        is_answer = ranked == labels[:, None]
        places = np.arange(len(labels)), is_answer.argmax(axis=1)
        # The label for unknown has no probability.
        of_labels = pa.array(probabilities[places], mask=~is_answer[places])
    return Predictions(
        batch.sources, batch.lines, _strings(labels), of_labels, _strings(ranked.reshape(-1)), probabilities
    )


def _strings(values: np.ndarray) -> pa.StringArray:
    try:
        return pa.array(values, pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([value.decode("utf-8", "replace") for value in values], pa.string())


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
    reading: TableReading | None = None,
) -> Scores:
    """Write what a model says about every row or photo; nothing is under the final names until all of it is.

    Args:
        model: what is asked.
        inputs: files, folders and patterns, see find_files.
        output: the file of predictions, whose ending says the format. What cannot be scored goes to a file beside it.
        options: what runs the pipeline. One worker keeps the order of the inputs.
        image: what remote workers run.
        renamed_inputs: input of the model -> what the column is called in the files, where it differs.
        reading: of tables and texts; None for UTF-8, commas and points.

    Raises:
        BrokenInput: the inputs cannot be read, or the output cannot be written; nothing is left of it.
    """
    check_output(output)
    sources = find_sources(model, inputs, renamed_inputs or {}, reading or TableReading())
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
    with beam.Pipeline(argv=start_engine(options.pipeline_args(image))) as pipeline:
        # Not shuffled, and so in their order and never all in memory, where one worker does everything.
        elements = pipeline | "Sources" >> beam.Create(list(sources), reshuffle=False)
        if not _has_one_worker(options):
            batches = elements | "Read" >> beam.FlatMap(read_items).with_output_types(Batch)
            elements = batches | "Spread" >> beam.Reshuffle()
        answers = elements | "Score" >> beam.ParDo(Score(model)).with_outputs(BAD, main="scored")
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
