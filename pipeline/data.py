"""Raw data of a run: found and checked before a pipeline starts."""

from __future__ import annotations

import base64
import glob
import io
import itertools
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.errors import BrokenInput
from components.table_example_gen.bigquery import current_rows, is_bigquery
from components.table_example_gen.facts import (
    ColumnChoice,
    TableFacts,
    choices_line,
    column_choices,
    label_warnings,
    left_out_warnings,
    listed,
    merged_facts,
    shard_facts,
    term_choice,
)
from components.table_example_gen.options import WHOLE_FOLDER, Ingestion, TableReading
from components.table_example_gen.serialization import TEXT, example_column, example_type, serialized_examples
from components.table_example_gen.sources import Shard, exact_reader, format_of, plan_inputs, shard_batches
from components.table_file import NAME_COLUMNS, is_row
from pipeline.options import RunConfig, TableRunConfig
from serving.loading import garbage_collection_paused

if TYPE_CHECKING:
    from serving.client.metadata import TensorDescription

# So many rows are compared with one another.
_MOST_COMPARED_ROWS = 300_000


@dataclass(frozen=True)
class TableFindings:
    """What is in a table that can be used.

    Attributes:
        rows: how many.
        duplicates: how many of them repeat an earlier row; None where there are too many rows to compare them.
        empty: column -> how many rows have nothing in it, of the columns that the config names.
        columns: column -> its type, as serialization has them.
        choices: column -> what suits it, of those of which neither the config nor their type says it.
        warnings: what a person should know, in sentences.
        files: that were read; none of BigQuery's.
        terms: column of texts -> which terms suit them, where the config does not say it.
    """

    rows: int
    duplicates: int | None
    empty: Mapping[str, int]
    columns: Mapping[str, pa.DataType]
    choices: Mapping[str, ColumnChoice]
    warnings: Sequence[str] = ()
    files: Sequence[str] = ()
    terms: Mapping[str, ColumnChoice] = field(default_factory=dict)

    def __str__(self) -> str:
        counts = [f"{self.rows:,} rows", *([f"{self.duplicates:,} repeat an earlier one"] if self.duplicates else [])]
        counts += [f"{name!r} is empty in {count:,}" for name, count in self.empty.items() if count]
        chosen = choices_line(self.choices)
        taken = [f"taken as {chosen}"] if chosen else []
        taken += [
            f"terms: {choice.kind.replace('_', ' ')}, for {choice.reason} (preprocessing.word_ngrams and "
            "character_ngrams decide otherwise)"
            for choice in self.terms.values()
        ]
        return "; ".join([", ".join(counts), *taken])


def check_table(inputs: Mapping[str, str], config: TableRunConfig) -> TableFindings:
    """Read the files once and compare them with what the config says of their columns.

    Args:
        inputs: split of the input -> its files, as sources.table_files takes them.
        config: of the run.

    Raises:
        BrokenInput: a file cannot be read, there are no rows, a column is missing that the config names, or holds text
            where the config says that there are numbers.
    """
    ingestion = config.ingestion()
    shards = plan_inputs(inputs, ingestion)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        facts = merged_facts(threads.map(lambda shard: shard_facts(shard, ingestion), shards))
    if facts.error:
        raise BrokenInput(facts.error)
    where = ", ".join(path.replace("\n", ", ") for path in inputs.values())
    if not facts.rows:
        raise BrokenInput(f"{where}: the file has a header and no rows; expected at least one row for each class")
    named = config.preprocessing.named_columns()
    keys = {name: f"preprocessing.{key}" for name, key in named.items()} | config.data.split.named_columns()
    weight = config.data.weight
    if weight is not None:
        keys[weight] = "data.weight"
    taken = config.model_columns()
    keys |= dict.fromkeys(taken, "the model that trainer.model")
    sliced = {name: "evaluation.slices" for one in config.evaluation.slices for name in one.columns}
    for name, key in (sliced | keys).items():
        if name not in facts.types:
            raise BrokenInput(
                f"{where}: there is no column {name!r}, which {key} in the config names; {listed(name, facts.types)}"
            )
    for name, kind in config.preprocessing.numeric_columns().items():
        if facts.types[name] == TEXT:
            said = f"preprocessing.columns.{name} in the config is {kind}"
            raise BrokenInput(
                _text_for_a_number(name, shards, ingestion.reading, said)
                or f"{where}: column {name!r} holds text, expected numbers ({said}); call the column categorical"
            )
    if weight is not None:
        _check_weights(weight, shards, ingestion.reading, facts)
    for name, kind in taken.items():
        if facts.types[name] == TEXT and kind == "number":
            raise BrokenInput(
                f"{where}: column {name!r} holds text, the model of trainer.model takes numbers there; mend the "
                "values, or list in data.missing what stands for a missing one"
            )
        if facts.types[name] not in (TEXT, pa.int64()) and kind == "category":
            raise BrokenInput(
                f"{where}: column {name!r} holds {facts.types[name]}, the model of trainer.model takes categories "
                "there; mend the values"
            )
    label = config.preprocessing.label.column
    left_out = [
        f"the column {name!r} holds {kind}, which no example can hold, and is left out"
        for name, kind in facts.left_out.items()
    ]
    undecided = [name for name in facts.types if name not in keys] if config.chooses_columns and config.learns else []
    choices = column_choices(shards, ingestion.reading, facts.types, undecided)
    if config.data.split.group and config.data.split.group not in named:
        choices[config.data.split.group] = ColumnChoice("ignored", "it tells the groups of data.split")
    return TableFindings(
        rows=facts.rows,
        duplicates=_duplicates(shards, facts, ingestion) if facts.rows <= _MOST_COMPARED_ROWS else None,
        empty={name: facts.missing[name] for name in facts.types if name in keys},
        columns=facts.types,
        choices=choices,
        warnings=[
            *_rows_for_headers(shards, ingestion.reading),
            *left_out,
            *left_out_warnings(choices),
            *(label_warnings(shards, ingestion.reading, facts.types, label) if config.learns else []),
            *_numbers_taken_as_text(
                [name for name in undecided if facts.types[name] == TEXT], shards, ingestion.reading
            ),
        ],
        files=[path for path in dict.fromkeys(shard.path for shard in shards) if not is_bigquery(path)],
        terms={name: term_choice(shards, ingestion.reading, name) for name in config.open_texts()},
    )


def _rows_for_headers(shards: Sequence[Shard], reading: TableReading) -> list[str]:
    first = {} if reading.header else {shard.path: is_row(shard.columns) for shard in shards}
    return [f"{path}: {said}; {NAME_COLUMNS}" for path, said in first.items() if said]


def _duplicates(shards: Sequence[Shard], facts: TableFacts, ingestion: Ingestion) -> int:
    seen: set[int] = set()
    for shard in shards:
        for batch in shard_batches(shard, ingestion.reading, facts.types):
            seen.update(map(hash, serialized_examples(batch).to_pylist()))
    return facts.rows - len(seen)


def _text_for_a_number(column: str, shards: Sequence[Shard], reading: TableReading, said: str) -> str | None:
    """Which value of a column is no number, and in which line of a text file; None for other files."""
    for path in dict.fromkeys(shard.path for shard in shards):
        if is_bigquery(path) or format_of(path, reading) not in ("csv", "tsv", "jsonl"):
            continue
        for row in exact_reader(path, reading).rows():
            value = row.fields.get(column, "").strip()
            if value and value not in reading.missing and not _is_number(value, reading):
                return (
                    f"{path}: line {row.line}: column {column!r} is {row.fields[column]!r}, expected a number "
                    f"({said}); mend the value, or call the column categorical"
                )
    return None


def _check_weights(column: str, shards: Sequence[Shard], reading: TableReading, facts: TableFacts) -> None:
    """See that a column weighs rows; raises BrokenInput where it does not, with the first row that it cannot weigh."""
    said = "data.weight in the config names it"
    if facts.types[column] == TEXT:
        raise BrokenInput(
            _text_for_a_number(column, shards, reading, said)
            or f"column {column!r} holds text, expected numbers ({said}); mend the values"
        )
    total = 0.0
    for shard in shards:
        row = 0
        for batch in shard_batches(shard, reading, {column: facts.types[column]}):
            weights = pc.cast(batch.column(column), pa.float64()).to_numpy(zero_copy_only=False)
            bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
            if len(bad):
                found = "is missing" if np.isnan(weights[bad[0]]) else f"is {weights[bad[0]]:g}"
                raise BrokenInput(
                    f"{shard.path}: row {row + int(bad[0]) + 1:,} of those read here: the weight {column!r} {found}, "
                    f"expected a number of at least 0 in each row ({said}); mend the value, or leave the row out"
                )
            row += len(batch)
            total += float(weights.sum())
    if not total:
        raise BrokenInput(f"column {column!r} is 0 in all rows, so that none of them counts ({said}); mend the values")


_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
_NEARLY_ALL = 0.9


def _numbers_taken_as_text(columns: Sequence[str], shards: Sequence[Shard], reading: TableReading) -> list[str]:
    """A sentence for each column that is text although nearly all of its first values are numbers."""
    sentences = []
    first = next(shard_batches(shards[0], reading, dict.fromkeys(columns, TEXT)), None)
    if first is None:
        return []
    for name in columns:
        values = pc.cast(first.column(name), pa.string()).drop_null()
        numeric = pc.mean(pc.cast(pc.match_substring_regex(values, _NUMBER), pa.float64())).as_py() or 0
        if numeric >= _NEARLY_ALL:
            said = "nearly all of its values are, and without it the column would not be taken as text"
            sentences.append(_text_for_a_number(name, shards, reading, said))
    return [f"{sentence}, or list it in data.missing" for sentence in sentences if sentence]


def _is_number(text: str, reading: TableReading) -> bool:
    try:
        float(text.replace(reading.thousands or "", "").replace(reading.decimal, "."))
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class StagedFile:
    """A file, or a folder with everything in it, and where the cluster finds it.

    Attributes:
        local: where it is here.
        remote: where the compiled pipeline says it is; the name changes with the content.
    """

    local: str
    remote: str

    def copy(self) -> None:
        """Copy it where it is not there yet.

        Raises:
            BrokenInput: the place cannot be written to.
        """
        import tensorflow as tf
        from tfx.dsl.io import fileio

        try:
            for local, remote in self._files():
                if not fileio.exists(remote):
                    fileio.makedirs(remote.rpartition("/")[0])
                    # Under its name only when it is whole: another run takes what is there.
                    fileio.copy(local, f"{remote}.part", overwrite=True)
                    fileio.rename(f"{remote}.part", remote, overwrite=True)
        except (OSError, tf.errors.OpError) as error:
            raise BrokenInput(
                f"{self.remote}: {self.local} cannot be copied there: {str(error).splitlines()[0]}; "
                "cluster.pipeline_root in the config says where data go"
            ) from error

    def _files(self) -> list[tuple[str, str]]:
        from tfx.dsl.io import fileio

        if not fileio.isdir(self.local):
            return [(self.local, self.remote)]
        found = []
        for folder, _, names in fileio.walk(self.local):
            below = folder.removeprefix(self.local).strip("/")
            found += [(f"{folder}/{name}", "/".join(filter(None, [self.remote, below, name]))) for name in names]
        return found


@dataclass(frozen=True)
class RawData:
    """Data that an ExampleGen can read.

    Attributes:
        path: what table_example_gen.sources or components.image_example_gen.image_files takes.
        findings: what is in it, for a person.
        fingerprint: of photos, see components.image_example_gen.image_files, and of rows of BigQuery; "" for files of
            rows, which TFX looks at.
        kinds: column of a table -> its kind, or of texts -> their kind of terms, where the config does not say it, see
            table_example_gen.facts.
        warnings: what a person should know, in sentences.
        files: those of rows.
    """

    path: str
    findings: str
    fingerprint: str = ""
    kinds: Mapping[str, str | Mapping[str, str]] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    files: Sequence[str] = ()


def table_inputs(config: TableRunConfig, path: str) -> dict[str, str]:
    """Split of the input -> its files: those of `data.split.files`, or else all of a path."""
    files = config.data.split.files
    return {str(split): place for split, place in files.items()} if files else {"all": path}


def input_patterns(inputs: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The folder that all files are in, and split of the input -> the pattern of its files below it.

    A split with several paths becomes several, of which TFX looks at each.
    """
    paths = {
        f"{split}-{number}" if number else split: path
        for split, lines in inputs.items()
        for number, path in enumerate(lines.splitlines())
    }
    whole = {name: _is_folder(path) for name, path in paths.items()}
    folders = [path.split("/") if whole[name] else path.split("/")[:-1] for name, path in paths.items()]
    # What is the same in all of them, up to the first folder with a wildcard.
    common = list(
        itertools.takewhile(
            lambda part: part is not None and not glob.has_magic(part),
            (parts[0] if len(set(parts)) == 1 else None for parts in zip(*folders, strict=False)),
        )
    )
    base = "/".join(map(str, common))
    below = {name: path.removeprefix(base).strip("/") for name, path in paths.items()}
    return base, {name: "/".join(filter(None, [part, WHOLE_FOLDER * whole[name]])) for name, part in below.items()}


def _is_folder(path: str) -> bool:
    if "://" not in path:
        return Path(path).is_dir()
    from tfx.dsl.io import fileio

    return bool(fileio.isdir(path))


def table_data(config: RunConfig, path: str) -> RawData:
    """A table or texts, checked.

    Args:
        config: of the run.
        path: of the files, as sources.table_files takes it; "" where the rows are in BigQuery.

    Raises:
        BrokenInput: it cannot be used; the message says where and why. Likewise the next one.
    """
    assert isinstance(config, TableRunConfig)
    fingerprint = ""
    if config.data.bigquery:
        rows = current_rows(config.data.bigquery)
        path, fingerprint = rows.path, rows.fingerprint
    findings = check_table(table_inputs(config, path), config)
    kinds = {name: choice.options for name, choice in (*findings.choices.items(), *findings.terms.items())}
    return RawData(path, str(findings), fingerprint, kinds, findings.warnings, findings.files)


def image_data(config: RunConfig, path: str) -> RawData:
    """Image files, listed and fingerprinted; ImageExampleGen reads them where they are."""
    with garbage_collection_paused():
        from components.image_example_gen.image_files import find_images, input_fingerprint

    found = find_images(path)
    classes = {photo.label for photo in (*found.photos, *found.unread)}
    findings = f"{len(found.photos):,} photos of {_counted(sorted(classes))}"
    return RawData(path, findings, input_fingerprint(path), warnings=found.sentences())


def convert_images(path: str, max_pixels: int) -> list[str]:
    """Make JPEGs of photos of formats that are not read, beside them, where there are none yet.

    Args:
        path: as image_files.find_images takes it.
        max_pixels: the largest photo that is converted.

    Returns:
        sentences for a person: what was made, and why others were not.

    Raises:
        BrokenInput: the data are not on this machine, or nothing can be written beside them.
    """
    with garbage_collection_paused():
        from components.image_example_gen.file_formats import convert_to_jpeg, counted_formats
        from components.image_example_gen.image_files import unread_files

    conversion = convert_to_jpeg(unread_files(path), max_pixels)
    said = []
    if conversion.made:
        said.append(
            f"{len(conversion.made):,} JPEGs were made beside the files that are not read "
            f"({counted_formats(conversion.made)}); the model will not read such files either: clients must send JPEG "
            "or PNG"
        )
    for reason, count in Counter(conversion.failed.values()).most_common():
        first = next(file for file, why in conversion.failed.items() if why == reason)
        said.append(f"not converted: {count:,} {reason} ({first}{', …' * (count > 1)})")
    return said or ["nothing was left to convert"]


def _counted(classes: Sequence[str]) -> str:
    return f"1 class, {classes[0]!r}" if len(classes) == 1 else f"{len(classes):,} classes"


@dataclass(frozen=True)
class SampleRequest:
    """One example of a run's data, as it is sent and as a person reads it.

    Attributes:
        rest: input -> values, for REST.
        grpc: the same for gRPC.
        shown: input -> value, for people.
        arguments: of `ingraph predict`.
    """

    rest: Mapping[str, Sequence[Any]]
    grpc: Mapping[str, Sequence[Any]]
    shown: Mapping[str, str]
    arguments: Sequence[str]


def sample_row(config: RunConfig, data: str, inputs: Mapping[str, TensorDescription]) -> SampleRequest:
    """A row of a table, as a request, see fullest_row.

    Args:
        config: of the run that published the model.
        data: the path of RawData.
        inputs: of the served signature.
    """
    from serving.client.table_columns import table_columns

    assert isinstance(config, TableRunConfig)
    row = fullest_row(table_inputs(config, data), config.ingestion())
    row |= {name: row[column] for name, column in config.preprocessing.renamed_inputs().items()}
    columns = table_columns([row], inputs, data)
    shown = {column: row[column] for column in inputs}
    return SampleRequest(columns, columns, shown, [f"{name}={value}" for name, value in shown.items()])


# So many rows are looked at for one without gaps.
_ROWS_TO_CHOOSE_FROM = 100


def fullest_row(inputs: Mapping[str, str], ingestion: Ingestion) -> dict[str, str]:
    """The first of the rows of a table that have the most values, as people write it: "" where a value is missing."""
    reading = ingestion.reading
    batches = (batch for shard in plan_inputs(inputs, ingestion) for batch in shard_batches(shard, reading))
    batch = next(batch for batch in batches if len(batch)).slice(0, _ROWS_TO_CHOOSE_FROM)
    columns = zip(batch.schema.names, batch.columns, strict=True)
    kinds = {name: (column, example_type(column.type)) for name, column in columns}
    found = {name: _cells(column, kind, reading) for name, (column, kind) in kinds.items() if kind is not None}
    fullest = max(range(len(batch)), key=lambda row: sum(cells[row] != "" for cells in found.values()))
    return {name: cells[fullest] for name, cells in found.items()}


def _cells(column: pa.Array, kind: pa.DataType, reading: TableReading) -> list[str]:
    """The values of a column as texts; those of a list with "|" between them, as `list` takes them by default."""
    if pa.types.is_list(kind):
        lists = example_column(column, pa.list_(TEXT), reading).to_pylist()
    else:
        lists = [[value] for value in example_column(column, TEXT, reading).to_pylist()]
    return ["|".join((value or b"").decode() for value in values or ()) for values in lists]


def sample_image(config: RunConfig, data: str, inputs: Mapping[str, TensorDescription]) -> SampleRequest:
    """The first image file, as a request; see sample_row."""
    from components.image_example_gen.file_formats import READ, file_format, read_head
    from components.image_example_gen.image_files import list_images

    photos = [photo.file for photo in list_images(data)]
    # The first that the model can answer, whatever other files are called.
    file = next((file for file in photos if file_format(read_head(file)) in READ), photos[0])
    content = Path(file).read_bytes()
    return SampleRequest(
        rest={"image": [base64.urlsafe_b64encode(content).decode()]},
        grpc={"image": [content]},
        shown={"image": file},
        arguments=[file],
    )


IMAGE_MEASURES = ("bytes", "format", "width", "height")


def image_measures(file: bytes) -> dict[str, int | bytes]:
    """IMAGE_MEASURES of an encoded photo, of which only the head is read; nothing of what is none."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(file)) as photo:
            values = (len(file), str(photo.format).encode(), photo.width, photo.height)
            return dict(zip(IMAGE_MEASURES, values, strict=True))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError):
        return {}


TEXT_MEASURES = ("characters", "words")


@dataclass(frozen=True)
class Measures:
    """What is measured of an input of which hardly a value comes twice, so that it has a distribution.

    Attributes:
        inputs: names of the input in requests, besides that of its feature.
        feature: config -> the feature of the training data that holds it.
        columns: names of what is measured.
        measure: values of the input -> what is measured of each, by column; nothing of what cannot be read.
    """

    inputs: Sequence[str]
    feature: Callable[[RunConfig], str]
    columns: Sequence[str]
    measure: Callable[[Sequence[bytes]], list[dict[str, int | float | bytes]]]


def measure_texts(texts: Sequence[bytes]) -> list[dict[str, int | float | bytes]]:
    """TEXT_MEASURES of each text in UTF-8."""
    decoded = [text.decode("utf-8", "replace") for text in texts]
    return [dict(zip(TEXT_MEASURES, (len(text), len(text.split())), strict=True)) for text in decoded]


def measure_images(images: Sequence[bytes]) -> list[dict[str, int | float | bytes]]:
    """IMAGE_MEASURES of each image, sent as a file or as its base64 text."""
    import tensorflow as tf

    from serving.signatures.image import image_files

    files: Sequence[bytes] = image_files(tf.constant(list(images), tf.string)).numpy()
    return [{**image_measures(file)} for file in files]
