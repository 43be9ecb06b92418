"""A trained model of texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from serving.signatures.raw_features import Features
from trainers.dense_batch import Column


@dataclass(frozen=True)
class TextClassifier:
    """What training makes, ready to be exported.

    Attributes:
        model: from its inputs to probabilities, float32 [batch, classes].
        inputs: a batch of the features of transform/text.py -> what `model` takes, without what fills rows up.
        resources: the tables that `inputs` uses, for the export to take along.
    """

    model: keras.Model
    inputs: Callable[[Features], Mapping[str, Column]]
    resources: Mapping[str, Any] = field(default_factory=dict)
