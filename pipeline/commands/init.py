"""`ingraph init`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from pipeline.exit_status import ExitStatus


@click.command(
    epilog="""Exit status: 0 the config is written; 2 the data cannot be used, no label is told, or there is such a
    config already; 1 anything unexpected."""
)
@click.argument("data", metavar="FILE")
@click.option("--label", help="The column that holds the label; asked for where it is not given.")
@click.option("--name", help="Of the pipeline and its model; by default, after the file.")
@click.option("--config", metavar="PATH", help="Where the config is written; by default, NAME.yaml here.")
def init(data: str, label: str | None, name: str | None, config: str | None) -> None:
    """Look at data, and write a config to begin with.

    FILE is a table or a file of texts, in any format that `ingraph run` reads, or a folder of photos in class folders.

    \b
    ingraph init customers.csv --label churn
    ingraph run customers.yaml
    """
    from components.errors import BrokenInput

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        written = _write(data, label, name, config)
    except BrokenInput as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(ExitStatus.BROKEN_INPUT)
    click.echo(written.read_text(encoding="utf-8"))
    click.echo(f"written to {written}; next:\n  ingraph run {written}")


def _write(data: str, label: str | None, name: str | None, config: str | None) -> Path:
    from components.errors import BrokenInput
    from pipeline.first_config import check_columns, config_name, image_config, look_at_table, table_config

    name = name or config_name(data)
    file = Path(config or f"{name}.yaml")
    if file.exists():
        raise BrokenInput(f"{file}: there is such a file already; remove it, or `--config PATH` names another")
    place = data if "://" in data else os.path.relpath(data, file.resolve().parent)
    if _holds_images(data):
        text = image_config(data, name, place)
    else:
        looked = look_at_table(data)
        label = label or _asked(looked.label_candidates())
        check_columns(looked, label)
        text = table_config(looked, name, label, place)
    file.write_text(text, encoding="utf-8")
    return file


def _holds_images(data: str) -> bool:
    return Path(data).is_dir() and any(path.is_dir() for path in Path(data).iterdir())


def _asked(candidates: Sequence[str]) -> str:
    from components.errors import BrokenInput

    if not candidates:
        raise BrokenInput("no column has few enough values for a label; --label names it")
    if not sys.stdin.isatty():
        raise BrokenInput(f"which column is the label? --label names it; it may be {', '.join(candidates[:5])}")
    return str(click.prompt("Which column is the label?", default=candidates[0]))
