"""Apply a function to each item of a batch, none of which can fail the others."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

Function = Callable[[tf.Tensor], tuple[tf.Tensor, ...]]


def map_each(
    function: Function, items: tf.Tensor, signature: tuple[tf.TensorSpec, ...]
) -> tuple[tuple[tf.Tensor, ...], tf.Tensor]:
    """What `function` makes of each item, and for which items it did not raise.

    The decoders of TensorFlow fail their whole batch on one bad item. A tf.data pipeline inside the graph, made of core
    operations only, is the one place where an error can be dropped: TensorFlow Serving runs it too. Items are worked on
    in parallel.

    Args:
        function: of a scalar; any tf.errors.OpError in it means that the item is bad.
        items: [batch].
        signature: the specs of what `function` gives for one item, shapes fully known.

    Returns:
        The results, each [batch, ...] with zeros (empty strings) for bad items; and bool [batch], which are good.
    """
    count = tf.size(items, tf.int64)

    @tf.autograph.experimental.do_not_convert
    def numbered(position: tf.Tensor, item: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return (position, *function(item))

    mapped = (
        tf.data.Dataset.from_tensor_slices((tf.range(count), items))
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
            tf.ensure_shape(values, [items.shape[0], *spec.shape])
            for values, spec in zip(results, signature, strict=True)
        ),
        in_their_places(tf.ones_like(positions)) > 0,
    )
