"""A small model with the four signatures, for tests to export as it is or broken in one way."""

from pathlib import Path

import tensorflow as tf

LABELS = ("blue", "green", "red")


class ColourModel(tf.Module):
    """Size and shape in, one of three colours out: the signatures of a model of tables, made by hand."""

    def __init__(self, vocabulary: Path) -> None:
        super().__init__()
        vocabulary.write_text("".join(f"{label}\n" for label in LABELS))
        self.labels = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                str(vocabulary), tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER, tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
            ),
            "",
        )  # fmt: skip

    def probabilities(self, size: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
        size = tf.where(size > -1e37, tf.reshape(size, [-1]), 1.5)
        is_round = tf.cast(tf.equal(tf.reshape(shape, [-1]), "round"), tf.float32)
        return tf.nn.softmax(tf.stack([size, 3 - size, 1.7 * is_round], axis=1))

    def rank(self, probabilities: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        values, numbers = tf.math.top_k(probabilities, k=3)
        return self.labels.lookup(tf.cast(numbers, tf.int64)), values

    def parse(self, examples: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        spec = {
            "size": tf.io.FixedLenFeature([], tf.float32, -1e38),
            "shape": tf.io.FixedLenFeature([], tf.string, ""),
        }
        parsed = tf.io.parse_example(examples, spec)
        return parsed["size"], parsed["shape"]

    def serving_default(self, size: tf.Tensor, shape: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"output_0": self.rank(self.probabilities(size, shape))[0][:, 0]}

    def classify(self, size: tf.Tensor, shape: tf.Tensor) -> dict[str, tf.Tensor]:
        labels, probabilities = self.rank(self.probabilities(size, shape))
        return {"labels": labels, "probabilities": probabilities, "error": tf.fill([tf.shape(labels)[0]], "")}

    def serve_examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": self.probabilities(*self.parse(examples))}

    def transform_features(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"size": tf.maximum(self.parse(examples)[0], 0)}


def save_colour_model(model: ColourModel, path: Path) -> None:
    columns = {"size": tf.TensorSpec(None, tf.float32), "shape": tf.TensorSpec(None, tf.string)}
    records = {"examples": tf.TensorSpec([None], tf.string)}
    inputs = {"serving_default": columns, "classify": columns, "serve_examples": records, "transform_features": records}
    signatures = {
        name: tf.function(getattr(model, name)).get_concrete_function(**specs)
        for name, specs in inputs.items()
        if getattr(model, name) is not None
    }
    tf.saved_model.save(model, str(path), signatures)
