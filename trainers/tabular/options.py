"""Options of the trainer of tables."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator, model_validator

from trainers.options import DeviceChoice, Memory, MixedPrecision, PathBesideConfig

ModelKind = Literal["auto", "linear", "network", "trees", "blend"]


class TreeOptions(BaseModel):
    """Decision trees by YDF.

    Attributes:
        count: boosted trees at most; how many there are, rows that a training does not see decide. By default 600, and
            300 with more than 100,000 rows.
        max_depth: of a boosted tree that grows level by level; one that grows where it gains most, where folds of 1,500
            to 10,000 rows are for it, has as many leaves, and up to five levels more.
        learning_rate: the share of a boosted tree's answer that counts; by default 0.05, and 0.1 with more than 100,000
            rows: as good there, in half the time.
        subsample: the share of rows that each boosted tree is grown on; by default 0.8, and all of more than 20,000.
        feature_share: the share of columns that each split of a boosted tree is chosen of; by default 0.5, and all with
            more than 20,000 rows.
        min_examples: the fewest rows of a leaf of a boosted tree.
        forest: the trees of a random forest, of deep trees grown without looking at one another; fewer where there are
            many rows, and none with more than 20,000, for it would be large then. 0 leaves it out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int | None = Field(None, ge=1)
    max_depth: int = Field(6, ge=1, le=24)
    learning_rate: float | None = Field(None, gt=0, le=1)
    subsample: float | None = Field(None, gt=0, le=1)
    feature_share: float | None = Field(None, gt=0, le=1)
    min_examples: int = Field(10, ge=1)
    forest: int = Field(300, ge=0)


class TabularTrainerOptions(BaseModel):
    """Which model is trained, and how.

    Attributes:
        mode: what tells these options from WrapTableOptions.
        model: `linear`; `network`, which has a linear part; `trees`, boosted; `blend`, the mean of these and of a
            random forest, weighted as predictions out of folds suit best; `auto`, the blend, or the best of them alone
            where a blend gains nothing to speak of. With `warm_start`, `auto` is a network, or linear without hidden
            units: no trees go on from where others ended.
        hidden_units: the widths of the network's layers; without any, no network is tried.
        trees: size and number of trees.
        minutes: how long members may be trained, for `trees`, `blend` and `auto`; those that there is no time for are
            left out. What comes of it depends on the machine; without it, it does not.
        embedding_width: the width of a category's embedding in the network.
        dropout: the share of activations dropped between the network's layers in training.
        l2: the weight of the squared weights in the loss (the loss is a mean over examples).
        learning_rate: Adam's step size; it decays to zero along a cosine. Networks of a blend keep a fifth of it.
        batch_size: examples per step; twice as many for networks of a blend.
        epochs: passes over the training split; at most so many for networks of a blend.
        early_stopping_patience: stop after so many epochs without a better loss on rows held out from the training
            split, and keep the best weights; without it, all epochs run on all rows.
        class_weights: `balanced`: each label counts the same, however many rows it has. Probabilities are those of data
            in which all labels are equally frequent then.
        warm_start: start from the weights of the model that is served, where they mean the same, see warm_start.py.
        memory: what the rows of a training may take, such as 2GiB; by default a quarter of the machine's. Those of a
            larger split are kept on disk; networks and linear models of their own learn from them there, trees and the
            linear member of a blend from so many, drawn at random, as fit.
        devices: `auto`: all GPUs that are here, or the processor where there are none; `cpu`; or how many GPUs. They
            share the batch.
        mixed_precision: whether training computes in float16 where GPUs have units for it, with weights in float32;
            `auto` does so where it is of use; `bfloat16` is for what computes with it, processors too. What is served
            is float32.
        seed: of the initial weights, the shuffling and the held-out rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["train"] = "train"
    model: ModelKind = "auto"
    hidden_units: tuple[int, ...] = (64, 32)
    trees: TreeOptions = TreeOptions()
    minutes: float | None = Field(None, gt=0)
    embedding_width: int = Field(8, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    l2: float = Field(1e-4, ge=0)
    learning_rate: float = Field(1e-2, gt=0)
    batch_size: int = Field(256, ge=1)
    epochs: int = Field(30, ge=1)
    early_stopping_patience: int | None = Field(None, ge=1)
    class_weights: Literal["none", "balanced"] = "none"
    warm_start: bool = False
    memory: Memory | None = None
    devices: DeviceChoice = "auto"
    mixed_precision: MixedPrecision = False
    seed: int = 0

    @model_validator(mode="after")
    def _check_model(self) -> TabularTrainerOptions:
        if self.model == "network" and not self.hidden_units:
            raise ValueError("model: network needs hidden_units, such as [64, 32]; without any, it is model: linear")
        if self.model in ("trees", "blend") and self.warm_start:
            raise ValueError(
                f"warm_start begins with the weights of a network or a linear model, which model: {self.model} does "
                "not go on from; take warm_start out, or say model: network or linear"
            )
        if self.model == "trees" and (self.devices != "auto" or self.mixed_precision):
            raise ValueError(
                "devices and mixed_precision are for networks, and model: trees grows on the processor; take them out, "
                "or say model: network, blend or auto"
            )
        if self.minutes and not self.has_members:
            raise ValueError(f"minutes bounds what auto, trees and blend try; model: {self.model} ends by epochs")
        return self

    def shortened(self) -> Self:
        """Those of a run that is to end soon, whatever its model is worth."""
        few = {"count": min(self.trees.count or 20, 20), "forest": min(self.trees.forest, 20)}
        trees = self.trees.model_copy(update=few)
        return self.model_copy(update={"epochs": min(self.epochs, 5), "trees": trees})

    @property
    def has_members(self) -> bool:
        """Whether members are trained and measured on folds, and not one Keras model on all rows."""
        return self.model in ("trees", "blend") or (self.model == "auto" and not self.warm_start)

    @property
    def keras_units(self) -> tuple[int, ...]:
        """The hidden layers of the Keras model where there are no members."""
        return () if self.model == "linear" else self.hidden_units


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

    def shortened(self) -> Self:
        """The same: nothing is trained."""
        return self

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
