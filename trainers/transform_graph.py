"""Transform's graph as a function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform.saved.saved_transform_io_v2 import SavedModelLoader


class TransformGraph(tf.Module):
    """What tft.TransformFeaturesLayer does, without being a Keras layer, which is traced once more when it is saved.

    Args:
        transform_output: where Transform wrote its graph.
    """

    def __init__(self, transform_output: tft.TFTransformOutput) -> None:
        super().__init__(name="transform")
        self._output = transform_output
        self._loader = SavedModelLoader(transform_output.transform_savedmodel_dir)
        # An export takes tables and assets along where it finds them among attributes.
        trackable = tf.__internal__.tracking.AutoTrackable
        self._tracked = [value for value in vars(self._loader).values() if isinstance(value, trackable)]

    @property
    def raw_feature_spec(self) -> Mapping[str, Any]:
        """What tf.io.parse_example makes of the raw examples that the graph takes."""
        spec: Mapping[str, Any] = self._output.raw_feature_spec()
        return spec

    def __call__(self, features: Mapping[str, tf.Tensor | tf.SparseTensor]) -> dict[str, tf.Tensor]:
        """The transformed features that can be computed from these raw ones; the label may be missing among them."""
        transformed: dict[str, tf.Tensor] = self._loader.apply_transform_model(features)
        return transformed
