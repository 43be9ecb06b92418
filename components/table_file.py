"""Table files: CSV, TSV and JSON lines, plain or compressed, read row by row, with the line of what is wrong.

components.table_example_gen.sources reads the same rows a hundred times as fast, and knows no lines. TableFile is for
data that must be whole: the first line that cannot be read ends it with a sentence. RecordReader and json_records
are for data of which every good row counts: they say which line is broken, and go on behind it. padded_rows is for what
a person types or pipes in: it forgives rows that are short.
"""

from __future__ import annotations

import csv
import glob
import gzip
import io
import itertools
import os
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import orjson

from components.errors import BrokenInput

TableFormat = Literal["csv", "tsv", "jsonl"]
FORMAT_OF_SUFFIX: Mapping[str, TableFormat] = {
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
COMPRESSION_SUFFIXES = (".gz", ".zst", ".zstd")
_GZIP_MAGIC, _ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
DELIMITERS: Mapping[TableFormat, str] = {"csv": ",", "tsv": "\t"}
# Python's own limit, 131,072 characters, is short of a long text.
LONGEST_FIELD = 2**30


OpenFile = Callable[[str], AbstractContextManager[BinaryIO]]


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        line: the line of the file in which it begins, from 1.
        fields: column -> what stands there, every column in the file's order; "" where there is nothing.
    """

    line: int
    fields: dict[str, str]


class TableFile:
    """A file that holds a table.

    CSV and TSV: with or without a byte order mark, a header, fields quoted as spreadsheets do it: these may hold
    separators, quotes and line breaks. JSON lines: an object on each line; strings are taken as they are, null is
    nothing, any other value is its JSON text, and the columns are the keys of all lines.

    Args:
        path: of the file; local or an object store's. Compressed by gzip or zstd where its first bytes say so.
        table_format: where None, as format_of says.
        delimiter: between fields; where None, that of the format.
        encoding: as Python names it; one in which ASCII stays as it is.
        header: the columns of a CSV or TSV file whose first line is a row.
        strip: whether blanks around the names of columns of CSV and TSV are no part of them.
        opened: opens the file for reading bytes; where None, open_file.
    """

    def __init__(
        self,
        path: str,
        table_format: TableFormat | None = None,
        delimiter: str | None = None,
        encoding: str = "utf-8",
        opened: OpenFile | None = None,
        header: Sequence[str] = (),
        strip: bool = False,
    ) -> None:
        self.path = path
        self._open = opened or open_file
        self.format: TableFormat = table_format or format_of(path)
        self._delimiter = delimiter or DELIMITERS.get(self.format, "")
        self._encoding = encoding
        self._header = header
        self._strip = strip

    def columns(self) -> list[str]:
        """The names of the columns, in the file's order.

        Raises:
            BrokenInput: there is no such file, it is empty, or what `rows` says of lines that have to be read for this.
        """
        if self.format == "jsonl":
            columns = list(dict.fromkeys(itertools.chain.from_iterable(fields for _, fields in self._json_objects())))
        else:
            first = next(self._separated_rows(), (0, []))[1]
            columns = [name.strip() for name in first] if self._strip else first
        if not columns:
            raise BrokenInput(f"{self.path}: the file is empty; expected {_EXPECTED[self.format]}")
        if self._header and self.format != "jsonl":
            return list(self._header)
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            no_header = is_row(columns)
            if twice == [""]:
                blank = f"{columns.count('')} of the header's {len(columns)} columns have no name"
                raise BrokenInput(f"{self.path}: {blank}; give them names")
            raise BrokenInput(
                f"{self.path}: the header names the column {twice[0]!r} more than once; "
                + (f"{no_header}: {NAME_COLUMNS}" if no_header else "rename one")
            )
        return columns

    def rows(self) -> Iterator[Row]:
        """The rows, one after the other; empty lines are none.

        Raises:
            BrokenInput: a line is not UTF-8, its quotes do not match, it has another number of fields than the header,
                or it holds no JSON object. The message names the line.
        """
        columns = self.columns()
        if self.format == "jsonl":
            for line, found in self._json_objects():
                yield Row(line, {name: field_text(found.get(name)) for name in columns})
            return
        for line, values in itertools.islice(self._separated_rows(), 0 if self._header else 1, None):
            if len(values) != len(columns):
                said = f"line {line} has {len(values)} fields, the header has {len(columns)}; mend the line"
                if self._header:
                    said = said.replace("the header has", "data.header names")
                elif line == 2 and len(values) == len(columns) + 1:
                    said += (
                        "; or, where every line begins with the name of its row, as R writes tables, put a name for "
                        "that column before the others of the header"
                    )
                raise BrokenInput(f"{self.path}: {said}")
            yield Row(line, dict(zip(columns, values, strict=True)))

    def _separated_rows(self) -> Iterator[tuple[int, list[str]]]:
        csv.field_size_limit(LONGEST_FIELD)
        rows = csv.reader(self._lines(), delimiter=self._delimiter, strict=True)
        line = 1
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                if "new-line character" in str(error):
                    raise BrokenInput(
                        f"{self.path}: lines from {line} on end with carriage returns alone, as old programs for the "
                        "Macintosh write them; save the file with line feeds"
                    ) from error
                raise BrokenInput(
                    f"{self.path}: the row that begins in line {line} is not valid {self.format.upper()}: {error}; "
                    "a quote that opens a field has to be closed, and one inside of such a field doubled"
                ) from error
            if row:
                yield line, row
            line = rows.line_num + 1

    def _json_objects(self) -> Iterator[tuple[int, dict[str, Any]]]:
        lines = self._lines()
        first = next(lines, "")
        if first.lstrip().startswith("[") or first.strip() == "{":
            raise BrokenInput(
                f"{self.path}: line 1 holds no JSON object; expected one on each line, such as {_OBJECT}. A file that "
                "is an array or a document as a whole becomes such lines by pandas' "
                "to_json(orient='records', lines=True), or by jq -c '.[]'"
            )
        for number, found in json_records(line.encode() for line in itertools.chain([first], lines)):
            if isinstance(found, orjson.JSONDecodeError):
                raise BrokenInput(f"{self.path}: line {number} is not valid JSON: {found}; mend the line") from found
            if not isinstance(found, dict):
                raise BrokenInput(f"{self.path}: line {number} holds no JSON object; expected one such as {_OBJECT}")
            yield number, found

    def _lines(self) -> Iterator[str]:
        with self._open(self.path) as file:
            lines = enumerate(decompressed_lines(file), start=1)
            try:
                for number, line in lines:
                    yield self._decoded(line, number)
            except DamagedFile as error:
                raise BrokenInput(f"{self.path}: {error}; make it again") from error

    def _decoded(self, line: bytes, number: int) -> str:
        kind = next((kind for start, kind in _NO_TABLES.items() if number == 1 and line.startswith(start)), "")
        if kind:
            raise BrokenInput(f"{self.path}: the file is {kind}; save the table as CSV in UTF-8, or as Parquet")
        try:
            return line.decode(self._encoding)
        except UnicodeDecodeError as error:
            if self._encoding != "utf-8":
                raise BrokenInput(f"{self.path}: line {number} is not {self._encoding}: {error.reason}") from None
            raise BrokenInput(
                f"{self.path}: line {number} is {not_decoded(error)}; save the file as UTF-8, or name its encoding by "
                "data.encoding"
            ) from None


# What people give for CSV, by its first bytes.
_NO_TABLES = {
    b"PK\x03\x04": "a workbook of a spreadsheet or a zip archive",
    b"\xd0\xcf\x11\xe0": "a workbook of a spreadsheet",
    b"PAR1": "Parquet, whatever its name says",
    b"\xff\xfe": "in UTF-16",
    b"\xfe\xff": "in UTF-16",
    b"SQLite format 3": "a database of SQLite",
    b"%PDF": "a PDF",
}
NAME_COLUMNS = (
    "if the file has no header, name its columns by data.header: [age, income, …] (`ingraph init --header age,income`)"
)


def is_row(header: Sequence[str]) -> str:
    """Why a header seems to be a row: numbers are among its names that do not count the columns, or are no years."""
    numbers = [name.strip() for name in header if _NUMBER.fullmatch(name.strip())]
    if not numbers or (numbers[0].isdigit() and _counts(numbers)):
        return ""
    return f"the first line seems to be a row, for it has {numbers[0]!r}"


def _counts(numbers: Sequence[str]) -> bool:
    return list(numbers) == [str(number) for number in range(int(numbers[0]), int(numbers[0]) + len(numbers))]


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_OBJECT = '{"text": "...", "label": "..."}'
_HEADER = "a header line with the column names, then rows"
_EXPECTED = {"csv": _HEADER, "tsv": _HEADER, "jsonl": f"a JSON object on each line, such as {_OBJECT}"}


def format_of(path: str) -> TableFormat:
    """The format by the ending of the name (before .gz or .zst): .tsv and .tab, .jsonl, .ndjson and .json, else CSV."""
    return FORMAT_OF_SUFFIX.get(Path(uncompressed_name(path)).suffix, "csv")


def uncompressed_name(path: str) -> str:
    """A path in small letters, without .gz or .zst."""
    name = path.lower()
    return next((name.removesuffix(suffix) for suffix in COMPRESSION_SUFFIXES if name.endswith(suffix)), name)


def field_text(value: Any) -> str:
    """A value of a JSON object as the text that a field of CSV would hold: "" for null."""
    if isinstance(value, str):
        return value
    return "" if value is None else orjson.dumps(value).decode()


def not_decoded(error: UnicodeDecodeError, encoding: str = "utf-8") -> str:
    """Why a line cannot be decoded, in words."""
    return f"not {encoding.upper()} (byte {error.start + 1} is 0x{error.object[error.start]:02x})"


class DamagedFile(OSError):
    """A compressed file that cannot be read to its end."""


@contextmanager
def decompressed(file: BinaryIO) -> Iterator[BinaryIO]:
    """An open file as it was before gzip or zstd, if its first bytes say so; else the file itself, at its start.

    Raises:
        DamagedFile: it is damaged, or cut off.
    """
    head = file.read(len(_ZSTD_MAGIC))
    file.seek(0)
    if head.startswith(_GZIP_MAGIC):
        content: Any = gzip.GzipFile(fileobj=file)
    elif head == _ZSTD_MAGIC:
        import pyarrow

        content = io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.PythonFile(file), "zstd"))
    else:
        yield file
        return
    try:
        yield content
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DamagedFile(f"the gzip file is damaged: {error}") from error
    except OSError as error:
        raise DamagedFile(f"the compressed file is damaged: {error}") from error


def decompressed_lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of an open file with their ends, as `decompressed` reads them, without a byte order mark.

    Raises:
        OSError: the file cannot be read to its end.
    """
    with decompressed(file) as lines:
        for line in lines:
            yield line.removeprefix(BYTE_ORDER_MARK)
            break
        yield from lines


def json_records(lines: Iterable[bytes]) -> Iterator[tuple[int, Any]]:
    """Each line that is not blank, from 1: its JSON value, or the orjson.JSONDecodeError that says why it has none."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield number, orjson.loads(line)
            except orjson.JSONDecodeError as error:
                yield number, error


def padded_rows(content: bytes) -> tuple[list[str], list[dict[str, str]]]:
    """The header of a CSV file in memory, and its rows; short rows are filled with "", columns without a name left out.

    Raises:
        UnicodeDecodeError: the content is not UTF-8, with or without a byte order mark.
    """
    reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), restval="")
    reader.fieldnames = [column.strip() for column in reader.fieldnames or []]
    header = [column for column in reader.fieldnames if column]
    return header, [{column: row[column] for column in header} for row in reader]


# So many bytes are searched for the end of a quoted field before the quote that opens it counts as a mistake.
LONGEST_SEARCH = 2**20
_OPEN_QUOTE = "unexpected end of data"


class RecordReader:
    """The records of a CSV or TSV file, one after the other.

    Each is the line in which it begins, from 1, and its fields, none of a blank line, or why it is broken. A broken
    record costs one line, whatever its quotes span: the next one begins in the line after it.

    Args:
        lines: of the file, with their ends.
        delimiter: between fields.
        encoding: as Python names it; one in which ASCII stays as it is.
        columns: how many fields a record has; 0 where the first one, a header, tells.

    Attributes:
        line: in which the next record begins.
        ahead: lines from there on that were read already.
        delimiter: between fields.
        encoding: of the lines.
    """

    def __init__(self, lines: Iterator[bytes], delimiter: str, encoding: str = "utf-8", columns: int = 0) -> None:
        csv.field_size_limit(LONGEST_FIELD)
        self.line = 1
        self.ahead: deque[bytes] = deque()
        self.delimiter = delimiter
        self.encoding = encoding
        self._lines = lines
        self._columns = columns

    def __iter__(self) -> RecordReader:
        return self

    def __next__(self) -> tuple[int, list[str] | str]:
        begun, taken = self.line, [self._next_line()]
        if not taken[0]:
            raise StopIteration
        record = self._record(taken)
        if isinstance(record, list):
            self._columns = self._columns or len(record)
            if record and len(record) != self._columns:
                record = f"{len(record)} fields, the header has {self._columns}"
        if isinstance(record, str):
            self.ahead.extendleft(reversed(taken[1:]))
            del taken[1:]
        self.line += len(taken)
        return begun, record

    def _next_line(self) -> bytes:
        return self.ahead.popleft() if self.ahead else next(self._lines, b"")

    def _record(self, taken: list[bytes]) -> list[str] | str:
        """The record that begins in `taken`, which gets the further lines that it spans; or what is wrong with it."""
        record = self._parsed(taken)
        length = len(taken[0])
        while record == _OPEN_QUOTE:
            line = self._next_line()
            if not line or length > LONGEST_SEARCH:
                taken += [line] * bool(line)
                return "a quote opens a field and none closes it"
            taken.append(line)
            length += len(line)
            if b'"' in line:
                record = self._parsed(taken)
        return record

    def _parsed(self, lines: list[bytes]) -> list[str] | str:
        try:
            (record,) = csv.reader([b"".join(lines).decode(self.encoding)], delimiter=self.delimiter, strict=True)
        except UnicodeDecodeError as error:
            return not_decoded(error, self.encoding)
        except csv.Error as error:
            return str(error)
        return record


# What is asked of an object store at once.
_REMOTE_BYTES = 1 << 20


def column_batches(path: str, what: str) -> Iterator[Any]:
    """pyarrow.RecordBatches of a CSV, TSV (gzipped or not) or Parquet file; of CSV and TSV texts, as they stand there.

    Args:
        path: here or in an object store.
        what: is in it, for messages: "labels".

    Raises:
        BrokenInput: it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    try:
        if path.endswith(".parquet"):
            with open_file(path) as content:
                yield from pa.parquet.ParquetFile(pa.PythonFile(content, "r")).iter_batches()
            return
        delimiter = "\t" if ".tsv" in path else ","
        with open_file(path) as content:
            header = next(decompressed_lines(content), b"").decode("utf-8-sig")
        names = next(csv.reader([header], delimiter=delimiter), [])
        with open_file(path) as content:
            yield from pa.csv.open_csv(
                pa.CompressedInputStream(pa.PythonFile(content, "r"), "gzip") if path.endswith(".gz") else content,
                parse_options=pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
                convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
            )
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise BrokenInput(f"{path}: the {what} cannot be read: {error}; expected CSV, TSV or Parquet") from error


class _RemoteFile(io.RawIOBase):
    """TFX's file as Python has files, which is what pyarrow takes.

    Args:
        file: what tfx.dsl.io.fileio opens.
    """

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._file.seek(offset, whence)
        return self.tell()

    def readinto(self, buffer: Any) -> int:
        import tensorflow as tf

        try:
            content = self._file.read(len(buffer))
        except tf.errors.OpError as error:
            raise OSError(error.message) from error
        buffer[: len(content)] = content
        return len(content)


@contextmanager
def open_file(path: str) -> Iterator[BinaryIO]:
    """A file, here or in an object store, for reading bytes.

    Raises:
        BrokenInput: there is none, or it may not be read.
    """
    if "://" in path:
        from tfx.dsl.io import fileio

        if not fileio.exists(path):
            raise BrokenInput(f"{path}: no such file; `data.path` in the config names the file to learn from")
        with fileio.open(path, "rb") as remote, io.BufferedReader(_RemoteFile(remote), _REMOTE_BYTES) as buffered:
            yield buffered
        return
    try:
        # A pipe or a device might never end.
        if Path(path).exists() and not Path(path).is_file():
            raise BrokenInput(f"{path}: no regular file; `data.path` in the config names the file to learn from")
        local = Path(path).open("rb")  # noqa: SIM115 (closed below, where its errors are no longer those of opening)
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise BrokenInput(f"{path}: {reason}; `data.path` in the config names the file to learn from") from error
    with local:
        yield local


def find_files(place: str, suffixes: tuple[str, ...]) -> list[str]:
    """The files that a place names, sorted.

    Args:
        place: a file; a folder, for every file below it that ends with one of `suffixes` and is not hidden; or a
            pattern such as `new/*.csv`. Any file system that Beam reads.

    Raises:
        BrokenInput: there are none.
    """
    from apache_beam.io.filesystem import BeamIOError

    try:
        files = sorted(_remote(place, suffixes) if "://" in place else _local(place, suffixes))
    except (BeamIOError, OSError, ValueError) as error:
        raise BrokenInput(f"{place}: the files cannot be listed: {error}") from error
    if not files:
        raise BrokenInput(
            f"{place}: no such file, no file matches, or the folder holds none that ends with {', '.join(suffixes)}"
        )
    return files


def _local(place: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    if Path(place).is_dir():
        for folder, _, names in os.walk(place):
            yield from (str(Path(folder, name)) for name in names if _is_taken(name, suffixes))
    elif Path(place).is_file():
        yield place
    else:
        yield from (path for path in glob.glob(place, recursive=True) if Path(path).is_file())  # noqa: PTH207 (takes absolute patterns)


def _remote(place: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    from apache_beam.io.filesystems import FileSystems

    (exact,) = FileSystems.match([place])
    if exact.metadata_list:
        yield from (found.path for found in exact.metadata_list)
        return
    (below,) = FileSystems.match([f"{place.rstrip('/')}/**"])
    yield from (found.path for found in below.metadata_list if _is_taken(found.path.rpartition("/")[2], suffixes))


def _is_taken(name: str, suffixes: tuple[str, ...]) -> bool:
    return name.lower().endswith(suffixes) and not name.startswith(".")
