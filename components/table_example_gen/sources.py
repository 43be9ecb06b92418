"""Sources of rows: CSV, TSV, JSON lines, Parquet and TFRecord files, and BigQuery, read in shards by pyarrow."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from components.errors import BrokenInput
from components.table_example_gen.bigquery import is_bigquery, read_streams, stream_batches
from components.table_example_gen.options import Ingestion, TableFormat, TableReading
from components.table_example_gen.serialization import NOTHING, TEXT, WHOLE, example_column
from components.table_file import (
    BYTE_ORDER_MARK,
    TableFile,
    decompressed,
    field_text,
    open_file,
    uncompressed_name,
)

FORMATS: Mapping[str, TableFormat] = {
    ".csv": "csv",
    ".txt": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".tfrecord": "tfrecord",
    ".tfrecords": "tfrecord",
}
# Of text this much is parsed at once, and is a shard of an uncompressed file.
BLOCK_BYTES = 16 * 2**20
BATCH_ROWS = 50_000


def format_of(path: str, reading: TableReading) -> TableFormat:
    """The format that the config or else the ending of the name says (before .gz and .zst): CSV where it says none."""
    return reading.format or FORMATS.get(PurePosixPath(uncompressed_name(path)).suffix, "csv")


def table_files(path: str) -> list[str]:
    """The files that a path means: itself, all that match a pattern, or those of the formats above in a folder.

    Args:
        path: here or in an object store; several are on lines of their own. That of a BigQuerySource stands for itself.

    Raises:
        BrokenInput: there is none.
    """
    return [file for part in path.splitlines() for file in _table_files(part)]


def _table_files(path: str) -> list[str]:
    if is_bigquery(path):
        return [path]
    if "://" in path:
        from tfx.dsl.io import fileio

        is_folder, found = fileio.isdir(path), sorted(fileio.glob(f"{path.rstrip('/')}/*"))
        if not is_folder:
            return sorted(fileio.glob(path)) if glob.has_magic(path) else [path]
    elif Path(path).is_dir():
        found = sorted(str(file) for file in Path(path).iterdir() if file.is_file())
    else:
        # A file may have a name that would be a pattern.
        if Path(path).exists() or not glob.has_magic(path):
            return [path]
        found = sorted(glob.glob(path))  # noqa: PTH207 (the pattern may be absolute)
        if not found:
            raise BrokenInput(f"{path}: no file matches; `data.path` in the config names the files to learn from")
        return found
    # A .json beside tables tells of them, more often than not; a folder is named for its tables.
    endings = [ending for ending in FORMATS if ending != ".json"]
    tables = [file for file in found if PurePosixPath(uncompressed_name(file)).suffix in endings]
    if not tables:
        raise BrokenInput(f"{path}: no table is in this folder; expected files ending in {', '.join(endings)}")
    return tables


def _format_in_words(path: str, reading: TableReading) -> str:
    """Files with a header are alike, whatever stands between their columns."""
    if is_bigquery(path):
        return "a table of BigQuery"
    words = {"csv": "CSV", "tsv": "CSV", "jsonl": "JSON lines", "parquet": "Parquet", "tfrecord": "TFRecord"}
    return words[format_of(path, reading)]


def exact_reader(path: str, reading: TableReading) -> TableFile:
    """The reader that knows the line of each row, of a file in CSV, TSV or JSON lines."""
    table_format = format_of(path, reading)
    assert table_format in ("csv", "tsv", "jsonl")
    return TableFile(
        path,
        table_format,
        delimiter=reading.delimiter,
        encoding=reading.encoding,
        header=reading.header,
        strip=reading.strip,
    )


@dataclass(frozen=True)
class Shard:
    """Part of a file, or a stream of BigQuery, which one worker reads.

    Attributes:
        path: of the file.
        start: where it begins: a byte of a text file, or a row group of Parquet.
        end: where it ends, or None for the end of the file.
        columns: of CSV and TSV, whose header only the first shard would see.
        split: the split that all its rows are of; "" where each row has its own.
    """

    path: str
    start: int = 0
    end: int | None = None
    columns: tuple[str, ...] = ()
    split: str = ""


def plan_shards(
    paths: Sequence[str], reading: TableReading, split: str = "", block_bytes: int = BLOCK_BYTES
) -> list[Shard]:
    """The shards of files, the same ones wherever they are read.

    Raises:
        BrokenInput: a file cannot be opened, or has no header.
    """
    planned: list[Shard] = []
    for path in paths:
        source = _source(path, reading)
        if reading.header and source.read is not _separated_batches:
            raise BrokenInput(f"{path}: data.header names columns of CSV and TSV; leave it out, the file names its own")
        try:
            planned += [replace(shard, split=split) for shard in source.plan(path, reading, block_bytes)]
        except (pa.ArrowException, OSError, EOFError) as error:
            raise unreadable(path, reading, error) from error
    return planned


def plan_inputs(inputs: Mapping[str, str], ingestion: Ingestion) -> list[Shard]:
    """The shards of all files.

    Args:
        inputs: split of the input -> its files, as sources.table_files takes them.
        ingestion: what is done with them.

    Raises:
        BrokenInput: there are none, one cannot be opened, or one has another format or other columns than another.
    """
    planned = [
        shard
        for split, path in inputs.items()
        for shard in plan_shards(table_files(path), ingestion.reading, split if ingestion.split_of_input else "")
    ]
    for shard in planned:
        different = set(shard.columns) ^ set(planned[0].columns)
        if different and not ingestion.columns_differ:
            one, other = (_format_in_words(path, ingestion.reading) for path in (shard.path, planned[0].path))
            if one != other:
                raise BrokenInput(
                    f"{shard.path} is {one} and {planned[0].path} is {other}: expected files of one format; "
                    "`data.path` takes a pattern such as folder/*.parquet"
                )
            raise BrokenInput(
                f"{shard.path} and {planned[0].path} have different columns: only one of them has "
                f"{', '.join(map(repr, sorted(different)))}; give files with the same columns"
            )
    return planned


def shard_batches(
    shard: Shard, reading: TableReading, columns: Mapping[str, pa.DataType] | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows of a shard.

    Args:
        shard: what is read.
        reading: how.
        columns: column -> its type, as serialization has them: the batches have all of them, and no other. None: each
            batch has the columns and types that are found in it.

    Raises:
        BrokenInput: the shard cannot be read; the message names the line of a text file.
    """
    source = _source(shard.path, reading)
    try:
        for batch in source.read(shard, reading, columns):
            yield batch if columns is None else _typed(batch, reading, columns)
    except (pa.ArrowException, OSError, EOFError, ValueError) as error:
        raise unreadable(shard.path, reading, error) from error


def _typed(batch: pa.RecordBatch, reading: TableReading, columns: Mapping[str, pa.DataType]) -> pa.RecordBatch:
    found = set(batch.schema.names)
    arrays = [
        example_column(batch.column(name), wanted, reading) if name in found else pa.nulls(len(batch), wanted)
        for name, wanted in columns.items()
    ]
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def unreadable(path: str, reading: TableReading, error: Exception) -> BrokenInput:
    """Why a file cannot be read, by the reader that knows lines where there is one."""
    table_format = "rows of BigQuery" if is_bigquery(path) else format_of(path, reading)
    if table_format in ("csv", "tsv", "jsonl"):
        try:
            for _ in exact_reader(path, reading).rows():
                pass
        except BrokenInput as found:
            return found
        except OSError:
            pass  # of an object store, and no matter of a line
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return BrokenInput(f"{path}: the file cannot be read as {table_format}: {reason}; mend it, or make it again")


# Text: CSV, TSV and JSON lines, in pieces that end where a row ends.


def _text_shards(path: str, reading: TableReading, block_bytes: int) -> Iterator[Shard]:
    separated = format_of(path, reading) != "jsonl"
    columns = tuple(exact_reader(path, reading).columns()) if separated else ()
    with open_file(path) as file, decompressed(file) as content:
        if content is not file:
            yield Shard(path, columns=columns)  # no worker could begin in its middle
            return
        start = 0
        for end in _record_ends(file, block_bytes, _delimiter(path, reading)):
            yield Shard(path, start, end, columns)
            start = end


def _delimiter(path: str, reading: TableReading) -> str:
    """Between fields; "" in JSON lines, which have none."""
    table_format = format_of(path, reading)
    return "" if table_format == "jsonl" else reading.delimiter or ("\t" if table_format == "tsv" else ",")


def _record_ends(file: BinaryIO, size: int, delimiter: str) -> list[int]:
    """Where the pieces of _record_blocks end, which are not made where there are no quotes: each line is a record."""
    ends: list[int] = []
    piece, place = bytearray(size), 0
    while count := file.readinto(piece):  # type: ignore[attr-defined]
        if delimiter and piece.find(b'"', 0, count) >= 0:
            file.seek(0)
            return list(accumulate(map(len, _record_blocks(file, size, delimiter))))
        end = piece.rfind(b"\n", 0, count) + 1
        ends += [place + end] * bool(end)
        place += count
    return ends if not place or ends[-1:] == [place] else [*ends, place]


def _record_blocks(file: BinaryIO, size: int, delimiter: str) -> Iterator[bytes]:
    """Pieces of a file that end where a record ends; the last one is long where its quotes do not tell."""
    special = re.escape(delimiter.encode()) + rb"\"\r\n"
    # A quote that opens no field, closes none, and is not doubled.
    stray = re.compile(rb'[^%b]"[^%b]' % (special, special))
    rest = b""
    while piece := file.read(size):
        rest += piece
        if delimiter and b'"' in rest and stray.search(rest):
            rest += file.read()
            break
        end = _last_record_end(rest, quoted=bool(delimiter))
        if end:
            yield rest[:end]
            rest = rest[end:]
    if rest:
        yield rest


def _last_record_end(block: bytes, quoted: bool) -> int:
    """Behind the last line break that is in no quoted field; 0 for none. The block begins with a record."""
    end = block.rfind(b"\n") + 1
    quotes = block.count(b'"', 0, end) if quoted else 0
    while end and quotes % 2:
        before = block.rfind(b"\n", 0, end - 1) + 1
        quotes -= block.count(b'"', before, end)
        end = before
    return end


_NO_LINE_END = re.compile(rb"[^\r\n]")


def _text_blocks(shard: Shard, reading: TableReading) -> Iterator[bytes]:
    """Rows in UTF-8, without the header."""
    with open_file(shard.path) as file, decompressed(file) as content:
        if content is file and shard.end is not None:
            file.seek(shard.start)
            blocks = iter([file.read(shard.end - shard.start)])
        else:
            blocks = _record_blocks(content, BLOCK_BYTES, _delimiter(shard.path, reading))
        for number, block in enumerate(blocks):
            if number == 0 and shard.start == 0:
                block = block.removeprefix(BYTE_ORDER_MARK)
                if shard.columns and not reading.header:
                    block = _without_header(block)
            if reading.encoding != "utf-8":
                block = block.decode(reading.encoding).encode()
            if _NO_LINE_END.search(block):
                yield block


def _without_header(block: bytes) -> bytes:
    """What follows the first record; blank lines before it are none."""
    block = block.lstrip(b"\r\n")
    end = quotes = 0
    while following := block.find(b"\n", end) + 1:
        quotes += block.count(b'"', end, following)
        end = following
        if quotes % 2 == 0:
            return block[end:]
    return b""


# CSV and TSV.


def _separated_batches(
    shard: Shard, reading: TableReading, columns: Mapping[str, pa.DataType] | None
) -> Iterator[pa.RecordBatch]:
    # Of what pandas writes as an index nothing is learned: its header is empty.
    named = [name for name in shard.columns if name]
    types = _separated_types(named, reading, columns)
    for block in _text_blocks(shard, reading):
        table = _parse_separated(block, shard, reading, types)
        if columns is None:
            # Times are text, and stay as they are written.
            texts = [field.name for field in table.schema if pa.types.is_temporal(field.type)]
            texts += _hexadecimal_columns(block, shard, reading, table)
            if texts:
                table = _parse_separated(block, shard, reading, types | dict.fromkeys(texts, pa.string()))
        if reading.thousands and not reading.as_text:
            table = pa.table(
                [_without_thousands(column, reading) for column in table.columns], names=table.column_names
            )
        yield from table.combine_chunks().to_batches(max_chunksize=BATCH_ROWS)


def _separated_types(
    named: Sequence[str], reading: TableReading, columns: Mapping[str, pa.DataType] | None
) -> dict[str, pa.DataType]:
    """What pyarrow parses each column as; what is not in it is left to inference."""
    if reading.as_text or reading.thousands:
        return dict.fromkeys(named, pa.string())
    if columns is None:
        return {}
    kinds = {WHOLE: pa.int64(), TEXT: pa.string(), NOTHING: pa.string()}
    return {name: kinds.get(columns[name], pa.float64()) for name in named if name in columns}


def _parse_separated(block: bytes, shard: Shard, reading: TableReading, types: Mapping[str, pa.DataType]) -> pa.Table:
    missing = {f"{before}{text}{after}" for text in reading.missing for before in ("", " ") for after in ("", " ")}
    table = pyarrow.csv.read_csv(
        pa.BufferReader(block),
        pyarrow.csv.ReadOptions(column_names=list(shard.columns), block_size=len(block), use_threads=False),
        pyarrow.csv.ParseOptions(delimiter=_delimiter(shard.path, reading), newlines_in_values=True),
        pyarrow.csv.ConvertOptions(
            null_values=["", *sorted(missing)],
            true_values=[],
            false_values=[],
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
            decimal_point=reading.decimal,
            column_types=dict(types),
            include_columns=[name for name in shard.columns if name],
        ),
    )
    for field in table.schema:
        if pa.types.is_binary(field.type):
            raise ValueError(f"the column {field.name!r} is not in UTF-8")
    return table


def _hexadecimal_columns(block: bytes, shard: Shard, reading: TableReading, table: pa.Table) -> list[str]:
    """Columns that pyarrow takes for whole numbers because it reads 0x10 as 16."""
    # One byte is looked for much faster than two.
    if not any(letter in block and b"0" + letter in block for letter in (b"x", b"X")):
        return []
    whole = [field.name for field in table.schema if pa.types.is_integer(field.type)]
    texts = _parse_separated(block, shard, reading, dict.fromkeys(whole, pa.string()))
    return [name for name in whole if pc.any(pc.match_substring(texts[name], "0x", ignore_case=True)).as_py()]


def _without_thousands(column: pa.ChunkedArray, reading: TableReading) -> pa.ChunkedArray:
    """Numbers, where all values are: whole ones, or of double precision."""
    assert reading.thousands
    if (
        column.null_count == len(column)
        or not pc.all(pc.match_substring_regex(column, reading.grouped_number())).as_py()
    ):
        return column
    plain = pc.utf8_trim_whitespace(pc.replace_substring(column, reading.thousands, ""))
    if pc.any(pc.match_substring(plain, reading.decimal)).as_py():
        return pc.cast(pc.replace_substring(plain, reading.decimal, "."), pa.float64())
    return pc.cast(pc.utf8_ltrim(plain, "+"), pa.int64())


# JSON lines.


def _json_batches(
    shard: Shard, reading: TableReading, columns: Mapping[str, pa.DataType] | None
) -> Iterator[pa.RecordBatch]:
    texts = [name for name, wanted in (columns or {}).items() if wanted == TEXT]
    for block in _text_blocks(shard, reading):
        yield from _parse_json(block, reading, texts).combine_chunks().to_batches(max_chunksize=BATCH_ROWS)


def _parse_json(block: bytes, reading: TableReading, texts: Sequence[str]) -> pa.Table:
    try:
        table = _parse_uniform_json(block, texts)
        # Times are text in JSON, and stay as they are written.
        times = [field.name for field in table.schema if pa.types.is_temporal(field.type)]
        if times:
            table = _parse_uniform_json(block, [*texts, *times])
    except pa.ArrowInvalid:
        return _parse_mixed_json(block, reading)
    written_otherwise = [field for field in table.schema if not _is_written_as_in_json(field.type)]
    return _parse_mixed_json(block, reading) if reading.as_text and written_otherwise else table


def _parse_uniform_json(block: bytes, texts: Sequence[str]) -> pa.Table:
    return pyarrow.json.read_json(
        pa.BufferReader(block),
        pyarrow.json.ReadOptions(block_size=len(block), use_threads=False),
        pyarrow.json.ParseOptions(explicit_schema=pa.schema([(name, pa.string()) for name in texts])),
    )


def _is_written_as_in_json(found: pa.DataType) -> bool:
    return pa.types.is_string(found) or pa.types.is_integer(found) or pa.types.is_null(found)


def _parse_mixed_json(block: bytes, reading: TableReading) -> pa.Table:
    """Rows of which a column holds values of several types: each is its JSON text then."""
    rows = [orjson.loads(line) for line in block.splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line holds no JSON object")
    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values, pa.string() if reading.as_text else None)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            columns[name] = pa.array([None if value is None else field_text(value) for value in values], pa.string())
    return pa.table(columns)


# Parquet.


def _parquet_shards(path: str, reading: TableReading, block_bytes: int) -> Iterator[Shard]:
    with open_file(path) as file:
        groups = pyarrow.parquet.ParquetFile(file).num_row_groups
    yield from (Shard(path, group, group + 1) for group in range(groups))
    if not groups:
        yield Shard(path)


def _parquet_batches(
    shard: Shard, reading: TableReading, columns: Mapping[str, pa.DataType] | None
) -> Iterator[pa.RecordBatch]:
    with open_file(shard.path) as file:
        table = pyarrow.parquet.ParquetFile(file)
        wanted = None if columns is None else [name for name in table.schema_arrow.names if name in columns]
        if shard.end is None:
            yield table.schema_arrow.empty_table().combine_chunks().to_batches()[0]
            return
        yield from table.iter_batches(BATCH_ROWS, row_groups=[shard.start], columns=wanted)


# TFRecord files of tf.Examples.


def _record_shards(path: str, reading: TableReading, block_bytes: int) -> Iterator[Shard]:
    with open_file(path):
        yield Shard(path)


def _record_batches(
    shard: Shard, reading: TableReading, columns: Mapping[str, pa.DataType] | None
) -> Iterator[pa.RecordBatch]:
    import tensorflow as tf
    from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

    with open_file(shard.path) as file, decompressed(file) as content:
        compression = "" if content is file else "GZIP"
    decoder = ExamplesToRecordBatchDecoder()
    records = tf.data.TFRecordDataset(shard.path, compression).batch(BATCH_ROWS // 10)
    try:
        for batch in records.as_numpy_iterator():
            yield decoder.DecodeBatch(batch.tolist())
    except (tf.errors.OpError, RuntimeError) as error:
        raise ValueError(str(error).splitlines()[0]) from error


# BigQuery.


def _stream_shards(path: str, reading: TableReading, block_bytes: int) -> Iterator[Shard]:
    yield from map(Shard, read_streams(path))


def _stream_batches(
    shard: Shard, reading: TableReading, columns: Mapping[str, pa.DataType] | None
) -> Iterator[pa.RecordBatch]:
    yield from stream_batches(shard.path, BATCH_ROWS)


@dataclass(frozen=True)
class _Source:
    """How files of a format are divided and read; see plan_shards and shard_batches."""

    plan: Callable[[str, TableReading, int], Iterator[Shard]]
    read: Callable[[Shard, TableReading, Mapping[str, pa.DataType] | None], Iterator[pa.RecordBatch]]


_SOURCES: Mapping[TableFormat, _Source] = {
    "csv": _Source(_text_shards, _separated_batches),
    "tsv": _Source(_text_shards, _separated_batches),
    "jsonl": _Source(_text_shards, _json_batches),
    "parquet": _Source(_parquet_shards, _parquet_batches),
    "tfrecord": _Source(_record_shards, _record_batches),
}
_BIGQUERY = _Source(_stream_shards, _stream_batches)


def _source(path: str, reading: TableReading) -> _Source:
    return _BIGQUERY if is_bigquery(path) else _SOURCES[format_of(path, reading)]
