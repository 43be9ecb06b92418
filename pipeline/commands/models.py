"""`ingraph models`: what was published, taking it back, and giving it labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import orjson

from components.errors import printable
from pipeline.exit_status import ExitStatus
from serving import model_store
from serving.model_store import ModelStoreError, ModelVersion, SignatureError

_MAIN_METRICS = 3
_FINGERPRINT_CHARACTERS = 8
_KEY_CHARACTERS = 16
_MINUTES = len("2026-01-31T12:00")


@click.group()
def models() -> None:
    """List, withdraw, restore, prune and label published versions.

    BASE_PATH is the directory that TensorFlow Serving is given for one model, such as models/heart, or gs://bucket/heart.

    \b
    Examples:
      ingraph models list models/heart
      ingraph models withdraw models/heart --reason "wrong on new patients"
      ingraph models restore models/heart 3
      ingraph models prune models/heart --keep 5
      ingraph models label models/heart canary 4
      ingraph models promote models/heart
      ingraph models config models/heart models/reviews > models.config
      ingraph models keygen signing.pem
      ingraph models verify models/heart --key signing.pem.pub
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
        labels = model_store.labels(base_path)
        differing = {version.path: model_store.verify(version) for version in versions} if verify else {}
    if as_json:
        click.echo(orjson.dumps(_described(versions, labels, differing), option=orjson.OPT_INDENT_2))
    elif versions:
        _print_table(base_path, versions, labels, differing)
    else:
        click.echo(f"No versions in {base_path}.")
    damaged = [f"{path}/{name}" for path, names in differing.items() for name in names]
    if damaged:
        raise _StoreFailure(f"missing or not as published: {', '.join(damaged)}; publish the model again.")


@models.command()
@click.argument("base_path")
@click.argument("version", type=click.IntRange(min=0), required=False)
@click.option(
    "--key", "keys", type=click.Path(path_type=Path), multiple=True, required=True, help="A public key; several: any."
)
def verify(base_path: str, version: int | None, keys: tuple[Path, ...]) -> None:
    """Read all files of VERSION, by default of every version, and say whose signature they have.

    Exit status: 0 when each is signed with one of the keys, and as it was signed; 6 when one is not.
    """
    with _store_errors():
        known = [model_store.read_public_key(path) for path in keys]
        versions = [one for one in model_store.list_versions(base_path) if version in (None, one.number)]
        if not versions:
            raise ModelStoreError(f"there is no version {'' if version is None else f'{version} '}in {base_path}.")
        refused = 0
        for one in versions:
            try:
                key = model_store.verify_signature(one.path, one.number, known)
                click.echo(f"Version {one.number} is signed by {key.fingerprint[:_KEY_CHARACTERS]}.")
            except SignatureError as error:
                refused += 1
                click.echo(printable(f"Version {one.number}: {error}"))
        if refused:
            raise ModelStoreError(
                f"{refused} of {len(versions)} versions are not as a holder of the key published them."
            )


@models.command()
@click.argument("file", type=click.Path(path_type=Path))
def keygen(file: Path) -> None:
    """Make a key to sign versions with: FILE, which is to be kept secret, and FILE.pub, for servers.

    Encrypted where the environment variable INGRAPH_SIGNING_KEY_PASSWORD holds a passphrase.
    """
    with _store_errors():
        key = model_store.make_key(file)
    click.echo(
        f"Key {key.fingerprint[:_KEY_CHARACTERS]}: {file} is the private one, for push.signing_key in a config; "
        f"{file}.pub the public one, for `ingraph serve --require-signature`."
    )


@models.command()
@click.argument("base_path")
@click.argument("version", type=click.IntRange(min=0), required=False)
@click.option("--reason", default="", metavar="TEXT", help="Why; shown by `list` and when the model would come again.")
def withdraw(base_path: str, version: int | None, reason: str) -> None:
    """Roll back: take VERSION from the servers.

    VERSION is by default the served one. Servers go back to the version before it at their next poll. The version is
    kept, and a run that would produce the same model again publishes nothing, until `ingraph models restore`.
    A version that has a label is not withdrawn before the label is moved.
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

    The served version, labelled and withdrawn ones always stay. Numbers are never used again.
    """
    with _store_errors():
        removed = model_store.prune(base_path, keep)
    numbers = ", ".join(str(version.number) for version in removed)
    click.echo(f"Removed: {numbers}." if removed else "Nothing to remove.")


@models.command()
@click.argument("base_path")
@click.argument("label")
@click.argument("version", type=click.IntRange(min=0), required=False)
@click.option("--remove", is_flag=True, help="Take the label away instead of giving it to VERSION.")
def label(base_path: str, label: str, version: int | None, remove: bool) -> None:
    """Give LABEL, such as canary or stable, to VERSION.

    Requests ask for a label by /v1/models/NAME/labels/LABEL:predict. `ingraph serve --model` keeps labelled versions
    loaded and moves a label once its new version can answer; for TensorFlow Serving see `ingraph models config`.
    """
    if remove == (version is not None):
        raise click.UsageError("expected either VERSION or --remove.")
    with _store_errors():
        if version is None:
            click.echo(f"{label} no longer points to version {model_store.unlabel(base_path, label)}.")
        else:
            click.echo(f"{label} points to version {model_store.label(base_path, label, version).number}.")


@models.command()
@click.argument("base_path")
@click.option("--from", "source", default="canary", show_default=True, metavar="LABEL", help="Whose version is taken.")
@click.option("--to", "target", default="stable", show_default=True, metavar="LABEL", help="The label that is moved.")
def promote(base_path: str, source: str, target: str) -> None:
    """Make the canary the stable version: let one label point to what another one points to."""
    with _store_errors():
        before = model_store.labels(base_path).get(target)
        promoted = model_store.promote(base_path, source, target)
    instead = "" if before in (None, promoted.number) else f" instead of version {before}"
    click.echo(f"{target} points to version {promoted.number}{instead}.")


@models.command()
@click.argument("base_paths", metavar="[NAME=]BASE_PATH...", nargs=-1, required=True)
@click.option(
    "--mounted-at",
    metavar="DIRECTORY",
    help="Where the server finds the base paths, each under its model's name, such as /models in a container.",
)
def config(base_paths: tuple[str, ...], mounted_at: str | None) -> None:
    """Print the config file with which TensorFlow Serving serves these models under their labels.

    For its --model_config_file and for that of `ingraph serve`. A model's name is by default the last part of its path.
    """
    from serving.model_store import ConfiguredModel, model_server_config

    configured: dict[str, ConfiguredModel] = {}
    for given in base_paths:
        name, _, base_path = given.rpartition("=")
        name = name or base_path.rstrip("/").rpartition("/")[2]
        if name in configured:
            raise click.UsageError(f"{name} is given twice, and a name stands for one base path.")
        absolute = base_path if "://" in base_path else str(Path(base_path).resolve())
        served_path = f"{mounted_at.rstrip('/')}/{name}" if mounted_at else absolute
        configured[name] = ConfiguredModel(name, base_path, served_path)
    with _store_errors():
        click.echo(model_server_config(configured.values()), nl=False)


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


def _labels_of(version: ModelVersion, labels: Mapping[str, int]) -> list[str]:
    return sorted(label for label, number in labels.items() if number == version.number and not version.withdrawn)


def _described(
    versions: Sequence[ModelVersion], labels: Mapping[str, int], differing: dict[str, list[str]]
) -> list[dict[str, Any]]:
    return [
        {
            "version": version.number,
            "state": _state(version, versions),
            "labels": _labels_of(version, labels),
            "reason": version.reason,
            "path": version.path,
            **({"differing_files": differing[version.path]} if differing else {}),
            "provenance": version.provenance,
        }
        for version in versions
    ]


def _print_table(
    base_path: str, versions: Sequence[ModelVersion], labels: Mapping[str, int], differing: dict[str, list[str]]
) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(printable(base_path)), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    table.add_column("version", justify="right", no_wrap=True)
    table.add_column("state", min_width=len("withdrawn:"))
    table.add_column("published (UTC)", no_wrap=True)
    table.add_column("metrics", no_wrap=True)
    table.add_column("made by and from", overflow="fold")
    for version in versions:
        state = ", ".join([_state(version, versions), *_labels_of(version, labels)])
        state += f": {version.reason}" if version.reason else ""
        cells = [
            str(version.number),
            f"{state}\n{_verdict(version, differing[version.path])}" if differing else state,
            str(version.provenance.get("published_at", ""))[:_MINUTES].replace("T", " "),
            _main_metrics(version.provenance.get("metrics")),
            _origin(version),
        ]
        # Text, since rich takes square brackets in a plain string for markup; and provenance may hold anything.
        table.add_row(*(Text(printable(cell)) for cell in cells))
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
        "key": str(version.provenance.get("signed_by") or "")[:_KEY_CHARACTERS],
    }
    return "\n".join(f"{name} {value}" for name, value in known.items() if value)


def _verdict(version: ModelVersion, differing: list[str]) -> str:
    if not version.provenance.get("checksums"):
        return "no checksums"
    return f"{len(differing)} damaged" if differing else "as published"
