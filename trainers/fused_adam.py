"""Adam with one pass over each weight."""

from __future__ import annotations

import keras
import tensorflow as tf


class FusedAdam(keras.optimizers.Adam):
    """Keras's Adam, its step computed by TensorFlow's kernel: one pass over each weight and its moments, not a dozen.

    On a CPU those passes take a large part of the step of a network such as InceptionV3, which has 22 million weights.
    Gradients are dense; `amsgrad` is not there.

    Source: Kingma and Ba, Adam, https://arxiv.org/abs/1412.6980, in the order of the end of section 2, as Keras has it;
        https://www.tensorflow.org/api_docs/python/tf/raw_ops/ResourceApplyAdam
    """

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Change a weight and its moments."""
        index = self._get_variable_index(variable)
        dtype = variable.dtype
        step = tf.cast(self.iterations + 1, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(tf.constant(self.beta_1, dtype), step),
            beta2_power=tf.pow(tf.constant(self.beta_2, dtype), step),
            lr=tf.cast(learning_rate, dtype),
            beta1=tf.constant(self.beta_1, dtype),
            beta2=tf.constant(self.beta_2, dtype),
            epsilon=tf.constant(self.epsilon, dtype),
            grad=gradient,
        )
