"""How tables are read, and which of their rows are held out."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

TRAIN, EVAL, TEST = "train", "eval", "test"
# The pattern of all tables in a folder, whatever else is in it.
WHOLE_FOLDER = "*"
TableFormat = Literal["csv", "tsv", "jsonl", "parquet", "tfrecord"]

_ASCII = '"\r\n,;\t{}:'


class TableReading(BaseModel):
    """How the files of a table are read.

    Attributes:
        format: of the files; None where the endings of their names say it, see sources.format_of.
        delimiter: between the fields of a CSV file.
        header: the names of the columns of CSV and TSV files whose first line is a row; () where it names them.
        encoding: of CSV, TSV and JSON lines, as Python names it.
        decimal: what stands before the decimals of a number, in CSV and TSV.
        thousands: what stands between groups of three digits, in CSV and TSV; None for nothing.
        missing: what stands where there is no value, beside an empty field.
        strip: whether blanks around a value of text are no part of it.
        as_text: whether every value is taken as text, as it is written.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: TableFormat | None = None
    delimiter: str | None = Field(None, min_length=1, max_length=1)
    header: tuple[str, ...] = ()
    encoding: str = "utf-8"
    decimal: Literal[".", ","] = "."
    thousands: Literal[".", ",", " ", "'"] | None = None
    missing: tuple[str, ...] = ()
    strip: bool = True
    as_text: bool = False

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str) -> str:
        try:
            name = codecs.lookup(encoding).name
        except LookupError:
            raise ValueError(f"Python knows no encoding {encoding!r}; utf-8, latin-1 and cp1252 are common") from None
        if _ASCII.encode(name) != _ASCII.encode("ascii"):
            raise ValueError(f"files in {name} cannot be divided into rows; convert them to utf-8")
        return name

    @field_validator("header")
    @classmethod
    def _different_names(cls, header: tuple[str, ...]) -> tuple[str, ...]:
        twice = [name for name in header if header.count(name) > 1]
        if twice:
            raise ValueError(f"header: names the column {twice[0]!r} more than once")
        return header

    @model_validator(mode="after")
    def _check(self) -> TableReading:
        if self.decimal == self.thousands:
            raise ValueError(f"decimal and thousands are both {self.decimal!r}; a number could not be told")
        return self

    def grouped_number(self) -> str:
        """A regular expression of numbers between whose digits may stand `thousands`."""
        thousands, decimal = re.escape(self.thousands or ""), re.escape(self.decimal)
        return rf"^\s*[+-]?(\d{{1,3}}({thousands}\d{{3}})+|\d+)({decimal}\d*)?\s*$"


class SplitOptions(BaseModel):
    """How rows are told apart: one of these.

    Attributes:
        by: `hash` of each row, so that it stays where it is when others come.
        time: a column of times or numbers: the newest rows are held out.
        group: a column: rows with the same value there stay together, by its hash.
        column: a column that says the split of each row: train, eval or test.
        files: split -> its files; relative to the config file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: Literal["hash"] | None = None
    time: str | None = Field(None, min_length=1)
    group: str | None = Field(None, min_length=1)
    column: str | None = Field(None, min_length=1)
    files: dict[Literal["train", "eval", "test"], str] | None = None

    @model_validator(mode="after")
    def _check(self) -> SplitOptions:
        given = [name for name, value in self if value is not None]
        if len(given) > 1:
            raise ValueError(f"expected one way to split, received {', '.join(given)}")
        if self.files is not None and not {TRAIN, EVAL} <= set(self.files):
            raise ValueError(f"files: expected files for train and eval, received {', '.join(self.files) or 'none'}")
        return self

    def named_columns(self) -> dict[str, str]:
        """Column -> the key that names it."""
        keys = {key: getattr(self, key) for key in ("time", "group", "column")}
        return {column: f"data.split.{key}" for key, column in keys.items() if column}


class Ingestion(BaseModel):
    """What an ExampleGen does with the rows of files.

    Attributes:
        reading: how the files are read.
        split: how the rows are told apart.
        eval_share: the share that is held out for gates, from 0 to 1.
        test_share: the share that is held out for the report alone; 0 for none.
        text_column: whose near-duplicates stay in one split; None for no such column.
        split_of_input: whether each split of the input is one of the output; the other options say nothing then.
        columns_differ: whether files may lack columns of others; what they lack is missing.
        sample: how many rows of each split are kept at most; None for all.
        label: the column whose values all stay in a sample.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reading: TableReading = TableReading()
    split: SplitOptions = SplitOptions()
    eval_share: float = Field(0.2, gt=0, lt=1)
    test_share: float = Field(0.0, ge=0, lt=1)
    text_column: str | None = None
    split_of_input: bool = False
    columns_differ: bool = False
    sample: int | None = Field(None, ge=1)
    label: str = ""

    def splits(self, inputs: Sequence[str]) -> list[str]:
        """Names of the splits, by those of the input."""
        return list(inputs) if self.split_of_input else [TRAIN, EVAL, *([TEST] if self.test_share else [])]
