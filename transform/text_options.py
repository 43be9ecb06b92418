"""How a column of text is preprocessed."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from transform.label_options import LabelOptions


class TextOptions(BaseModel):
    """Preprocessing of texts: normalised, cut into n-grams, the known ones weighted by tf-idf.

    Attributes:
        label: the label column.
        column: the column that holds the text.
        word_ngrams: the longest sequence of words that is a term of its own; 0 for no words at all.
        character_ngrams: the shortest and the longest sequence of characters that is a term, `[2, 3]`; for languages
            that put no spaces between words, or for spelling that varies.
        minimum_term_count: how often a term must occur in the training data to be known.
        maximum_terms: how many terms are known at most; the most frequent ones.
        maximum_length: how many different known terms of one text count at most; the first ones.
        maximum_bytes: how much of a text counts at most, in bytes of UTF-8.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: LabelOptions
    column: str = "text"
    word_ngrams: int = Field(2, ge=0, le=5)
    character_ngrams: tuple[int, int] | None = None
    minimum_term_count: int = Field(2, ge=1)
    maximum_terms: int = Field(100_000, ge=1)
    maximum_length: int = Field(256, ge=1)
    maximum_bytes: int = Field(65_536, ge=4)

    @model_validator(mode="after")
    def _check(self) -> TextOptions:
        if self.column == self.label.column:
            raise ValueError(f"column and label.column are both {self.column!r}; a label is no text to learn from")
        if self.character_ngrams is not None and not 1 <= self.character_ngrams[0] <= self.character_ngrams[1] <= 8:
            raise ValueError(f"character_ngrams is [shortest, longest], 1 to 8, received {list(self.character_ngrams)}")
        if not self.word_ngrams and self.character_ngrams is None:
            raise ValueError("word_ngrams is 0 and character_ngrams is not given: no terms are left; give one of them")
        return self

    def named_columns(self) -> dict[str, str]:
        """Column -> the key that names it."""
        return {self.label.column: "label.column", self.column: "column"}

    def numeric_columns(self) -> dict[str, str]:
        """Column -> its kind; a text holds no numbers."""
        return {}

    def renamed_inputs(self) -> dict[str, str]:
        """Input of the signatures -> the column behind it, where the two have different names."""
        return {"text": self.column} if self.column != "text" else {}
