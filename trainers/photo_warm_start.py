"""Begin a training of photos with the model that is served."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import keras

from trainers.fine_tune_options import FineTuneOptions
from trainers.warm_start import MeaningOfWeights, meaning_of_served, start_warm


@dataclass(frozen=True)
class PhotoWarmStart:
    """What a training of photos may begin with.

    Attributes:
        meaning: of the weights of the model that is to be trained, but for the blocks that its head sees.
        served: a copy of the served model's directory; an empty path where nothing is served.
    """

    meaning: MeaningOfWeights
    served: str

    def of_backbone(self, backbone: keras.Model, options: FineTuneOptions) -> PhotoWarmStart:
        """The same for a model with this backbone, which has the weights that are configured."""
        # Of other weights the served model does not go on, though they have the same shapes.
        weights = options.weights if options.from_scratch else _fingerprint(backbone)
        return PhotoWarmStart(
            self.meaning.model_copy(update={"backbone": {"name": options.backbone, "weights": weights}}), self.served
        )

    def meaning_with(self, blocks: Sequence[int]) -> MeaningOfWeights:
        """The meaning of the weights of a model whose head sees these blocks, by their numbers."""
        return self.meaning.model_copy(update={"backbone": {**self.meaning.backbone, "blocks": list(blocks)}})

    def served_blocks(self) -> tuple[int, ...]:
        """The blocks that the served model's head sees; () where nothing is served, or another backbone."""
        before = meaning_of_served(self.served)
        blocks = tuple(before.backbone.get("blocks", ())) if before else ()
        return blocks if before and before.backbone == self.meaning_with(blocks).backbone else ()

    def begin(self, model: keras.Model, blocks: Sequence[int]) -> str:
        """Give an untrained model the served one's weights, where they mean the same; see start_warm."""
        return start_warm(model, self.meaning_with(blocks), self.served)


def _fingerprint(backbone: keras.Model) -> str:
    digest = hashlib.sha256()
    for weight in backbone.get_weights():
        digest.update(weight.tobytes())
    return digest.hexdigest()
