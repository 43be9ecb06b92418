"""How the columns of a table are preprocessed."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from transform.label_options import LabelOptions

Kind = Literal["z_score", "quantiles", "boundaries", "categorical", "ignored"]
NUMERIC_KINDS = ("z_score", "quantiles", "boundaries")


class Column(BaseModel):
    """How one column is preprocessed.

    Attributes:
        kind: `z_score` (a number, scaled to mean 0 and variance 1), `quantiles` (a number, cut into `buckets` of equal
            count), `boundaries` (a number, cut at given `boundaries`), `categorical`, or `ignored`.
        buckets: how many buckets `quantiles` makes.
        boundaries: where `boundaries` cuts, ascending; a value on a boundary belongs to the bucket above it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    buckets: int | None = Field(None, ge=2)
    boundaries: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Column:
        if (self.kind == "quantiles") != (self.buckets is not None):
            raise ValueError("buckets goes with kind: quantiles, and only with it")
        if (self.kind == "boundaries") != bool(self.boundaries):
            raise ValueError("boundaries goes with kind: boundaries, and only with it")
        if list(self.boundaries) != sorted(set(self.boundaries)):
            raise ValueError(f"boundaries must ascend, received {list(self.boundaries)}")
        return self


class TabularOptions(BaseModel):
    """Preprocessing of a table; columns that are not listed follow their type in the schema.

    Attributes:
        label: the label column.
        columns: what to do with a column; numbers are `z_score` and strings `categorical` where nothing is said.
            A kind alone may stand for the whole: `sex: categorical`.
        crosses: groups of columns whose combinations of values are categories of their own.
        minimum_category_count: how often a category must occur in the training data to be known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: LabelOptions
    columns: dict[str, Column] = {}
    crosses: tuple[tuple[str, ...], ...] = ()
    minimum_category_count: int = Field(2, ge=1)

    @field_validator("columns", mode="before")
    @classmethod
    def _expand_kinds(cls, columns: Any) -> Any:
        if not isinstance(columns, dict):
            return columns
        return {name: {"kind": column} if isinstance(column, str) else column for name, column in columns.items()}

    @model_validator(mode="after")
    def _check(self) -> TabularOptions:
        if self.label.column in self.columns:
            raise ValueError(f"columns lists the label {self.label.column!r}; a label is not a feature")
        for cross in self.crosses:
            if len(cross) < 2:
                raise ValueError(f"a cross takes two columns or more, received {list(cross)}")
            for name in cross:
                column = self.columns.get(name)
                if column is not None and column.kind in ("z_score", "ignored"):
                    raise ValueError(
                        f"crosses names {name!r}, which is {column.kind}; it must be a category or buckets"
                    )
        return self

    def named_columns(self) -> dict[str, str]:
        """Column -> the key that names it."""
        crossed = {name: "crosses" for cross in self.crosses for name in cross}
        return {self.label.column: "label.column"} | {name: f"columns.{name}" for name in self.columns} | crossed

    def numeric_columns(self) -> dict[str, str]:
        """Column -> its kind, of those that must hold numbers."""
        return {name: column.kind for name, column in self.columns.items() if column.kind in NUMERIC_KINDS}

    def renamed_inputs(self) -> dict[str, str]:
        """Input of the signatures -> the column behind it: each column is an input of its own name."""
        return {}
