"""Options of the trainer of texts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationInfo, field_validator

from trainers.options import Memory, beside_config
from transform.options import Features


class _Training(BaseModel):
    """What all models have.

    Attributes:
        learning_rate: Adam's step size; it decays to zero along a cosine.
        batch_size: examples per step.
        epochs: passes over the training split.
        class_weights: `balanced`: each label counts the same, however many texts it has. Probabilities are those of
            data in which all labels are equally frequent then.
        warm_start: start from the weights of the model that is served, where they mean the same, see warm_start.py.
        memory: what the texts of a training may take, such as 2GiB; by default a quarter of the machine's. Those of a
            larger split are kept on disk, and learned from there.
        seed: of the initial weights and the shuffling.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(1e-3, gt=0)
    batch_size: int = Field(128, ge=1)
    epochs: int = Field(6, ge=1)
    class_weights: Literal["none", "balanced"] = "none"
    warm_start: bool = False
    memory: Memory | None = None
    seed: int = 0

    @property
    def embedding_handle(self) -> str:
        """The embedding that the model stands on, "" where it learns its own."""
        return ""


class NgramOptions(_Training):
    """A linear model over the weighted terms, and a network over their mean embedding.

    Attributes:
        model: what tells these options from the others.
        embedding_width: the width of a term's embedding.
        hidden_units: the width of the layer over the mean embedding.
        term_dropout: the share of a text's terms that the linear part does without, in training.
        dropout: the share of terms and of activations that the network does without, in training.
        l2: the weight of the squared linear weights in the loss (the loss is a mean over examples).
    """

    model: Literal["ngrams"] = "ngrams"
    embedding_width: int = Field(32, ge=1)
    hidden_units: int = Field(32, ge=1)
    term_dropout: float = Field(0.3, ge=0, lt=1)
    dropout: float = Field(0.5, ge=0, lt=1)
    l2: float = Field(5e-4, ge=0)

    @property
    def features(self) -> Features:
        """What it takes from Transform."""
        return "terms"


class EncoderOptions(_Training):
    """A convolutional encoder: filters over the embeddings of tokens that follow one another, the best match of each.

    Attributes:
        model: what tells these options from the others.
        embedding_width: the width of a token's embedding.
        filters: how many there are of each width.
        filter_widths: how many tokens they look at.
        dropout: the share of the embeddings' and of the matches' numbers that training does without.
    """

    model: Literal["encoder"]
    embedding_width: int = Field(64, ge=1)
    filters: int = Field(64, ge=1)
    filter_widths: tuple[Annotated[int, Field(ge=1)], ...] = Field((2, 3, 4), min_length=1)
    dropout: float = Field(0.5, ge=0, lt=1)

    @property
    def features(self) -> Features:
        """What it takes from Transform."""
        return "sequence"


class HubOptions(_Training):
    """A text embedding that exists, as TF-Hub has them, which is not trained, and a network over it.

    Attributes:
        model: what tells these options from the others.
        handle: a TF-Hub handle, or the directory of a downloaded model, relative to the config file.
        hidden_units: the width of the layer over the embedding; 0 for none.
        dropout: the share of numbers before and after that layer that training does without.
    """

    model: Literal["hub"]
    handle: str
    hidden_units: int = Field(64, ge=0)
    dropout: float = Field(0.2, ge=0, lt=1)
    epochs: int = Field(20, ge=1)

    @field_validator("handle")
    @classmethod
    def _beside_config(cls, handle: str, info: ValidationInfo) -> str:
        return beside_config(handle, info)

    @property
    def embedding_handle(self) -> str:
        return self.handle

    @property
    def features(self) -> Features:
        """What it takes from Transform."""
        return "text"


TextModelOptions = NgramOptions | EncoderOptions | HubOptions
TextTrainerOptions = Annotated[TextModelOptions, Field(discriminator="model")]


def read_trainer_options(content: str) -> TextModelOptions:
    """The options out of their JSON."""
    options: TextModelOptions = TypeAdapter(TextTrainerOptions).validate_json(content)
    return options
