"""What a config says about the label."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator, model_validator


class LabelOptions(BaseModel):
    """The label column, the names people read, and the order of the classes.

    Attributes:
        column: the column (feature) that holds the label.
        names: what to call a raw value, `{"1": "disease"}`; values not listed keep their own text.
        order: the labels in vocabulary order; lexicographic where empty. Never by frequency: a label's number must not
            move when data grows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    column: str
    names: dict[str, str] = {}
    order: tuple[str, ...] = ()

    @field_validator("names", "order", mode="before")
    @classmethod
    def _refuse_booleans(cls, labels: Any) -> Any:
        texts = [*labels, *labels.values()] if isinstance(labels, dict) else labels
        if isinstance(texts, list | tuple) and any(isinstance(text, bool) for text in texts):
            raise ValueError("YAML reads an unquoted yes, no, on or off as true or false; put the label in quotes")
        return labels

    @model_validator(mode="after")
    def _check(self) -> LabelOptions:
        if len(set(self.order)) != len(self.order):
            raise ValueError(f"order lists a label twice: {list(self.order)}")
        unknown = sorted(set(self.names.values()) - set(self.order)) if self.order else []
        if unknown:
            raise ValueError(f"names gives {unknown[0]!r}, which order does not list; add it to order")
        return self
