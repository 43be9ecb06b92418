"""`ingraph init`."""

from __future__ import annotations

import csv
import os
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from components.errors import BrokenInput
from components.table_example_gen.facts import (
    ColumnChoice,
    TableFacts,
    column_choices,
    listed,
    merged_facts,
    shard_facts,
    term_choice,
)
from components.table_example_gen.options import Ingestion, TableReading
from components.table_example_gen.serialization import TEXT, WHOLE
from components.table_example_gen.sources import Shard, format_of, plan_inputs, shard_batches
from components.table_file import NAME_COLUMNS, decompressed, is_row, open_file
from pipeline.exit_status import ExitStatus


@click.command(
    epilog="""Exit status: 0 the config is written; 2 the data cannot be used, no label is told, or there is such a
    config already; 1 anything unexpected."""
)
@click.argument("data", metavar="FILE")
@click.option("--label", help="The column that holds the label; asked for where it is not given.")
@click.option("--header", metavar="NAMES", help="The columns of a CSV file without a header: age,income,label.")
@click.option("--name", help="Of the pipeline and its model; by default, after the file.")
@click.option("--config", metavar="PATH", help="Where the config is written; by default, NAME.yaml here.")
def init(data: str, label: str | None, header: str | None, name: str | None, config: str | None) -> None:
    """Look at data, and write a config to begin with.

    FILE is a table or a file of texts, in any format that `ingraph run` reads, or a folder of photos in class folders.

    \b
    ingraph init customers.csv --label churn
    ingraph run customers.yaml
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        names = [column.strip() for column in next(csv.reader([header or ""]), [])]
        if len(set(names)) < len(names):
            raise BrokenInput(f"--header names a column more than once: {header}")
        written = _write(data, label, names, name, config)
    except BrokenInput as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(ExitStatus.BROKEN_INPUT)
    click.echo(written.read_text(encoding="utf-8"))
    click.echo(f"written to {written}; next:\n  ingraph run {written}")


def _write(data: str, label: str | None, header: Sequence[str], name: str | None, config: str | None) -> Path:
    name = name or config_name(data)
    file = Path(config or f"{name}.yaml")
    if file.exists():
        raise BrokenInput(f"{file}: there is such a file already; remove it, or `--config PATH` names another")
    place = data if "://" in data else os.path.relpath(data, file.resolve().parent)
    if _holds_images(data):
        text = image_config(data, name, place)
    else:
        looked = look_at_table(data, header)
        for warning in looked.warnings:
            click.echo(f"warning: {warning}", err=True)
        label = label or _asked(looked.label_candidates())
        check_columns(looked, label)
        text = table_config(looked, name, label, place)
    file.write_text(text, encoding="utf-8")
    return file


def _holds_images(data: str) -> bool:
    return Path(data).is_dir() and any(path.is_dir() for path in Path(data).iterdir())


def _asked(candidates: Sequence[str]) -> str:
    if not candidates:
        raise BrokenInput("no column has few enough values for a label; --label names it")
    if not sys.stdin.isatty():
        raise BrokenInput(f"which column is the label? --label names it; it may be {', '.join(candidates[:5])}")
    return str(click.prompt("Which column is the label?", default=candidates[0]))


# Of a text file this much is looked at to find out how it is written.
_HEAD_BYTES = 2**18
_DELIMITERS = ",;\t|"
_ENCODINGS = ("utf-8", "cp1252", "latin-1")
# What people write where there is no value.
_MISSING = ("?", "NA", "N/A", "n/a", "NULL", "null", "None", "-", "--", ".", "unknown", "Unknown", "#N/A")
_LABEL_NAMES = ("label", "target", "class", "y", "outcome", "category", "sentiment")
_MOST_CLASSES = 100


@dataclass(frozen=True)
class LookedAt:
    """What was found in a table.

    Attributes:
        path: of its files.
        reading: the options of `data` that read them.
        facts: of all rows.
        choices: column -> what suits it, where its type alone does not say it.
        classes: column -> how many different values it has, where they are few enough for a label.
        texts: columns that nothing but texts can be: hardly a value comes twice, and it has words or characters.
        warnings: what a person should know, in sentences.
    """

    path: str
    reading: Mapping[str, object]
    facts: TableFacts
    choices: Mapping[str, ColumnChoice]
    classes: Mapping[str, int]
    texts: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()

    def label_candidates(self) -> list[str]:
        """Columns that may hold the label: those whose names say so, then others, the fewest values first."""
        by_name = [name for name in self.classes if name.lower() in _LABEL_NAMES]
        others = sorted((name for name in self.classes if name not in by_name), key=lambda name: self.classes[name])
        return [*by_name, *others]


def look_at_table(path: str, header: Sequence[str] = ()) -> LookedAt:
    """Find out how a table is written, and what its columns hold.

    Args:
        path: of its files.
        header: the columns of a CSV file whose first line is a row.

    Raises:
        BrokenInput: it cannot be read.
    """
    reading = _written_as(path)
    if header:
        reading["header"] = list(header)
    tokens = _missing_tokens(path, TableReading(**reading))
    if tokens:
        reading["missing"] = tokens
    options = TableReading(**reading)
    shards, facts = _read(path, options)
    if not facts.rows:
        raise BrokenInput(f"{path}: the file has a header and no rows; expected at least one row for each class")
    choices = column_choices(shards, options, facts.types, list(facts.types))
    classes = _class_counts(shards, options, facts)
    texts = {
        name
        for name, kind in facts.types.items()
        if len(facts.types) == 2
        and kind == TEXT
        and classes.get(name, facts.rows) > facts.rows / 2
        and (name not in choices or choices[name].kind in ("text", "hash", "ignored"))
        and term_choice(shards, options, name).kind != "words_and_characters"
    }
    said = "" if header else is_row(shards[0].columns)
    warnings = (f"{path}: {said}; {NAME_COLUMNS}",) if said else ()
    return LookedAt(path, reading, facts, choices, classes, frozenset(texts), warnings)


def _read(path: str, reading: TableReading) -> tuple[list[Shard], TableFacts]:
    ingestion = Ingestion(reading=reading, columns_differ=True)
    shards = plan_inputs({"all": path}, ingestion)
    facts = merged_facts(shard_facts(shard, ingestion) for shard in shards)
    if facts.error:
        raise BrokenInput(facts.error)
    return shards, facts


def _class_counts(shards: Sequence[Shard], reading: TableReading, facts: TableFacts) -> dict[str, int]:
    seen: dict[str, set[object]] = {name: set() for name, kind in facts.types.items() if kind in (TEXT, WHOLE)}
    for shard in shards:
        for batch in shard_batches(shard, reading, facts.types):
            for name in list(seen):
                seen[name].update(pc.unique(batch.column(name)).to_pylist())
                if len(seen[name]) > _MOST_CLASSES + 1:
                    del seen[name]
    counts = {name: len(values - {None}) for name, values in seen.items()}
    return {name: count for name, count in counts.items() if 2 <= count <= _MOST_CLASSES}


def _written_as(path: str) -> dict[str, object]:
    """The options of `data` that a text file needs, beside those that are the defaults."""
    options: dict[str, object] = {}
    reading = TableReading()
    if format_of(path, reading) != "csv" or Path(path).is_dir():
        return options
    with open_file(path) as file, decompressed(file) as content:
        head = content.read(_HEAD_BYTES)
    for encoding in _ENCODINGS:
        try:
            text = head[: head.rfind(b"\n") + 1 or None].decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding != "utf-8":
            options["encoding"] = encoding
        break
    first = text.splitlines()[0] if text.splitlines() else ""
    try:
        delimiter = csv.Sniffer().sniff(first, _DELIMITERS).delimiter
    except csv.Error:
        delimiter = ","
    if delimiter != ",":
        options["delimiter"] = delimiter
        numbers = re.findall(rf"(?<![\d.,])\d+[.,]\d+(?={re.escape(delimiter)}|$)", text, re.MULTILINE)
        if numbers and all("," in number for number in numbers):
            options["decimal"] = ","
    return options


def _missing_tokens(path: str, reading: TableReading) -> list[str]:
    """What stands where there is no value, in columns that would be text otherwise."""
    shards, facts = _read(path, reading)
    tokens = pa.array(_MISSING, pa.string())
    found: set[str] = set()
    texts = {name: kind for name, kind in facts.types.items() if kind == TEXT}
    for shard in shards:
        for batch in shard_batches(shard, reading, texts):
            for column in batch.columns:
                values = pc.cast(column, pa.string())
                found.update(pc.unique(pc.filter(values, pc.is_in(values, tokens))).to_pylist())
    return [token for token in _MISSING if token in found]


# Kinds of more columns are left to the run, which finds the same.
_MOST_LISTED = 50


def table_config(looked: LookedAt, name: str, label: str, data_path: str) -> str:
    """The text of a config for a table, or for texts where one of two columns holds sentences.

    Args:
        looked: what was found.
        name: of the pipeline and the model.
        label: the label column.
        data_path: of the data, relative to the config.
    """
    columns = [column for column in looked.facts.types if column != label]
    sentences = [column for column in columns if looked.choices.get(column, ColumnChoice("")).kind == "text"]
    sentences += [column for column in columns if column in looked.texts and column not in sentences]
    data = {"path": data_path, **looked.reading}
    found = f"# {looked.facts.rows:,} rows, {len(looked.facts.types)} columns; {looked.classes[label]} classes."
    lines = [found, f"name: {name}"]
    if len(columns) == 1 and sentences:
        lines += ["task: text", f"data: {_flow(data)}"]
        lines.append(f"preprocessing: {_flow({'column': sentences[0], 'label': {'column': label}})}")
    else:
        lines += ["task: tabular", f"data: {_flow(data)}", "preprocessing:", f"  label: {_flow({'column': label})}"]
        kinds = {name: choice.options for name, choice in looked.choices.items() if name != label}
        if len(kinds) > _MOST_LISTED:
            counted = Counter(looked.choices[name].kind for name in kinds).most_common()
            counts = ", ".join(f"{count} {kind}" for kind, count in counted)
            lines.append(
                f"  # columns: {counts} as the data show it; name those that shall be otherwise, as NAME: kind"
            )
        elif kinds:
            lines.append(f"  columns: {_flow(kinds)}  # all others by their type")
    lines.append("evaluation: {at_least: {auc: 0.6}}  # what a model must reach to be published")
    return "\n".join(lines) + "\n"


def image_config(path: str, name: str, data_path: str) -> str:
    """The text of a config for photos in class folders."""
    from components.image_example_gen.image_files import list_images

    photos = list_images(path)
    classes = len({photo.label for photo in photos})
    return (
        f"# {len(photos):,} photos of {classes} classes.\n"
        f"name: {name}\n"
        "task: image\n"
        f"data: {_flow({'path': data_path})}\n"
        "trainer: {mode: fine_tune}\n"
        "evaluation: {at_least: {accuracy: 0.6}}  # what a model must reach to be published\n"
    )


def _flow(values: Mapping[str, object]) -> str:
    """YAML on one line."""
    return yaml.safe_dump(
        dict(values), default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True
    ).strip()


def config_name(path: str) -> str:
    """What a pipeline on such a file is called: letters, digits, dashes and underscores."""
    stem = Path(path.rstrip("/")).name.split(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_") or "model"


def check_columns(looked: LookedAt, label: str) -> None:
    """Refuse a label that is none.

    Raises:
        BrokenInput: there is no such column, or it has too many values or one only.
    """
    if label not in looked.facts.types:
        raise BrokenInput(f"{looked.path}: there is no column {label!r}; {listed(label, looked.facts.types)}")
    if label not in looked.classes:
        raise BrokenInput(
            f"{looked.path}: the column {label!r} is no label: expected 2 to {_MOST_CLASSES} different values; those "
            f"that have are {', '.join(map(repr, looked.label_candidates())) or 'none'}. A number is told as a range: "
            "make a column of few values of it, such as low and high"
        )
