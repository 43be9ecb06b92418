"""Options of the trainer of tables."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator

from trainers.options import PathBesideConfig


class TabularTrainerOptions(BaseModel):
    """A linear model over all features, plus a small network over them where `hidden_units` says so.

    Attributes:
        mode: what tells these options from WrapTableOptions.
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

    mode: Literal["train"] = "train"
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


class WrapTableOptions(BaseModel):
    """An existing model, which is not trained.

    Attributes:
        mode: what tells these options from TabularTrainerOptions.
        model: a .keras file; the directory of a YDF model; an XGBoost model, .json or .ubj; a LightGBM model, .txt; a
            scikit-learn classifier or pipeline, .skops, or .joblib and .pkl where it is trusted. Paths are relative to
            the config file.
        labels: the label of each class in the order of their numbers, where the model does not know them.
        columns: the names of the columns in the model's order, where it does not know them.
        outputs: what a Keras model answers with.
        trusted: whether a file may run code of its own when it is loaded, as every pickle does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    mode: Literal["wrap"]
    model: PathBesideConfig
    labels: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    outputs: Literal["probabilities", "logits"] = "probabilities"
    trusted: bool = False

    @field_validator("labels", mode="before")
    @classmethod
    def _refuse_booleans(cls, labels: Any) -> Any:
        if isinstance(labels, list | tuple) and any(isinstance(label, bool) for label in labels):
            raise ValueError("YAML reads an unquoted yes, no, on or off as true or false; put the label in quotes")
        return labels


AnyTabularTrainerOptions = Annotated[TabularTrainerOptions | WrapTableOptions, Field(discriminator="mode")]


def with_mode(trainer: Any) -> Any:
    """The content of a config's `trainer`, in which the mode may be left out: training."""
    return {"mode": "train", **trainer} if isinstance(trainer, dict) else trainer


def read_trainer_options(content: str) -> TabularTrainerOptions | WrapTableOptions:
    """The options out of their JSON."""
    options: TabularTrainerOptions | WrapTableOptions = TypeAdapter(AnyTabularTrainerOptions).validate_json(content)
    return options
