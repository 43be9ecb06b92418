"""Facts about a table: what its rows have to be written with, and which kind of preprocessing suits each column."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.errors import BrokenInput
from components.table_example_gen.options import Ingestion, TableReading
from components.table_example_gen.serialization import (
    NOTHING,
    NUMBER,
    TEXT,
    WHOLE,
    common_type,
    example_column,
    example_type,
)
from components.table_example_gen.sources import Shard, shard_batches
from components.table_example_gen.splits import (
    Quantiles,
    near_duplicate_keys,
    text_hashes,
    time_quantiles,
)


@dataclass(frozen=True)
class TextKeys:
    """Of each text: what near-duplicates have in common, and what tells its row from others, uint64 [n] each."""

    texts: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    rows: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))

    def merged(self, other: TextKeys) -> TextKeys:
        """Of both, each row once."""
        return TextKeys(np.concatenate([self.texts, other.texts]), np.concatenate([self.rows, other.rows]))

    def shared(self) -> np.ndarray:
        """The keys, sorted, of texts that different rows have."""
        different = np.unique(np.stack([self.texts, self.rows]), axis=1)[0]
        keys, counts = np.unique(different, return_counts=True)
        return np.asarray(keys[(counts > 1) & (keys != 0)])


@dataclass(frozen=True)
class TableFacts:
    """What is in a table, or in a part of it.

    Attributes:
        rows: how many.
        types: column -> its type, as serialization has them.
        missing: column -> how many rows have no value in it, or nothing but blanks.
        left_out: column -> the type that no example can hold.
        times: of the column that splits by time.
        texts: of a text's column.
        error: why it cannot be read; "" where it can.
    """

    rows: int = 0
    types: Mapping[str, pa.DataType] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    times: Quantiles = field(default_factory=Quantiles)
    texts: TextKeys = field(default_factory=TextKeys)
    error: str = ""

    def merged(self, other: TableFacts) -> TableFacts:
        """Of both parts."""
        left_out = {**self.left_out, **other.left_out}
        names = [name for name in dict.fromkeys([*self.types, *other.types]) if name not in left_out]
        return TableFacts(
            rows=self.rows + other.rows,
            types={name: common_type(self.types.get(name, NOTHING), other.types.get(name, NOTHING)) for name in names},
            missing={name: self.missing.get(name, self.rows) + other.missing.get(name, other.rows) for name in names},
            left_out=left_out,
            times=self.times.merged(other.times),
            texts=self.texts.merged(other.texts),
            error=self.error or other.error,
        )


def merged_facts(parts: Iterable[TableFacts]) -> TableFacts:
    """Of all parts."""
    return reduce(TableFacts.merged, parts, TableFacts())


def shard_facts(shard: Shard, ingestion: Ingestion) -> TableFacts:
    """Of a shard; an error is part of them."""
    try:
        return merged_facts(batch_facts(batch, ingestion)[0] for batch in shard_batches(shard, ingestion.reading))
    except BrokenInput as error:
        return TableFacts(error=str(error))


def batch_facts(batch: pa.RecordBatch, ingestion: Ingestion) -> tuple[TableFacts, pa.RecordBatch]:
    """Of the rows of a batch; and these, with the types of serialization that they have by themselves.

    Raises:
        BrokenInput: the column that splits by time holds something else.
    """
    reading, time, text = ingestion.reading, ingestion.split.time, ingestion.text_column
    found = {name: example_type(column.type) for name, column in zip(batch.schema.names, batch.columns, strict=True)}
    types = {name: TEXT if reading.as_text else kind for name, kind in found.items() if kind is not None}
    columns = {name: example_column(batch.column(name), kind, reading) for name, kind in types.items()}
    stripped = {name for name in columns if reading.strip and pa.types.is_string(batch.schema.field(name).type)}
    nulls = {name: column.null_count for name, column in columns.items()}
    facts = TableFacts(
        rows=len(batch),
        # What is missing everywhere tells nothing of the type.
        types={name: kind if nulls[name] < len(batch) else NOTHING for name, kind in types.items()},
        missing={name: nulls[name] + (0 if name in stripped else _blank_count(columns[name])) for name in columns},
        left_out={name: str(batch.schema.field(name).type) for name, kind in found.items() if kind is None},
        times=time_quantiles(columns[time], time) if time and time in columns else Quantiles(),
        texts=_text_keys(columns, text) if text and text in columns else TextKeys(),
    )
    return facts, pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _blank_count(column: pa.Array) -> int:
    """How many texts are nothing but blanks."""
    if column.type != TEXT:
        return 0
    blank = pc.match_substring_regex(column, r"^\s*$")
    return int(pc.sum(blank).as_py() or 0)


def _text_keys(columns: Mapping[str, pa.Array], text_column: str) -> TextKeys:
    cells = [pc.fill_null(pc.cast(columns[name], pa.string()), "\0") for name in sorted(columns)]
    rows = pc.binary_join_element_wise(*cells, "\1")
    return TextKeys(text_hashes(near_duplicate_keys(columns[text_column])), text_hashes(rows))


# Rows that are looked at, of shards spread over the data.
_SAMPLED_ROWS = 200_000
_SAMPLED_SHARDS = 8

# Whole numbers of so few values are codes rather than quantities: from three, since two are the same either way.
_FEW_VALUES = range(3, 11)
_ROWS_PER_CODE = 20
# Fewer rows may well have nothing but different values.
_ROWS_OF_AN_ID = 50
# An id numbers its rows: whole numbers that all differ and lie this densely, or texts of one word that all differ.
_DENSITY_OF_AN_ID = 0.1
_NAME_OF_AN_ID = re.compile(r"(^|[^A-Za-z])[iI][dD]$|[a-z]I[dD]$")
_WORDS_OF_A_SENTENCE = 4.0
_MOST_CATEGORIES = 5_000
_SHARE_OF_DATES = 0.95
_SKEWNESS = 5.0
_ISO_DATE = r"^\s*\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}.*)?\s*$"
# A list: parts that come again and again, in many more combinations than there are parts.
_SEPARATORS = ("|", ";", ",")
_DEFAULT_SEPARATOR = "|"
_SHARE_OF_LISTS, _FEWEST_COMBINATIONS, _CELLS_PER_PART, _WORDS_OF_A_PART = 0.2, 20, 5, 3.0
_TRUTH_VALUES = {frozenset(pair) for pair in (("true", "false"), ("yes", "no"), ("y", "n"), ("t", "f"), ("on", "off"))}


@dataclass(frozen=True)
class ColumnChoice:
    """What happens to a column of which the config says nothing.

    Attributes:
        kind: of preprocessing.columns.
        reason: why, for a person; "" where it is what its type has by default.
        separator: of a `list`, where it is not the usual one.
    """

    kind: str
    reason: str = ""
    separator: str = ""

    @property
    def options(self) -> str | dict[str, str]:
        """The column as preprocessing.columns in a config has it."""
        return {"kind": self.kind, "separator": self.separator} if self.separator else self.kind


def column_choices(
    shards: Sequence[Shard],
    reading: TableReading,
    types: Mapping[str, pa.DataType],
    names: Sequence[str],
) -> dict[str, ColumnChoice]:
    """Column -> what suits it, of the columns in `names` for which their type alone does not say it."""
    sample = _sample(shards, reading, {name: types[name] for name in names}, _SAMPLED_ROWS)
    choices = {name: _choice(name, types[name], sample[name]) for name in names}
    return {name: choice for name, choice in choices.items() if choice is not None}


def _sample(
    shards: Sequence[Shard], reading: TableReading, types: Mapping[str, pa.DataType], most: int
) -> dict[str, pa.Array]:
    step = max(1, -(-len(shards) // _SAMPLED_SHARDS))
    chosen = shards[::step]
    tables, rows = [], 0
    for shard in chosen:
        of_shard = 0
        for batch in shard_batches(shard, reading, types):
            tables.append(batch)
            of_shard += len(batch)
            if of_shard >= most // len(chosen):
                break
        rows += of_shard
    if not tables or not types:
        return {name: pa.nulls(0, kind) for name, kind in types.items()}
    table = pa.Table.from_batches(tables)
    return {name: table[name].combine_chunks() for name in types}


def _choice(name: str, kind: pa.DataType, column: pa.Array) -> ColumnChoice | None:
    if pa.types.is_list(kind):
        return ColumnChoice("list", "several values in one cell")
    present = column.drop_null()
    if not len(present):
        return ColumnChoice("ignored", "no value at all") if len(column) else None
    if kind == TEXT:
        return _choice_of_texts(pc.cast(present, pa.string()))
    if kind == WHOLE:
        return _choice_of_whole_numbers(name, present)
    return _choice_of_numbers(present) if kind == NUMBER else None


def _choice_of_texts(texts: pa.Array) -> ColumnChoice | None:
    different = pc.unique(texts)
    few = {text.strip().lower() for text in different.to_pylist()} if len(different) <= 2 * 3 else set()
    if frozenset(few) in _TRUTH_VALUES:
        return ColumnChoice("boolean", f"{' and '.join(sorted(few))}")
    if _share(pc.match_substring_regex(texts, _ISO_DATE)) >= _SHARE_OF_DATES:
        return ColumnChoice("datetime", "dates")
    for separator in _SEPARATORS:
        found = _list_of_parts(texts, different, separator)
        if found:
            return found
    words = pc.mean(pc.add(pc.count_substring(pc.utf8_trim_whitespace(texts), " "), 1)).as_py()
    mostly_different = len(different) > len(texts) / 2
    if mostly_different and words >= _WORDS_OF_A_SENTENCE:
        return ColumnChoice("text", f"sentences of {words:.0f} words")
    if len(different) == len(texts) >= _ROWS_OF_AN_ID:
        return ColumnChoice("ignored", "every value is different, as in an identifier")
    if len(different) > _MOST_CATEGORIES:
        return ColumnChoice("hash", f"{len(different):,} different values")
    return None


def _list_of_parts(texts: pa.Array, different: pa.Array, separator: str) -> ColumnChoice | None:
    if len(different) < _FEWEST_COMBINATIONS or _share(pc.match_substring(texts, separator)) < _SHARE_OF_LISTS:
        return None
    all_parts = pc.utf8_trim_whitespace(pc.list_flatten(pc.split_pattern(texts, separator)))
    all_parts = pc.filter(all_parts, pc.not_equal(all_parts, ""))
    parts = pc.unique(all_parts)
    come_again = 2 * len(parts) <= len(different) and _CELLS_PER_PART * len(parts) <= len(all_parts)
    short = (pc.mean(pc.add(pc.count_substring(parts, " "), 1)).as_py() or 0) <= _WORDS_OF_A_PART
    # 12,50 is a number where the comma is the decimal point.
    amounts = separator == "," and _share(pc.match_substring_regex(parts, r"^[-+]?\d+$")) > 0.5
    if not (come_again and short) or amounts:
        return None
    reason = f"{len(parts):,} different parts, with {separator!r} between them"
    return ColumnChoice("list", reason, "" if separator == _DEFAULT_SEPARATOR else separator)


def _choice_of_whole_numbers(name: str, numbers: pa.Array) -> ColumnChoice | None:
    different = len(pc.unique(numbers))
    if different == len(numbers) >= _ROWS_OF_AN_ID:
        limits = pc.min_max(numbers).as_py()
        dense = len(numbers) >= _DENSITY_OF_AN_ID * (limits["max"] - limits["min"] + 1)
        if dense or _NAME_OF_AN_ID.search(name):
            return ColumnChoice("ignored", "every value is different, as in an identifier")
    if different in _FEW_VALUES and different * _ROWS_PER_CODE <= len(numbers):
        return ColumnChoice("categorical", f"{different} different numbers")
    return _choice_of_numbers(numbers)


def _choice_of_numbers(numbers: pa.Array) -> ColumnChoice | None:
    values = numbers.to_numpy(zero_copy_only=False).astype(np.float64)
    values = values[np.isfinite(values)]
    if len(values) < _ROWS_OF_AN_ID or values.std() == 0:
        return None
    skewness = float((((values - values.mean()) / values.std()) ** 3).mean())
    return ColumnChoice("log", f"skewed, {skewness:.0f}") if values.min() >= 0 and skewness > _SKEWNESS else None


def _share(matches: pa.Array) -> float:
    return float(pc.mean(pc.cast(matches, pa.float64())).as_py() or 0.0)


_SHOWN_NAMES = 12


def choices_line(choices: Mapping[str, ColumnChoice]) -> str:
    """The choices for a person, those of a kind together, of many columns the first; "" where there are none."""
    kinds: dict[str, list[str]] = {}
    for name, choice in choices.items():
        if choice.kind != "ignored":
            kind = f"{choice.kind} with {choice.separator!r}" if choice.separator else choice.kind
            kinds.setdefault(kind, []).append(name)
    shown = {
        kind: names if len(names) <= _SHOWN_NAMES else [*names[:_SHOWN_NAMES], f"{len(names) - _SHOWN_NAMES} more"]
        for kind, names in kinds.items()
    }
    return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in shown.items())


def listed(name: str, columns: Iterable[str]) -> str:
    """The columns that there are, for who named one that is not there; of many, those with similar names."""
    names = list(columns)
    if len(names) <= _SHOWN_NAMES * 2:
        return f"the columns are {', '.join(map(repr, names))}"
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    shown = close or [*names[:_SHOWN_NAMES], names[-1]]
    said = "the ones with similar names are" if close else "from the first to the last they are"
    return f"of the {len(names):,} columns, {said} {', '.join(map(repr, shown))}"


def left_out_warnings(choices: Mapping[str, ColumnChoice]) -> list[str]:
    """A sentence for each column that is left out."""
    return [
        f"the column {name!r} is left out: {choice.reason}; `preprocessing.columns: {{{name}: …}}` takes it in"
        for name, choice in choices.items()
        if choice.kind == "ignored"
    ]


# Of a label that is a measurement or a name, most values are those of a few rows each.
_LABEL_ROWS, _MANY_LABELS, _ROWS_PER_LABEL = 20_000, 20, 5


def label_warnings(
    shards: Sequence[Shard], reading: TableReading, types: Mapping[str, pa.DataType], label: str
) -> list[str]:
    """A sentence where a column has too many values to be a label."""
    labels = _sample(shards, reading, {label: types[label]}, _LABEL_ROWS)[label].drop_null()
    different = len(pc.unique(labels))
    if different <= _MANY_LABELS or different * _ROWS_PER_LABEL <= len(labels):
        return []
    return [
        f"the label column {label!r} has {different:,} different values in {len(labels):,} rows, and a label is "
        "learned from the rows that share it; of numbers make ranges first, such as low and high, or name another "
        "column"
    ]


TermKind = Literal["words", "characters", "words_and_characters"]
# Blocks of Unicode whose scripts put no spaces between words: Thai and Lao, Tibetan, Myanmar, Khmer, kana, Han.
_WITHOUT_SPACES = (
    (0x0E00, 0x0EFF),
    (0x0F00, 0x0FFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3040, 0x30FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),
    (0x20000, 0x323AF),
)
# From so many of all characters that are no space on.
_MOSTLY, _PARTLY = 0.5, 0.1
_FEW_WORDS = 2.0
_SAMPLED_TEXTS, _SAMPLED_CHARACTERS = 20_000, 1_000


def term_choice(shards: Sequence[Shard], reading: TableReading, column: str) -> ColumnChoice:
    """Which terms suit texts, a TermKind: `words` with sequences of three characters and more, the usual; shorter
    sequences of characters beside them; or these alone.

    The labels have no part in it.

    Args:
        shards: of the data.
        reading: of the files.
        column: of the texts.
    """
    sample = _sample(shards, reading, {column: TEXT}, _SAMPLED_TEXTS)[column].drop_null()
    texts = [text.decode("utf-8", "replace")[:_SAMPLED_CHARACTERS] for text in pc.cast(sample, pa.binary()).to_pylist()]
    return choice_of_terms(texts)


def choice_of_terms(texts: Sequence[str]) -> ColumnChoice:
    """The same of some texts."""
    words = [word for text in texts for word in text.split()]
    points = np.frombuffer("".join(words).encode("utf-32-le", "replace"), np.uint32)
    share = float(sum(((points >= first) & (points <= last)).sum() for first, last in _WITHOUT_SPACES))
    share /= max(len(points), 1)
    said = f"{share:.0%} of the characters are of scripts that put no spaces between words"
    if share >= _MOSTLY:
        return ColumnChoice("characters", said)
    if share >= _PARTLY:
        return ColumnChoice("words_and_characters", said)
    of_each = len(words) / max(sum(bool(text.strip()) for text in texts), 1)
    if of_each < _FEW_WORDS:
        return ColumnChoice("words_and_characters", f"a text has {of_each:.1f} words in the mean")
    return ColumnChoice("words", f"a text has {of_each:.0f} words in the mean, with spaces between them")
