"""Inputs of batch scoring: the published model, and files found, their rows, texts and photos read."""

from __future__ import annotations

import itertools
import posixpath
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import BinaryIO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from tensorflow.core.protobuf import meta_graph_pb2

from components.errors import BrokenInput, ModelUnavailable
from components.image_example_gen.file_formats import UNREAD_EXTENSIONS
from components.image_example_gen.image_files import IMAGE_EXTENSIONS
from components.serving_check.candidate import read_signatures
from components.table_example_gen.options import TableFormat, TableReading
from components.table_example_gen.serialization import TEXT, example_column, example_type
from components.table_example_gen.sources import FORMATS
from components.table_file import (
    BYTE_ORDER_MARK,
    COMPRESSION_SUFFIXES,
    FORMAT_OF_SUFFIX,
    RecordReader,
    decompressed,
    field_text,
    find_files,
    json_records,
    not_decoded,
    uncompressed_name,
)
from serving.client.metadata import IMAGE_INPUTS, ModelMetadata, TensorDescription
from serving.model_store import ModelStoreError, ModelVersion, list_versions, served_version
from serving.signatures.common import ANSWER, CLASSIFY, SERVING_DEFAULT


@dataclass(frozen=True)
class BadItem:
    """A row or photo that cannot be scored.

    Attributes:
        source: the file.
        line: in which the row begins, from 1; None for a photo.
        reason: for a person.
        whole_file: nobody knows how many rows are lost with it, so that nothing is written.
    """

    source: str
    line: int | None
    reason: str
    whole_file: bool = False

    @property
    def place(self) -> str:
        """File and line, as editors take them."""
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True)
class Batch:
    """Rows or photos of a source, in its order, by columns.

    Attributes:
        sources: the file of each, string [n].
        lines: of rows the lines in which they begin, from 1, of Parquet their numbers, int64 [n]; null for photos.
        columns: of rows: input of the model -> values [n], texts but for those of Parquet; {} for photos.
        bad: what cannot be scored among these.
    """

    sources: pa.StringArray
    lines: pa.Int64Array
    columns: Mapping[str, pa.Array]
    bad: Sequence[BadItem] = ()

    def __len__(self) -> int:
        return len(self.sources)

    @classmethod
    def of_rows(
        cls,
        source: str,
        lines: Sequence[int] | np.ndarray,
        columns: Mapping[str, pa.Array],
        bad: Sequence[BadItem] = (),
    ) -> Batch:
        """Rows of one file."""
        return cls(pa.repeat(pa.scalar(source, pa.string()), len(lines)), pa.array(lines, pa.int64()), columns, bad)

    @classmethod
    def of_photos(cls, files: Sequence[str], bad: Sequence[BadItem] = ()) -> Batch:
        return cls(pa.array(files, pa.string()), pa.nulls(len(files), pa.int64()), {}, bad)

    def take(self, rows: np.ndarray) -> Batch:
        """Those at these places, and no bad ones."""
        places = pa.array(rows, pa.int64())
        columns = {name: column.take(places) for name, column in self.columns.items()}
        return Batch(self.sources.take(places), self.lines.take(places), columns)

    def without(self, reasons: Mapping[int, str]) -> Batch:
        """The same, but those at places to which a reason is given are bad."""
        if not reasons:
            return self
        bad = [BadItem(self.sources[row].as_py(), self.lines[row].as_py(), reasons[row]) for row in sorted(reasons)]
        rows = np.setdiff1d(np.arange(len(self)), list(reasons))
        return replace(self.take(rows), bad=[*self.bad, *bad])


def open_file(path: str) -> AbstractContextManager[BinaryIO]:
    """A file on any file system that Beam reads, as its bytes are."""
    file: BinaryIO = FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
    return file


LINES_SUFFIX, PARQUET_SUFFIXES = ".txt", (".parquet", ".pq")


# Of a batch, whichever comes first. With 1,024 rows at a time a blend takes half as long again; with 8,192 no less.
_ROWS, _BYTES = 4096, 1 << 19


@dataclass(frozen=True)
class Columns:
    """The columns of files that a model takes, and how they are written.

    Attributes:
        names: what a column is called in a Batch -> what it is called in a file.
        reading: of the files, as the ones learned from were read.
        numbers: those of a Batch that are numbers.
    """

    names: Mapping[str, str]
    reading: TableReading = field(default_factory=TableReading)
    numbers: Collection[str] = ()


def read_rows(path: str, columns: Columns) -> Iterator[Batch]:
    """The rows of a CSV, TSV, JSON lines, Parquet or text file, broken ones among them, some at a time.

    The ending of the name says the format, and where it does not, the reading; .txt holds one value of the only column
    on each line. The keys of a JSON object are its own: one that lacks a column is broken.

    Args:
        path: of the file; compressed where its first bytes say so. Any file system that Beam reads.
        columns: those that are read.
    """
    try:
        with open_file(path) as file:
            if _format(path, columns.reading) == "parquet":
                yield from _parquet_rows(path, file, columns)
            else:
                with decompressed(file) as content:
                    yield from _read(path, content, columns)
    except (OSError, BeamIOError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error)
        yield _lost(path, None, f"the file cannot be read: {reason}")


def _format(path: str, reading: TableReading) -> TableFormat:
    return FORMATS.get(posixpath.splitext(uncompressed_name(path))[1]) or reading.format or "csv"


def _with_missing(batch: Batch, reading: TableReading) -> Batch:
    """The batch without the texts that stand for missing values."""
    if not reading.missing:
        return batch
    missing = pa.array(reading.missing, pa.string())
    columns = dict(batch.columns)
    for name, column in columns.items():
        if example_type(column.type) == TEXT:
            texts = as_texts(column)
            is_missing = pc.is_in(pc.utf8_trim_whitespace(texts), missing)
            # Not if_else, which takes the wrong bytes of an array that is part of another one.
            columns[name] = pc.replace_with_mask(texts, is_missing, pa.scalar("", pa.string()))
    return replace(batch, columns=columns)


def _with_plain_numbers(batch: Batch, columns: Columns) -> Batch:
    """Numbers of CSV with a point before their decimals and nothing between their digits; others are bad."""
    reading = columns.reading
    if reading.decimal == "." and not reading.thousands:
        return batch
    number = reading.grouped_number() if reading.thousands else r"^[^.]*$"
    found, reasons = dict(batch.columns), dict[int, str]()
    for name in found.keys() & set(columns.numbers):
        texts = pc.utf8_trim_whitespace(found[name])
        is_number = pc.or_(pc.match_substring_regex(texts, number), pc.equal(texts, "")).to_numpy(zero_copy_only=False)
        for row in np.flatnonzero(~is_number):
            reasons[int(row)] = (
                f"column {name}: {texts[row].as_py()!r} is no number by data.decimal {reading.decimal!r} and "
                f"data.thousands {reading.thousands!r}"
            )
        plain = pc.replace_substring(texts, reading.thousands, "") if reading.thousands else texts
        found[name] = pc.replace_substring(plain, reading.decimal, ".")
    return replace(batch, columns=found).without(reasons)


def _lost(path: str, line: int | None, reason: str) -> Batch:
    return Batch.of_rows(path, [], {}, [BadItem(path, line, reason, whole_file=True)])


def _read(path: str, file: BinaryIO, columns: Columns) -> Iterator[Batch]:
    first = file.readline().removeprefix(BYTE_ORDER_MARK)
    lines, encoding = itertools.chain([first], iter(file.readline, b"")), columns.reading.encoding
    if uncompressed_name(path).endswith(LINES_SUFFIX) and len(columns.names) == 1:
        batches = _batches(path, columns.names, _text_lines(lines, encoding))
    elif _format(path, columns.reading) == "jsonl":
        batches = _batches(path, columns.names, _json_lines(lines, columns.names, encoding))
    else:
        for batch in _separated(path, file, first, columns):
            yield _with_plain_numbers(_with_missing(batch, columns.reading), columns)
        return
    yield from (_with_missing(batch, columns.reading) for batch in batches)


# The line in which a row begins, and its fields, or why it is broken.
_Record = tuple[int, list[str] | str]


def _batches(path: str, columns: Collection[str], records: Iterator[_Record]) -> Iterator[Batch]:
    while taken := list(_some(records)):
        bad = [BadItem(path, line, reason) for line, reason in taken if isinstance(reason, str)]
        rows = [(line, fields) for line, fields in taken if not isinstance(fields, str)]
        texts = zip(*(fields for _, fields in rows), strict=True) if rows else [()] * len(columns)
        found = {name: pa.array(column, pa.string()) for name, column in zip(columns, texts, strict=True)}
        yield Batch.of_rows(path, [line for line, _ in rows], found, bad)


def _some(records: Iterator[_Record]) -> Iterator[_Record]:
    size = 0
    for record in itertools.islice(records, _ROWS):
        yield record
        size += sum(map(len, record[1]))
        if size >= _BYTES:
            return


def _separated(path: str, file: BinaryIO, first: bytes, columns: Columns) -> Iterator[Batch]:
    """CSV and TSV. Blocks of nothing but rows are pyarrow's, others the csv module's, which takes twenty times.

    Args:
        path: of the file.
        file: behind its first line.
        first: that line.
        columns: those that are read.
    """
    reading = columns.reading
    delimiter = reading.delimiter or ("\t" if _format(path, reading) == "tsv" else ",")
    reader = RecordReader(iter(file.readline, b""), delimiter, reading.encoding, len(reading.header))
    reader.ahead.append(first)
    line = 1
    if reading.header:
        header = list(reading.header)
    else:
        line, record = next((record for record in reader if record[1]), (1, []))
        if isinstance(record, str):
            yield _lost(path, line, record)
            return
        header = [name.strip() for name in record]
    if not header:
        return
    if problem := _header_problem(header, columns.names, delimiter):
        yield _lost(path, line, problem)
        return
    places = [header.index(column) for column in columns.names.values()]
    while block := _block(file, reader.ahead):
        found, ends, rest = _well_formed_rows(block, reader, len(header), places)
        if found:
            lines = reader.line + np.concatenate([[0], ends[:-1]])
            for first_row in range(0, len(lines), _ROWS):
                rows = slice(first_row, first_row + _ROWS)
                taken = {name: column[rows] for name, column in zip(columns.names, found, strict=True)}
                yield Batch.of_rows(path, lines[rows], taken)
            reader.line += int(ends[-1])
            reader.ahead.extend(_lines(rest))
        else:
            reader.ahead.extend(_lines(block))
            yield from _batches(path, columns.names, _records(reader, reader.line + len(reader.ahead), places))


def _block(file: BinaryIO, ahead: deque[bytes]) -> bytes:
    """Whole lines, those that were read ahead first; the last one may lack its end."""
    block = b"".join(ahead)
    ahead.clear()
    block += file.read(max(0, _BYTES - len(block)))
    return block if block.endswith(b"\n") else block + file.readline()


def _lines(block: bytes) -> list[bytes]:
    return [line + b"\n" for line in block.removesuffix(b"\n").split(b"\n")] if block else []


# The columns at some places, behind how many lines each row ends, and the lines behind the last row.
_Parsed = tuple[list[pa.StringArray], np.ndarray, bytes]


def _well_formed_rows(block: bytes, reader: RecordReader, width: int, places: Sequence[int]) -> _Parsed:
    """The rows of a block, read by pyarrow; no columns where it may hold others than those of RFC 4180, all as wide.

    pyarrow forgives what the csv module does not, and skips blank lines.
    """
    nothing: _Parsed = [], np.empty(0, np.int64), b""
    block = block if block.endswith(b"\n") else block + b"\n"
    characters = np.frombuffer(b"\n" + block, np.uint8)  # the first one stands before the block
    quotes = np.flatnonzero(characters == ord('"')) if b'"' in block else np.empty(0, np.int64)
    ends = np.flatnonzero(characters[1:] == ord("\n")) + 1
    # Every other quote opens a field.
    is_inside = np.searchsorted(quotes, ends) % 2 == 1
    rows = np.flatnonzero(~is_inside)
    if not len(rows) or b"\0" in block:
        return nothing
    length = int(ends[rows[-1]])
    block, rest, quotes = block[:length], block[length:], quotes[quotes <= length]
    before, behind = characters[quotes[::2] - 1], characters[quotes[1::2] + 1]
    fields = b'"\n', reader.delimiter.encode(reader.encoding), b"\r"
    if not np.isin(before, list(b"".join(fields[:2]))).all() or not np.isin(behind, list(b"".join(fields))).all():
        return nothing
    names = [str(place) for place in range(width)]
    taken = list(dict.fromkeys(names[place] for place in places))
    try:
        content = block.decode(reader.encoding).encode()
        table = pa.csv.read_csv(
            pa.BufferReader(content),
            pa.csv.ReadOptions(use_threads=False, block_size=len(content) + 1, column_names=names),
            pa.csv.ParseOptions(delimiter=reader.delimiter, newlines_in_values=bool(is_inside.any())),
            pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), include_columns=taken),
        )
    except (UnicodeDecodeError, pa.ArrowInvalid):
        return nothing
    if len(table) != len(rows):
        return nothing
    return [table.column(names[place]).combine_chunks() for place in places], rows + 1, rest


def _records(reader: RecordReader, end: int, places: Sequence[int]) -> Iterator[_Record]:
    """The records that begin before a line; blank lines are none."""
    while reader.line < end:
        line, record = next(reader)
        if isinstance(record, str):
            yield line, record
        elif record:
            yield line, [record[place] for place in places]


def _header_problem(header: Sequence[str], columns: Mapping[str, str], delimiter: str = "") -> str:
    missing = [column for column in columns.values() if column not in header]
    if missing and delimiter and len(header) == 1 and (found := [mark for mark in ";\t|," if mark in header[0]]):
        return (
            f"the header is one column, with {found[0]!r} in it; expected {delimiter!r} between fields, which "
            "data.delimiter of a CONFIG says"
        )
    if missing:
        return f"the header lacks {', '.join(missing)}; the model takes {', '.join(columns.values())}"
    twice = [column for column in columns.values() if header.count(column) > 1]
    return f"the header names {twice[0]} more than once; rename one" if twice else ""


def _parquet_rows(path: str, file: BinaryIO, columns: Columns) -> Iterator[Batch]:
    table = pa.parquet.ParquetFile(pa.PythonFile(file, "r"))
    problem = _header_problem(table.schema_arrow.names, columns.names)
    if problem:
        yield _lost(path, None, problem)
        return
    first = 1
    for rows in table.iter_batches(_ROWS, columns=list(columns.names.values())):
        found = {name: rows.column(column) for name, column in columns.names.items()}
        yield _with_missing(Batch.of_rows(path, np.arange(first, first + len(rows)), found), columns.reading)
        first += len(rows)


def _json_lines(lines: Iterator[bytes], columns: Mapping[str, str], encoding: str) -> Iterator[_Record]:
    for number, found in json_records(_in_utf8(line, encoding) for line in lines):
        if isinstance(found, ValueError):
            yield number, f"not valid JSON: {found}"
        elif not isinstance(found, dict):
            yield number, "no JSON object"
        elif missing := [column for column in columns.values() if column not in found]:
            yield number, f"lacks {', '.join(missing)}; write null where a value is missing"
        else:
            yield number, [field_text(found[column]) for column in columns.values()]


def _in_utf8(line: bytes, encoding: str) -> bytes:
    """As it is where it cannot be decoded: the JSON in it is not valid then."""
    with suppress(UnicodeDecodeError):
        return line if encoding == "utf-8" else line.decode(encoding).encode()
    return line


def _text_lines(lines: Iterator[bytes], encoding: str) -> Iterator[_Record]:
    for number, line in enumerate(itertools.takewhile(bool, lines), start=1):
        try:
            yield number, [line.decode(encoding).rstrip("\r\n")]
        except UnicodeDecodeError as error:
            yield number, not_decoded(error, encoding)


def as_texts(column: pa.Array) -> pa.StringArray:
    """As a CSV file would have them, "" for null."""
    if not pa.types.is_string(column.type):
        column = pc.cast(example_column(column, TEXT, TableReading()), pa.string())
    return pc.fill_null(column, "")


# A photo takes megabytes when it is decoded, and gains little from company.
_PHOTOS = 16
_PATH = "path"


@dataclass(frozen=True)
class Source:
    """Files whose rows or photos are read one after the other.

    Attributes:
        files: a table, a list of photos, or the photos themselves.
        columns: of a table.
        kind: what the files are.
    """

    files: tuple[str, ...]
    columns: Columns
    kind: Literal["rows", "photos", "list of photos"]


def read_items(source: Source) -> Iterator[Batch]:
    """The rows or photos of a source, in its order, in batches."""
    if source.kind == "photos":
        for first in range(0, len(source.files), _PHOTOS):
            yield Batch.of_photos(source.files[first : first + _PHOTOS])
        return
    for file in source.files:
        for batch in read_rows(file, source.columns):
            yield from [batch] if source.kind == "rows" else _listed(batch)


def _listed(rows: Batch) -> Iterator[Batch]:
    """The photos that rows of a list name, by their paths from the list."""
    texts = [path.strip() for path in as_texts(rows.columns[_PATH]).to_pylist()] if rows.columns else []
    rows = rows.without({place: "path is empty" for place, path in enumerate(texts) if not path})
    paths = [
        path if "://" in path or path.startswith("/") else posixpath.join(posixpath.dirname(source), path)
        for source, path in zip(rows.sources.to_pylist(), filter(None, texts), strict=True)
    ]
    yield Batch.of_photos([], rows.bad)
    for first in range(0, len(paths), _PHOTOS):
        yield Batch.of_photos(paths[first : first + _PHOTOS])


def find_sources(
    model: PublishedModel, places: Sequence[str], renamed_inputs: Mapping[str, str], reading: TableReading
) -> list[Source]:
    """The sources of what a model takes, in the order of the places.

    Args:
        model: what is asked.
        places: see find_files.
        renamed_inputs: input of the model -> what the column is called in the files, where it differs.
        reading: of tables and texts.

    Raises:
        BrokenInput: a place holds no file.
    """
    tables = (*_with_compressed(".csv", *FORMAT_OF_SUFFIX), *PARQUET_SUFFIXES)
    if model.takes == "photos":
        # What the model does not read is asked for too: it has a reason, where silence would have none.
        photos = (*IMAGE_EXTENSIONS, *UNREAD_EXTENSIONS)
        return [source for place in places for source in _image_sources(find_files(place, photos), tables)]
    suffixes = tables + (_with_compressed(LINES_SUFFIX) if model.takes == "texts" else ())
    numbers = frozenset(name for name, description in model.inputs.items() if description.dtype != "string")
    columns = Columns({name: renamed_inputs.get(name, name) for name in model.inputs}, reading, numbers)
    return [Source((file,), columns, "rows") for place in places for file in find_files(place, suffixes)]


def _image_sources(files: Sequence[str], tables: tuple[str, ...]) -> list[Source]:
    lists = [file for file in files if file.lower().endswith(tables)]
    photos = tuple(file for file in files if not file.lower().endswith(tables))
    found = [Source((file,), Columns({_PATH: _PATH}), "list of photos") for file in lists]
    return [*found, Source(photos, Columns({}), "photos")] if photos else found


def _with_compressed(*suffixes: str) -> tuple[str, ...]:
    return tuple(suffix + zipped for suffix in suffixes for zipped in ("", *COMPRESSION_SUFFIXES))


# The first that a model has is asked.
_SIGNATURES = (CLASSIFY, SERVING_DEFAULT)
_RANKED_OUTPUTS = {"labels", "probabilities"}
_FINGERPRINT_CHARACTERS = 8


@dataclass(frozen=True)
class PublishedModel:
    """A version of a model, and what is asked of it.

    Attributes:
        base_path: the model base path.
        number: of the version.
        path: the SavedModel's directory.
        origin: where the version comes from, for a person; "" where nothing is known.
        signature: `classify` where there is one, else `serving_default`.
        inputs: of the signature.
        outputs: of the signature, those that are read.
    """

    base_path: str
    number: int
    path: str
    origin: str
    signature: str
    inputs: Mapping[str, TensorDescription]
    outputs: tuple[str, ...]

    @property
    def takes(self) -> Literal["photos", "texts", "tables"]:
        """What kind of data goes in."""
        if len(self.inputs) > 1:
            return "tables"
        (name,) = self.inputs
        if name in IMAGE_INPUTS:
            return "photos"
        return "texts" if name == "text" else "tables"


def find_model(base_path: str, number: int | None = None) -> PublishedModel:
    """A version in a base path, by default the one that servers load by default.

    Raises:
        BrokenInput: there is no such version, it is withdrawn, or it does not answer with labels.
    """
    try:
        version = _find_version(base_path, number)
        signatures = read_signatures(version.path)
    except (ModelStoreError, ModelUnavailable) as error:
        raise BrokenInput(str(error)) from error
    meta_graph = meta_graph_pb2.MetaGraphDef(signature_def=signatures)
    spec = SimpleNamespace(name=base_path, version=SimpleNamespace(value=version.number))
    described = ModelMetadata.from_messages(spec, meta_graph).signatures
    for name in _SIGNATURES:
        if name in described:
            signature = described[name]
            outputs = _outputs_read(signature.outputs)
            if outputs:
                return PublishedModel(
                    base_path=base_path,
                    number=version.number,
                    path=version.path,
                    origin=_origin(version),
                    signature=name,
                    inputs=signature.inputs,
                    outputs=outputs,
                )
    raise BrokenInput(
        f"version {version.number} in {base_path} answers with no labels: expected a signature classify with the "
        f"outputs labels and probabilities, or serving_default with one string, found {', '.join(sorted(described))}"
    )


def _find_version(base_path: str, number: int | None) -> ModelVersion:
    if number is None:
        served = served_version(base_path)
        if served is None:
            raise BrokenInput(f"{base_path}: no published version there; `ingraph run` publishes one")
        return served
    versions = {version.number: version for version in list_versions(base_path)}
    if number not in versions:
        known = ", ".join(map(str, sorted(versions)))
        raise BrokenInput(f"{base_path}: there is no version {number}, it has {known or 'none'}")
    if versions[number].withdrawn:
        raise BrokenInput(
            f"{base_path}: version {number} is withdrawn; `ingraph models restore {base_path} {number}` brings it back"
        )
    return versions[number]


def _outputs_read(outputs: Mapping[str, TensorDescription]) -> tuple[str, ...]:
    if outputs.keys() >= _RANKED_OUTPUTS:
        return tuple(sorted(outputs.keys() & {*_RANKED_OUTPUTS, "error", ANSWER}))
    return tuple(outputs) if [output.dtype for output in outputs.values()] == ["string"] else ()


def _origin(version: ModelVersion) -> str:
    fingerprints = {name: version.provenance.get(f"{name}_fingerprint") for name in ("data", "code")}
    return ", ".join(f"{name} {str(value)[:_FINGERPRINT_CHARACTERS]}" for name, value in fingerprints.items() if value)
