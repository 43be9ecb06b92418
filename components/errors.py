"""Errors that stop a run: each carries one sentence for the person who reads it."""

import os
import unicodedata


def printable(text: str) -> str:
    """A text as a terminal may show it: characters that would control the terminal stand there as escapes."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
        else character.encode("unicode_escape").decode()
        for character in text
    )


def display_path(path: str) -> str:
    """A path from here, where that is shorter than the whole path; "" stays so."""
    return path if not path or "://" in path else min(os.path.relpath(path), path, key=len)


class RunStopped(Exception):
    """A run ended on purpose; the message names the input, what was expected and received, and what to do next."""

    def __str__(self) -> str:
        return printable(super().__str__())


class BrokenInput(RunStopped):
    """The config or the data cannot be used."""


class AnomaliesFound(RunStopped):
    """The data contradicts its schema."""


class NotPublished(RunStopped):
    """The model base path could not be read, or did not take the model."""


class NotSubmitted(RunStopped):
    """A cluster could not be reached, or did not take the run."""


class NoNewData(RunStopped):
    """The published model learned from the same data already."""


class RunUnderWay(RunStopped):
    """Another process runs the same pipeline."""


class IncompatibleModel(RunStopped):
    """Clients of the served model could not use the new one."""


class ModelUnavailable(Exception):
    """The model does not load, or what runs it has ended: nothing more can be asked."""


class RequestRefused(Exception):
    """The model is there and refuses this request."""
