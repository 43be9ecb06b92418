"""`ingraph models`: what was published, and taking it back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
import orjson

from pipeline.exit_status import ExitStatus
from serving import model_store
from serving.model_store import ModelStoreError, ModelVersion

_MAIN_METRICS = 3
_FINGERPRINT_CHARACTERS = 8
_MINUTES = len("2026-01-31T12:00")


@click.group()
def models() -> None:
    """List, withdraw, restore and prune published versions.

    BASE_PATH is the directory that TensorFlow Serving is given for one model, such as models/heart, or gs://bucket/heart.

    \b
    Examples:
      ingraph models list models/heart
      ingraph models withdraw models/heart --reason "wrong on new patients"
      ingraph models restore models/heart 3
      ingraph models prune models/heart --keep 5
    """


@models.command("list")
@click.argument("base_path")
@click.option("--json", "as_json", is_flag=True, help="Print JSON with everything known about each version.")
@click.option("--verify", is_flag=True, help="Compare every file with the checksum recorded when it was published.")
def list_command(base_path: str, as_json: bool, verify: bool) -> None:
    """Show the versions in BASE_PATH, highest first.

    A version is `served` (the highest visible one, which servers load by default), `kept` or `withdrawn`.
    """
    with _store_errors():
        versions = model_store.list_versions(base_path)
        differing = {version.path: model_store.verify(version) for version in versions} if verify else {}
    if as_json:
        click.echo(orjson.dumps(_described(versions, differing), option=orjson.OPT_INDENT_2))
    elif versions:
        _print_table(base_path, versions, differing)
    else:
        click.echo(f"No versions in {base_path}.")
    damaged = [f"{path}/{name}" for path, names in differing.items() for name in names]
    if damaged:
        raise _StoreFailure(f"missing or not as published: {', '.join(damaged)}; publish the model again.")


@models.command()
@click.argument("base_path")
@click.argument("version", type=click.IntRange(min=0), required=False)
@click.option("--reason", default="", metavar="TEXT", help="Why; shown by `list` and when the model would come again.")
def withdraw(base_path: str, version: int | None, reason: str) -> None:
    """Roll back: take VERSION from the servers.

    VERSION is by default the served one. Servers go back to the version before it at their next poll. The version is
    kept, and a run that would produce the same model again publishes nothing, until `ingraph models restore`.
    """
    with _store_errors():
        withdrawn = model_store.withdraw(base_path, version, reason)
        click.echo(f"Version {withdrawn.number} is withdrawn. {_now_served(base_path)}")


@models.command()
@click.argument("base_path")
@click.argument("version", type=click.IntRange(min=0))
def restore(base_path: str, version: int) -> None:
    """Give a withdrawn VERSION back to the servers.

    It comes back under its own number, so it is served only if no larger one is visible.
    """
    with _store_errors():
        restored = model_store.restore(base_path, version)
        click.echo(f"Version {restored.number} is restored. {_now_served(base_path)}")


@models.command()
@click.argument("base_path")
@click.option("--keep", type=click.IntRange(min=1), required=True, help="How many of the newest visible versions stay.")
def prune(base_path: str, keep: int) -> None:
    """Remove the oldest visible versions for good.

    The served version and withdrawn ones always stay. Numbers are never used again.
    """
    with _store_errors():
        removed = model_store.prune(base_path, keep)
    numbers = ", ".join(str(version.number) for version in removed)
    click.echo(f"Removed: {numbers}." if removed else "Nothing to remove.")


class _StoreFailure(click.ClickException):
    exit_code = ExitStatus.NOT_PUBLISHED


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except ModelStoreError as error:
        raise _StoreFailure(str(error)) from error


def _now_served(base_path: str) -> str:
    served = model_store.served_version(base_path)
    return f"Version {served.number} is served now." if served else "No version is left to serve."


def _state(version: ModelVersion, versions: Sequence[ModelVersion]) -> str:
    if version.withdrawn:
        return "withdrawn"
    return "served" if version.number == max(other.number for other in versions if not other.withdrawn) else "kept"


def _described(versions: Sequence[ModelVersion], differing: dict[str, list[str]]) -> list[dict[str, Any]]:
    return [
        {
            "version": version.number,
            "state": _state(version, versions),
            "reason": version.reason,
            "path": version.path,
            **({"differing_files": differing[version.path]} if differing else {}),
            "provenance": version.provenance,
        }
        for version in versions
    ]


def _print_table(base_path: str, versions: Sequence[ModelVersion], differing: dict[str, list[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=base_path, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("version", justify="right", no_wrap=True)
    table.add_column("state", min_width=len("withdrawn:"))
    table.add_column("published (UTC)", no_wrap=True)
    table.add_column("metrics", no_wrap=True)
    table.add_column("made by and from", overflow="fold")
    for version in versions:
        state = _state(version, versions) + (f": {version.reason}" if version.reason else "")
        cells = [
            str(version.number),
            f"{state}\n{_verdict(version, differing[version.path])}" if differing else state,
            str(version.provenance.get("published_at", ""))[:_MINUTES].replace("T", " "),
            _main_metrics(version.provenance.get("metrics")),
            _origin(version),
        ]
        # Text, since rich takes square brackets in a plain string for markup.
        table.add_row(*map(Text, cells))
    Console().print(table)


def _main_metrics(metrics: Any) -> str:
    """The first few metrics that were recorded with a version, one a line."""
    if not isinstance(metrics, dict):
        return ""
    values = {
        name: value
        for name, value in metrics.items()
        if isinstance(value, int | float) and not name.endswith("example_count")
    }
    return "\n".join(f"{name} {value:.4g}" for name, value in list(values.items())[:_MAIN_METRICS])


def _origin(version: ModelVersion) -> str:
    """The run and the shortened fingerprints, one a line."""
    known = {
        "run": version.provenance.get("run_id"),
        "data": str(version.provenance.get("data_fingerprint") or "")[:_FINGERPRINT_CHARACTERS],
        "code": str(version.provenance.get("code_fingerprint") or "")[:_FINGERPRINT_CHARACTERS],
    }
    return "\n".join(f"{name} {value}" for name, value in known.items() if value)


def _verdict(version: ModelVersion, differing: list[str]) -> str:
    if not version.provenance.get("checksums"):
        return "no checksums"
    return f"{len(differing)} damaged" if differing else "as published"
