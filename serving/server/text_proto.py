"""Config files in protobuf's text format."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from google.protobuf import message, text_format

MessageT = TypeVar("MessageT", bound=message.Message)


class ConfigFileError(Exception):
    """A config file cannot be read, or does not say what it should."""


def read_text_proto(path: str, empty: MessageT) -> MessageT:
    """The message in a file; `empty` is filled and returned.

    Raises:
        ConfigFileError: there is no such file, or it is no text of that message.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigFileError(f"{path} cannot be read: {why}") from error
    try:
        return text_format.Parse(text, empty)
    except text_format.ParseError as error:
        raise ConfigFileError(f"Error parsing text-format {empty.DESCRIPTOR.full_name}: {path}:{error}") from error
