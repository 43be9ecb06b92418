"""Inputs of batch scoring: the published model, and files found, their rows, texts and photos read."""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import BinaryIO, Literal

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from tensorflow.core.protobuf import meta_graph_pb2

from components.errors import BrokenInput, ModelUnavailable
from components.image_example_gen.file_formats import UNREAD_EXTENSIONS
from components.image_example_gen.image_files import IMAGE_EXTENSIONS
from components.serving_check.candidate import read_signatures
from components.table_file import (
    COMPRESSION_SUFFIXES,
    DELIMITERS,
    FORMAT_OF_SUFFIX,
    decompressed_lines,
    field_text,
    find_files,
    format_of,
    json_records,
    not_utf8,
    separated_records,
    uncompressed_name,
)
from serving.client.metadata import IMAGE_INPUTS, ModelMetadata, TensorDescription
from serving.model_store import ModelStoreError, ModelVersion, list_versions, served_version
from serving.signatures.common import ANSWER, CLASSIFY, SERVING_DEFAULT


@dataclass(frozen=True)
class Item:
    """A row of a file, or a photo, that is still to be read.

    Attributes:
        source: the file.
        line: in which the row begins, from 1; None for a photo.
        fields: column -> what stands there; {} for a photo.
    """

    source: str
    line: int | None
    fields: Mapping[str, str]


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


def open_file(path: str) -> AbstractContextManager[BinaryIO]:
    """A file on any file system that Beam reads, as its bytes are."""
    file: BinaryIO = FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
    return file


LINES_SUFFIX = ".txt"


def read_rows(path: str, columns: Mapping[str, str]) -> Iterator[Item | BadItem]:
    """The rows of a CSV, TSV, JSON lines or text file, broken ones among them, one at a time.

    Formats are those of components.table_file, by the ending of the name; .txt holds one value of the only column on
    each line. The keys of a JSON object are its own: one that lacks a column is broken.

    Args:
        path: of the file; compressed where its first bytes say so. Any file system that Beam reads.
        columns: what a column is called in an Item -> what it is called in the file.
    """
    try:
        with open_file(path) as file:
            yield from _read(path, decompressed_lines(file), columns)
    except (OSError, BeamIOError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        yield BadItem(path, None, f"the file cannot be read: {reason}", whole_file=True)


def _read(path: str, lines: Iterator[bytes], columns: Mapping[str, str]) -> Iterator[Item | BadItem]:
    table_format = format_of(path)
    if uncompressed_name(path).endswith(LINES_SUFFIX) and len(columns) == 1:
        return _text_lines(path, lines, next(iter(columns)))
    if table_format == "jsonl":
        return _json_lines(path, lines, columns)
    return _separated(path, separated_records(lines, DELIMITERS[table_format]), columns)


def _separated(
    path: str, records: Iterator[tuple[int, list[str] | str]], columns: Mapping[str, str]
) -> Iterator[Item | BadItem]:
    line, first = next(records, (1, []))
    header = first if isinstance(first, str) else [name.strip() for name in first]
    if not header:
        return
    problem = header if isinstance(header, str) else _header_problem(header, columns)
    if problem:
        yield BadItem(path, line, problem, whole_file=True)
        return
    places = {name: header.index(column) for name, column in columns.items()}
    for line, record in records:
        if isinstance(record, str):
            yield BadItem(path, line, record)
        else:
            yield Item(path, line, {name: record[place] for name, place in places.items()})


def _header_problem(header: Sequence[str], columns: Mapping[str, str]) -> str:
    missing = [column for column in columns.values() if column not in header]
    if missing:
        return f"the header lacks {', '.join(missing)}; the model takes {', '.join(columns.values())}"
    twice = [column for column in columns.values() if header.count(column) > 1]
    return f"the header names {twice[0]} more than once; rename one" if twice else ""


def _json_lines(path: str, lines: Iterator[bytes], columns: Mapping[str, str]) -> Iterator[Item | BadItem]:
    for number, found in json_records(lines):
        if isinstance(found, ValueError):
            yield BadItem(path, number, f"not valid JSON: {found}")
        elif not isinstance(found, dict):
            yield BadItem(path, number, "no JSON object")
        elif missing := [column for column in columns.values() if column not in found]:
            yield BadItem(path, number, f"lacks {', '.join(missing)}; write null where a value is missing")
        else:
            yield Item(path, number, {name: field_text(found[column]) for name, column in columns.items()})


def _text_lines(path: str, lines: Iterator[bytes], name: str) -> Iterator[Item | BadItem]:
    for number, line in enumerate(lines, start=1):
        try:
            yield Item(path, number, {name: line.decode().rstrip("\r\n")})
        except UnicodeDecodeError as error:
            yield BadItem(path, number, not_utf8(error))


# A photo takes megabytes when it is decoded, and gains little from company.
ROWS_PER_BATCH = 256
IMAGES_PER_BATCH = 16
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
    kind: str  # "rows", "photos" or "list of photos"


def read_items(source: Source) -> Iterator[list[Item | BadItem]]:
    """The items of a source, in its order, in batches."""
    items = _items(source)
    size = ROWS_PER_BATCH if source.kind == "rows" else IMAGES_PER_BATCH
    while batch := list(itertools.islice(items, size)):
        yield batch


def _items(source: Source) -> Iterator[Item | BadItem]:
    for file in source.files:
        if source.kind == "photos":
            yield Item(file, None, {})
        elif source.kind == "rows":
            yield from read_rows(file, source.columns)
        else:
            yield from map(_listed, read_rows(file, {_PATH: _PATH}))


def _listed(row: Item | BadItem) -> Item | BadItem:
    """The photo that a row of a list names, by its path from the list."""
    if isinstance(row, BadItem):
        return row
    path = row.fields[_PATH].strip()
    if not path:
        return BadItem(row.source, row.line, "path is empty")
    is_absolute = "://" in path or path.startswith("/")
    return Item(path if is_absolute else posixpath.join(posixpath.dirname(row.source), path), None, {})


def find_sources(model: PublishedModel, places: Sequence[str], renamed_inputs: Mapping[str, str]) -> list[Source]:
    """The sources of what a model takes, in the order of the places.

    Args:
        model: what is asked.
        places: see find_files.
        renamed_inputs: input of the model -> what the column is called in the files, where it differs.

    Raises:
        BrokenInput: a place holds no file.
    """
    tables = _with_compressed(".csv", *FORMAT_OF_SUFFIX)
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
    found = [Source((file,), {}, "list of photos") for file in lists]
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
