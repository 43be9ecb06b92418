"""BERT's WordPiece tokenizer in core TensorFlow operations: texts in, the numbers of pieces out."""

from __future__ import annotations

import json
import re
import string
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import tensorflow as tf

from transform.errors import PreprocessingError
from transform.text_normalization import Mapping as CodePointMapping
from transform.text_normalization import code_point_mapping, readable_text, replaced_code_points

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
VOCABULARY_FILE = "vocab.txt"


@dataclass(frozen=True)
class WordPiece:
    """What a WordPiece tokenizer does.

    Attributes:
        vocabulary: piece -> its number.
        lowercase: whether capitals are told apart from small letters (False) or not.
        strip_accents: whether marks are dropped after canonical decomposition.
        space_ideographs: whether each Chinese character is a word of its own.
        special: pieces that a text may name as they are, `[MASK]` for example.
        unknown: the piece that stands for a word that cannot be put together.
        first: the piece before each text.
        last: the piece behind it.
        prefix: of the pieces that continue a word.
        longest_word: words of more characters are unknown.
    """

    vocabulary: Mapping[str, int]
    lowercase: bool = True
    strip_accents: bool = True
    space_ideographs: bool = True
    special: tuple[str, ...] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    unknown: str = "[UNK]"
    first: str = "[CLS]"
    last: str = "[SEP]"
    prefix: str = "##"
    longest_word: int = 100

    @property
    def size(self) -> int:
        """The greatest number of a piece, and one."""
        return max(self.vocabulary.values()) + 1


def read_wordpiece(folder: str) -> WordPiece:
    """The tokenizer of a folder in Hugging Face's layout: tokenizer.json, or vocab.txt and tokenizer_config.json.

    Args:
        folder: local, or in an object store.

    Raises:
        PreprocessingError: there is neither, or the tokenizer is not BERT's.
    """
    if tf.io.gfile.exists(f"{folder}/{TOKENIZER_FILE}"):
        tokenizer = _of_tokenizer_file(f"{folder}/{TOKENIZER_FILE}")
    elif tf.io.gfile.exists(f"{folder}/{VOCABULARY_FILE}"):
        tokenizer = _of_vocabulary_file(folder)
    else:
        raise PreprocessingError(
            f"{folder} has neither {TOKENIZER_FILE} nor {VOCABULARY_FILE}; expected a folder in Hugging Face's layout, "
            "with one of both beside config.json"
        )
    for piece in (tokenizer.unknown, tokenizer.first, tokenizer.last):
        if piece not in tokenizer.vocabulary:
            raise PreprocessingError(
                f"{folder}: the vocabulary of {len(tokenizer.vocabulary):,} pieces has no {piece!r}, which its "
                "tokenizer puts in; expected the vocabulary of a BERT encoder: take the folder's files from one model"
            )
    return tokenizer


def _of_tokenizer_file(path: str) -> WordPiece:
    content = _read_json(path)
    model, normalizer = content.get("model") or {}, content.get("normalizer") or {}
    found = [model.get("type"), normalizer.get("type"), (content.get("pre_tokenizer") or {}).get("type")]
    if found != ["WordPiece", "BertNormalizer", "BertPreTokenizer"]:
        raise PreprocessingError(
            f"{path} is the tokenizer {', '.join(map(str, found))}; expected WordPiece with BertNormalizer and "
            "BertPreTokenizer: choose an encoder of the BERT family"
        )
    if not normalizer.get("clean_text", True):
        raise PreprocessingError(f"{path}: the normalizer has clean_text false, expected true: choose another encoder")
    added = content.get("added_tokens") or []
    for token in added:
        if any(token.get(flag) for flag in ("normalized", "lstrip", "rstrip", "single_word")):
            raise PreprocessingError(
                f"{path}: the added token {token.get('content')!r} is looked for in normalised text or with spaces; "
                "expected special tokens that stand as they are: take it out, or choose another encoder"
            )
    lowercase, strip = bool(normalizer.get("lowercase", True)), normalizer.get("strip_accents")
    first, last = _template(content.get("post_processor") or {})
    return WordPiece(
        vocabulary={**model["vocab"], **{token["content"]: token["id"] for token in added}},
        lowercase=lowercase,
        strip_accents=lowercase if strip is None else bool(strip),
        space_ideographs=bool(normalizer.get("handle_chinese_chars", True)),
        special=tuple(token["content"] for token in added),
        unknown=model.get("unk_token", WordPiece.unknown),
        first=first,
        last=last,
        prefix=model.get("continuing_subword_prefix", WordPiece.prefix),
        longest_word=model.get("max_input_chars_per_word", WordPiece.longest_word),
    )


def _template(processor: Mapping[str, Any]) -> tuple[str, str]:
    """The pieces before and behind a text."""
    if processor.get("type") == "BertProcessing":
        return processor["cls"][0], processor["sep"][0]
    special = [part["SpecialToken"]["id"] for part in processor.get("single", []) if "SpecialToken" in part]
    return (special[0], special[1]) if len(special) == 2 else (WordPiece.first, WordPiece.last)


def _of_vocabulary_file(folder: str) -> WordPiece:
    with tf.io.gfile.GFile(f"{folder}/{VOCABULARY_FILE}", "rb") as file:
        lines = file.read().decode("utf-8").split("\n")
    pieces = [line.rstrip("\r") for line in (lines[:-1] if not lines[-1] else lines)]
    path = f"{folder}/{TOKENIZER_CONFIG_FILE}"
    config = _read_json(path) if tf.io.gfile.exists(path) else {}
    lowercase, strip = bool(config.get("do_lower_case", True)), config.get("strip_accents")
    names = {role: _content(config.get(f"{role}_token")) for role in ("pad", "unk", "cls", "sep", "mask")}
    named = {role: name or f"[{role.upper()}]" for role, name in names.items()}
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return WordPiece(
        vocabulary=vocabulary,
        lowercase=lowercase,
        strip_accents=lowercase if strip is None else bool(strip),
        space_ideographs=bool(config.get("tokenize_chinese_chars", True)),
        special=tuple(name for name in named.values() if name in vocabulary),
        unknown=named["unk"],
        first=named["cls"],
        last=named["sep"],
    )


def _content(token: Any) -> str:
    return token.get("content", "") if isinstance(token, dict) else token or ""


def _read_json(path: str) -> dict[str, Any]:
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            content: dict[str, Any] = json.loads(file.read())
    except ValueError as error:
        raise PreprocessingError(f"{path} is no JSON ({error}); take the file anew from where it came") from error
    return content


# The ideographs that are words of their own, as BERT's and the tokenizers package's ranges have them.
IDEOGRAPHS = (
    r"([\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2B73F}\x{2B740}-\x{2B81F}"
    r"\x{2B920}-\x{2CEAF}\x{F900}-\x{FAFF}\x{2F800}-\x{2FA1F}])"
)
# The tokenizers package has Unicode's tables as they were in 2015: these marks, format controls and punctuation, which
# came or changed since, are letters to it. They have to be to us, or a model would read other pieces than it learned.
_LETTERS_THEN = """
61D 7FD 890-891 898-89F 8CA-8E2 9FD-9FE A76 AFA-AFF B55 C04 C3C C77 C84 D00 D3B-D3C D81 EBA 180F 1885-1886 1ABF-1ACE
1B7D-1B7E 1DF6-1DFB 2E43-2E4F 2E52-2E5D A82C A8C5 A8FF A9BD 10D24-10D27 10EAB-10EAD 10F46-10F50 10F55-10F59 10F82-10F89
11070 11073-11074 110C2 110CD 111CF 1123E 1133B 11438-1143F 11442-11444 11446 1144B-1144F 1145A-1145B 1145D-1145E
11660-1166C 116B9 1182F-11837 11839-1183B 1193B-1193C 1193E 11943-11946 119D4-119D7 119DA-119DB 119E0 119E2 11A01-11A0A
11A33-11A38 11A3B-11A47 11A51-11A56 11A59-11A5B 11A8A-11A96 11A98-11A9C 11A9E-11AA2 11C30-11C36 11C38-11C3D 11C3F
11C41-11C45 11C70-11C71 11C92-11CA7 11CAA-11CB0 11CB2-11CB3 11CB5-11CB6 11D31-11D36 11D3A 11D3C-11D3D 11D3F-11D45 11D47
11D90-11D91 11D95 11D97 11EF3-11EF4 11EF7-11EF8 11FFF 12FF1-12FF2 13430-13438 16E97-16E9A 16F4F 16FE2 16FE4 1CF00-1CF2D
1CF30-1CF46 1E000-1E006 1E008-1E018 1E01B-1E021 1E023-1E024 1E026-1E02A 1E130-1E136 1E2AE 1E2EC-1E2EF 1E944-1E94A
1E95E-1E95F
"""
_PUNCTUATION_THEN, _MARK_THEN = "\u166d\U000111c9", "\u1734"


@cache
def _letters_then() -> frozenset[str]:
    ranges = [[int(end, 16) for end in part.split("-")] for part in _LETTERS_THEN.split()]
    return frozenset(chr(code_point) for ends in ranges for code_point in range(ends[0], ends[-1] + 1))


@cache
def bert_mapping(lowercase: bool, strip_accents: bool) -> CodePointMapping:
    """What BERT's normalisation makes of each code point by itself, punctuation set apart by spaces.

    Control and format characters, those for private use, NUL and U+FFFD are dropped; white space is a space. Marks
    are not reordered before they are dropped, which changes nothing but the order of spacing marks.
    """
    letters = _letters_then()

    def kept(character: str) -> bool:
        is_mark = unicodedata.category(character) == "Mn" or character == _MARK_THEN
        return not is_mark or character in letters or character in _PUNCTUATION_THEN

    def spaced(character: str) -> str:
        is_punctuation = unicodedata.category(character)[0] == "P" and character not in letters
        apart = is_punctuation or character in string.punctuation or character in _PUNCTUATION_THEN
        return f" {character} " if apart else character

    def replacement_of(character: str) -> str:
        if character in " \t\n\r":
            return " "
        if character in "\0\ufffd" or (
            unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs") and character not in letters
        ):
            return ""
        if character.isspace():
            return " "
        if strip_accents:
            character = "".join(filter(kept, unicodedata.normalize("NFD", character)))
        if lowercase:
            # Letter by letter: a capital sigma becomes a plain one at the end of a word, too.
            character = "".join(letter.lower() for letter in character)
        return "".join(map(spaced, character))

    return code_point_mapping(replacement_of)


# Code points that Unicode keeps from being characters; they stand for the special pieces a text names.
_FIRST_STAND_IN, _LAST_STAND_IN = 0xFDD0, 0xFDEF


class WordPieceTokenizer(tf.Module):
    """Texts to the numbers of pieces, as the tokenizers package numbers them; its tables go into an export with it.

    Args:
        tokenizer: its vocabulary and rules.

    Raises:
        PreprocessingError: there are more special pieces than can be told apart.
    """

    def __init__(self, tokenizer: WordPiece) -> None:
        super().__init__(name="wordpiece")
        if len(tokenizer.special) > _LAST_STAND_IN - _FIRST_STAND_IN:
            raise PreprocessingError(
                f"the tokenizer has {len(tokenizer.special)} special tokens, expected at most "
                f"{_LAST_STAND_IN - _FIRST_STAND_IN}: take some out of added_tokens"
            )
        self._rules = tokenizer
        numbers = tokenizer.vocabulary
        self._stand_ins = {
            piece: chr(_FIRST_STAND_IN + place)
            for place, piece in enumerate(sorted(tokenizer.special, key=len, reverse=True))
        }
        continuing = {
            piece.removeprefix(tokenizer.prefix): number
            for piece, number in numbers.items()
            if piece.startswith(tokenizer.prefix) and piece != tokenizer.prefix
        }
        self._continuing_sizes = _sizes(continuing)
        self._starting_sizes = _sizes(numbers)
        self._starting = _table({**numbers, **{stand_in: numbers[of] for of, stand_in in self._stand_ins.items()}})
        self._continuing = _table(continuing)
        self._unknown, self._first, self._last = (
            numbers[piece] for piece in (tokenizer.unknown, tokenizer.first, tokenizer.last)
        )
        # Traced once for all graphs that cut texts, as that takes a second. It hides behind a lambda, since an export
        # would take a function among the attributes along as well.
        function = tf.function(self._numbers, autograph=False, reduce_retracing=True)
        self._traced = lambda *arguments: function(*arguments)

    def __call__(self, texts: tf.Tensor, maximum_length: int, maximum_bytes: int = 65_536) -> tf.RaggedTensor:
        """int32 [batch, n]: the numbers of the pieces of texts, string [batch], with those before and behind.

        Args:
            texts: any bytes; those that are no UTF-8 count for nothing.
            maximum_length: how many pieces of a text there are at most, those before and behind included.
            maximum_bytes: of a text, what follows after so many is dropped.
        """
        number = self._numbers if tf.executing_eagerly() else self._traced
        pieces: tf.RaggedTensor = number(texts, maximum_length, maximum_bytes)
        return pieces

    def _numbers(self, texts: tf.Tensor, maximum_length: int, maximum_bytes: int) -> tf.RaggedTensor:
        words = self.words(texts, maximum_bytes)
        # Each is one piece at least.
        words = words[:, : maximum_length - 2]
        distinct, places = tf.unique(words.flat_values)
        pieces = tf.gather(self._pieces(distinct), words.with_flat_values(places))
        pieces = pieces.merge_dims(1, 2)[:, : maximum_length - 2]
        ends = tf.ones([pieces.nrows(), 1], tf.int32)
        return tf.concat([ends * self._first, pieces, ends * self._last], axis=1)

    @property
    def around(self) -> tuple[int, int]:
        """The numbers of the pieces before and behind each text."""
        return self._first, self._last

    def words(self, texts: tf.Tensor, maximum_bytes: int = 65_536) -> tf.RaggedTensor:
        """string [batch, n]: the words of texts, normalised; one of special pieces is the stand-in for it."""
        texts = readable_text(texts, maximum_bytes)
        texts = tf.strings.regex_replace(
            texts, rf"[\x{{{_FIRST_STAND_IN:X}}}-\x{{{_LAST_STAND_IN:X}}}]", chr(_LAST_STAND_IN)
        )
        for piece, stand_in in self._stand_ins.items():
            texts = tf.strings.regex_replace(texts, re.escape(piece), f" {stand_in} ")
        mapping = bert_mapping(self._rules.lowercase, self._rules.strip_accents)
        code_points = replaced_code_points(tf.strings.unicode_decode(texts, "UTF-8"), mapping)
        texts = tf.strings.unicode_encode(code_points, "UTF-8")
        if self._rules.space_ideographs:
            texts = tf.strings.regex_replace(texts, IDEOGRAPHS, r" \1 ")
        return tf.strings.split(texts)

    def _pieces(self, words: tf.Tensor) -> tf.RaggedTensor:
        """int32 [n, m]: the pieces of words, string [n]: the longest that fits, then the longest of what is left."""
        whole = self._starting.lookup(words)
        too_long = tf.strings.length(words, unit="UTF8_CHAR") > self._rules.longest_word
        whole = tf.where(too_long, self._unknown, whole)
        is_whole = whole >= 0
        cut = self._cut(tf.boolean_mask(words, ~is_whole))
        single = tf.RaggedTensor.from_tensor(tf.boolean_mask(whole, is_whole)[:, None])
        joined = tf.concat([single, cut], axis=0)
        order = tf.concat([tf.where(is_whole)[:, 0], tf.where(~is_whole)[:, 0]], axis=0)
        return tf.gather(joined, tf.math.invert_permutation(order))

    def _cut(self, words: tf.Tensor) -> tf.RaggedTensor:
        """int32 [n, m]: of words that are no piece as a whole."""
        sizes = tf.strings.length(words)
        count = tf.size(words)
        number, taken = _longest(words, tf.zeros_like(sizes), self._starting, self._starting_sizes)
        found = tf.TensorArray(tf.int32, size=1, dynamic_size=True, element_shape=[None]).write(0, number)

        def is_unfinished(_: tf.Tensor, going_on: tf.Tensor, *__: Any) -> tf.Tensor:
            return tf.size(going_on) > 0

        def next_piece(
            step: tf.Tensor, going_on: tf.Tensor, starts: tf.Tensor, found: tf.TensorArray
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.TensorArray]:
            number, taken = _longest(tf.gather(words, going_on), starts, self._continuing, self._continuing_sizes)
            # Of words that have come to their end nothing is left; they keep 0 here, see below.
            row = tf.tensor_scatter_nd_update(tf.fill([count], _NOTHING), going_on[:, None], number)
            starts = starts + taken
            more = (number >= 0) & (starts < tf.gather(sizes, going_on))
            found = found.write(step, row)
            return step + 1, tf.boolean_mask(going_on, more), tf.boolean_mask(starts, more), found

        more = (number >= 0) & (taken < sizes)
        going_on = tf.boolean_mask(tf.range(count), more)
        state = (tf.constant(1), going_on, tf.boolean_mask(taken, more), found)
        *_, found = tf.while_loop(
            is_unfinished,
            next_piece,
            state,
            shape_invariants=(
                tf.TensorShape([]),
                tf.TensorShape([None]),
                tf.TensorShape([None]),
                tf.TensorSpec(None, tf.variant),
            ),
        )
        pieces = tf.transpose(found.stack())
        # A word of which some part is no piece is unknown as a whole.
        fails = tf.reduce_any(pieces == _NO_PIECE, axis=1, keepdims=True)
        places = tf.range(tf.shape(pieces)[1])[None, :]
        pieces = tf.where(fails, tf.where(places == 0, self._unknown, _NOTHING), pieces)
        is_piece = pieces >= 0
        return tf.RaggedTensor.from_row_lengths(
            tf.boolean_mask(pieces, is_piece), tf.math.count_nonzero(is_piece, axis=1), validate=False
        )


_NO_PIECE, _NOTHING = -1, -2


def _longest(
    words: tf.Tensor, starts: tf.Tensor, table: tf.lookup.StaticHashTable, sizes: Sequence[int]
) -> tuple[tf.Tensor, tf.Tensor]:
    """The longest piece of the table that words have from `starts` on: int32 [n] its number, -1 for none, and bytes.

    A piece is never found in the midst of a character: no piece ends there.
    """
    descending = tf.constant(sizes, tf.int32)[None, :]
    parts = tf.strings.substr(
        tf.repeat(words[:, None], len(sizes), axis=1),
        tf.repeat(starts[:, None], len(sizes), axis=1),
        tf.repeat(descending, tf.size(words), axis=0),
    )
    numbers = table.lookup(parts)
    longest = tf.argmax(tf.cast(numbers >= 0, tf.int32), axis=1)  # the first of them
    return tf.gather(numbers, longest, batch_dims=1), tf.strings.length(tf.gather(parts, longest, batch_dims=1))


def _sizes(pieces: Mapping[str, int]) -> list[int]:
    """How long pieces are in bytes, longest first; one size at least."""
    return sorted({len(piece.encode()) for piece in pieces if piece}, reverse=True) or [1]


def _table(pieces: Mapping[str, int]) -> tf.lookup.StaticHashTable:
    # One entry at least; no word is empty.
    keys = [*(piece for piece in pieces if piece), ""]
    numbers = np.array([*(number for piece, number in pieces.items() if piece), _NO_PIECE], np.int32)
    initializer = tf.lookup.KeyValueTensorInitializer(tf.constant(keys), tf.constant(numbers))
    return tf.lookup.StaticHashTable(initializer, default_value=_NO_PIECE)
