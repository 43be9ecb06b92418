"""Options of preprocessing: the label, the columns of a table, texts, images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from transform.columns import CROSSED_KINDS, Column


class LabelOptions(BaseModel):
    """The label column, the names people read, and the order of the classes.

    Attributes:
        column: the column (feature) that holds the label.
        names: what to call a raw value, `{"1": "disease"}`; values not listed keep their own text.
        order: the labels in vocabulary order; lexicographic where empty. Never by frequency: a label's number must not
            move when data grows.
        positive: the label that precision, recall and the like are about, by the name that people read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    column: str
    names: dict[str, str] = {}
    order: tuple[str, ...] = ()
    positive: str | None = None

    @field_validator("names", "order", "positive", mode="before")
    @classmethod
    def _refuse_booleans(cls, labels: Any) -> Any:
        texts = [*labels, *labels.values()] if isinstance(labels, dict) else labels
        texts = [texts] if isinstance(texts, bool) else texts
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
        name = self.names.get(self.positive or "")
        if name is not None and self.positive not in self.names.values():
            raise ValueError(f"positive is {self.positive!r}, which names calls {name!r}; write positive: {name}")
        if self.order:
            self.number_of_positive(self.order)
        return self

    def number_of_positive(self, labels: Sequence[str]) -> int | None:
        """Where the positive label stands among all; None where none is named.

        Raises:
            ValueError: it is not among them.
        """
        if self.positive is None:
            return None
        if self.positive not in labels:
            shown = ", ".join(map(repr, labels[:10])) + (", …" if len(labels) > 10 else "")
            raise ValueError(
                f"preprocessing.label.positive is {self.positive!r}, which is none of the labels {shown}; name one of "
                "them"
            )
        return list(labels).index(self.positive)


class TabularOptions(BaseModel):
    """Preprocessing of a table; columns that are not listed follow their type in the schema.

    Attributes:
        label: the label column.
        columns: what to do with a column; numbers are `z_score` and strings `categorical` where nothing is said.
            A kind alone may stand for the whole: `sex: categorical`.
        crosses: groups of columns whose combinations of values are categories of their own.
        minimum_category_count: how often a category must occur in the training data to be known.
        raw: column -> number or category, of those that a wrapped model takes as they are; it decides about them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: LabelOptions
    columns: dict[str, Column] = {}
    crosses: tuple[tuple[str, ...], ...] = ()
    minimum_category_count: int = Field(2, ge=1)
    raw: dict[str, Literal["number", "category"]] = {}

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
                if column is not None and column.kind not in CROSSED_KINDS:
                    raise ValueError(
                        f"crosses names {name!r}, which is {column.kind}; it must be {' or '.join(CROSSED_KINDS)}"
                    )
        return self

    def without(self, name: str, key: str, what: str) -> TabularOptions:
        """These options with a column left out of the features.

        Args:
            name: of the column.
            key: of the config that names it, for messages.
            what: it is, for messages.

        Raises:
            ValueError: the options make something of it.
        """
        others = self.model_copy(update={"columns": {**self.columns, name: Column(kind="ignored")}})
        used = {column: place for column, place in self.named_columns().items() if column not in self.ignored_columns()}
        if name in used:
            raise ValueError(
                f"{key} is {name!r}, which preprocessing.{used[name]} names; {what} is neither feature nor label: take "
                "it out of one of both"
            )
        return others

    def named_columns(self) -> dict[str, str]:
        """Column -> the key that names it."""
        crossed = {name: "crosses" for cross in self.crosses for name in cross}
        return {self.label.column: "label.column"} | {name: f"columns.{name}" for name in self.columns} | crossed

    def numeric_columns(self) -> dict[str, str]:
        """Column -> its kind, of those that must hold numbers."""
        return {name: column.kind for name, column in self.columns.items() if column.holds_numbers}

    def ignored_columns(self) -> frozenset[str]:
        """Columns of which a model sees nothing, and is asked with nothing."""
        return frozenset(name for name, column in self.columns.items() if column.kind == "ignored")

    def list_separators(self) -> dict[str, str]:
        """Column -> what separates its categories, of those that hold several in a cell."""
        return {name: column.separator for name, column in self.columns.items() if column.separator is not None}

    def renamed_inputs(self) -> dict[str, str]:
        """Input of the signatures -> the column behind it: each column is an input of its own name."""
        return {}


Features = Literal["terms", "sequence", "text", "terms_and_text"]
Ranking = Literal["frequency", "information_gain"]
LONGEST_SEQUENCE_OF_CHARACTERS = 8
# What suits texts -> `word_ngrams` and `character_ngrams`; which of them, says term_choice in
# components/table_example_gen.facts.py.
TERMS: dict[str, tuple[int, tuple[int, int] | None]] = {
    "words": (2, (3, 5)),
    "words_and_characters": (2, (1, 5)),
    "characters": (0, (1, 4)),
}


class TextOptions(BaseModel):
    """Preprocessing of texts: normalised, and cut into n-grams.

    Attributes:
        label: the label column.
        column: the column that holds the text.
        word_ngrams: the longest sequence of words that is a term of its own; 0 for no words at all.
        character_ngrams: the shortest and the longest sequence of characters that is a term, `[3, 5]`; for spelling
            that varies, and for languages that put no spaces between words; null for none. Where a config gives neither
            this nor `word_ngrams`, a run chooses both by the scripts and the number of words of the texts.
        vocabulary: which terms are known where there are more than `maximum_terms`: the most frequent ones, or those
            that tell most about the class.
        minimum_term_count: how many texts of the training data must have a term for it to be known.
        maximum_terms: how many terms are known at most.
        maximum_length: how many terms of one text count at most, the first ones; different known ones, or in a
            sequence, all.
        maximum_bytes: how much of a text counts at most, in bytes of UTF-8.
        features: what becomes of the terms, which the model decides about: `terms`, weighted by tf-idf; `sequence`,
            single words or characters in their order; `text`, none, a model takes the text itself;
            `terms_and_text`, both.
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

    @property
    def leaves_terms_open(self) -> bool:
        """Whether texts are cut into terms, and the options that a config gives do not say into which."""
        return self.features != "text" and not {"word_ngrams", "character_ngrams"} & self.model_fields_set

    def described_terms(self) -> str:
        """What texts are cut into, for a person; "" for nothing."""
        if self.features == "text":
            return ""
        words = {0: "", 1: "words"}.get(self.word_ngrams, f"sequences of up to {self.word_ngrams} words")
        if self.character_ngrams is None:
            return words
        shortest, longest = self.character_ngrams
        length = f"{shortest} to {longest} characters" if shortest < longest else f"{shortest} characters"
        return " and ".join(filter(None, [words, f"sequences of {length}" if longest > 1 else "characters"]))

    def with_terms(self, kind: str) -> TextOptions:
        """These options for texts that such terms suit, see TERMS; a sequence has one kind of token."""
        words, characters = TERMS[kind]
        if self.features == "sequence":
            words, characters = (0, (1, 1)) if kind == "characters" else (1, None)
        return self.model_copy(update={"word_ngrams": words, "character_ngrams": characters})

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
        completed = self.model_copy(
            update={"features": "sequence", "word_ngrams": words, "character_ngrams": characters}
        )
        # What follows from the model is not what a config gives.
        object.__setattr__(completed, "__pydantic_fields_set__", {*given, "features"})
        return completed

    def named_columns(self) -> dict[str, str]:
        """Column -> the key that names it."""
        return {self.label.column: "label.column", self.column: "column"}

    def numeric_columns(self) -> dict[str, str]:
        """Column -> its kind; a text holds no numbers."""
        return {}

    def renamed_inputs(self) -> dict[str, str]:
        """Input of the signatures -> the column behind it, where the two have different names."""
        return {"text": self.column} if self.column != "text" else {}


Scaling = Literal["minus_one_to_one", "zero_to_one", "raw"]


@dataclass(frozen=True)
class PixelFormat:
    """The pixels that a model takes: height and width, and the range of a colour value; None where nobody knows it."""

    height: int
    width: int
    scaling: Scaling | None


class ImageOptions(BaseModel):
    """Preprocessing of photos: decoded, resized, scaled to what the model expects.

    Attributes:
        label: the label column.
        height: of what the model sees, in pixels.
        width: of what the model sees, in pixels; the aspect ratio of a photo is not kept.
        scaling: the range of a colour value: [-1, 1], [0, 1], or [0, 255] for `raw`.
        antialias: whether each pixel of a photo that is shrunk is the mean of those that it stands for, so that photos
            of one scene from different cameras look alike; otherwise of the nearest four, whatever lies between them.
        align_corners: whether the centres of the corner pixels stay the corners, as TensorFlow.js and TensorFlow 1
            resize where a model asks for it; without antialiasing.
        max_pixels: the largest photo that is decoded, by the size that its header declares: a small file can declare
            an enormous one. Decoding takes three bytes per pixel, up to nine for a progressive JPEG.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: LabelOptions = LabelOptions(column="label")
    height: int = Field(299, ge=1)
    width: int = Field(299, ge=1)
    scaling: Scaling = "minus_one_to_one"
    antialias: bool = True
    align_corners: bool = False
    max_pixels: int = Field(50_000_000, ge=1)

    @model_validator(mode="after")
    def _check_resizing(self) -> ImageOptions:
        if self.align_corners and self.antialias:
            if "antialias" in self.model_fields_set:
                raise ValueError(
                    "align_corners and antialias are both given: whoever aligns corners does not antialias"
                )
            object.__setattr__(self, "antialias", False)
        return self

    def completed(self, expected: PixelFormat, labels: tuple[str, ...]) -> ImageOptions:
        """These options, with what a model expects where nothing was given.

        Args:
            expected: the pixels that the model was made for.
            labels: its labels in the order of its probabilities; () where the data decide about them.

        Raises:
            ValueError: neither says what range of colours the model takes.
        """
        pixels = {name: value for name, value in asdict(expected).items() if name not in self.model_fields_set}
        if pixels.get("scaling", "given") is None:
            raise ValueError(
                "preprocessing.scaling is missing, and nothing that can be read of trainer.classifier says which range "
                "of colours it was trained with: expected minus_one_to_one, zero_to_one or raw (0 to 255); see how it "
                "was trained, or give any and labelled photos, and the run says which fits"
            )
        label = self.label.model_copy(update={} if self.label.order else {"order": labels})
        return self.model_copy(update={**pixels, "label": label})

    def renamed_inputs(self) -> dict[str, str]:
        """Signature input -> the feature it takes, where their names differ."""
        return {"image_bytes": "image"}
