"""The preprocessing of photos, by its values: eagerly, in Transform's graph, and in the graph reloaded from disk."""

import io
import struct
import zlib

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from PIL import Image, ImageOps
from tfx_bsl.public import tfxio

from pipeline.runners.local import BEAM_PIPELINE_ARGS
from transform.errors import PreprocessingError
from transform.image import DAMAGED, preprocessing_fn, scale, unscaled, usable_pixels
from transform.image_decoding import (
    UNKNOWN_FORMAT,
    UNSUPPORTED_BMP,
    checked_image,
    decode_image,
    exif_orientations,
    first_gif_frame,
)
from transform.options import ImageOptions, LabelOptions

RED, BLUE, WHITE = (200, 30, 10), (10, 60, 220), (250, 250, 250)
HEIGHT, WIDTH = 40, 60
MAX_PIXELS = 10_000
OPTIONS = ImageOptions(
    label=LabelOptions(column="label", names={"r": "rose"}),
    height=4,
    width=6,
    scaling="raw",
    antialias=False,
    max_pixels=MAX_PIXELS,
)


def flag() -> Image.Image:
    """Left half red, right half blue above white."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:, : WIDTH // 2] = RED
    pixels[: HEIGHT // 2, WIDTH // 2 :] = BLUE
    pixels[HEIGHT // 2 :, WIDTH // 2 :] = WHITE
    return Image.fromarray(pixels)


def encoded(image: Image.Image, image_format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG of eight bits a colour, whatever its data hold."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def jpeg_of_declared_size(width: int, height: int) -> bytes:
    file = encoded(flag(), "JPEG")
    size = file.index(b"\xff\xc0") + 5
    return file[:size] + struct.pack(">HH", height, width) + file[size + 4 :]


def gif_of_declared_size(width: int, height: int) -> bytes:
    """The size of the frame, which is what is decoded; that of the screen stays."""
    file = encoded(flag().convert("P"), "GIF")
    size = file.index(b"\x2c\0\0\0\0") + 5
    return file[:size] + struct.pack("<HH", width, height) + file[size + 4 :]


def bmp_with(offset: int, content: bytes) -> bytes:
    file = encoded(flag(), "BMP")
    return file[:offset] + content + file[offset + len(content) :]


def jpeg_of_scans(scans: int, image: Image.Image) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    file = encoded(image, "JPEG", progressive=True)
    last = file[file.rindex(b"\xff\xda") : -2]
    return file[:-2] + last * (scans - file.count(b"\xff\xda")) + file[-2:]


def animation() -> bytes:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in (WHITE, BLUE)]
    return encoded(flag(), "GIF", save_all=True, append_images=frames)


palette_flag = flag().quantize(8)
GREY = flag().convert("L")
GOOD = {
    "JPEG": (encoded(flag(), "JPEG", quality=95), flag()),
    "progressive JPEG": (encoded(flag(), "JPEG", quality=95, progressive=True), flag()),
    "grey JPEG": (encoded(GREY, "JPEG"), GREY),
    "CMYK JPEG": (encoded(flag().convert("CMYK"), "JPEG", quality=95), flag()),
    "PNG": (encoded(flag(), "PNG"), flag()),
    "grey PNG": (encoded(GREY, "PNG"), GREY),
    "PNG with a palette": (encoded(palette_flag, "PNG"), palette_flag),
    "PNG with transparency": (encoded(flag().convert("RGBA"), "PNG"), flag()),
    "PNG with 16 bits": (encoded(Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257), "PNG"), GREY),
    "GIF": (encoded(palette_flag, "GIF"), palette_flag),
    "interlaced GIF": (encoded(palette_flag, "GIF", interlace=1), palette_flag),
    "animated GIF": (animation(), flag()),
    "BMP": (encoded(flag(), "BMP"), flag()),
    "grey BMP": (encoded(GREY, "BMP"), GREY),
    "BMP with a palette": (encoded(palette_flag, "BMP"), palette_flag),
    "BMP with transparency": (encoded(flag().convert("RGBA"), "BMP"), flag()),
}
TOO_LARGE = "image is 20000x20000, at most 10000 pixels are allowed"
BAD = {
    "empty": (b"", "image is empty"),
    "text": (b"this is no image", UNKNOWN_FORMAT),
    "TIFF": (encoded(flag(), "TIFF"), UNKNOWN_FORMAT),
    "WebP": (encoded(flag(), "WEBP"), UNKNOWN_FORMAT),
    "base64 text": (b"iVBORw0KGgoAAAANSUhEUgAAAAgAAAAI", UNKNOWN_FORMAT),
    "JPEG cut off": (GOOD["JPEG"][0][:-100], DAMAGED),
    "JPEG without a header": (b"\xff\xd8\xff", DAMAGED),
    "PNG cut off": (GOOD["PNG"][0][:-30], DAMAGED),
    "PNG without a header": (b"\x89PNG\r\n\x1a\n", DAMAGED),
    "PNG with too few rows": (png(50, 50, b"\0" * 500), DAMAGED),
    "PNG without pixels": (png(0, 0), DAMAGED),
    "GIF without frames": (b"GIF89a" + b"\0" * 7 + b";", DAMAGED),
    "GIF cut off": (GOOD["GIF"][0][:-60], DAMAGED),
    "GIF that never ends": (b"GIF89a" + b"\0" * 7 + b"\x21\xf9", DAMAGED),
    "BMP cut off": (GOOD["BMP"][0][:-100], DAMAGED),
    "BMP with a palette cut short": (b"".join([GOOD["BMP with a palette"][0][:62], b"\xff" * 3000]), DAMAGED),
    "BMP of one bit": (encoded(flag().convert("1"), "BMP"), UNSUPPORTED_BMP),
    "compressed BMP": (bmp_with(30, struct.pack("<i", 1)), UNSUPPORTED_BMP),
    "JPEG of many scans": (jpeg_of_scans(1500, flag()), "image has 1500 scans, at most 64 are allowed"),
    "enormous JPEG": (jpeg_of_declared_size(20000, 20000), TOO_LARGE),
    "enormous PNG": (png(20000, 20000), TOO_LARGE),
    "enormous GIF": (gif_of_declared_size(20000, 20000), TOO_LARGE),
    "enormous BMP": (bmp_with(18, struct.pack("<ii", 20000, 20000)), TOO_LARGE),
    "enormous BMP from top to bottom": (bmp_with(18, struct.pack("<ii", 20000, -20000)), TOO_LARGE),
    "PNG whose size overflows": (
        png(2**31 - 1, 2**31 - 1),
        "image is 2147483647x2147483647, at most 10000 pixels are allowed",
    ),
}


def colours(image: Image.Image) -> np.ndarray:
    """What the model should see of it: far from edges, so that resizing changes nothing."""
    pixels = np.asarray(image.convert("RGB")).astype(np.float32)
    return np.stack([pixels[10, 10], pixels[10, 50], pixels[30, 50]])


def seen(pixels: np.ndarray) -> np.ndarray:
    return np.stack([pixels[0, 0], pixels[0, 5], pixels[3, 5]])


@pytest.fixture(scope="module")
def prepare():
    """usable_pixels as a function of serialized files."""
    function = tf.function(lambda images: usable_pixels(images, OPTIONS), autograph=False)
    concrete = function.get_concrete_function(tf.TensorSpec([None], tf.string))

    def run(files: list[bytes]) -> tuple[np.ndarray, list[str]]:
        pixels, errors = concrete(tf.constant(files, tf.string))
        return pixels.numpy(), [error.decode() for error in errors.numpy()]

    return run


@pytest.mark.parametrize("name", GOOD)
def test_each_format_gives_the_colours_of_the_photo(prepare, name):
    file, expected = GOOD[name]
    pixels, errors = prepare([file])
    assert errors == [""]
    np.testing.assert_allclose(seen(pixels[0]), colours(expected), atol=6)


def test_the_first_frame_of_an_animation_is_found_without_the_others():
    single, height, width = first_gif_frame(tf.constant(animation()))
    with Image.open(io.BytesIO(single.numpy())) as gif:
        assert gif.n_frames == 1
    assert (int(height), int(width)) == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(
        tf.io.decode_image(single, 3, expand_animations=False), tf.io.decode_image(animation(), 3)[0]
    )


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_gives_zeros_and_a_reason(prepare, name):
    file, reason = BAD[name]
    pixels, errors = prepare([file])
    assert errors == [reason]
    assert pixels.shape == (1, 4, 6, 3) and not pixels.any()


def test_bad_photos_leave_the_good_ones_of_their_batch_as_they_are(prepare):
    good = [file for file, _ in GOOD.values()]
    alone = np.concatenate([prepare([file])[0] for file in good])
    mixed = [file for pair in zip(good, (file for file, _ in BAD.values()), strict=False) for file in pair]
    pixels, errors = prepare(mixed)
    np.testing.assert_array_equal(pixels[::2], alone)
    assert errors[::2] == [""] * len(good)
    assert errors[1::2] == [reason for _, reason in list(BAD.values())[: len(good)]]


def test_no_photo_at_all_is_an_empty_batch(prepare):
    pixels, errors = prepare([])
    assert pixels.shape == (0, 4, 6, 3) and errors == []


def test_pixels_are_those_of_decode_image_and_resize(prepare):
    file = GOOD["JPEG"][0]
    expected = tf.image.resize(tf.io.decode_image(file, 3, expand_animations=False), [4, 6])
    np.testing.assert_array_equal(prepare([file])[0][0], expected)


def exif(orientation: int, order: str = "<", kind: int = 3, count: int = 1, before: int = 0) -> bytes:
    """EXIF data with the orientation, behind `before` other entries; `<` is Intel's order of bytes, `>` Motorola's."""
    others = [struct.pack(f"{order}HHII", 0x010F, 2, 4, 0)] * before
    entry = struct.pack(f"{order}HHIHH", 0x0112, kind, count, orientation, 0)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, before + 1)
    return head + b"".join([*others, entry]) + bytes(4)


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def jpeg_with(jpeg: bytes, *segments: bytes) -> bytes:
    """A JPEG with segments behind its first marker."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def png_with_exif(file: bytes, content: bytes) -> bytes:
    """A PNG with a chunk eXIf behind its header."""
    chunk = struct.pack(">I", len(content)) + b"eXIf" + content + struct.pack(">I", zlib.crc32(b"eXIf" + content))
    return file[:33] + chunk + file[33:]


def orientation(file: bytes) -> int:
    return int(exif_orientations(tf.constant([file]))[0])


# How a camera that is held so stores what is upright; None where that is as it is.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def stored(image: Image.Image, number: int) -> Image.Image:
    way = STORED[number]
    return image if way is None else image.transpose(way)


@pytest.fixture(scope="module")
def prepare_square():
    options = OPTIONS.model_copy(update={"height": 6, "antialias": True})
    return tf.function(lambda images: usable_pixels(images, options), autograph=False)


@pytest.mark.parametrize("order", ["<", ">"])
def test_photos_are_turned_as_exif_says_in_each_of_the_eight_ways(prepare, prepare_square, order):
    upright = encoded(flag(), "PNG")
    pngs = [png_with_exif(encoded(stored(flag(), way), "PNG"), exif(way, order, before=way)) for way in STORED]
    jpegs = [
        jpeg_with(encoded(stored(flag(), way), "JPEG", quality=98), segment(0xE1, b"Exif\0\0" + exif(way, order)))
        for way in STORED
    ]
    opened = [ImageOps.exif_transpose(Image.open(io.BytesIO(file))) for file in jpegs]
    assert [np.asarray(image)[10, 50].argmax() for image in opened] == [2] * 8  # Pillow reads the same in them
    assert exif_orientations(tf.constant(pngs + jpegs)).numpy().tolist() == [*STORED, *STORED]

    pixels, errors = prepare([upright, *pngs, *jpegs])
    assert errors == [""] * 17
    np.testing.assert_allclose(pixels[1:9], np.tile(pixels[0], [8, 1, 1, 1]), atol=1e-3)
    np.testing.assert_allclose(pixels[9:], np.tile(pixels[0], [8, 1, 1, 1]), atol=25)  # JPEG at the edges of colours
    square = prepare_square(tf.constant([upright, *pngs]))[0].numpy()
    np.testing.assert_allclose(square, np.tile(square[0], [9, 1, 1, 1]), atol=1e-3)
    assert not np.allclose(square[0], square[0][::-1], atol=50) and not np.allclose(
        square[0], square[0][:, ::-1], atol=50
    )


def test_a_photo_without_exif_has_the_same_bits_beside_photos_that_are_turned(prepare):
    plain = GOOD["JPEG"][0]
    turned = jpeg_with(plain, segment(0xE1, b"Exif\0\0" + exif(6)))
    (alone,), _ = prepare([plain])
    pixels, _ = prepare([turned, plain, turned])
    np.testing.assert_array_equal(pixels[1], alone)
    assert not np.array_equal(pixels[0], alone)


def test_exif_is_found_behind_other_segments_and_only_where_it_belongs():
    jpeg = GOOD["JPEG"][0]
    app1 = segment(0xE1, b"Exif\0\0" + exif(6, ">"))
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"x" * 300)
    profile = segment(0xE2, b"ICC_PROFILE\0" + bytes(60_000))
    behind_tables = jpeg.index(b"\xff\xc0")
    assert orientation(jpeg_with(jpeg, xmp, profile, app1)) == 6
    assert orientation(jpeg_with(jpeg, b"\xff" * 3, app1)) == 6  # a marker may be filled up
    assert orientation(jpeg[:behind_tables] + app1 + jpeg[behind_tables:]) == 6
    assert orientation(jpeg_with(jpeg, app1, segment(0xE1, b"Exif\0\0" + exif(3)))) == 6
    # In a preview within another segment, behind the pixels, and in no image at all.
    assert orientation(jpeg_with(jpeg, segment(0xED, b"\xff\xd8" + app1))) == 1
    assert orientation(jpeg + app1) == 1
    assert orientation(b"Exif\0\0" + exif(6)) == 1
    assert orientation(b"") == 1


@pytest.mark.parametrize(
    "content",
    [
        exif(0),
        exif(9),
        exif(6, kind=2),
        exif(6, count=2),
        exif(6)[:9],
        exif(6)[:-8],
        b"XX" + exif(6)[2:],
        b"II*\0" + struct.pack("<I", 2**31 - 1) + exif(6)[8:],
        b"II*\0" + struct.pack("<I", 2**32 - 4) + exif(6)[8:],
        b"II*\0" + struct.pack("<I", 4) + exif(6)[8:],
        exif(6)[:8] + struct.pack("<H", 0) + exif(6)[10:],
        b"",
    ],
)
def test_damaged_exif_is_ignored(prepare, content):
    jpeg, file = GOOD["JPEG"][0], GOOD["PNG"][0]
    damaged = [jpeg_with(jpeg, segment(0xE1, b"Exif\0\0" + content)), png_with_exif(file, content)]
    pixels, errors = prepare([*damaged, jpeg, file])
    assert errors == [""] * 4
    np.testing.assert_array_equal(pixels[:2], pixels[2:])


def test_no_bytes_of_exif_break_a_photo_or_its_neighbours(prepare):
    source = np.random.default_rng(4)
    good = jpeg_with(GOOD["JPEG"][0], segment(0xE1, b"Exif\0\0" + exif(1, before=3)))
    files = []
    for _ in range(60):
        bytes_ = bytearray(good)
        for place in source.integers(4, 90, size=source.integers(1, 4)):
            bytes_[place] = source.integers(256)
        files.append(bytes(bytes_))
    pixels, errors = prepare([*files, GOOD["PNG"][0]])
    assert set(errors) <= {"", DAMAGED, "image has 2 scans, at most 64 are allowed"} and errors.count("") > 40
    np.testing.assert_array_equal(pixels[-1], prepare([GOOD["PNG"][0]])[0][0])
    assert exif_orientations(tf.constant([good[:length] for length in range(0, 120)])).numpy().max() == 1


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}])
def test_a_jpeg_that_lacks_only_its_end_marker_is_a_photo(prepare, options):
    source = np.random.default_rng(6)
    file = encoded(Image.fromarray(source.integers(0, 256, [48, 64, 3], dtype=np.uint8)), "JPEG", **options)
    assert file.endswith(b"\xff\xd9")
    pixels, errors = prepare([file, file[:-2], file[:-1], GOOD["PNG"][0]])
    assert errors == [""] * 4
    np.testing.assert_array_equal(pixels[1], pixels[0])
    np.testing.assert_array_equal(pixels[2], pixels[0])
    cut = [file[:-missing] for missing in (12, 40, 200, 1000)]
    pixels, errors = prepare([*cut, GOOD["PNG"][0]])
    assert errors == [DAMAGED] * 4 + [""] and not pixels[:4].any()


def scene(height: int, width: int) -> Image.Image:
    """Stripes that are fine in a large photo, over a slope; the same scene at each size."""
    source = np.random.default_rng(8).integers(0, 256, [24, 32, 3], dtype=np.uint8)
    large = np.asarray(Image.fromarray(source).resize((1600, 1200), Image.Resampling.BICUBIC)).astype(np.float32)
    large = large * 0.6 + 40 * ((np.arange(1600) % 2)[None, :, None] + (np.arange(1200) % 3 > 1)[:, None, None])
    photo = Image.fromarray(large.clip(0, 255).astype(np.uint8))
    return photo if (height, width) == (1200, 1600) else photo.resize((width, height), Image.Resampling.BOX)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_with_antialiasing_a_scene_looks_the_same_from_cameras_of_different_sizes(image_format):
    files = [encoded(scene(*size), image_format) for size in ((1200, 1600), (600, 800), (300, 400), (150, 200))]

    def seen_as(antialias: bool) -> np.ndarray:
        options = ImageOptions(height=75, width=75, scaling="raw", antialias=antialias)
        return usable_pixels(tf.constant(files), options)[0].numpy()

    smooth, sharp = seen_as(True), seen_as(False)
    assert np.abs(smooth[1:] - smooth[0]).mean() < 2
    assert np.abs(sharp[1:] - sharp[0]).mean() > 5


def test_antialiasing_leaves_photos_that_are_enlarged_as_they_were():
    files = tf.constant([GOOD["JPEG"][0]])
    with_it, without = (
        usable_pixels(files, ImageOptions(height=80, width=90, scaling="raw", antialias=antialias))[0].numpy()
        for antialias in (True, False)
    )
    np.testing.assert_array_equal(with_it, without)


def test_corners_can_be_aligned_as_tensorflow_js_does():
    options = ImageOptions(height=5, width=7, scaling="raw", align_corners=True)
    assert not options.antialias
    assert ImageOptions.model_validate_json(options.model_dump_json()) == options
    pixels = usable_pixels(tf.constant([GOOD["PNG"][0]]), options)[0].numpy()[0]
    image = np.asarray(flag()).astype(np.float32)
    rows, columns = np.linspace(0, HEIGHT - 1, 5), np.linspace(0, WIDTH - 1, 7)

    def between(values: np.ndarray, places: np.ndarray) -> np.ndarray:
        low = np.minimum(places.astype(int), len(values) - 2)
        share = (places - low).reshape(-1, 1, 1)
        return values[low] * (1 - share) + values[low + 1] * share

    expected = between(between(image, rows).transpose(1, 0, 2), columns).transpose(1, 0, 2)
    np.testing.assert_allclose(pixels, expected, atol=1e-2)
    with pytest.raises(ValueError, match="align_corners and antialias are both given"):
        ImageOptions(align_corners=True, antialias=True)


@pytest.mark.parametrize("scaling", ["minus_one_to_one", "zero_to_one", "raw"])
def test_a_scaling_can_be_taken_back(scaling):
    values = tf.constant([0.0, 51.0, 255.0])
    np.testing.assert_allclose(unscaled(scale(values, scaling), scaling), values, atol=1e-4)


def test_a_photo_of_exactly_the_allowed_size_is_decoded():
    file = GOOD["PNG"][0]
    assert decode_image(tf.constant(file), HEIGHT * WIDTH)[1] == b""
    assert decode_image(tf.constant(file), HEIGHT * WIDTH - 1)[1] == b"image is 60x40, at most 2399 pixels are allowed"


def test_an_image_may_have_so_many_scans_as_its_size_allows():
    largest, small = Image.new("L", (100, 100)), Image.new("L", (50, 100))

    def reason(scans: int, image: Image.Image) -> bytes:
        return checked_image(tf.constant(jpeg_of_scans(scans, image)), MAX_PIXELS)[1].numpy()

    assert [reason(16, largest), reason(32, small)] == [b"", b""]
    assert reason(17, largest) == b"image has 17 scans, at most 16 are allowed"
    assert reason(33, small) == b"image has 33 scans, at most 32 are allowed"
    assert decode_image(tf.constant(jpeg_of_scans(16, largest)), MAX_PIXELS)[0].shape == [100, 100, 3]


def test_a_header_is_enough_for_the_check():
    assert checked_image(tf.constant(png(100, 100)), MAX_PIXELS)[1] == b""
    assert checked_image(tf.constant(png(100, 101)), MAX_PIXELS)[1] != b""


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [("minus_one_to_one", [-1.0, 0.0, 1.0]), ("zero_to_one", [0.0, 0.5, 1.0]), ("raw", [0.0, 127.5, 255.0])],
)
def test_colours_are_scaled_to_the_range_asked_for(scaling, expected):
    np.testing.assert_array_equal(scale(tf.constant([0.0, 127.5, 255.0]), scaling), expected)


ROWS = [
    {"image": GOOD["PNG"][0], "label": b"tulip"},
    {"image": jpeg_with(GOOD["JPEG"][0], segment(0xE1, b"Exif\0\0" + exif(6))), "label": b"r"},
    {"image": BAD["text"][0], "label": b"aster"},
    {"image": GOOD["GIF"][0]},
    {"label": b"r"},
]
RAW_FEATURES = {name: tf.io.VarLenFeature(tf.string) for name in ("image", "label", "path", "checksum")}


def example(row: dict[str, bytes]) -> bytes:
    features = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for name, value in row.items()}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


@pytest.fixture(scope="module")
def transform_graph(tmp_path_factory) -> str:
    """The directory of Transform's graph, made of ROWS."""
    metadata = tft.DatasetMetadata.from_feature_spec(RAW_FEATURES)
    source = tfxio.TFExampleBeamRecord(physical_format="inmem", telemetry_descriptors=["test"], schema=metadata.schema)
    path = str(tmp_path_factory.mktemp("transform") / "graph")
    with (
        beam.Pipeline(argv=BEAM_PIPELINE_ARGS) as pipeline,
        tft_beam.Context(temp_dir=str(tmp_path_factory.mktemp("temporary"))),
    ):
        data = pipeline | beam.Create([example(row) for row in ROWS]) | source.BeamSource()
        function = (data, source.TensorAdapterConfig()) | tft_beam.AnalyzeDataset(
            lambda inputs: preprocessing_fn(inputs, {"preprocessing": OPTIONS.model_dump_json()})
        )
        _ = function | tft_beam.WriteTransformFn(path)
    return path


def transformed(path: str, columns: tuple[str, ...]) -> dict[str, np.ndarray]:
    layer = tft.TFTransformOutput(path).transform_features_layer()
    features = tf.io.parse_example([example(row) for row in ROWS], {name: RAW_FEATURES[name] for name in columns})
    return {name: values.numpy() for name, values in layer(features).items()}


def test_the_reloaded_graph_gives_pixels_reasons_and_labels(transform_graph, prepare):
    output = transformed(transform_graph, ("image", "label"))
    pixels, errors = prepare([row.get("image", b"") for row in ROWS])
    assert errors == ["", "", UNKNOWN_FORMAT, "", "image is empty"]
    np.testing.assert_array_equal(output["image"], pixels)
    assert [error.decode() for error in output["error"]] == errors
    assert tft.TFTransformOutput(transform_graph).vocabulary_by_name("labels") == [b"aster", b"rose", b"tulip"]
    assert output["label"].tolist() == [2, 1, 0, -1, 1]


def test_the_reloaded_graph_needs_the_photo_only(transform_graph):
    output = transformed(transform_graph, ("image",))
    assert set(output) == {"image", "error"}
    np.testing.assert_array_equal(output["image"], transformed(transform_graph, ("image", "label"))["image"])


def test_the_transformed_features_have_known_shapes(transform_graph):
    spec = tft.TFTransformOutput(transform_graph).transformed_feature_spec()
    assert spec["image"] == tf.io.FixedLenFeature([4, 6, 3], tf.float32)
    assert spec["error"] == tf.io.FixedLenFeature([], tf.string)


def test_the_graph_runs_in_an_input_pipeline(transform_graph):
    layer = tft.TFTransformOutput(transform_graph).transform_features_layer()
    batches = tf.data.Dataset.from_tensor_slices([example(row) for row in ROWS]).batch(2)
    parsed = batches.map(lambda rows: layer(tf.io.parse_example(rows, RAW_FEATURES)), num_parallel_calls=2)
    errors = [error.decode() for batch in parsed for error in batch["error"].numpy()]
    assert errors == ["", "", UNKNOWN_FORMAT, "", "image is empty"]


@pytest.mark.parametrize("inputs", [{"photo": tf.constant([b"x"])}, {"image": tf.constant([1.0])}])
def test_examples_without_the_bytes_of_a_photo_are_refused(inputs):
    with pytest.raises(PreprocessingError, match="need a feature 'image' with the bytes of each photo"):
        preprocessing_fn(inputs, {"preprocessing": OPTIONS.model_dump_json()})
