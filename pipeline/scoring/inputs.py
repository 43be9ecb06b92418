"""Inputs of batch scoring: the published model, and files found, their rows, texts and photos read."""

from __future__ import annotations

import itertools
import posixpath
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, BinaryIO, Literal

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
from components.table_example_gen.options import TableReading
from components.table_example_gen.serialization import NUMBER, TEXT, WHOLE, example_column, example_type
from components.table_file import (
    BYTE_ORDER_MARK,
    COMPRESSION_SUFFIXES,
    DELIMITERS,
    FORMAT_OF_SUFFIX,
    RecordReader,
    decompressed,
    field_text,
    find_files,
    format_of,
    json_records,
    not_utf8,
    uncompressed_name,
)
from serving.client.metadata import IMAGE_INPUTS, ModelMetadata, TensorDescription
from serving.client.table_columns import table_value
from serving.client.tensors import data_type_named, input_array
from serving.missing_values import missing_value
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


LINES_SUFFIX, PARQUET_SUFFIX = ".txt", ".parquet"


# Of a batch, whichever comes first. With 1,024 rows at a time a blend takes half as long again; with 8,192 no less.
_ROWS, _BYTES = 4096, 1 << 19


def read_rows(path: str, columns: Mapping[str, str]) -> Iterator[Batch]:
    """The rows of a CSV, TSV, JSON lines, Parquet or text file, broken ones among them, some at a time.

    Formats are those of components.table_file and Parquet, by the ending of the name; .txt holds one value of the only
    column on each line. The keys of a JSON object are its own: one that lacks a column is broken.

    Args:
        path: of the file; compressed where its first bytes say so. Any file system that Beam reads.
        columns: what a column is called in a Batch -> what it is called in the file.
    """
    try:
        with open_file(path) as file:
            if path.lower().endswith(PARQUET_SUFFIX):
                yield from _parquet_rows(path, file, columns)
            else:
                with decompressed(file) as content:
                    yield from _read(path, content, columns)
    except (OSError, BeamIOError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error)
        yield _lost(path, None, f"the file cannot be read: {reason}")


def _lost(path: str, line: int | None, reason: str) -> Batch:
    return Batch.of_rows(path, [], {}, [BadItem(path, line, reason, whole_file=True)])


def _read(path: str, file: BinaryIO, columns: Mapping[str, str]) -> Iterator[Batch]:
    lines = itertools.chain([file.readline().removeprefix(BYTE_ORDER_MARK)], iter(file.readline, b""))
    table_format = format_of(path)
    if uncompressed_name(path).endswith(LINES_SUFFIX) and len(columns) == 1:
        return _batches(path, columns, _text_lines(lines))
    if table_format == "jsonl":
        return _batches(path, columns, _json_lines(lines, columns))
    return _separated(path, file, RecordReader(lines, DELIMITERS[table_format]), columns)


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


def _separated(path: str, file: BinaryIO, reader: RecordReader, columns: Mapping[str, str]) -> Iterator[Batch]:
    """CSV and TSV. Blocks of nothing but rows are pyarrow's, others the csv module's, which takes twenty times."""
    line, first = next((record for record in reader if record[1]), (1, []))
    header = first if isinstance(first, str) else [name.strip() for name in first]
    if not header:
        return
    problem = header if isinstance(header, str) else _header_problem(header, columns)
    if problem:
        yield _lost(path, line, problem)
        return
    places = [header.index(column) for column in columns.values()]
    while block := _block(file, reader.ahead):
        found, ends, rest = _well_formed_rows(block, reader.delimiter, len(header), places)
        if found:
            lines = reader.line + np.concatenate([[0], ends[:-1]])
            for first_row in range(0, len(lines), _ROWS):
                rows = slice(first_row, first_row + _ROWS)
                taken = {name: column[rows] for name, column in zip(columns, found, strict=True)}
                yield Batch.of_rows(path, lines[rows], taken)
            reader.line += int(ends[-1])
            reader.ahead.extend(_lines(rest))
        else:
            reader.ahead.extend(_lines(block))
            yield from _batches(path, columns, _records(reader, reader.line + len(reader.ahead), places))


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


def _well_formed_rows(block: bytes, delimiter: str, width: int, places: Sequence[int]) -> _Parsed:
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
    fields = b'"\n', delimiter.encode(), b"\r"
    if not np.isin(before, list(b"".join(fields[:2]))).all() or not np.isin(behind, list(b"".join(fields))).all():
        return nothing
    names = [str(place) for place in range(width)]
    taken = list(dict.fromkeys(names[place] for place in places))
    try:
        block.decode()
        table = pa.csv.read_csv(
            pa.BufferReader(block),
            pa.csv.ReadOptions(use_threads=False, block_size=length + 1, column_names=names),
            pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=bool(is_inside.any())),
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


def _header_problem(header: Sequence[str], columns: Mapping[str, str]) -> str:
    missing = [column for column in columns.values() if column not in header]
    if missing and len(header) == 1 and (found := [mark for mark in ";\t|," if mark in header[0]]):
        return f"the header is one column, with {found[0]!r} in it; expected ',' between fields, in .tsv files a tab"
    if missing:
        return f"the header lacks {', '.join(missing)}; the model takes {', '.join(columns.values())}"
    twice = [column for column in columns.values() if header.count(column) > 1]
    return f"the header names {twice[0]} more than once; rename one" if twice else ""


def _parquet_rows(path: str, file: BinaryIO, columns: Mapping[str, str]) -> Iterator[Batch]:
    table = pa.parquet.ParquetFile(pa.PythonFile(file, "r"))
    problem = _header_problem(table.schema_arrow.names, columns)
    if problem:
        yield _lost(path, None, problem)
        return
    first = 1
    for rows in table.iter_batches(_ROWS, columns=list(columns.values())):
        found = {name: rows.column(column) for name, column in columns.items()}
        yield Batch.of_rows(path, np.arange(first, first + len(rows)), found)
        first += len(rows)


def _json_lines(lines: Iterator[bytes], columns: Mapping[str, str]) -> Iterator[_Record]:
    for number, found in json_records(lines):
        if isinstance(found, ValueError):
            yield number, f"not valid JSON: {found}"
        elif not isinstance(found, dict):
            yield number, "no JSON object"
        elif missing := [column for column in columns.values() if column not in found]:
            yield number, f"lacks {', '.join(missing)}; write null where a value is missing"
        else:
            yield number, [field_text(found[column]) for column in columns.values()]


def _text_lines(lines: Iterator[bytes]) -> Iterator[_Record]:
    for number, line in enumerate(itertools.takewhile(bool, lines), start=1):
        try:
            yield number, [line.decode().rstrip("\r\n")]
        except UnicodeDecodeError as error:
            yield number, not_utf8(error)


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
        texts = _texts(column)
        texts = pc.if_else(pc.equal(pc.utf8_trim_whitespace(texts), ""), missing_value(dtype), texts)
        return pc.cast(texts, pa.binary()).to_numpy(zero_copy_only=False), {}
    wanted = data_type_named(dtype).dtype
    numbers = _numbers(column, wanted) if wanted.kind in "iuf" else None
    if numbers is not None:
        filled = pc.fill_null(numbers, pa.scalar(missing_value(dtype), numbers.type))
        return filled.to_numpy(zero_copy_only=False).astype(wanted), {}
    # Of the values some are none, or are written as pyarrow does not read them.
    encoded = _texts(column).dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    values, reasons = np.zeros(len(encoded.dictionary), wanted), {}
    for place, text in enumerate(encoded.dictionary.to_pylist()):
        try:
            values[place] = input_array(name, [table_value(text, dtype)], dtype)[0]
        except ValueError as error:
            reasons[place] = str(error)
    return values[codes], {int(row): reasons[codes[row]] for row in np.flatnonzero(np.isin(codes, list(reasons)))}


def _texts(column: pa.Array) -> pa.StringArray:
    """As a CSV file would have them, "" for null."""
    if not pa.types.is_string(column.type):
        column = pc.cast(example_column(column, TEXT, TableReading()), pa.string())
    return pc.fill_null(column, "")


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
            texts = pc.utf8_trim_whitespace(_texts(column))
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


# A photo takes megabytes when it is decoded, and gains little from company.
_PHOTOS = 16
_PATH = "path"


@dataclass(frozen=True)
class Source:
    """Files whose rows or photos are read one after the other.

    Attributes:
        files: a table, a list of photos, or the photos themselves.
        columns: of a table, see read_rows.
        kind: what the files are.
    """

    files: tuple[str, ...]
    columns: Mapping[str, str]
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
    texts = [path.strip() for path in _texts(rows.columns[_PATH]).to_pylist()] if rows.columns else []
    rows = rows.without({place: "path is empty" for place, path in enumerate(texts) if not path})
    paths = [
        path if "://" in path or path.startswith("/") else posixpath.join(posixpath.dirname(source), path)
        for source, path in zip(rows.sources.to_pylist(), filter(None, texts), strict=True)
    ]
    yield Batch.of_photos([], rows.bad)
    for first in range(0, len(paths), _PHOTOS):
        yield Batch.of_photos(paths[first : first + _PHOTOS])


def find_sources(model: PublishedModel, places: Sequence[str], renamed_inputs: Mapping[str, str]) -> list[Source]:
    """The sources of what a model takes, in the order of the places.

    Args:
        model: what is asked.
        places: see find_files.
        renamed_inputs: input of the model -> what the column is called in the files, where it differs.

    Raises:
        BrokenInput: a place holds no file.
    """
    tables = (*_with_compressed(".csv", *FORMAT_OF_SUFFIX), PARQUET_SUFFIX)
    if model.takes == "photos":
        # What the model does not read is asked for too: it has a reason, where silence would have none.
        photos = (*IMAGE_EXTENSIONS, *UNREAD_EXTENSIONS)
        return [source for place in places for source in _image_sources(find_files(place, photos), tables)]
    suffixes = tables + (_with_compressed(LINES_SUFFIX) if model.takes == "texts" else ())
    columns = {name: renamed_inputs.get(name, name) for name in model.inputs}
    return [Source((file,), columns, "rows") for place in places for file in find_files(place, suffixes)]


def _image_sources(files: Sequence[str], tables: tuple[str, ...]) -> list[Source]:
    lists = [file for file in files if file.lower().endswith(tables)]
    photos = tuple(file for file in files if not file.lower().endswith(tables))
    found = [Source((file,), {_PATH: _PATH}, "list of photos") for file in lists]
    return [*found, Source(photos, {}, "photos")] if photos else found


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
