"""From probabilities to labels, in the graph."""

from __future__ import annotations

import tensorflow as tf

# The file name of the vocabulary, among the assets of Transform's graph and of the export.
VOCABULARY = "labels"


class Labels(tf.Module):
    """The label vocabulary as an asset of the SavedModel, and the lookups on it.

    Args:
        vocabulary: a text file with one label a line; line i names class i.
    """

    def __init__(self, vocabulary: str) -> None:
        super().__init__(name="labels")
        initializer = tf.lookup.TextFileInitializer(
            vocabulary, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE
        )
        self._table = tf.lookup.StaticHashTable(initializer, default_value="")

    def best(self, probabilities: tf.Tensor) -> tf.Tensor:
        """string [batch]: the most probable label of each row of `probabilities`, float32 [batch, classes]."""
        return self._table.lookup(tf.argmax(probabilities, axis=-1))

    def ranked(self, probabilities: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
        """The `count` best labels, string [batch, count], and their probabilities, float32 [batch, count]."""
        values, indices = tf.math.top_k(probabilities, k=count)
        return self._table.lookup(tf.cast(indices, tf.int64)), values


def read_labels(saved_model: str) -> list[str]:
    """The label vocabulary of an exported model, in the order of its probabilities.

    Args:
        saved_model: the directory that holds saved_model.pb.

    Raises:
        tf.errors.NotFoundError: the export has no label vocabulary.
    """
    with tf.io.gfile.GFile(f"{saved_model}/assets/{VOCABULARY}", "rb") as file:
        return [line.decode() for line in file.read().splitlines()]
