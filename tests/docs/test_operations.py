"""docs/operations.md and docs/beam.md: their commands can be given, and the quoted messages are those of the code."""

from __future__ import annotations

import ast
import re
import shlex
from functools import cache
from pathlib import Path

import click
import pytest

from pipeline.cli import main
from pipeline.exit_status import ExitStatus

PROJECT = Path(__file__).parents[2]
PAGES = ("docs/operations.md", "docs/beam.md")
SOURCES = ("pipeline", "components", "serving", "trainers", "transform")
VARIABLE = "…"


def page(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def commands() -> list[str]:
    """What follows `$ ingraph` in the pages, with continued lines joined."""
    texts = [page(name).replace("\\\n", " ") for name in PAGES]
    return [line for text in texts for line in re.findall(r"^ *\$ ingraph (.+)$", text, re.MULTILINE)]


def quoted() -> list[str]:
    """The messages of the table: what stands in backticks in its second column."""
    rows = re.findall(r"^\| (?:\d+) \| ([^|]+) \|", page("docs/operations.md"), re.MULTILINE)
    return [message for row in rows for message in re.findall(r"`([^`]+)`", row)]


@cache
def templates() -> list[str]:
    """Every text of the sources, with `…` for what is put into it."""
    found = []
    for file in (file for folder in SOURCES for file in sorted((PROJECT / folder).rglob("*.py"))):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else VARIABLE for part in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def accept(command: click.Command, name: str, arguments: list[str]) -> None:
    """Have click parse a command line, subcommands too; nothing is run."""
    context = command.make_context(name, arguments)
    if isinstance(command, click.Group):
        inner, subcommand, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert inner is not None and subcommand is not None
        accept(subcommand, inner, rest)


@pytest.mark.parametrize("line", commands())
def test_a_command_exists_with_these_options(line):
    without_redirection = re.sub(r" >+ \S+| &$", "", line)
    accept(main, "ingraph", shlex.split(without_redirection))


def test_a_wrong_option_would_be_found():
    with pytest.raises(click.UsageError):
        accept(main, "ingraph", ["models", "prune", "models/heart", "--kept", "5"])


@pytest.mark.parametrize("message", quoted())
def test_a_quoted_message_is_one_of_the_code(message):
    assert any(message in template for template in templates())


def test_every_exit_status_has_a_message():
    statuses = {int(status) for status in re.findall(r"^\| (\d+) \|", page("docs/operations.md"), re.MULTILINE)}
    assert {status for status in ExitStatus if status is not ExitStatus.PUBLISHED} <= statuses
