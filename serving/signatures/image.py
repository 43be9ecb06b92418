"""Apply a function to each item of a batch, none of which can fail the others."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from serving.signatures.common import (
    CLASSIFY,
    SERVE_EXAMPLES,
    SERVING_DEFAULT,
    TRANSFORM_FEATURES,
    Features,
    FeatureSpec,
    Labels,
    ServedModel,
    parse_examples,
    raw_features,
)
from serving.signatures.explain import EXPLAIN, explained_photos

Function = Callable[..., tuple[tf.Tensor, ...]]


def map_each(
    function: Function, items: tf.Tensor | tuple[tf.Tensor, ...], signature: tuple[tf.TensorSpec, ...]
) -> tuple[tuple[tf.Tensor, ...], tf.Tensor]:
    """What `function` makes of each item, and for which items it did not raise.

    The decoders of TensorFlow fail their whole batch on one bad item. A tf.data pipeline inside the graph, made of core
    operations only, is the one place where an error can be dropped: TensorFlow Serving runs it too. Items are worked on
    in parallel.

    Args:
        function: of a scalar, or of as many as there are `items`; any tf.errors.OpError in it means that the item is
            bad.
        items: [batch], or several of them.
        signature: the specs of what `function` gives for one item, shapes fully known.

    Returns:
        The results, each [batch, ...] with zeros (empty strings) for bad items; and bool [batch], which are good.
    """
    columns = items if isinstance(items, tuple) else (items,)
    count = tf.size(columns[0], tf.int64)

    @tf.autograph.experimental.do_not_convert
    def numbered(position: tf.Tensor, *item: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return (position, *function(*item))

    mapped = (
        tf.data.Dataset.from_tensor_slices((tf.range(count), *columns))
        .map(numbered, num_parallel_calls=tf.data.AUTOTUNE)
        .ignore_errors(log_warning=False)
        .batch(count + 1)  # never of size 0
    )
    # What there is where no item is good.
    nothing = tf.data.Dataset.from_tensors(
        (tf.zeros([0], tf.int64), *(tf.zeros([0, *spec.shape], spec.dtype) for spec in signature))
    )
    options = tf.data.Options()
    options.autotune.enabled = False  # a thread for one element would come too late
    positions, *results = mapped.concatenate(nothing).take(1).with_options(options).get_single_element()

    def in_their_places(values: tf.Tensor) -> tf.Tensor:
        return tf.scatter_nd(positions[:, None], values, tf.concat([count[None], tf.shape(values, tf.int64)[1:]], 0))

    # A copy of all results takes as long as anything else here, and is seldom needed.
    all_good = tf.equal(tf.size(positions, tf.int64), count)
    results = tf.cond(all_good, lambda: results, lambda: [in_their_places(values) for values in results])
    return (
        tuple(
            tf.ensure_shape(values, [columns[0].shape[0], *spec.shape])
            for values, spec in zip(results, signature, strict=True)
        ),
        in_their_places(tf.ones_like(positions)) > 0,
    )


# None of it can begin base64 text of such a file: that begins with "/9j/" or "_9j_", "iVBOR", "R0lGO" or "Qk".
FILE_BEGINNINGS = {"JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG\r\n\x1a\n", "GIF": b"GIF8", "BMP": b"BM"}


def image_files(images: tf.Tensor) -> tf.Tensor:
    """string [batch]: each photo's file; "" for what is neither the file of a photo nor base64 text.

    Args:
        images: string [batch], each an encoded file (what a REST `{"b64": ...}` delivers) or base64 text of one, in the
            URL-safe or the standard alphabet, padded or not.
    """
    files, known = _files(images, tf.io.decode_base64)

    def also_of_the_other_alphabet() -> tf.Tensor:
        others, _ = _files(images, lambda text: tf.io.decode_base64(_url_safe(text)))
        return tf.where(known, files, others)

    # decode_base64 takes no longer than _url_safe does, and gives up at the first character that it does not know.
    return tf.cond(tf.reduce_all(known), lambda: files, also_of_the_other_alphabet)


def begins_with(texts: tf.Tensor, beginning: bytes) -> tf.Tensor:
    """bool of the same shape: which of the strings begin so."""
    return tf.equal(tf.strings.substr(texts, 0, len(beginning)), beginning)


def _files(images: tf.Tensor, decode: Callable[[tf.Tensor], tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """string [batch], the files, and bool [batch], which are known to be one or could be decoded."""

    def file(image: tf.Tensor) -> tuple[tf.Tensor]:
        is_file = tf.reduce_any([begins_with(image, beginning) for beginning in FILE_BEGINNINGS.values()])
        return (tf.cond(is_file, lambda: image, lambda: decode(image)),)

    (files,), known = map_each(file, images, (tf.TensorSpec([], tf.string),))
    return files, known


def _url_safe(text: tf.Tensor) -> tf.Tensor:
    """The text in the alphabet that decode_base64 knows."""
    # Three times as fast as tf.strings.regex_replace, which goes from match to match. A serialized tensor ends with its
    # content: that is how bytes become a string again.
    characters = tf.io.decode_raw(text, tf.uint8)
    for standard, url_safe in ((b"+", b"-"), (b"/", b"_")):
        characters = tf.where(tf.equal(characters, standard[0]), tf.constant(url_safe[0], tf.uint8), characters)
    length = tf.size(characters)
    return tf.strings.substr(tf.io.serialize_tensor(characters), -length, length)


# The raw feature with the encoded file, which is also the name of its pixels among the transformed features.
IMAGE = "image"
# Among the transformed features: "" or why a photo cannot be used.
ERROR = "error"
# How many labels `classify` ranks, where there are so many.
RANKED = 5


def served_model(
    transform: Callable[[Features], dict[str, tf.Tensor]],
    predict: Callable[[Features], tf.Tensor],
    labels: Labels,
    raw_feature_spec: FeatureSpec,
    label_column: str,
    classes: int,
    explain: int | None = None,
) -> ServedModel:
    """Assemble what is exported; a photo that cannot be used has the label "" and the probability 0 everywhere.

    Args:
        transform: Transform's graph (trainers.splits.TransformGraph): raw features to model features.
        predict: model features to probabilities, float32 [batch, classes].
        labels: the label vocabulary.
        raw_feature_spec: the raw features as the schema has them, the label included.
        label_column: the raw feature that holds the label.
        classes: how many labels there are.
        explain: how many orders of the regions the signature `explain` draws; None for no such signature.
    """
    served_features = {IMAGE: raw_feature_spec[IMAGE]}
    learned_features = {name: raw_feature_spec[name] for name in (IMAGE, label_column) if name in raw_feature_spec}
    text_or_bytes = {"image": tf.TensorSpec([None], tf.string, name="image")}
    only_bytes = {"image_bytes": tf.TensorSpec([None], tf.string, name="image_bytes")}
    examples_input = {"examples": tf.TensorSpec([None], tf.string, name="examples")}

    def probabilities_and_errors(raw: Features) -> tuple[tf.Tensor, tf.Tensor]:
        features = transform(raw)
        usable = tf.equal(features[ERROR], "")
        return tf.where(usable[:, None], predict(features), 0.0), features[ERROR]

    def as_raw_features(files: tf.Tensor) -> Features:
        return raw_features({IMAGE: files}, raw_feature_spec)

    def serving_default(image: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities, errors = probabilities_and_errors(as_raw_features(image_files(image)))
        return {"output_0": tf.where(tf.equal(errors, ""), labels.answered(probabilities), "")}

    def classify(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities, errors = probabilities_and_errors(as_raw_features(image_bytes))
        ranked, ranked_probabilities = labels.ranked(probabilities, min(RANKED, classes))
        usable = tf.equal(errors, "")
        return {
            "labels": tf.where(usable[:, None], ranked, ""),
            "probabilities": ranked_probabilities,
            "error": errors,
            **{name: tf.where(usable, answer, "") for name, answer in labels.answer_beside(probabilities).items()},
        }

    def serve_examples(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities, _ = probabilities_and_errors(parse_examples(examples, served_features))
        return {"probabilities": probabilities}

    def transform_features(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(transform(parse_examples(examples, learned_features)))

    def explained(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        assert explain is not None
        features = transform(as_raw_features(image_bytes))

        def predicted(pixels: tf.Tensor) -> tf.Tensor:
            return predict({IMAGE: pixels})

        return explained_photos(features[IMAGE], features[ERROR], predicted, labels, explain)

    return ServedModel(
        signatures={
            SERVING_DEFAULT: (serving_default, text_or_bytes),
            CLASSIFY: (classify, only_bytes),
            SERVE_EXAMPLES: (serve_examples, examples_input),
            TRANSFORM_FEATURES: (transform_features, examples_input),
            **({} if explain is None else {EXPLAIN: (explained, only_bytes)}),
        },
        resources={"transform": transform, "labels": labels},
    )
