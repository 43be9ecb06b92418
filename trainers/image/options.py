"""Options of the trainer of images, the backbones of keras.applications, and files of labels."""

from __future__ import annotations

import difflib
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationInfo, field_validator, model_validator

from trainers.options import DeviceChoice, ImagePrecision, MixedPrecision, beside_config
from transform.options import PixelFormat, Scaling

if TYPE_CHECKING:
    import numpy as np

# ImageNet's 1000 classes in the order of Keras's models, ILSVRC 2012's: the first word that WordNet has for each, and
# "crane bird" and "maillot tank suit" where two classes would have one name. The list is torchvision's (BSD 3-Clause);
# timm's and TensorFlow.js's MobileNet's (both Apache 2.0) have the same names in the same order, but for these two and
# a spelling. WordNet: https://wordnet.princeton.edu/license-and-commercial-use
IMAGENET = "imagenet"
_IMAGENET_FILE = Path(__file__).with_name("imagenet_labels.txt")

_BACKGROUND = "background"


def read_label_file(path: str, background_first: bool) -> tuple[str, ...]:
    """One label a line, in the order of the classifier's outputs; empty lines at the end are passed over.

    Args:
        path: a UTF-8 text file, or `imagenet` for the names of ImageNet's 1000 classes.
        background_first: the classifier's first output is no class; the file may begin with a line `background` for it,
            which is left out.

    Raises:
        ValueError: there is no such file, or it does not name each class once.
    """
    lines = _lines(_IMAGENET_FILE if path == IMAGENET else Path(path))
    first = 1 if background_first and lines and lines[0].lower() == _BACKGROUND else 0
    seen: dict[str, int] = {}
    for number, label in enumerate(lines[first:], start=first + 1):
        if not label:
            raise ValueError(f"{path}: line {number} is empty; expected one label a line, in the order of the outputs")
        if label in seen:
            raise ValueError(
                f"{path}: line {number} is {label!r} as line {seen[label]} is; a label tells one class from the "
                "others, so write both differently, such as 'crane (bird)' and 'crane (machine)'"
            )
        seen[label] = number
    if len(seen) < 2:
        raise ValueError(f"{path}: expected at least two labels, one a line, found {len(seen)}")
    return tuple(seen)


def _lines(file: Path) -> list[str]:
    try:
        content = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ValueError(f"{file}: no such file; trainer.labels names a text file with one label a line") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: the labels cannot be read: {error}; save them as UTF-8 text") from error
    return [line.strip() for line in content.rstrip().splitlines()]


DEFAULT_BACKBONE = "InceptionV3"

# What their weights were trained with, https://keras.io/api/applications/. The `raw` ones do the rest in their graph;
# for some of them it is put there by image_backbone.py.
_MINUS_ONE_TO_ONE = {
    "InceptionResNetV2": 299,
    "InceptionV3": 299,
    "MobileNet": 224,
    "MobileNetV2": 224,
    "NASNetLarge": 331,
    "NASNetMobile": 224,
    "ResNet50V2": 224,
    "ResNet101V2": 224,
    "ResNet152V2": 224,
    "Xception": 299,
}
_RAW = {
    "ConvNeXtTiny": 224,
    "ConvNeXtSmall": 224,
    "ConvNeXtBase": 224,
    "ConvNeXtLarge": 224,
    "ConvNeXtXLarge": 224,
    "DenseNet121": 224,
    "DenseNet169": 224,
    "DenseNet201": 224,
    "EfficientNetB0": 224,
    "EfficientNetB1": 240,
    "EfficientNetB2": 260,
    "EfficientNetB3": 300,
    "EfficientNetB4": 380,
    "EfficientNetB5": 456,
    "EfficientNetB6": 528,
    "EfficientNetB7": 600,
    "EfficientNetV2B0": 224,
    "EfficientNetV2B1": 240,
    "EfficientNetV2B2": 260,
    "EfficientNetV2B3": 300,
    "EfficientNetV2S": 384,
    "EfficientNetV2M": 480,
    "EfficientNetV2L": 480,
    "MobileNetV3Small": 224,
    "MobileNetV3Large": 224,
    "ResNet50": 224,
    "ResNet101": 224,
    "ResNet152": 224,
    "VGG16": 224,
    "VGG19": 224,
}
BACKBONES = {name: PixelFormat(size, size, "minus_one_to_one") for name, size in _MINUS_ONE_TO_ONE.items()} | {
    name: PixelFormat(size, size, "raw") for name, size in _RAW.items()
}

AUTO = "auto"
# What `backbone: auto` tries with `weights: imagenet`: small ones and large ones of several families.
IMAGENET_CANDIDATES = ("MobileNetV3Large", "EfficientNetV2B0", "InceptionV3", "ConvNeXtTiny", "EfficientNetV2S")

# Trained on 0 to 255 less the mean of each colour in the order blue, green, red; or on 0 to 1, standardised.
BLUE_GREEN_RED = ("ResNet50", "ResNet101", "ResNet152", "VGG16", "VGG19")
STANDARDISED = ("DenseNet121", "DenseNet169", "DenseNet201")


_RANGES: dict[Scaling, tuple[float, float]] = {
    "minus_one_to_one": (-1, 1),
    "zero_to_one": (0, 1),
    "raw": (0, 255),
}
# Layers that leave the range as it is, and what stands for one number in Keras's functional models.
_SAME_RANGE = ("InputLayer", "Resizing", "CenterCrop", "Identity", "Cast", "ZeroPadding2D", "Dropout")
_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "TrueDivide": lambda values, number: values / number,
    "Divide": lambda values, number: values / number,
    "Multiply": lambda values, number: values * number,
    "Subtract": lambda values, number: values - number,
    "Add": lambda values, number: values + number,
}


def keras_pixel_format(file: Path) -> PixelFormat:
    """What a .keras file takes: its height and width, and the scaling that its first layers or its architecture expect.

    Layers that scale (Rescaling, Normalization, arithmetic) say what goes in: what they bring to [-1, 1], [0, 1],
    [0, 255] or about mean 0 and deviation 1. Where there are none, a model of keras.applications is known by its name.

    Args:
        file: written by Keras 3; of what is none, nothing is known.
    """
    default = BACKBONES[DEFAULT_BACKBONE]
    unknown = replace(default, scaling=None)
    try:
        with zipfile.ZipFile(file) as archive:
            model = json.loads(archive.read("config.json"))
        first = _FirstLayers(model)
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError, IndexError):
        return unknown  # why it is no model is said where it is loaded
    height, width = (size or getattr(default, name) for size, name in zip(first.size, ("height", "width"), strict=True))
    return PixelFormat(height, width, first.scaling())


class _FirstLayers:
    """The layers from the input on as long as they only scale, read of a model's configuration.

    Attributes:
        size: height and width of the input; None where any will do.
        steps: what they do to a colour, in their order.
        architecture: the name of the model of keras.applications that follows; "" where none does.
    """

    def __init__(self, model: Mapping[str, Any]) -> None:
        self.size: tuple[int | None, int | None] = (None, None)
        self.steps: list[Callable[[Any], Any]] = []
        self.architecture = ""
        self._walk(model)

    def _walk(self, model: Mapping[str, Any]) -> bool:
        """Whether all layers of a model only scale; the first that does more ends it."""
        if self._is_architecture(model["config"].get("name", "")):
            self._read_size(model["config"]["layers"][0])
            return False
        layers = list(model["config"]["layers"])
        if model["class_name"] == "Sequential":
            return all(self._step(layer) for layer in layers)
        name = next(layer["config"]["name"] for layer in layers if layer["class_name"] == "InputLayer")
        self._read_size(next(layer for layer in layers if layer["class_name"] == "InputLayer"))
        while True:
            users = [layer for layer in layers if f'"{name}"' in json.dumps(layer.get("inbound_nodes", []))]
            if not users:
                return True
            if len(users) > 1 or not self._step(users[0]):
                return False
            name = users[0].get("name") or users[0]["config"]["name"]

    def _read_size(self, layer: Mapping[str, Any]) -> None:
        shape = layer["config"].get("batch_shape") or layer["config"].get("batch_input_shape")
        if self.size == (None, None) and shape and len(shape) == 4:
            self.size = shape[1], shape[2]

    def _is_architecture(self, name: str) -> bool:
        plain = re.sub(r"[^a-z0-9]", "", re.sub(r"_\d\.\d+_\d+$", "", name.lower()))
        self.architecture = next((known for known in BACKBONES if known.lower() == plain), "")
        return bool(self.architecture)

    def _step(self, layer: Mapping[str, Any]) -> bool:
        """Take a layer; whether it only scales."""
        import numpy as np  # starts threads, in which a daemon that reads configs would miss its signals

        kind, config = layer["class_name"], layer["config"]
        if kind == "InputLayer":
            self._read_size(layer)
        if kind in ("Functional", "Sequential", "Model"):
            return self._walk(layer)
        if kind == "Rescaling":
            scale, offset = np.asarray(config["scale"], float), np.asarray(config["offset"], float)
            self.steps.append(lambda values: values * scale + offset)
        elif kind == "Normalization" and config.get("mean") is not None and not config.get("invert"):
            mean, deviation = np.ravel(config["mean"]), np.sqrt(np.ravel(config["variance"]))
            self.steps.append(lambda values: (values - mean) / deviation)
        elif kind in _ARITHMETIC:
            (node,) = layer["inbound_nodes"]
            number = node["args"][1]
            if not isinstance(number, int | float):
                return False
            self.steps.append(lambda values: _ARITHMETIC[kind](values, number))
        else:
            return kind in _SAME_RANGE or kind.startswith("Random")
        return True

    def scaling(self) -> Scaling | None:
        """Which range the layers are made for, if one alone fits."""
        expected: Scaling | None = None
        if self.architecture not in ("", *BLUE_GREEN_RED, *STANDARDISED):
            expected = BACKBONES[self.architecture].scaling
        if not self.steps:
            return expected
        ends = {name: self._ends(*limits) for name, limits in _RANGES.items()}
        ranges = _RANGES.values() if expected is None else [_RANGES[expected]]
        fitting = [name for name, (low, high) in ends.items() if any(_is_range(low, high, *one) for one in ranges)]
        if not fitting and expected is None:
            fitting = [name for name, (low, high) in ends.items() if _is_standardised(low, high)]
        return fitting[0] if len(fitting) == 1 else None

    def _ends(self, low: float, high: float) -> tuple[Any, Any]:
        """What the layers make of the two, float [3] each."""
        import numpy as np

        values = np.full(3, low, float), np.full(3, high, float)
        for step in self.steps:
            values = step(values[0]), step(values[1])
        return values


def _is_range(low: np.ndarray, high: np.ndarray, lowest: float, highest: float) -> bool:
    import numpy as np

    return np.allclose([low, high], np.array([[lowest], [highest]]), atol=0.01 * (highest - lowest))


def _is_standardised(low: np.ndarray, high: np.ndarray) -> bool:
    """As photos are: black lies some two deviations below the mean, and white above it."""
    return bool(((low > -3) & (low < -1) & (high > 1) & (high < 4)).all())


class AugmentationOptions(BaseModel):
    """Random changes of photos, in training only; each photo is changed anew each time.

    Attributes:
        flip: whether left and right are exchanged in half of the photos.
        crop: the largest share of height and width that is cut off, at random sides; what is left is resized.
        colour: by how much, up or down, brightness, contrast and saturation change at most, as a share.
        grey: the share of photos that lose their colours.
        copies: where features of a frozen backbone are computed once: of how many changed copies of each photo, beside
            the photo itself; where only `grey` changes photos, of a grey copy of that share of them. Training from
            scratch changes photos in each epoch, and needs none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    flip: bool = False
    crop: float = Field(0, ge=0, lt=1)
    colour: float = Field(0, ge=0, lt=1)
    grey: float = Field(0.25, ge=0, le=1)
    copies: int = Field(1, ge=1, le=100)

    @property
    def changes(self) -> bool:
        """Whether each photo is changed, rather than some of them."""
        return self.flip or self.crop > 0 or self.colour > 0


NO_WEIGHTS = "none"
KERAS_FILE = ".keras"
WEIGHTS_FILE = ".weights.h5"
_KERAS_FILES = (".h5", KERAS_FILE)


class FineTuneOptions(BaseModel):
    """A backbone of keras.applications and a linear head over its pooled features, trained.

    Pretrained, the backbone is frozen while the head is solved on features that are computed once; then its last
    blocks may be trained further, from activations that are computed once. From scratch, all layers are trained.

    Attributes:
        mode: what tells these options from WrapOptions.
        backbone: the name of a model in keras.applications; the size and the scaling of the pixels follow it. `auto`
            tries those that there are weights for, and keeps one by `prefer`.
        prefer: what `auto` goes by: `accuracy`, of photos that are left out; or `speed`, among those whose accuracy is
            no worse than the best one's by more than chance does.
        weights: `imagenet`, which Keras downloads; the path of a .weights.h5 file of the backbone, of a .keras file, or
            of the directory of a SavedModel, relative to the config file; a TF-Hub handle; or `none`, to train from
            scratch. For `backbone: auto`: `imagenet`, or a folder of files NAME.weights.h5.
        blocks: the names of the blocks whose pooled features the head sees; the backbone is cut off behind the last of
            them. `auto` takes the block whose features tell the classes best, and its neighbours as long as they help;
            from scratch, the last block.
        trained_blocks: how many of the last of these blocks are trained further; those before them stay frozen.
        epochs: passes over the training split in which blocks are trained.
        batch_size: photos per step.
        learning_rate: Adam's step size; it decays to zero along a cosine.
        early_stopping_patience: stop after so many epochs without a better loss on a tenth of the training photos,
            which is held out for it, and keep the best weights; without it, all epochs run on all photos.
        label_smoothing: the share of each target that is spread over all classes, while blocks are trained.
        class_weights: `none`, or `balanced`: each class counts the same, however many photos it has.
        augmentation: random changes of photos, in training only.
        warm_start: begin with the weights of the served model, where they mean the same. Blocks that `auto` chose
            for it stay then, and its head is trained further with them.
        batch_norm_momentum: of the running means of a training from scratch; lower values suit short ones.
        precision: of the served model; int8 only where that is worth it, see trainers/image/train.py.
        devices: `auto`: all GPUs that are here, or the processor where there are none; `cpu`; or how many GPUs. They
            share the batch.
        mixed_precision: whether training computes in float16 where GPUs have units for it, with weights in float32;
            `auto` does so where it is of use; `bfloat16` is for what computes with it, processors too. What is served
            is float32.
        seed: of the initial weights, the order of the photos and their changes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["fine_tune"]
    backbone: str = DEFAULT_BACKBONE
    prefer: Literal["accuracy", "speed"] = "accuracy"
    weights: str = IMAGENET
    blocks: Literal["auto"] | tuple[str, ...] = "auto"
    trained_blocks: int = Field(0, ge=0)
    epochs: int = Field(5, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    early_stopping_patience: int | None = Field(None, ge=1)
    label_smoothing: float = Field(0, ge=0, lt=1)
    class_weights: Literal["none", "balanced"] = "none"
    augmentation: AugmentationOptions = AugmentationOptions()
    warm_start: bool = False
    batch_norm_momentum: float = Field(0.99, ge=0, lt=1)
    precision: ImagePrecision = "float32"
    devices: DeviceChoice = "auto"
    mixed_precision: MixedPrecision = False
    seed: int = 0

    @field_validator("backbone")
    @classmethod
    def _known_backbone(cls, name: str) -> str:
        if name not in BACKBONES and name != AUTO:
            raise ValueError(f"expected {AUTO}, or one of {', '.join(sorted(BACKBONES))}")
        return name

    @field_validator("weights")
    @classmethod
    def _weights_beside_config(cls, weights: str, info: ValidationInfo) -> str:
        return weights if weights in (IMAGENET, NO_WEIGHTS) else beside_config(weights, info)

    @field_validator("blocks")
    @classmethod
    def _some_blocks(cls, blocks: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not blocks:
            raise ValueError("expected auto or the names of blocks, received none")
        return blocks

    @model_validator(mode="after")
    def _check(self) -> FineTuneOptions:
        self._check_auto()
        fields = type(self).model_fields
        # Not model_fields_set: options that come out of JSON name every field.
        changed = {name for name in fields if getattr(self, name) != fields[name].default}
        trained = {"epochs", "batch_size", "learning_rate", "early_stopping_patience", "label_smoothing"}
        trained |= {"mixed_precision"} | ({"devices"} if self.devices != "cpu" else set())
        idle = sorted(trained & changed)
        if idle and not self.trained_blocks and not self.from_scratch:
            raise ValueError(f"{idle[0]} is for blocks that are trained, and trained_blocks is 0; give trained_blocks")
        if self.from_scratch and self.trained_blocks:
            raise ValueError("trained_blocks is for pretrained weights; with weights: none, all layers are trained")
        if "batch_norm_momentum" in changed and not self.from_scratch:
            raise ValueError("batch_norm_momentum is for weights: none; running means of pretrained weights stay")
        own_weights = self.backbone != AUTO and self.weights not in (IMAGENET, NO_WEIGHTS)
        if self.warm_start and own_weights and not self.weights.endswith(_KERAS_FILES):
            raise ValueError("warm_start is for backbones of Keras; what a SavedModel learns cannot be taken over")
        return self

    def shortened(self) -> Self:
        """Those of a run that is to end soon, whatever its model is worth."""
        # Where blocks stay as they are, there are no epochs to cut.
        return self.model_copy(update={"epochs": 1}) if self.trained_blocks or self.from_scratch else self

    @property
    def from_scratch(self) -> bool:
        """Whether there are no weights to start from."""
        return self.weights == NO_WEIGHTS

    def _check_auto(self) -> None:
        if self.backbone != AUTO:
            if self.prefer != "accuracy":
                raise ValueError(f"prefer is for backbone: {AUTO}, which chooses; {self.backbone} is given")
            return
        if self.blocks != "auto":
            raise ValueError(f"blocks are those of one backbone, and backbone is {AUTO}; name one, or leave blocks out")
        self.candidates()

    def candidates(self) -> dict[str, str]:
        """What `auto` tries: the names of backbones -> their weights, `imagenet` or a file.

        Raises:
            ValueError: there is no folder of weights, or a file in it is named after no backbone.
        """
        if self.weights == IMAGENET:
            return dict.fromkeys(IMAGENET_CANDIDATES, IMAGENET)
        wanted = f"backbone: {AUTO} takes weights: {IMAGENET}, or a folder of files such as InceptionV3{WEIGHTS_FILE}"
        if self.weights == NO_WEIGHTS or not Path(self.weights).is_dir():
            raise ValueError(f"{wanted}, of models without their heads; {self.weights} is no folder")
        files = {file.name.removesuffix(WEIGHTS_FILE): file for file in Path(self.weights).glob(f"*{WEIGHTS_FILE}")}
        for name in sorted(files.keys() - BACKBONES.keys()):
            alike = {known.lower(): known for known in BACKBONES}
            close = difflib.get_close_matches(name.lower(), alike, n=1) or [DEFAULT_BACKBONE.lower()]
            raise ValueError(
                f"{files[name]}: no model of keras.applications is called {name!r}; the files are named after them, "
                f"{alike[close[0]]}{WEIGHTS_FILE} for example"
            )
        if not files:
            raise ValueError(f"{wanted}; {self.weights} has none")
        return {name: str(files[name]) for name in BACKBONES if name in files}

    def pixel_format(self) -> PixelFormat:
        """What the backbone takes; the largest of those that `auto` tries, which scale the pixels themselves."""
        if self.backbone != AUTO:
            return BACKBONES[self.backbone]
        size = max(BACKBONES[name].height for name in self.candidates())
        return PixelFormat(size, size, "raw")

    def label_order(self) -> tuple[str, ...]:
        """The labels, where the model decides about them; here the data do."""
        return ()


# TensorFlow's name of the signature that is called where none is named.
SERVING_DEFAULT = "serving_default"


class WrapOptions(BaseModel):
    """An existing classifier, which is not trained.

    Attributes:
        mode: what tells these options from FineTuneOptions.
        classifier: the name of a model in keras.applications; a .keras file; the directory of a SavedModel or of a
            downloaded TF-Hub model; or a TF-Hub handle. Paths are relative to the config file.
        weights: of a model in keras.applications: `imagenet`, which Keras downloads, or a .weights.h5 file of the model
            with its head.
        labels: a text file with one label a line, in the order of the outputs; or `imagenet`.
        outputs: what the classifier answers with. Keras's models give probabilities, TF-Hub's logits.
        background_first: the first output is no class and is left out, as TF-Hub's ImageNet models have it.
        signature: which signature of a SavedModel is called.
        output: which of the signature's outputs is taken; needed where there are several.
        precision: of the served model; int8 only where that is worth it, see trainers/image/train.py.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["wrap"]
    classifier: str = DEFAULT_BACKBONE
    weights: str = IMAGENET
    labels: str = IMAGENET
    outputs: Literal["probabilities", "logits"] = "probabilities"
    background_first: bool = False
    signature: str = SERVING_DEFAULT
    output: str | None = None
    precision: ImagePrecision = "float32"

    def shortened(self) -> Self:
        """The same: nothing is trained."""
        return self

    @field_validator("classifier")
    @classmethod
    def _find(cls, classifier: str, info: ValidationInfo) -> str:
        if classifier in BACKBONES:
            return classifier
        if "/" not in classifier and not classifier.endswith(KERAS_FILE):
            close = difflib.get_close_matches(classifier, BACKBONES, n=1) or [DEFAULT_BACKBONE]
            raise ValueError(
                f"expected a model of keras.applications such as {close[0]}, a {KERAS_FILE} file, the directory of a "
                "SavedModel (with a slash, ./name), or a TF-Hub handle"
            )
        return beside_config(classifier, info)

    @field_validator("weights", "labels")
    @classmethod
    def _beside_config(cls, path: str, info: ValidationInfo) -> str:
        return path if path == IMAGENET else beside_config(path, info)

    @model_validator(mode="after")
    def _check(self) -> WrapOptions:
        if self.classifier not in BACKBONES and self.weights != IMAGENET:
            raise ValueError("weights belong to a model of keras.applications; other classifiers bring theirs along")
        if self.weights != IMAGENET and not self.weights.endswith(WEIGHTS_FILE):
            raise ValueError(f"weights: expected {IMAGENET} or the path of a {WEIGHTS_FILE} file")
        if self.is_keras_model and (self.signature, self.output) != (SERVING_DEFAULT, None):
            raise ValueError("signature and output are for a SavedModel; a Keras model has one output, and no names")
        return self

    @property
    def is_keras_model(self) -> bool:
        """Whether Keras makes the classifier, rather than TensorFlow's SavedModel loader."""
        return self.classifier in BACKBONES or self.classifier.endswith(KERAS_FILE)

    def pixel_format(self) -> PixelFormat:
        """What the classifier takes: known of a model in keras.applications, and read of a .keras file."""
        if self.classifier in BACKBONES:
            return BACKBONES[self.classifier]
        if self.classifier.endswith(KERAS_FILE) and Path(self.classifier).is_file():
            return keras_pixel_format(Path(self.classifier))
        return replace(BACKBONES[DEFAULT_BACKBONE], scaling=None)

    def label_order(self) -> tuple[str, ...]:
        """The labels of the classifier, in the order of its probabilities; raises ValueError, see read_label_file."""
        return read_label_file(self.labels, self.background_first)


ImageTrainerOptions = Annotated[FineTuneOptions | WrapOptions, Field(discriminator="mode")]


def read_trainer_options(content: str) -> FineTuneOptions | WrapOptions:
    """The options out of their JSON."""
    options: FineTuneOptions | WrapOptions = TypeAdapter(ImageTrainerOptions).validate_json(content)
    return options
