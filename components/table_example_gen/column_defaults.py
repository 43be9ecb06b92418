"""Defaults of columns: what a table's columns hold, and which kind of preprocessing suits each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.table_example_gen.options import TableReading
from components.table_example_gen.serialization import NUMBER, TEXT, WHOLE
from components.table_example_gen.sources import Shard, shard_batches

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
_WORDS_OF_A_SENTENCE = 4.0
_MOST_CATEGORIES = 5_000
_SHARE_OF_DATES = 0.95
_SKEWNESS = 5.0
_ISO_DATE = r"^\s*\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}.*)?\s*$"
_TRUTH_VALUES = {frozenset(pair) for pair in (("true", "false"), ("yes", "no"), ("y", "n"), ("t", "f"), ("on", "off"))}


@dataclass(frozen=True)
class ColumnChoice:
    """What happens to a column of which the config says nothing.

    Attributes:
        kind: of preprocessing.columns.
        reason: why, for a person; "" where it is what its type has by default.
    """

    kind: str
    reason: str = ""


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
    words = pc.mean(pc.add(pc.count_substring(pc.utf8_trim_whitespace(texts), " "), 1)).as_py()
    mostly_different = len(different) > len(texts) / 2
    if mostly_different and words >= _WORDS_OF_A_SENTENCE:
        return ColumnChoice("text", f"sentences of {words:.0f} words")
    if len(different) == len(texts) >= _ROWS_OF_AN_ID:
        return ColumnChoice("ignored", "every value is different, as in an identifier")
    if len(different) > _MOST_CATEGORIES:
        return ColumnChoice("hash", f"{len(different):,} different values")
    return None


def _choice_of_whole_numbers(name: str, numbers: pa.Array) -> ColumnChoice | None:
    different = len(pc.unique(numbers))
    if different == len(numbers) >= _ROWS_OF_AN_ID:
        limits = pc.min_max(numbers).as_py()
        dense = len(numbers) >= _DENSITY_OF_AN_ID * (limits["max"] - limits["min"] + 1)
        if dense or name.lower() == "id" or name.lower().endswith(("_id", " id", "-id")):
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


def choices_line(choices: Mapping[str, ColumnChoice]) -> str:
    """The choices for a person, those of a kind together; "" where there are none."""
    kinds: dict[str, list[str]] = {}
    for name, choice in choices.items():
        if choice.kind != "ignored":
            kinds.setdefault(choice.kind, []).append(name)
    return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items())


def left_out_warnings(choices: Mapping[str, ColumnChoice]) -> list[str]:
    """A sentence for each column that is left out."""
    return [
        f"the column {name!r} is left out: {choice.reason}; `preprocessing.columns: {{{name}: …}}` takes it in"
        for name, choice in choices.items()
        if choice.kind == "ignored"
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
