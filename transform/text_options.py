"""How a column of text is preprocessed."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from transform.label_options import LabelOptions

Features = Literal["terms", "sequence", "text"]
Ranking = Literal["frequency", "information_gain"]
LONGEST_SEQUENCE_OF_CHARACTERS = 8


class TextOptions(BaseModel):
    """Preprocessing of texts: normalised, and cut into n-grams.

    Attributes:
        label: the label column.
        column: the column that holds the text.
        word_ngrams: the longest sequence of words that is a term of its own; 0 for no words at all.
        character_ngrams: the shortest and the longest sequence of characters that is a term, `[3, 5]`; for spelling
            that varies, and for languages that put no spaces between words; null for none.
        vocabulary: which terms are known where there are more than `maximum_terms`: the most frequent ones, or those
            that tell most about the class.
        minimum_term_count: how many texts of the training data must have a term for it to be known.
        maximum_terms: how many terms are known at most.
        maximum_length: how many terms of one text count at most, the first ones; different known ones, or in a
            sequence, all.
        maximum_bytes: how much of a text counts at most, in bytes of UTF-8.
        features: what becomes of the terms, which the model decides about: `terms`, weighted by tf-idf; `sequence`,
            single words or characters in their order; `text`, none, a model takes the text itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: LabelOptions
    column: str = "text"
    word_ngrams: int = Field(2, ge=0, le=5)
    character_ngrams: tuple[int, int] | None = (3, 5)
    vocabulary: Ranking = "frequency"
    minimum_term_count: int = Field(2, ge=1)
    maximum_terms: int = Field(200_000, ge=1)
    maximum_length: int = Field(1024, ge=1)
    maximum_bytes: int = Field(65_536, ge=4)
    features: Features = "terms"

    @model_validator(mode="after")
    def _check(self) -> TextOptions:
        if self.column == self.label.column:
            raise ValueError(f"column and label.column are both {self.column!r}; a label is no text to learn from")
        if self.character_ngrams is not None:
            shortest, longest = self.character_ngrams
            if not 1 <= shortest <= longest <= LONGEST_SEQUENCE_OF_CHARACTERS:
                raise ValueError(
                    f"character_ngrams is [shortest, longest], 1 to {LONGEST_SEQUENCE_OF_CHARACTERS}, "
                    f"received {list(self.character_ngrams)}"
                )
        if not self.word_ngrams and self.character_ngrams is None:
            raise ValueError("word_ngrams is 0 and character_ngrams is not given: no terms are left; give one of them")
        return self

    def completed(self, features: Features) -> TextOptions:
        """These options for a model that takes `features`.

        Raises:
            ValueError: an option contradicts them.
        """
        if self.features != features and "features" in self.model_fields_set:
            raise ValueError(f"preprocessing.features is {self.features!r}, the model takes {features!r}; leave it out")
        if features == "sequence":
            return self._completed_sequence()
        return self.model_copy(update={"features": features})

    def _completed_sequence(self) -> TextOptions:
        """One kind of token: words, or where these are switched off, characters."""
        given = self.model_fields_set
        words = self.word_ngrams if "word_ngrams" in given else int("character_ngrams" not in given)
        characters = self.character_ngrams if "character_ngrams" in given else (None if words else (1, 1))
        if words > 1 or (words and characters) or (characters and characters[0] != characters[1]):
            raise ValueError(
                "a sequence is made of tokens of one kind: words (preprocessing.word_ngrams: 1) or characters "
                "(word_ngrams: 0, character_ngrams: [1, 1])"
            )
        return self.model_copy(update={"features": "sequence", "word_ngrams": words, "character_ngrams": characters})

    def named_columns(self) -> dict[str, str]:
        """Column -> the key that names it."""
        return {self.label.column: "label.column", self.column: "column"}

    def numeric_columns(self) -> dict[str, str]:
        """Column -> its kind; a text holds no numbers."""
        return {}

    def renamed_inputs(self) -> dict[str, str]:
        """Input of the signatures -> the column behind it, where the two have different names."""
        return {"text": self.column} if self.column != "text" else {}
