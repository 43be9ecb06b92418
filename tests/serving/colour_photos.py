"""Photos of one colour, files that are no photos, and a model that tells the colours apart."""

import base64
import io
import struct
import zlib
from pathlib import Path

import apache_beam as beam
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from PIL import Image
from tfx_bsl.public import tfxio

from pipeline.runners.local import BEAM_PIPELINE_ARGS
from serving.signatures.common import VOCABULARY, Labels, export, freeze
from serving.signatures.image import served_model
from trainers.splits import TransformGraph
from transform.image import preprocessing_fn
from transform.options import ImageOptions

MAX_PIXELS = 1_000_000
OPTIONS = ImageOptions(height=8, width=8, max_pixels=MAX_PIXELS)
COLOURS = {"black": (0, 0, 0), "blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0), "white": (255, 255, 255),
           "yellow": (255, 255, 0)}  # fmt: skip
LABELS = sorted(COLOURS)
RAW_FEATURES = {name: tf.io.VarLenFeature(tf.string) for name in ("image", "label", "path", "checksum")}


def photo(colour: str, image_format: str = "PNG", width: int = 40, height: int = 32) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), COLOURS[colour]).save(file, image_format)
    return file.getvalue()


def enormous_png(width: int, height: int, rows: int = 0) -> bytes:
    """A PNG that declares a size and carries so many rows of zeros."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    compressor = zlib.compressobj(1)
    data = b"".join(compressor.compress(b"\0" * (1 + 3 * width)) for _ in range(rows)) + compressor.flush()
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def enormous_jpeg() -> bytes:
    file = photo("red", "JPEG")
    size = file.index(b"\xff\xc0") + 5
    return file[:size] + struct.pack(">HH", 20000, 20000) + file[size + 4 :]


def animation_with_an_enormous_frame() -> bytes:
    """A small first frame, and a second one of 10000 x 10000 pixels."""
    first, second = io.BytesIO(), io.BytesIO()
    Image.new("L", (40, 32), 255).save(first, "GIF")
    Image.new("L", (10000, 10000)).save(second, "GIF")
    frame = second.getvalue()[second.getvalue().index(b"\x2c\0\0\0\0") :]
    return first.getvalue()[:-1] + frame


UNKNOWN = "not a JPEG, PNG, GIF or BMP image"
TOO_LARGE = f"image is 20000x20000, at most {MAX_PIXELS} pixels are allowed"
BAD = {
    "empty": (b"", "image is empty"),
    "text": (b"hello, world!", UNKNOWN),
    "TIFF": (photo("red", "TIFF"), UNKNOWN),
    "WebP": (photo("red", "WEBP"), UNKNOWN),
    "JPEG cut off": (photo("red", "JPEG")[:-60], "image is damaged"),
    "PNG with a broken checksum": (photo("red")[:40] + b"\0\0" + photo("red")[42:], "image is damaged"),
    "enormous PNG": (enormous_png(20000, 20000), TOO_LARGE),
    "enormous JPEG": (enormous_jpeg(), TOO_LARGE),
}
BROKEN_TEXT = {
    "a character of no alphabet": b"iVBORw0K*GgoAAAANSUhEUg",
    "of a length that cannot be": base64.b64encode(photo("red")).rstrip(b"=")[:41],
    "cut off": base64.b64encode(photo("red"))[:40],
    "of a text": base64.b64encode(b"hello, world"),
    "of an enormous photo": base64.b64encode(enormous_png(20000, 20000)),
    "of base64 text": base64.b64encode(base64.b64encode(photo("red"))),
    "not of the whole": b"==",
}


def example(**features: bytes) -> bytes:
    made = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for name, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()


def nearest_colour(images: tf.Tensor) -> tf.Tensor:
    """Probabilities, float32 [batch, classes], of the colours by their distance from the average one."""
    average = tf.reduce_mean(images, [1, 2])
    colours = tf.constant([COLOURS[label] for label in LABELS], tf.float32) / 127.5 - 1
    return tf.nn.softmax(-tf.reduce_sum((average[:, None] - colours[None]) ** 2, axis=2))


def save_colour_photo_model(folder: Path) -> str:
    """Export a model of photos with every signature; answers the SavedModel's directory."""
    metadata = tft.DatasetMetadata.from_feature_spec(RAW_FEATURES)
    source = tfxio.TFExampleBeamRecord(physical_format="inmem", telemetry_descriptors=["test"], schema=metadata.schema)
    rows = [example(image=photo(label), label=label.encode(), path=b"x", checksum=b"y") for label in LABELS]
    with beam.Pipeline(argv=BEAM_PIPELINE_ARGS) as pipeline, tft_beam.Context(temp_dir=str(folder / "temporary")):
        data = pipeline | beam.Create(rows) | source.BeamSource()
        function = (data, source.TensorAdapterConfig()) | tft_beam.AnalyzeDataset(
            lambda inputs: preprocessing_fn(inputs, {"preprocessing": OPTIONS.model_dump_json()})
        )
        _ = function | tft_beam.WriteTransformFn(str(folder / "transform"))
    transform_output = tft.TFTransformOutput(str(folder / "transform"))
    frozen = freeze(nearest_colour, tf.TensorSpec([None, OPTIONS.height, OPTIONS.width, 3]))
    model = served_model(
        transform=TransformGraph(transform_output),
        predict=lambda features: frozen(features["image"]),
        labels=Labels(transform_output.vocabulary_file_by_name(VOCABULARY)),
        raw_feature_spec=RAW_FEATURES,
        label_column="label",
        classes=len(LABELS),
    )
    export(model, str(folder / "export"))
    return str(folder / "export")
