"""Facts about a table as a whole: what its rows have to be written with, found in shards and merged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.errors import BrokenInput
from components.table_example_gen.options import Ingestion
from components.table_example_gen.serialization import NOTHING, TEXT, common_type, example_column, example_type
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
