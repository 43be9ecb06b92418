"""Requests in files of TFRecords."""

from __future__ import annotations

import itertools
import logging
import os
import re
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import tensorflow as tf

from serving.client.canonical_code import CanonicalCode

MAXIMUM_FILE_BYTES = 64 * 2**20
MAXIMUM_FILE_SECONDS = 3600.0
KEPT_BYTES = 2**30  # of all files of a prefix; then the oldest ones go
RETRY_SECONDS = 10.0  # after a failure: nobody needs to hear of a full disk with every request

SUFFIX = ".tfrecord"
# <prefix>-<when it was begun>-<process>-<number>.tfrecord: in the order of their names the oldest comes first.
_NAME = r"-\d{8}-\d{6}-\d+-\d{5}" + re.escape(SUFFIX)

logger = logging.getLogger(__name__)


class RequestLog:
    """Appends records to a file, another one when it is large or old; never raises, and never waits. For one thread.

    Args:
        prefix: how the names of the files begin, with their folder, which is made.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = Path(prefix)
        self._numbers = itertools.count()
        self._writer: tf.io.TFRecordWriter | None = None
        self._file = Path()
        self._file_bytes = 0
        self._file_ends = 0.0
        self._try_again = 0.0
        self._trouble = ""

    def append(self, record: bytes) -> CanonicalCode:
        """Write a record and flush it; OK, or why it is lost."""
        now = time.monotonic()
        if now < self._try_again:
            return CanonicalCode.UNAVAILABLE
        try:
            if self._writer is None or self._file_bytes >= MAXIMUM_FILE_BYTES or now >= self._file_ends:
                self._begin_file(now)
            assert self._writer is not None
            self._writer.write(record)
            self._writer.flush()
        except (OSError, tf.errors.OpError) as error:
            self.close()
            self._remove_empty_file()
            self._try_again = now + RETRY_SECONDS
            self._report((error.strerror if isinstance(error, OSError) else error.message) or str(error))
            return CanonicalCode.UNAVAILABLE
        self._file_bytes += len(record)
        self._trouble = ""
        return CanonicalCode.OK

    def close(self) -> None:
        """End the file; the next record begins another one."""
        if self._writer is not None:
            with suppress(OSError, tf.errors.OpError):
                self._writer.close()
            self._writer = None

    def _begin_file(self, now: float) -> None:
        self.close()
        self._prefix.parent.mkdir(parents=True, exist_ok=True)
        started = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        name = f"{self._prefix.name}-{started}-{os.getpid()}-{next(self._numbers):05d}{SUFFIX}"
        self._file = self._prefix.with_name(name)
        # Requests are their senders' own affair: nobody but the server's user reads them.
        os.close(os.open(self._file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        self._remove_oldest_files()
        self._writer = tf.io.TFRecordWriter(str(self._file))
        self._file_bytes, self._file_ends = 0, now + MAXIMUM_FILE_SECONDS

    def _remove_oldest_files(self) -> None:
        name = re.compile(re.escape(self._prefix.name) + _NAME)
        kept = KEPT_BYTES - MAXIMUM_FILE_BYTES  # the new one will grow
        for path in sorted((path for path in self._prefix.parent.iterdir() if name.fullmatch(path.name)), reverse=True):
            with suppress(FileNotFoundError):  # another server has the same prefix
                kept -= path.stat().st_size
                if kept < 0:
                    path.unlink()

    def _remove_empty_file(self) -> None:
        """On a full disk a file can be made, and nothing be written into it."""
        with suppress(OSError):
            if self._file.stat().st_size == 0:
                self._file.unlink()

    def _report(self, trouble: str) -> None:
        if trouble != self._trouble:
            logger.warning(
                "the request log %s cannot be written: %s; requests are answered all the same, and the log is tried "
                "again every %g s",
                self._prefix,
                trouble,
                RETRY_SECONDS,
            )
        self._trouble = trouble
