"""Read a file line by line."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from components.table_file import GZIP_MAGIC

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def open_lines(path: str) -> Iterator[bytes]:
    """The lines of a file with their ends, unzipped where it is gzipped, without a byte order mark.

    Raises:
        OSError: the file cannot be read to its end.
    """
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        head = file.read(len(GZIP_MAGIC))
        file.seek(0)
        lines = iter(gzip.GzipFile(fileobj=file) if head == GZIP_MAGIC else file)
        try:
            for line in lines:
                yield line.removeprefix(_BYTE_ORDER_MARK)
                break
            yield from lines
        except (EOFError, zlib.error) as error:
            raise OSError(f"the gzip file is damaged: {error}") from error
