"""The signature `explain`: what each part of an input adds to the probability of its label, by Shapley values.

A part is a column of a table, a word of a text, a region of a photo. The score of a coalition, some of the parts, is
what the model says of the input with all other parts replaced: by those of background rows, by nothing, by the photo's
mean colour. A part's contribution is what it adds to the coalition of the parts before it, in the mean over all orders
of the parts; base and contributions add up to the score of the whole input.

Orders that are drawn leave an error, most of which comes from the bend of the probability between 0 and 1. So a second
game, in which each part adds the same to the logit whatever is there before, is played along the same orders and along
many more, which costs no model rows: what the first few leave out of it is added (control variates).

Source: Štrumbelj and Kononenko, Explaining prediction models and individual predictions with feature contributions,
Knowledge and Information Systems 41 (2014), of orders that are drawn; Mitchell et al., Sampling Permutations for
Shapley Value Estimation, JMLR 23 (2022), of antithetic ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import factorial
from typing import Any

import numpy as np
import tensorflow as tf

from serving.signatures.common import Labels

EXPLAIN = "explain"
# The outputs; ERROR is that of classify.
LABEL, PROBABILITY, BASE, CONTRIBUTIONS, PARTS, ERROR = (
    "label",
    "probability",
    "base",
    "contributions",
    "parts",
    "error",
)

# bool [coalitions, parts], what is in each, and int32 [coalitions], the number of the background that takes the place
# of the rest -> float32 [coalitions], the scores.
Score = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

# Up to so many parts, all coalitions are scored.
MOST_EXACT = 10
# The most model rows that one explanation takes, if it has fewer parts than that.
MOST_MODEL_ROWS = 16_384
_SEED, _SEED_OF_MORE = (21, 7), (7, 21)
# Along so many times as many orders parts are added to logits.
_MORE = 32
# Logits are taken of scores that are no nearer to 0 and 1.
_NEAREST = 1e-6


def background_count(parts: int, most: int, samples: int) -> int:
    """How many background rows an explanation goes by.

    Args:
        parts: how many columns there are.
        most: how many rows there are.
        samples: how many orders are drawn.
    """
    if parts <= MOST_EXACT:
        return min(most, MOST_MODEL_ROWS >> parts)
    # Each of them for as many orders as any other, as far as it goes.
    pairs = orders_drawn(samples, parts) // 2
    return pairs // -(-pairs // most)


def orders_drawn(samples: int, parts: int) -> int:
    """How many orders are drawn: `samples`, an even number, or as many as take MOST_MODEL_ROWS; two at least."""
    return max(2, min(samples, MOST_MODEL_ROWS // max(1, parts - 1) // 2 * 2))


def exact_values(score: Score, parts: int, backgrounds: int, at_once: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Shapley values of all coalitions.

    Args:
        score: of coalitions.
        parts: how many there are, MOST_EXACT at most.
        backgrounds: how many there are; the score of a coalition is the mean over all of them.
        at_once: how many coalitions are scored together.

    Returns:
        float64 scalar, the base, and float64 [parts], the contributions.
    """
    members = (np.arange(2**parts)[:, None] >> np.arange(parts)) % 2 == 1
    sizes = members.sum(axis=1, keepdims=True)
    orders = np.array([factorial(size) * factorial(parts - size - 1) for size in range(parts)]) / factorial(parts)
    weights = np.where(members, orders[np.maximum(sizes - 1, 0)], -orders[np.minimum(sizes, parts - 1)])
    coalitions = tf.constant(members)

    def scored(numbers: tf.Tensor) -> tf.Tensor:
        return score(tf.gather(coalitions, numbers // backgrounds), numbers % backgrounds)

    scores = tf.reshape(_in_chunks(scored, 2**parts * backgrounds, at_once), [2**parts, backgrounds])
    means = tf.reduce_mean(tf.cast(scores, tf.float64), axis=1)
    return means[0], tf.linalg.matvec(tf.constant(weights, tf.float64), means, transpose_a=True)


def drawn_values(
    score: Score,
    parts: tf.Tensor | int,
    empty: tf.Tensor,
    full: tf.Tensor,
    samples: int,
    at_once: int,
    same: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Shapley values of orders that are drawn: the same ones for the same number of parts, each with its reverse.

    Args:
        score: of coalitions.
        parts: how many there are.
        empty: float32 [backgrounds], the score of no part at all.
        full: float32 scalar, the score of all parts.
        samples: how many orders, an even number.
        at_once: how many coalitions are scored together.
        same: bool [backgrounds, parts], which parts are in the background as in the input: they add nothing, and need
            no score; None for none.

    Returns:
        as exact_values.
    """
    places = _places(samples, parts)
    backgrounds = tf.range(samples) // 2 % tf.size(empty)
    # Going along an order, each part that makes a difference leads to the next state: 0 is empty, the last one full.
    at_place = tf.argsort(places, axis=1)
    differs = tf.ones([samples, parts], tf.int32)
    if same is not None:
        differs -= tf.gather(tf.cast(tf.gather(same, backgrounds), tf.int32), at_place, batch_dims=1)
    states = tf.gather(tf.cumsum(differs, axis=1), places, batch_dims=1)  # to which each part leads
    last = tf.reduce_sum(differs, axis=1)
    inner = tf.maximum(last - 1, 0)
    firsts = tf.cumsum(inner, exclusive=True)  # of each order, among all coalitions that are scored
    order_of = tf.repeat(tf.range(samples), inner)

    def scored(numbers: tf.Tensor) -> tf.Tensor:
        orders = tf.gather(order_of, numbers)
        reached = numbers - tf.gather(firsts, orders) + 1
        return score(tf.gather(states, orders) <= reached[:, None], tf.gather(backgrounds, orders))

    scores = tf.concat([_in_chunks(scored, tf.size(order_of), at_once), [0.0]], axis=0)
    of_empty = tf.gather(empty, backgrounds)[:, None]

    def score_of(reached: tf.Tensor) -> tf.Tensor:
        found = tf.gather(scores, tf.clip_by_value(firsts[:, None] + reached - 1, 0, tf.size(scores) - 1))
        known = tf.where(tf.equal(reached, last[:, None]), full, found)
        return tf.cast(tf.where(tf.equal(reached, 0), of_empty, known), tf.float64)

    after, before = score_of(states), score_of(states - tf.gather(differs, places, batch_dims=1))
    # What a part adds to the logit, by each background: the mean over the orders that go by it.
    added = tf.math.unsorted_segment_mean(_logits(after) - _logits(before), backgrounds, tf.size(empty))
    starts = _logits(tf.cast(empty, tf.float64))

    def along(places: tf.Tensor, backgrounds: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(
            _gains_of_logits(tf.gather(starts, backgrounds), tf.gather(added, backgrounds), places), axis=0
        )

    more = along(_places(_MORE * samples, parts, _SEED_OF_MORE), tf.tile(backgrounds, [_MORE]))
    # Without any part, the whole is what it begins with.
    base = tf.where(tf.equal(parts, 0), full, tf.reduce_mean(of_empty))
    return tf.cast(base, tf.float64), tf.reduce_mean(after - before, axis=0) + more - along(places, backgrounds)


def _logits(scores: tf.Tensor) -> tf.Tensor:
    scores = tf.clip_by_value(scores, _NEAREST, 1 - _NEAREST)
    return tf.math.log(scores) - tf.math.log1p(-scores)


def _gains_of_logits(starts: tf.Tensor, added: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    """float64 [orders, parts]: what each part adds to the probability along each order, if logits add up.

    Args:
        starts: float64 [orders], the logit without any part.
        added: float64 [orders, parts], what each part adds to it.
        places: int32 [orders, parts], the place of each part in each order.
    """
    reached = starts[:, None] + tf.cumsum(tf.gather(added, tf.argsort(places, axis=1), batch_dims=1), axis=1)
    scores = tf.sigmoid(tf.concat([starts[:, None], reached], axis=1))
    return tf.gather(scores[:, 1:] - scores[:, :-1], places, batch_dims=1)


def _places(samples: int, parts: tf.Tensor | int, seed: tuple[int, int] = _SEED) -> tf.Tensor:
    """int32 [samples, parts]: the place of each part in each order."""
    keys = tf.random.stateless_uniform([samples // 2, parts], seed)
    # Of what is sorted, the places in the order that sorts it.
    forward = tf.argsort(tf.argsort(keys, axis=1), axis=1)
    return tf.reshape(tf.stack([forward, parts - 1 - forward], axis=1), [samples, parts])


def _in_chunks(score: Callable[[tf.Tensor], tf.Tensor], count: tf.Tensor | int, at_once: int) -> tf.Tensor:
    """float32 [count]: `score` of the numbers 0, 1 … in their order, int32 [at_once] of them at most at a time."""

    def step(start: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        numbers = tf.range(start, tf.minimum(start + at_once, count))
        return start + at_once, tf.concat([found, score(numbers)], axis=0)

    _, scores = tf.while_loop(
        lambda start, _: start < count,
        step,
        (tf.constant(0), tf.zeros([0])),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None])),
        parallel_iterations=1,
    )
    return scores


def explained_rows(
    probabilities: tf.Tensor,
    labels: Labels,
    explain_row: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
    width: tf.Tensor | int,
) -> dict[str, tf.Tensor]:
    """Label, probability, base and contributions of each row, one row after the other.

    The score is the probability of the label that is answered; where that is the label for unknown, of the label in
    whose place it stands.

    Args:
        probabilities: float32 [batch, classes].
        labels: the label vocabulary.
        explain_row: number of the row, number of its label's class, both int32 -> base and contributions, float64.
        width: the most parts of a row; the contributions of others are filled up with 0.
    """
    chosen = tf.cast(labels.chosen(probabilities), tf.int32)
    count = tf.size(chosen)

    def step(row: tf.Tensor, bases: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        base, contributions = explain_row(row, chosen[row])
        filled = tf.pad(tf.cast(contributions, tf.float32), [[0, width - tf.size(contributions)]])
        return row + 1, tf.concat([bases, [tf.cast(base, tf.float32)]], 0), tf.concat([found, filled[None]], 0)

    _, bases, contributions = tf.while_loop(
        lambda row, *_: row < count,
        step,
        (tf.constant(0), tf.zeros([0]), tf.zeros([0, width])),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None]), tf.TensorShape([None, None])),
        parallel_iterations=1,
    )
    return {
        LABEL: labels.answered(probabilities),
        PROBABILITY: tf.gather(probabilities, chosen, axis=1, batch_dims=1),
        BASE: bases,
        CONTRIBUTIONS: contributions,
        ERROR: tf.fill([count], ""),
    }


def _once(predict: Callable[[Any], tf.Tensor], spec: Any) -> Callable[[Any], tf.Tensor]:
    """The same as one function of the export, however often it is called there."""
    function: Callable[[Any], tf.Tensor] = tf.function(predict, input_signature=[spec], autograph=False)
    return function


# How many orders are drawn by default, and how many model rows are computed together.
TABLE_SAMPLES, _TABLE_AT_ONCE = 128, 4096
# How many rows a background of a table has at most.
MOST_BACKGROUND = 64


def explained_table(
    columns: Mapping[str, tf.Tensor],
    background: Mapping[str, np.ndarray],
    predict: Callable[[Mapping[str, tf.Tensor]], tf.Tensor],
    labels: Labels,
    samples: int,
    missing: Mapping[str, int | float | str],
) -> dict[str, tf.Tensor]:
    """The outputs of `explain` of rows of a table.

    Args:
        columns: [batch, values] each; where it is known that there is one value, the background has one too.
        background: the same of other rows, each [rows, values].
        predict: columns as these -> probabilities, float32 [rows, classes].
        labels: the label vocabulary.
        samples: how many orders are drawn, of more columns than MOST_EXACT.
        missing: what fills up columns that hold fewer values than in another row.
    """
    names, parts = list(columns), len(columns)
    specs = {name: tf.TensorSpec([None, None], values.dtype) for name, values in columns.items()}
    predict = _once(predict, specs)
    most = len(background[names[0]])
    count = background_count(parts, most, samples)
    # Spread over all of them, which are in an order.
    chosen_rows = (np.arange(count) * 2 + 1) * most // (2 * count)
    blocks = []
    for block in _blocks(columns):
        values = tf.concat([columns[name] for name in block], axis=1)
        other = tf.constant(np.concatenate([background[name][chosen_rows] for name in block], axis=1))
        width = tf.maximum(tf.shape(values)[1], tf.shape(other)[1])
        asked, others = (_filled_up(one, width, missing[block[0]]) for one in (values, other))
        blocks.append(_Block(block, [names.index(name) for name in block], asked, others))
    probabilities = predict(columns)
    of_background = predict(_columns_of(blocks, [block.others for block in blocks]))
    drawn = orders_drawn(samples, parts)

    def explain_row(row: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        def score(members: tf.Tensor, backgrounds: tf.Tensor) -> tf.Tensor:
            mixed = [
                tf.where(
                    tf.gather(members, block.places, axis=1), block.asked[row], tf.gather(block.others, backgrounds)
                )
                for block in blocks
            ]
            return tf.gather(predict(_columns_of(blocks, mixed)), number, axis=1)

        if parts <= MOST_EXACT:
            return exact_values(score, parts, count, _TABLE_AT_ONCE)
        empty, full = tf.gather(of_background, number, axis=1), probabilities[row, number]
        equal = tf.concat([block.same_as(row) for block in blocks], axis=1)
        in_order = np.argsort([place for block in blocks for place in block.places])
        return drawn_values(score, parts, empty, full, drawn, _TABLE_AT_ONCE, tf.gather(equal, in_order, axis=1))

    found = explained_rows(probabilities, labels, explain_row, parts)
    found[CONTRIBUTIONS].set_shape([None, parts])
    return {**found, PARTS: tf.broadcast_to(tf.constant(names), [tf.size(found[BASE]), parts])}


@dataclass(frozen=True)
class _Block:
    """Columns of a table beside each other: any number of one dtype with a value each, or one with several.

    Attributes:
        names: of the columns.
        places: of each among all columns.
        asked: [batch, width], of the rows that are explained.
        others: [rows, width], of the background.
    """

    names: Sequence[str]
    places: Sequence[int]
    asked: tf.Tensor
    others: tf.Tensor

    def same_as(self, row: tf.Tensor) -> tf.Tensor:
        """bool [rows, columns]: where the background has what a row has."""
        same = tf.equal(self.asked[row], self.others)
        return same if len(self.names) > 1 else tf.reduce_all(same, axis=1, keepdims=True)


def _blocks(columns: Mapping[str, tf.Tensor]) -> list[list[str]]:
    """The names of the columns of each block."""
    blocks: dict[Any, list[str]] = {}
    for name, values in columns.items():
        blocks.setdefault(values.dtype if values.shape[1] == 1 else name, []).append(name)
    return [*blocks.values()]


def _columns_of(blocks: Sequence[_Block], values: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
    """[rows, values] of each column, of [rows, width] of each block."""
    return {
        name: column
        for block, of_block in zip(blocks, values, strict=True)
        for name, column in zip(
            block.names,
            tf.split(of_block, len(block.names), axis=1) if len(block.names) > 1 else [of_block],
            strict=True,
        )
    }


def _filled_up(values: tf.Tensor, width: tf.Tensor, missing: float | str) -> tf.Tensor:
    return tf.pad(
        values, [[0, 0], [0, width - tf.shape(values)[1]]], constant_values=tf.constant(missing, values.dtype)
    )


TEXT_SAMPLES, _TEXTS_AT_ONCE = 32, 256
# A text of more words is cut into so many runs of neighbouring words.
MOST_TEXT_PARTS = 64
# Scripts that put no spaces between words: Thai to Burmese, Khmer, kana, Han; with the marks of a character behind it.
_WITHOUT_SPACES = (
    r"[\x{E00}-\x{109F}\x{1780}-\x{17FF}\x{3040}-\x{30FF}\x{3400}-\x{9FFF}\x{F900}-\x{FAFF}\x{20000}-\x{323AF}]\pM*"
)
_END = "\x1f"  # what ASCII has to end units of text


def split_words(texts: tf.Tensor) -> tf.RaggedTensor:
    """string [batch, (words)]: what stands between white space; of scripts without spaces, each character.

    White space behind a word is in it, as one blank: joined, the words are the text.
    """
    spaced = tf.strings.regex_replace(tf.strings.strip(texts), r"[\s\v]+", " ")
    apart = tf.strings.regex_replace(spaced, rf"({_WITHOUT_SPACES} ?)", rf"{_END}\1{_END}")
    words = tf.strings.split(tf.strings.regex_replace(apart, " ", f" {_END}"), _END)
    return tf.ragged.boolean_mask(words, tf.not_equal(words, ""))


def explained_texts(
    texts: tf.Tensor, predict: Callable[[tf.Tensor], tf.Tensor], labels: Labels, samples: int
) -> dict[str, tf.Tensor]:
    """The outputs of `explain` of texts, by their words, see split_words.

    Args:
        texts: string [batch].
        predict: such texts -> probabilities, float32 [batch, classes].
        labels: the label vocabulary.
        samples: how many orders are drawn.
    """
    split = split_words(texts)
    lengths = tf.cast(split.row_lengths(), tf.int32)
    runs = tf.maximum(1, -(-lengths // MOST_TEXT_PARTS))  # words in a part
    parts = -(-lengths // runs)
    width = tf.reduce_max(tf.concat([[0], parts], axis=0))
    predict = _once(predict, tf.TensorSpec([None], tf.string))
    probabilities = predict(texts)
    nothing = predict(tf.constant([""]))

    def explain_row(row: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        part_of_word = tf.range(lengths[row]) // runs[row]

        def score(members: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
            kept = tf.where(tf.gather(members, part_of_word, axis=1), split[row], "")
            return tf.gather(predict(tf.strings.strip(tf.strings.reduce_join(kept, axis=1))), number, axis=1)

        empty, full = tf.gather(nothing, number, axis=1), probabilities[row, number]
        return drawn_values(score, parts[row], empty, full, samples, _TEXTS_AT_ONCE)

    # The words of each part of each text: flat words, numbered by text and part.
    rows = tf.cast(split.value_rowids(), tf.int32)
    places = tf.range(tf.size(split.values)) - tf.gather(tf.cast(split.row_starts(), tf.int32), rows)
    numbers = rows * width + places // tf.gather(runs, rows)
    said = tf.strings.strip(tf.strings.unsorted_segment_join(split.values, numbers, tf.size(lengths) * width))
    return {
        **explained_rows(probabilities, labels, explain_row, width),
        PARTS: tf.reshape(said, [tf.size(lengths), width]),
    }


PHOTO_SAMPLES, _PHOTOS_AT_ONCE = 16, 32
# Regions of a photo from top to bottom, and from left to right.
REGIONS = 8


def explained_photos(
    pixels: tf.Tensor,
    errors: tf.Tensor,
    predict: Callable[[tf.Tensor], tf.Tensor],
    labels: Labels,
    samples: int,
) -> dict[str, tf.Tensor]:
    """The outputs of `explain` of photos; the contributions of one that cannot be used are 0.

    Args:
        pixels: float32 [batch, height, width, 3].
        errors: string [batch]: "" or why a photo cannot be used.
        predict: such pixels -> probabilities, float32 [batch, classes].
        labels: the label vocabulary.
        samples: how many orders are drawn.
    """
    height, width = pixels.shape[1:3]
    parts = REGIONS * REGIONS
    region = tf.constant(
        np.arange(height)[:, None] * REGIONS // height * REGIONS + np.arange(width) * REGIONS // width, tf.int32
    )
    predict = _once(predict, tf.TensorSpec([None, height, width, 3], tf.float32))
    colours = tf.reduce_mean(pixels, axis=[1, 2], keepdims=True)
    plain = predict(tf.broadcast_to(colours, tf.shape(pixels)))
    usable = tf.equal(errors, "")
    probabilities = tf.where(usable[:, None], predict(pixels), 0.0)

    def explain_row(row: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        def score(members: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
            shown = tf.gather(members, region, axis=1)[..., None]
            return tf.gather(predict(tf.where(shown, pixels[row], colours[row])), number, axis=1)

        def values() -> tuple[tf.Tensor, tf.Tensor]:
            empty, full = plain[row, number][None], probabilities[row, number]
            return drawn_values(score, parts, empty, full, samples, _PHOTOS_AT_ONCE)

        nothing = tf.zeros([], tf.float64), tf.zeros([parts], tf.float64)
        base, contributions = tf.cond(usable[row], values, lambda: nothing)
        return base, contributions

    found = explained_rows(probabilities, labels, explain_row, parts)
    return {
        **found,
        LABEL: tf.where(usable, found[LABEL], ""),
        CONTRIBUTIONS: tf.reshape(found[CONTRIBUTIONS], [-1, REGIONS, REGIONS]),
        ERROR: errors,
    }
