"""Options of the trainer of tables."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class TabularTrainerOptions(BaseModel):
    """A linear model over all features, plus a small network over them where `hidden_units` says so.

    Attributes:
        hidden_units: the widths of the network's layers; none makes the model purely linear.
        embedding_width: the width of a category's embedding in the network.
        dropout: the share of activations dropped between the network's layers in training.
        l2: the weight of the squared weights in the loss (the loss is a mean over examples).
        learning_rate: Adam's step size; it decays to zero along a cosine.
        batch_size: examples per step.
        epochs: passes over the training split.
        early_stopping_patience: stop after so many epochs without a better loss on rows held out from the training
            split, and keep the best weights; without it, all epochs run on all rows.
        warm_start: start from the weights of the model that is served, where they mean the same, see warm_start.py.
        seed: of the initial weights, the shuffling and the held-out rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden_units: tuple[int, ...] = (64, 32)
    embedding_width: int = Field(8, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    l2: float = Field(1e-4, ge=0)
    learning_rate: float = Field(1e-2, gt=0)
    batch_size: int = Field(256, ge=1)
    epochs: int = Field(30, ge=1)
    early_stopping_patience: int | None = Field(None, ge=1)
    warm_start: bool = False
    seed: int = 0
