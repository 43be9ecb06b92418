"""The models of keras.applications, and the pixels that each of them takes."""

from __future__ import annotations

from transform.options import PixelFormat

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

# Trained on 0 to 255 less the mean of each colour in the order blue, green, red; or on 0 to 1, standardised.
BLUE_GREEN_RED = ("ResNet50", "ResNet101", "ResNet152", "VGG16", "VGG19")
STANDARDISED = ("DenseNet121", "DenseNet169", "DenseNet201")
