"""A model of texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from serving.signatures.raw_features import Features
from trainers.dense_batch import Column


@dataclass(frozen=True)
class TextClassifier:
    """What `fit_text` trains, and is exported then.

    Attributes:
        model: from its inputs, a dict, to probabilities, float32 [batch, classes].
        members: the probabilities whose mean is the answer; each is trained for itself.
        inputs: a batch of the features of transform/text.py -> what `model` takes, without what fills rows up.
        resources: the tables that `inputs` uses, for the export to take along.
    """

    model: keras.Model
    members: Sequence[keras.KerasTensor]
    inputs: Callable[[Features], Mapping[str, Column]]
    resources: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        taken: Mapping[str, keras.KerasTensor],
        members: Sequence[keras.KerasTensor],
        inputs: Callable[[Features], Mapping[str, Column]],
        resources: Mapping[str, Any] | None = None,
    ) -> TextClassifier:
        """The classifier that answers with the mean of its members; `taken` are the model's inputs by name."""
        mean = members[0] if len(members) == 1 else keras.layers.average(members)
        return cls(keras.Model(taken, mean), members, inputs, resources or {})
