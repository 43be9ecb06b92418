"""Vocabularies of terms: counted, ranked by frequency or information gain, and written."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform import annotators
from tensorflow_transform.beam import experimental as tft_beam

from transform.options import Ranking


def information_gain(text_counts: np.ndarray, class_totals: np.ndarray) -> np.ndarray:
    """The mutual information of class and presence, float64 [terms], in nats.

    Args:
        text_counts: int64 [terms, classes], how many texts of each class have the term.
        class_totals: int64 [classes], how many texts of each class there are.
    """
    present = text_counts.sum(axis=1)
    texts = class_totals.sum()
    entropies = np.stack([_entropy(text_counts), _entropy(class_totals - text_counts)])
    shares = np.stack([present, texts - present]) / texts
    return np.asarray(_entropy(class_totals[None])[0] - (shares * entropies).sum(axis=0))


def _entropy(counts: np.ndarray) -> np.ndarray:
    """float64 [rows]: of the distribution that each row of counts stands for; 0 for a row of zeros."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return -(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=1)


# About 150 bytes each. Texts go on having new sequences of words for as long as they come.
MAXIMUM_COUNTED_TERMS = 3_000_000


def term_vocabulary(
    terms: tf.RaggedTensor, name: str, labels: tf.Tensor, ranking: Ranking, minimum_count: int, maximum_size: int
) -> tf.Tensor:
    """The path of the vocabulary's file, string [].

    The file has a line `count term` for each term, best first, and those of one rank in the order of their bytes.
    tft.vocabulary writes the same, but moves each term of each text through Beam's coders: half a minute for 10,000
    reviews, against a second here.

    Args:
        terms: string [batch, n], the terms of each text, each once.
        name: of the vocabulary.
        labels: string [batch], the class of each text, "" where it has none; only `information_gain` looks at them.
        ranking: what makes a term better: that more texts have it, or that it tells more about the class.
        minimum_count: how many texts must have a term.
        maximum_size: how many terms there are at most.
    """
    if ranking == "frequency":
        labels = tf.fill(tf.shape(labels), "any")
    (path,) = tft.experimental.ptransform_analyzer(
        inputs=[*_counted(terms, labels)],
        ptransform=_WriteVocabulary(name, ranking, minimum_count, maximum_size),
        output_dtypes=[tf.string],
        output_shapes=[[]],
        output_asset_default_values=[b"1 term"],
        name=name,
    )
    annotators.annotate_asset(name, name)
    return path


def _counted(terms: tf.RaggedTensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """What TermCounts.add takes: counted here, a batch is no longer one Python object for each term of each text."""
    classes, class_of_text, texts = tf.unique_with_counts(labels, out_idx=tf.int64)
    different, places = tf.unique(terms.flat_values, out_idx=tf.int64)
    pairs = places * tf.size(classes, tf.int64) + tf.gather(class_of_text, terms.value_rowids())
    shape = [tf.size(different, tf.int64), tf.size(classes, tf.int64)]
    counts = tf.math.unsorted_segment_sum(tf.ones_like(pairs), pairs, shape[0] * shape[1])
    return different, tf.reshape(counts, shape), classes, texts


@dataclass
class TermCounts:
    """How many texts of each class there are, and how many of them have each term.

    Where more than `maximum` different terms have been seen, the rarest are forgotten, and counted anew where they
    come again: a count may then be short by what stood at the forgotten one, which is little.
    """

    maximum: int = MAXIMUM_COUNTED_TERMS
    texts: Counter[bytes] = field(default_factory=Counter)
    terms: defaultdict[bytes, Counter[bytes]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, terms: np.ndarray, counts: np.ndarray, labels: np.ndarray, texts: np.ndarray) -> None:
        """Count a batch.

        Args:
            terms: object [terms], the different ones of all its texts.
            counts: int64 [terms, classes], how many of its texts of each class have each of them.
            labels: object [classes], the different ones.
            texts: int64 [classes], how many there are of each.
        """
        self.texts.update(dict(zip(labels.tolist(), texts.tolist(), strict=True)))
        for label, of_label in zip(labels.tolist(), counts.T, strict=True):
            found = np.flatnonzero(of_label)
            self.terms[label].update(dict(zip(terms[found].tolist(), of_label[found].tolist(), strict=True)))
        self._forget()

    def merge(self, other: TermCounts) -> None:
        """Count what another has counted."""
        self.texts.update(other.texts)
        for label, counts in other.terms.items():
            self.terms[label].update(counts)
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        """Terms in one piece: pickled each by itself, a million of them take seconds. None holds a line break."""
        terms = {
            label: (b"\n".join(counts), np.fromiter(counts.values(), np.int64)) for label, counts in self.terms.items()
        }
        return {"maximum": self.maximum, "texts": self.texts, "terms": terms}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.maximum, self.texts, self.terms = state["maximum"], state["texts"], defaultdict(Counter)
        for label, (terms, counts) in state["terms"].items():
            if len(counts):
                self.terms[label] = Counter(dict(zip(terms.split(b"\n"), counts.tolist(), strict=True)))

    def _forget(self) -> None:
        rarest = 0
        # Half of them, so that the next batches find room.
        room = self.maximum if self._size() <= self.maximum else self.maximum // 2
        while self._size() > room:
            rarest += 1
            for label, counts in self.terms.items():
                self.terms[label] = Counter({term: count for term, count in counts.items() if count > rarest})

    def _size(self) -> int:
        return sum(map(len, self.terms.values()))


class _WriteVocabulary(tft_beam.PTransformAnalyzer):
    """Count the terms and write the known ones to a file; its path."""

    def __init__(self, name: str, ranking: Ranking, minimum_count: int, maximum_size: int) -> None:
        super().__init__()
        self._name = name
        self._ranking = ranking
        self._minimum_count = minimum_count
        self._maximum_size = maximum_size

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        path = os.path.join(self.base_temp_dir, self._name)  # noqa: PTH118 (may be an object store's path)
        return (
            batches
            | "Count" >> beam.CombineGlobally(_CountTerms())
            | "Write" >> beam.Map(_write_terms, path, self._ranking, self._minimum_count, self._maximum_size)
        )


class _CountTerms(beam.CombineFn):
    """How many texts have each term."""

    def create_accumulator(self) -> TermCounts:
        return TermCounts()

    def add_input(self, accumulator: TermCounts, batch: tuple[np.ndarray, ...]) -> TermCounts:
        accumulator.add(*batch)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[TermCounts]) -> TermCounts:
        first, *others = accumulators
        for other in others:
            first.merge(other)
        return first

    def extract_output(self, accumulator: TermCounts) -> TermCounts:
        return accumulator


def ranked_terms(counts: TermCounts, ranking: Ranking, minimum_count: int) -> list[tuple[bytes, int]]:
    """The terms of at least `minimum_count` texts, best first, each with the number of texts that have it."""
    total: Counter[bytes] = Counter()
    for of_class in counts.terms.values():
        total.update(of_class)
    known = [term for term, count in total.items() if count >= minimum_count]
    if ranking == "frequency":
        return sorted(((term, total[term]) for term in known), key=lambda term: (-term[1], term[0]))
    labels = sorted(label for label in counts.texts if label)  # a text without a label is none to learn from
    text_counts = np.array([[counts.terms[label][term] for label in labels] for term in known], np.int64)
    gains = information_gain(
        text_counts.reshape(-1, len(labels)), np.array([counts.texts[label] for label in labels], np.int64)
    )
    ranks = {term: -gain for term, gain in zip(known, gains.tolist(), strict=True)}
    return sorted(((term, total[term]) for term in known), key=lambda term: (ranks[term[0]], term[0]))


def _write_terms(counts: TermCounts, path: str, ranking: Ranking, minimum_count: int, maximum_size: int) -> np.ndarray:
    # A table cannot be made of an empty file; no text has a term without characters.
    known = ranked_terms(counts, ranking, minimum_count)[:maximum_size] or [(b"", 0)]
    tf.io.gfile.makedirs(os.path.dirname(path))  # noqa: PTH120
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(b"".join(b"%d %s\n" % (count, term) for term, count in known))
    return np.array(path.encode(), dtype=object)
