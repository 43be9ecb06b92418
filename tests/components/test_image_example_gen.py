"""Photos to examples: which are found, which split they land in, what is left out, and what stops the run."""

import csv
import hashlib
import io
import itertools
import json
import os
import struct
import sys
import zlib
from pathlib import Path

import ml_metadata
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pillow_heif import register_heif_opener
from tfx.dsl.components.base import base_beam_executor
from tfx.orchestration import metadata, pipeline
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.types import artifact_utils, standard_artifacts

from components.errors import BrokenInput
from components.image_example_gen.component import Executor, ImageExampleGen
from components.image_example_gen.examples import split_by_content
from components.image_example_gen.file_formats import READ_BEGINNINGS, convert_to_jpeg, file_format, kinds_left_out
from components.image_example_gen.image_files import find_images, input_fingerprint, list_images, unread_files
from pipeline.runners.beam_speedups import apply_beam_speedups
from pipeline.runners.local import BEAM_PIPELINE_ARGS
from serving.signatures.image import FILE_BEGINNINGS


def photo(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, [8, 8, 3], np.uint8)
    return tf.io.encode_png(pixels).numpy()


def enormous_png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def flowers(tmp_path) -> Path:
    """Sixty photos in two class folders."""
    names = {f"{('rose', 'tulip')[number % 2]}/{number:02}.png": photo(number) for number in range(60)}
    return write(tmp_path / "flowers", names)


@pytest.fixture
def ingest(artifact):
    """Runs the component's executor with its own parameters; answers the artifact's directory."""
    apply_beam_speedups()
    runs = []

    def run(path: Path, **options) -> Path:
        component = ImageExampleGen(str(path), "unused", **options)
        examples = artifact(standard_artifacts.Examples, f"examples-{len(runs)}")
        runs.append(examples)
        context = base_beam_executor.BaseBeamExecutor.Context(beam_pipeline_args=BEAM_PIPELINE_ARGS)
        Executor(context).Do({}, {"examples": [examples]}, dict(component.spec.exec_properties))
        run.split_names = artifact_utils.decode_split_names(examples.split_names)
        return Path(examples.uri)

    return run


def records(examples: Path, split: str) -> dict[str, dict[str, bytes]]:
    """Features by the path of the photo."""
    found = {}
    for file in sorted((examples / f"Split-{split}").iterdir()):
        for record in tf.data.TFRecordDataset(str(file), compression_type="GZIP").as_numpy_iterator():
            features = tf.train.Example.FromString(record).features.feature
            values = {name: feature.bytes_list.value[0] for name, feature in features.items()}
            assert values["path"].decode() not in found
            found[values["path"].decode()] = values
    return found


def report(examples: Path) -> dict:
    return json.loads((examples / "ingestion.json").read_text())


def test_each_photo_is_in_one_split_with_its_bytes_label_and_checksum(flowers, ingest):
    examples = ingest(flowers)
    train, held_out = records(examples, "train"), records(examples, "eval")
    assert ingest.split_names == ["eval", "train"]
    assert train.keys() & held_out.keys() == set()
    assert len(train) + len(held_out) == 60
    for path, values in (train | held_out).items():
        content = (flowers / path).read_bytes()
        assert values == {
            "image": content,
            "label": path.split("/")[0].encode(),
            "path": path.encode(),
            "checksum": hashlib.sha256(content).hexdigest().encode(),
        }


def test_files_are_named_as_tfx_names_them_and_classes_are_mixed(flowers, ingest):
    examples = ingest(flowers)
    for split in ("train", "eval"):
        assert sorted(path.name for path in (examples / f"Split-{split}").iterdir()) == [
            f"data_tfrecord-{number:05}-of-00004.gz" for number in range(4)
        ]
    assert not (examples / "unfinished").exists()
    labels = [values["label"] for values in records(examples, "train").values()]
    assert sum(before != after for before, after in itertools.pairwise(labels)) > 10


def test_the_report_counts_each_class_of_each_split(flowers, ingest):
    examples = ingest(flowers)
    counted = report(examples)
    assert counted["left_out"] == []
    for split in ("train", "eval"):
        labels = [values["label"].decode() for values in records(examples, split).values()]
        assert counted["examples"][split] == {label: labels.count(label) for label in ("rose", "tulip")}


def test_the_same_photos_give_the_same_files(flowers, ingest):
    first, second = ingest(flowers), ingest(flowers)
    for split in ("train", "eval"):
        assert list(records(first, split).items()) == list(records(second, split).items())


def test_more_photos_and_other_names_move_no_photo_to_another_split(flowers, ingest):
    before = records(ingest(flowers), "eval")
    write(flowers, {f"rose/new-{number}.png": photo(1000 + number) for number in range(40)})
    (flowers / "tulip").rename(flowers / "a tulip")
    after = ingest(flowers)
    checksums = {values["checksum"] for values in before.values()}
    old = {values["checksum"] for path, values in records(after, "eval").items() if "new-" not in path}
    assert checksums == old


def test_copies_of_a_photo_land_in_the_same_split(flowers, ingest):
    write(flowers, {f"rose/copy-{number:02}.png": photo(number) for number in range(60)})
    examples = ingest(flowers)
    checksums = [{values["checksum"] for values in records(examples, split).values()} for split in ("train", "eval")]
    assert checksums[0] & checksums[1] == set()
    assert len(checksums[0] | checksums[1]) == 60


def test_a_photo_that_never_ends_is_not_read(flowers):
    folder = next(path for path in sorted(flowers.iterdir()) if path.is_dir())
    os.mkfifo(folder / "pipe.png")
    with pytest.raises(BrokenInput, match=r"pipe\.png: no regular file"):
        input_fingerprint(str(flowers))


def test_the_share_held_out_is_the_one_given():
    checksums = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(4000)]
    splits = [split_by_content(checksum, 0.25) for checksum in checksums]
    assert 900 < splits.count("eval") < 1100
    # Whoever is held out at a smaller share is at a larger one.
    assert all(split_by_content(checksum, 0.3) == "eval" for checksum in checksums[:500] if
               split_by_content(checksum, 0.25) == "eval")  # fmt: skip


def test_folders_of_splits_are_respected(tmp_path, ingest):
    files = {f"{folder}/{label}/{number}.jpg": photo(zlib.crc32(f"{folder}{label}{number}".encode()))
             for folder in ("train", "val", "test") for label in ("rose", "tulip") for number in range(3)}  # fmt: skip
    examples = ingest(write(tmp_path / "data", files))
    assert ingest.split_names == ["eval", "test", "train"]
    for split, folder in {"train": "train", "eval": "val", "test": "test"}.items():
        assert records(examples, split).keys() == {path for path in files if path.startswith(folder)}


def test_without_a_folder_for_evaluation_a_share_of_the_training_photos_is_held_out(tmp_path, ingest):
    files = {f"train/rose/{number}.png": photo(number) for number in range(40)}
    files |= {f"test/rose/{number}.png": photo(100 + number) for number in range(3)}
    examples = ingest(write(tmp_path / "data", files))
    held_out = records(examples, "eval")
    assert held_out and all(path.startswith("train/") for path in held_out)
    assert len(held_out) + len(records(examples, "train")) == 40
    assert len(records(examples, "test")) == 3


def test_a_photo_that_is_also_in_the_folder_for_evaluation_is_not_learned_from(tmp_path, ingest):
    files = {f"train/rose/{number}.png": photo(number) for number in range(4)}
    files |= {"val/rose/a.png": photo(1), "val/rose/b.png": photo(50)}
    examples = ingest(write(tmp_path / "data", files))
    assert records(examples, "train").keys() == {f"train/rose/{number}.png" for number in (0, 2, 3)}
    assert records(examples, "eval").keys() == {"val/rose/a.png", "val/rose/b.png"}
    assert report(examples)["left_out"] == [
        {
            "path": "train/rose/1.png",
            "reason": "the same photo as val/rose/a.png, which is in another split",
            "unreadable": False,
            "label": "rose",
            "format": "",
        }
    ]


def test_classes_may_be_called_like_splits(tmp_path):
    write(tmp_path, {"train/1.png": b"", "bus/2.png": b""})
    assert {(found.path, found.label, found.split) for found in list_images(str(tmp_path))} == {
        ("train/1.png", "train", None),
        ("bus/2.png", "bus", None),
    }


def test_photos_are_known_by_their_extensions_in_either_case_and_hidden_files_are_none(tmp_path):
    names = ["a.jpg", "b.JPEG", "c.Png", "d.gif", "e.BMP"]
    others = ["._a.jpg", ".hidden.png", "notes.txt", "f.webp"]
    write(tmp_path, {f"rose/{name}": b"" for name in names + others} | {".cache/x.png": b"", "loose.png": b""})
    assert [found.path for found in list_images(str(tmp_path))] == [f"rose/{name}" for name in names]


def manifest(path: Path, rows: list[list[str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows(rows)
    return path


def test_a_manifest_lists_photos_relative_to_itself_or_absolute(tmp_path, ingest):
    write(tmp_path, {f"photos/{number}.png": photo(number) for number in range(30)})
    rows = [["label", "path"], *(["größer" if number % 2 else "a, b", f"photos/{number}.png"] for number in range(29))]
    rows.append(["absolute", str(tmp_path / "photos/29.png")])
    examples = ingest(manifest(tmp_path / "list.csv", rows))
    found = records(examples, "train") | records(examples, "eval")
    assert {path: values["label"].decode() for path, values in found.items()} == {
        path: label for label, path in rows[1:]
    }
    assert found["photos/3.png"]["image"] == photo(3)


BROKEN = {
    "rose/empty.png": (b"", "image is empty"),
    "rose/text.jpg": (b"no photo", "not a JPEG, PNG, GIF or BMP image"),
    "rose/cut.jpg": (b"\xff\xd8\xff\xe0\x00", "image is damaged"),
    "rose/enormous.png": (enormous_png(), "image is 20000x20000, at most 50000000 pixels are allowed"),
}


def test_photos_without_labels_stop_a_run_that_learns_and_no_other(tmp_path, ingest):
    rows = [[f"{number}.png", "rose" if number % 2 else ""] for number in range(20)]
    write(tmp_path, {path: photo(int(path.removesuffix(".png"))) for path, _ in rows})
    with pytest.raises(BrokenInput) as refusal:
        ingest(manifest(tmp_path / "photos.csv", [["path", "label"], *rows]))
    assert (
        "10 of 20 photos have no label; fill the labels in, or leave these photos out (0.png, 10.png, 12.png and 7"
        in (str(refusal.value))
    )
    listed = manifest(tmp_path / "photos.csv", [["path", "label"], *rows])
    examples = ingest(listed, labels_required=False, eval_share=0.5)
    labels = {path: found["label"] for split in ("train", "eval") for path, found in records(examples, split).items()}
    assert labels == {path: label.encode() for path, label in rows}


def test_photos_that_cannot_be_used_are_left_out_and_listed(flowers, ingest):
    write(flowers, {path: content for path, (content, _) in BROKEN.items()})
    examples = ingest(flowers, max_unreadable_share=0.1)
    assert len(records(examples, "train")) + len(records(examples, "eval")) == 60
    assert report(examples)["left_out"] == [
        {"path": path, "reason": reason, "unreadable": True, "label": "rose", "format": ""}
        for path, (_, reason) in sorted(BROKEN.items())
    ]


def test_a_file_that_a_manifest_lists_and_that_is_not_there_is_left_out(tmp_path, ingest):
    write(tmp_path, {f"{number}.png": photo(number) for number in range(30)})
    rows = [["path", "label"], ["gone.png", "rose"], *([f"{number}.png", "rose"] for number in range(30))]
    examples = ingest(manifest(tmp_path / "list.csv", rows), max_unreadable_share=0.1)
    (gone,) = report(examples)["left_out"]
    assert (gone["path"], gone["reason"], gone["unreadable"]) == ("gone.png", "there is no such file", True)


def boxes(brand: bytes, *compatible: bytes) -> bytes:
    """The first box of a file of the ISO base media format."""
    content = b"ftyp" + brand + bytes(4) + b"".join(compatible)
    return struct.pack(">I", len(content) + 4) + content + bytes(64)


def tiff(*tags: int, order: str = "<") -> bytes:
    """A TIFF's header and first directory, with nothing behind them."""
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, 0) for tag in tags)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    return head + entries + bytes(4)


def converted(number: int, image_format: str, **options) -> bytes:
    """A photo in a format that Pillow writes, with pillow-heif's HEIF."""
    register_heif_opener()
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (24, 36, 3), np.uint8)).resize((72, 48)).save(
        file, image_format, **options
    )
    return file.getvalue()


# What phones and cameras write, whatever the files are called.
UNREAD = {
    "HEIC": boxes(b"heic", b"mif1", b"heic"),
    "AVIF": boxes(b"mif1", b"avif", b"miaf"),
    "WebP": converted(1, "WEBP"),
    "TIFF": converted(2, "TIFF"),
    "JPEG 2000": converted(3, "JPEG2000"),
    "JPEG XL": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(20),
    "RAW (DNG)": tiff(0x00FE, 0x010F, 0xC612),
    "RAW": tiff(0x00FE, 0x010F, 0x014A, order=">"),
    "RAW (Canon)": b"II*\0\x10\0\0\0CR\2\0" + bytes(30),
    "RAW (Fujifilm)": b"FUJIFILMCCD-RAW 0201" + bytes(30),
    "PSD": b"8BPS\0\1" + bytes(30),
}


def test_formats_are_told_by_content():
    assert {name: file_format(content) for name, content in UNREAD.items()} == {name: name for name in UNREAD}
    assert file_format(boxes(b"crx ", b"isom")) == "RAW (Canon)"
    assert file_format(boxes(b"qt  ")) == file_format(boxes(b"isom", b"mp41")) == "video"
    assert [file_format(photo(1)), file_format(converted(1, "JPEG")), file_format(converted(1, "BMP"))] == [
        "PNG",
        "JPEG",
        "BMP",
    ]
    assert {file_format(text) for text in (b"", b"BMW, Audi and others", b"RIFF\0\0\0\0WAVE", b"II*\0\xff")} == {
        "other",
        "TIFF",
    }
    assert READ_BEGINNINGS == FILE_BEGINNINGS


def test_photos_that_are_not_read_are_counted_by_format_and_named_ones_too(flowers, ingest):
    names = {f"rose/IMG_{number}.{number}": content for number, content in enumerate(UNREAD.values())}
    others = {"rose/clip.mov": boxes(b"qt  "), "tulip/notes.txt": b"nice ones", "tulip/more/1.png": photo(5)}
    read = {"tulip/IMG_1.heic": converted(7, "JPEG"), "tulip/IMG_2": photo(70)}
    write(flowers, names | others | read | {"rose/webp.jpg": UNREAD["WebP"], "rose/x.nef": b"?", "loose.jpg": photo(3)})
    found = find_images(str(flowers))
    assert len(found.photos) == 60 + 2 + 1  # what webp.jpg is, is seen when it is read
    sentences = found.sentences()
    assert len(sentences) == len(UNREAD) + 2
    assert "1 file is HEIC, which is not read; JPEG, PNG, GIF and BMP are (rose/IMG_0.0)" in sentences
    assert "1 file is of no format that is known (rose/x.nef)" in sentences
    assert sentences[-1] == (
        "passed over: 1 beside the class folders, 1 videos, 1 folders within class folders, 1 other files"
    )
    counted = report(ingest(flowers, max_unreadable_share=0.5))
    kinds = kinds_left_out(counted)
    assert kinds == {"WebP": 2, "unknown": 1} | {name: 1 for name in UNREAD if name != "WebP"}
    assert counted["passed_over"] == found.passed_over
    assert sum(sum(labels.values()) for labels in counted["examples"].values()) == 62
    with pytest.raises(BrokenInput) as stopped:
        ingest(flowers)
    assert "flowers: 13 of 75 photos cannot be used: 2 WebP, 1 AVIF, 1 HEIC, 1 JPEG 2000" in str(stopped.value)
    assert "`ingraph run --convert` makes JPEGs of most other formats" in str(stopped.value)
    assert kinds_left_out({"left_out": {"column": "struct"}}) == {}


def test_a_class_that_is_lost_stops_the_run_whatever_share_may_be(flowers, ingest):
    write(flowers, {f"orchid/{number}.heic": UNREAD["HEIC"] for number in range(3)})
    expected = r"flowers: no photo of the class 'orchid' can be used, of 3: 3 HEIC; `ingraph run --convert` makes"
    with pytest.raises(BrokenInput, match=expected):
        ingest(flowers, max_unreadable_share=0.9)


def test_photos_are_made_jpeg_beside_themselves_once_and_take_their_places(tmp_path, ingest):
    kinds = {"webp": "WEBP", "avif": "AVIF", "tif": "TIFF", "jp2": "JPEG2000", "heic": "HEIF"}
    files = {
        f"rose/{number}.{ending}": converted(number, kind)
        for number, (ending, kind) in enumerate(item for item in kinds.items() for _ in range(6))
    }
    turned = Image.Exif()
    turned[0x0112] = 6
    write(
        tmp_path / "data",
        files | {"rose/named.jpg": converted(40, "WEBP"), "rose/turned.webp": converted(41, "WEBP", exif=turned)},
    )
    write(
        tmp_path / "data", {"rose/a.heic": UNREAD["HEIC"], "rose/b.cr2": UNREAD["RAW (Canon)"], "rose/c.png": photo(1)}
    )
    deep = Image.fromarray(np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16))
    deep.save(tmp_path / "data/rose/deep.tiff")
    data = str(tmp_path / "data")

    done = convert_to_jpeg(unread_files(data), 10_000)
    assert sorted(done.made) == sorted(["WebP"] * 8 + ["AVIF"] * 6 + ["TIFF"] * 7 + ["JPEG 2000"] * 6 + ["HEIC"] * 6)
    for number in range(30):  # of each format
        (path,) = (tmp_path / "data/rose").glob(f"{number}.*.converted.jpg")
        with Image.open(path) as image, Image.open(io.BytesIO(converted(number, "PNG"))) as original:
            assert np.abs(np.asarray(image, float) - np.asarray(original, float)).mean() < 30, (
                path
            )  # noise, which is lossily compressed
    reasons = {Path(path).name: reason for path, reason in done.failed.items()}
    assert set(reasons) == {"a.heic", "b.cr2"}
    assert reasons["a.heic"].startswith("HEIC: ") and reasons["b.cr2"].startswith(
        "RAW (Canon): only the camera maker's"
    )

    names = {Path(found.path).name for found in find_images(data).photos}
    assert len(names) == 34 and "named.jpg.converted.jpg" in names and "named.jpg" not in names
    with Image.open(f"{data}/rose/turned.webp.converted.jpg") as image:
        assert image.size == (48, 72) and not image.getexif()
    with Image.open(f"{data}/rose/deep.tiff.converted.jpg") as image:
        assert np.abs(np.asarray(image.convert("L")).ravel() - np.arange(256.0)).max() < 6
    assert set(unread_files(data)) == {f"{data}/rose/a.heic", f"{data}/rose/b.cr2"}
    listed = manifest(tmp_path / "data/list.csv", [["path", "label"], ["rose/0.webp", "r"], ["rose/a.heic", "r"]])
    found = find_images(str(listed))
    assert [one.path for one in (*found.photos, *found.unread)] == ["rose/0.webp.converted.jpg", "rose/a.heic"]
    examples = ingest(tmp_path / "data", max_unreadable_share=0.1)
    assert kinds_left_out(report(examples)) == {"HEIC": 1, "RAW (Canon)": 1}
    assert len(records(examples, "train")) + len(records(examples, "eval")) == 34


def test_without_its_decoder_heic_is_left_with_what_brings_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    write(tmp_path, {"rose/a.heic": converted(1, "HEIF")})
    done = convert_to_jpeg(unread_files(str(tmp_path)), 10_000)
    assert [*done.failed.values()] == ["HEIC: its decoder is missing: pip install pillow-heif (or ingraph[convert])"]


def test_what_is_too_large_to_be_read_is_not_converted_either(tmp_path):
    write(tmp_path, {"rose/1.webp": converted(1, "WEBP"), "rose/2.webp": b"RIFF\0\0\0\0WEBPVP8 "})
    done = convert_to_jpeg(unread_files(str(tmp_path)), 72 * 48 - 1)
    assert done.made == []
    assert done.failed[f"{tmp_path}/rose/1.webp"] == "WebP: 72x48, at most 3455 pixels are allowed"
    assert done.failed[f"{tmp_path}/rose/2.webp"].startswith("WebP: ")
    with pytest.raises(BrokenInput, match="--convert writes JPEGs beside files of this machine"):
        unread_files("gs://bucket/flowers")


def test_too_many_photos_that_cannot_be_used_stop_the_run(flowers, ingest):
    write(flowers, {path: content for path, (content, _) in BROKEN.items()})
    expected = (
        rf"flowers: 4 of 64 photos cannot be used, at most a share of 0\.06 may be; remove or replace them "
        rf"\(rose/cut\.jpg: image is damaged; rose/empty\.png: image is empty; "
        rf"rose/enormous\.png: {BROKEN['rose/enormous.png'][1]}; and 1 more\)"
    )
    with pytest.raises(BrokenInput, match=expected):
        ingest(flowers, max_unreadable_share=0.06)
    ingest(flowers, max_unreadable_share=4 / 64)


def test_a_split_without_photos_stops_the_run(tmp_path, ingest):
    write(tmp_path, {"data/rose/1.png": photo(1)})
    with pytest.raises(BrokenInput, match=r"data: no photo is left for the eval split, of 1; add photos"):
        ingest(tmp_path / "data", eval_share=0.0001)


@pytest.mark.parametrize(
    ("files", "path", "message"),
    [
        ({}, "missing", "missing: no such folder or file; `data.path` in the config names a folder of class folders"),
        ({"loose.png": b""}, "", "expected a folder for each class, <class>/<photo>, with .jpg"),
        ({"list.csv": b"path,label\n"}, "list.csv", "list.csv: no photos are listed"),
        ({"list.csv": b"file,label\na,b\n"}, "list.csv", "columns path and label, found 'file, label'; add path"),
        ({"list.csv": b"path,label\na.png,x\n,y\n"}, "list.csv", "list.csv, line 3: path is empty; fill it in"),
        ({"list.csv": b"path,label\n\xff,x\n"}, "list.csv", "list.csv: not UTF-8 at byte 11"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_listed_is_refused_in_a_sentence(tmp_path, files, path, message):
    with pytest.raises(BrokenInput) as refusal:
        list_images(str(write(tmp_path, files) / path))
    assert message in str(refusal.value)


def test_the_fingerprint_changes_with_content_names_and_labels_only(flowers):
    original = input_fingerprint(str(flowers))
    assert input_fingerprint(f"{flowers}/") == original

    (flowers / "notes.txt").write_text("no photo")
    assert input_fingerprint(str(flowers)) == original

    (flowers / "rose/00.png").write_bytes(photo(5000) + b"longer")
    changed = input_fingerprint(str(flowers))
    (flowers / "rose/00.png").rename(flowers / "rose/renamed.png")
    renamed = input_fingerprint(str(flowers))
    (flowers / "rose/renamed.png").rename(flowers / "tulip/00.png")
    moved = input_fingerprint(str(flowers))
    assert len({original, changed, renamed, moved}) == 4


def test_the_fingerprint_changes_with_a_file_of_the_same_size(flowers):
    file = flowers / "rose/00.png"
    original = input_fingerprint(str(flowers))
    status = file.stat()
    file.write_bytes(file.read_bytes()[::-1])
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))
    assert input_fingerprint(str(flowers)) != original


def test_a_pipeline_reads_photos_again_when_they_have_changed_and_only_then(flowers, tmp_path):
    apply_beam_speedups()
    database = metadata.sqlite_metadata_connection_config(str(tmp_path / "metadata.sqlite"))

    def run() -> list[int]:
        """Runs with caching on; answers the number of training examples of each artifact so far."""
        example_gen = ImageExampleGen(str(flowers), input_fingerprint(str(flowers)))
        LocalDagRunner().run(
            pipeline.Pipeline(
                pipeline_name="flowers",
                pipeline_root=str(tmp_path / "root"),
                components=[example_gen],
                enable_cache=True,
                metadata_connection_config=database,
                beam_pipeline_args=BEAM_PIPELINE_ARGS,
            )
        )
        artifacts = ml_metadata.MetadataStore(database).get_artifacts_by_type("Examples")
        return [len(records(Path(found.uri), "train")) + len(records(Path(found.uri), "eval")) for found in artifacts]

    assert run() == [60]
    assert run() == [60]
    write(flowers, {"rose/new.png": photo(1000)})
    assert run() == [60, 61]


def test_a_sample_of_photos_keeps_every_class_and_takes_as_many_of_each_split_that_folders_tell(tmp_path, ingest):
    numbers = [(split, number) for split in ("train", "val") for number in range(40)]
    names = {
        f"{split}/{'rare' if number < 3 else 'common'}/{number}.png": photo(seed)
        for seed, (split, number) in enumerate(numbers)
    }
    examples = ingest(write(tmp_path / "photos", names), sample=12)
    assert report(examples)["examples"] == {"train": {"common": 9, "rare": 3}, "eval": {"common": 9, "rare": 3}}
    again = ingest(tmp_path / "photos", sample=12)
    assert records(again, "train").keys() == records(examples, "train").keys()
