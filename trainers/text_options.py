"""How a model of texts is trained."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class TextTrainerOptions(BaseModel):
    """A linear model over the weighted terms, plus a network over their mean embedding.

    Attributes:
        embedding_width: the width of a term's embedding.
        hidden_units: the width of the layer over the mean embedding.
        term_dropout: the share of a text's terms that the linear part does without, in training.
        dropout: the share of terms and of activations that the network does without, in training.
        l2: the weight of the squared linear weights in the loss (the loss is a mean over examples).
        learning_rate: Adam's step size; it decays to zero along a cosine.
        batch_size: examples per step.
        epochs: passes over the training split.
        seed: of the initial weights and the shuffling.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    embedding_width: int = Field(32, ge=1)
    hidden_units: int = Field(32, ge=1)
    term_dropout: float = Field(0.3, ge=0, lt=1)
    dropout: float = Field(0.5, ge=0, lt=1)
    l2: float = Field(5e-4, ge=0)
    learning_rate: float = Field(1e-3, gt=0)
    batch_size: int = Field(128, ge=1)
    epochs: int = Field(6, ge=1)
    seed: int = 0
