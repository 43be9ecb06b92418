"""Options of the trainer of texts."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationInfo, field_validator, model_validator

from trainers.options import (
    TOLERANCES,
    DeviceChoice,
    Memory,
    MixedPrecision,
    PathBesideConfig,
    Precision,
    beside_config,
)
from transform.options import Features


class _Training(BaseModel):
    """What all models have.

    Attributes:
        learning_rate: Adam's step size; it decays to zero along a cosine.
        batch_size: examples per step.
        epochs: passes over the training split.
        minimum_steps: how many steps there are at least: of few texts, an epoch has more passes than one. 0, where a
            config gives epochs and not this.
        class_weights: `balanced`: each label counts the same, however many texts it has. Probabilities are those of
            data in which all labels are equally frequent then.
        warm_start: start from the weights of the model that is served, where they mean the same, see warm_start.py.
        memory: what the texts of a training may take, such as 2GiB; by default a quarter of the machine's. Those of a
            larger split are kept on disk, and learned from there.
        devices: `auto`: all GPUs that are here, or the processor where there are none; `cpu`; or how many GPUs. They
            share the batch.
        mixed_precision: whether training computes in float16 where GPUs have units for it, with weights in float32;
            `auto` does so where it is of use; `bfloat16` is for what computes with it, processors too. What is served
            is float32.
        seed: of the initial weights and the shuffling.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(1e-3, gt=0)
    batch_size: int = Field(128, ge=1)
    epochs: int = Field(6, ge=1)
    minimum_steps: int = Field(360, ge=0)
    class_weights: Literal["none", "balanced"] = "none"
    warm_start: bool = False
    memory: Memory | None = None
    devices: DeviceChoice = "auto"
    mixed_precision: MixedPrecision = False
    seed: int = 0

    @model_validator(mode="after")
    def _given_epochs(self) -> Self:
        if "epochs" in self.model_fields_set and "minimum_steps" not in self.model_fields_set:
            object.__setattr__(self, "minimum_steps", 0)
        return self

    def shortened(self) -> Self:
        """Those of a run that is to end soon, whatever its model is worth."""
        return self.model_copy(update={"epochs": min(self.epochs, 2), "minimum_steps": 0})

    def steps_per_epoch(self, rows: int) -> int:
        """Batches in an epoch over so many rows."""
        return max(-(-rows // min(self.batch_size, rows)), -(-self.minimum_steps // self.epochs))

    @property
    def embedding_handle(self) -> str:
        """The embedding or the encoder that the model stands on, "" where it learns its own."""
        return ""

    @property
    def warm_up(self) -> float:
        """The share of the steps in which the step size grows from nothing to what it is to be."""
        return 0.0

    @property
    def tolerance(self) -> float | None:
        """How far served probabilities may be from the trained model's; None for what is usual."""
        return None


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


# How a network over vectors that stay as they are is trained, where a config does not say it.
_OF_HEAD = {"learning_rate": 1e-3, "batch_size": 128, "epochs": 30, "minimum_steps": 360}
# N-grams that are trained for as long as the network alone learn their texts by heart.
_EPOCHS_BESIDE_NGRAMS = 10


class TransformerOptions(_Training):
    """A pretrained encoder of the BERT family, and a network over its pooled vectors.

    Attributes:
        model: what tells these options from the others.
        encoder: its folder in Hugging Face's layout (config.json, model.safetensors, vocab.txt or tokenizer.json),
            relative to the config file.
        trained_layers: how many of its layers are trained with the head, the last ones; `all` of them and the vectors
            of the pieces too; 0: none, the encoder is asked once for each text, and the head alone is trained.
        pooling: what stands for a text: the `mean` over its pieces, or the vector of the piece before it, `cls`.
        maximum_length: how many pieces of a text count, with the one before and the one behind it.
        ngrams: whether the model of n-grams, with its defaults, is trained beside an encoder of which no layer is; the
            answer is the mean then.
        hidden_units: the width of the layer over the pooled vector; 0 for none.
        dropout: the share of numbers before and after that layer that training does without.
        precision: of the encoder's products, in training and in what is served. `bfloat16` is for CPUs that
            compute with it, and moves the probabilities of close labels.
    """

    model: Literal["transformer"]
    encoder: PathBesideConfig
    trained_layers: Annotated[int, Field(ge=0)] | Literal["all"] = "all"
    pooling: Literal["mean", "cls"] = "mean"
    maximum_length: int = Field(128, ge=3)
    ngrams: bool = False
    hidden_units: int = Field(0, ge=0)
    dropout: float = Field(0.1, ge=0, lt=1)
    precision: Precision = "float32"
    learning_rate: float = Field(5e-5, gt=0)
    batch_size: int = Field(32, ge=1)
    epochs: int = Field(3, ge=1)
    minimum_steps: int = Field(60, ge=0)

    @model_validator(mode="after")
    def _complete(self) -> TransformerOptions:
        if self.trained_layers == 0:
            given = self.model_fields_set | ({"minimum_steps"} if "epochs" in self.model_fields_set else set())
            defaults = {**_OF_HEAD, "epochs": _EPOCHS_BESIDE_NGRAMS} if self.ngrams else _OF_HEAD
            for name in defaults.keys() - given:
                object.__setattr__(self, name, defaults[name])
        elif self.ngrams:
            raise ValueError(
                f"ngrams stand beside an encoder that stays as it is, and trained_layers is {self.trained_layers!r}; "
                "set it to 0, or take ngrams out"
            )
        if self.mixed_precision and self.precision != "float32":
            raise ValueError(
                f"precision: {self.precision} computes so in training too; take mixed_precision out, or precision"
            )
        return self

    @property
    def embedding_handle(self) -> str:
        return self.encoder

    @property
    def warm_up(self) -> float:
        return 0.0 if self.trained_layers == 0 else 0.1

    @property
    def tolerance(self) -> float | None:
        return TOLERANCES[self.precision]

    @property
    def features(self) -> Features:
        """What it takes from Transform."""
        return "terms_and_text" if self.ngrams else "text"


class StaticOptions(_Training):
    """Static vectors, one for each piece, of which a text's are averaged, and a network over the mean.

    Attributes:
        model: what tells these options from the others.
        encoder: a folder in Hugging Face's layout, relative to the config file: of an encoder of the BERT family, whose
            vectors of pieces are taken, or with the vectors themselves, as model2vec writes them.
        context_pieces: of the training texts the encoder reads about so many pieces: a piece's vector is the mean of
            what the encoder makes of it there and by itself; 0 for by itself alone.
        vector_width: how many numbers a vector is reduced to.
        trained_vectors: whether the vectors are trained with the network, or stay as they are.
        maximum_length: how many pieces of a text count.
        ngrams: whether the model of n-grams, with its defaults, is trained beside it; the answer is the mean then.
        hidden_units: the width of the layer over the mean; 0 for none.
        dropout: the share of numbers before and after that layer that training does without.
    """

    model: Literal["static"]
    encoder: PathBesideConfig
    context_pieces: int = Field(250_000, ge=0)
    vector_width: int = Field(256, ge=1)
    trained_vectors: bool = False
    maximum_length: int = Field(512, ge=1)
    ngrams: bool = True
    hidden_units: int = Field(64, ge=0)
    dropout: float = Field(0.2, ge=0, lt=1)

    @property
    def embedding_handle(self) -> str:
        return self.encoder

    @property
    def features(self) -> Features:
        """What it takes from Transform."""
        return "terms_and_text" if self.ngrams else "text"


class AutoOptions(BaseModel):
    """The model that tells texts best which it did not see, of those that there are weights for; n-grams need none.

    Attributes:
        model: what tells these options from the others.
        encoder: a folder in Hugging Face's layout, relative to the config file: its static vectors, and the encoder as
            it is under a network, each beside n-grams, are tried too. Without it, n-grams are all there is.
        maximum_length: how many pieces of a text the encoder is given at most.
        epochs: of each that is tried; None for what is usual of it.
        class_weights: see NgramOptions.
        memory: likewise.
        devices: likewise.
        mixed_precision: likewise.
        seed: likewise, and of the folds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Literal["auto"]
    encoder: PathBesideConfig | None = None
    maximum_length: int = Field(128, ge=3)
    epochs: int | None = Field(None, ge=1)
    class_weights: Literal["none", "balanced"] = "none"
    memory: Memory | None = None
    devices: DeviceChoice = "auto"
    mixed_precision: MixedPrecision = False
    seed: int = 0

    def shortened(self) -> Self:
        """Those of a run that is to end soon, whatever its model is worth."""
        return self.model_copy(update={"epochs": min(self.epochs or 2, 2)})

    def candidates(self) -> tuple[TrainedOptions, ...]:
        """What is tried, with the defaults of each."""
        shared = self.model_dump(include={"class_weights", "memory", "devices", "mixed_precision", "seed"})
        shared |= {} if self.epochs is None else {"epochs": self.epochs}
        found: list[TrainedOptions] = [NgramOptions.model_validate(shared)]
        if self.encoder is not None:
            of_encoder = {**shared, "encoder": self.encoder}
            found.append(StaticOptions.model_validate({**of_encoder, "model": "static"}))
            frozen = {
                "model": "transformer",
                "trained_layers": 0,
                "ngrams": True,
                "maximum_length": self.maximum_length,
            }
            found.append(TransformerOptions.model_validate({**of_encoder, **frozen, "model": "transformer"}))
        return tuple(found)

    @property
    def tolerance(self) -> float | None:
        """How far served probabilities may be from the trained model's; None for what is usual."""
        return None if self.encoder is None else TOLERANCES["float32"]

    @property
    def features(self) -> Features:
        """What the candidates take from Transform."""
        return "terms" if self.encoder is None else "terms_and_text"


class WrapTextOptions(BaseModel):
    """A classifier of texts that exists, which is not trained; a config writes `mode: wrap, model: FOLDER`.

    Attributes:
        model: what tells these options from the others.
        folder: of an encoder of the BERT family with a classification head, in Hugging Face's layout, relative to the
            config file.
        labels: the label of each class in the order of its outputs, where those of config.json's id2label are none.
        maximum_length: how many pieces of a text count; by default as many as the encoder takes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    model: Literal["wrap"] = "wrap"
    folder: PathBesideConfig
    labels: tuple[str, ...] = ()
    maximum_length: int | None = Field(None, ge=3)

    def shortened(self) -> Self:
        """The same: nothing is trained."""
        return self

    @property
    def embedding_handle(self) -> str:
        """Of the classifier."""
        return self.folder

    @property
    def tolerance(self) -> float:
        """How far served probabilities may be from those of the network in Keras."""
        return 1e-5

    @property
    def features(self) -> Features:
        """What it takes from Transform."""
        return "text"

    @property
    def memory(self) -> None:
        """What texts may take: what is usual."""
        return None

    @property
    def seed(self) -> int:
        """Of draws, of which there are none."""
        return 0

    @property
    def warm_start(self) -> bool:
        """Whether a training goes on, of which there is none."""
        return False


def with_model(trainer: object) -> object:
    """The content of a config's `trainer` with the name of the model; or what is wrapped.

    Where it has no name: n-grams; where it has an encoder, the best of what that allows.

    Raises:
        ValueError: the mode is neither train nor wrap, or the folder of what is wrapped is missing.
    """
    if not isinstance(trainer, dict):
        return trainer
    mode, others = trainer.get("mode", "train"), {name: value for name, value in trainer.items() if name != "mode"}
    if mode not in ("train", "wrap"):
        raise ValueError(f"mode: expected train or wrap, received {mode!r}")
    if mode == "train":
        return {"model": "auto" if "encoder" in others else "ngrams", **others}
    folder = others.pop("model", None)
    if not isinstance(folder, str):
        raise ValueError("mode: wrap takes the folder of a classifier of texts; name it: trainer.model")
    return {"model": "wrap", "folder": folder, **others}


TrainedOptions = NgramOptions | EncoderOptions | HubOptions | TransformerOptions | StaticOptions
TextModelOptions = TrainedOptions | WrapTextOptions
TextTrainerOptions = Annotated[TextModelOptions | AutoOptions, Field(discriminator="model")]


def read_trainer_options(content: str) -> TextModelOptions | AutoOptions:
    """The options out of their JSON."""
    options: TextModelOptions | AutoOptions = TypeAdapter(TextTrainerOptions).validate_json(content)
    return options
