"""Photos that arrive in spans."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from PIL import Image

from components.errors import BrokenInput
from components.image_example_gen.image_files import list_photos
from pipeline.config import RunConfig, load_config
from pipeline.runners.compile import cluster_pipeline
from pipeline.spans import span_window, write_span_files
from serving.model_store import ModelVersion

DAYS = {"2026-01-30": ("rose", "daisy"), "2026-01-31": ("rose", "tulip"), "2026-02-01": ()}


@pytest.fixture
def config(tmp_path) -> RunConfig:
    """Of two photos a day, the last of which has none but a note."""
    for number, (day, labels) in enumerate(DAYS.items()):
        (tmp_path / "photos" / day / "notes").mkdir(parents=True)
        (tmp_path / "photos" / day / "notes/read.me").write_text("no photo")
        for label in labels:
            folder = tmp_path / "photos" / day / label
            folder.mkdir()
            Image.new("RGB", (20 + number, 30)).save(folder / "a.png")
    return written(tmp_path, "photos/{YYYY}-{MM}-{DD}/*/*")


def written(folder: Path, pattern: str, more: str = "") -> RunConfig:
    (folder / "flowers.yaml").write_text(
        f"name: flowers\ntask: image\ndata: {{spans: {{path: '{pattern}', window: 2{more}}}}}\n"
        "trainer: {mode: fine_tune, weights: none}\nevaluation: {at_least: {accuracy: 0.5}}\n"
    )
    return load_config(str(folder / "flowers.yaml"))


def test_the_window_is_a_list_of_its_photos_where_they_are(config, tmp_path):
    window = span_window(config.data, [])
    assert str(window) == "2 spans, 2026-01-30 to 2026-01-31; without rows: 2026-02-01"

    read = write_span_files(window, config, tmp_path / "data").read_by(config)
    assert [(photo.file, photo.label) for photo in list_photos(read.data.path)] == [
        (f"{tmp_path}/photos/2026-01-30/daisy/a.png", "daisy"),
        (f"{tmp_path}/photos/2026-01-30/rose/a.png", "rose"),
        (f"{tmp_path}/photos/2026-01-31/rose/a.png", "rose"),
        (f"{tmp_path}/photos/2026-01-31/tulip/a.png", "tulip"),
    ]


def test_a_new_span_is_compared_by_the_classes_and_measures_of_its_photos(config, tmp_path):
    prints = span_window(config.data, []).fingerprints()
    served = ModelVersion(1, "", False, {"data_spans": {"2026-01-30": prints["2026-01-30"]}})
    spans = write_span_files(span_window(config.data, [served]), config, tmp_path / "data")

    assert (spans.previous, spans.compared) == ("2026-01-30", ("2026-01-31",))
    assert spans.bounds == dict.fromkeys(["label", "bytes", "format", "width", "height"], 0.3)
    with (spans.folder / "2026-01-31.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    size = str((tmp_path / "photos/2026-01-31/rose/a.png").stat().st_size)
    assert rows == [
        {"label": label, "bytes": size, "format": "PNG", "width": "21", "height": "30"} for label in ("rose", "tulip")
    ]


def test_a_photo_that_changed_makes_its_span_new(config, tmp_path):
    served = ModelVersion(1, "", False, {"data_spans": span_window(config.data, []).fingerprints()})
    assert span_window(config.data, [served]).last_published == served
    Image.new("RGB", (20, 31)).save(tmp_path / "photos/2026-01-31/rose/a.png")
    assert [span.name for span in span_window(config.data, [served]).unseen] == ["2026-01-31"]


def test_a_span_may_be_a_list_of_photos(config, tmp_path):
    (tmp_path / "7.csv").write_text("path,label\nphotos/2026-01-30/rose/a.png,flower\n")
    config = written(tmp_path, "{SPAN}.csv")
    read = write_span_files(span_window(config.data, []), config, tmp_path / "data").read_by(config)
    (photo,) = list_photos(read.data.path)
    assert (photo.file, photo.label) == (f"{tmp_path}/photos/2026-01-30/rose/a.png", "flower")


def test_photos_without_class_folders_are_refused_with_a_path_that_has_them(tmp_path):
    with pytest.raises(BrokenInput, match=r"photos/\{YYYY\}-\{MM\}-\{DD\}/\*/\*.*received 'photos/\{SPAN\}/\*\.jpg'"):
        written(tmp_path, "photos/{SPAN}/*.jpg")


def test_a_bound_for_what_is_not_measured_of_photos_is_refused_by_name(config, tmp_path):
    config = written(tmp_path, "photos/{YYYY}-{MM}-{DD}/*/*", ", maximum_drift_of: {brightness: 0.1}")
    with pytest.raises(BrokenInput, match="'brightness'; the columns of the spans are 'label', 'bytes', 'format'"):
        write_span_files(span_window(config.data, []), config, tmp_path / "data")


def test_spans_of_photos_on_this_machine_are_refused_for_a_cluster(config, tmp_path):
    config = load_config(str(tmp_path / "flowers.yaml"), ["cluster.pipeline_root=gs://bucket/ingraph"])
    with pytest.raises(BrokenInput, match=r"the photos of spans are not copied to a cluster; give a path .* gs://"):
        cluster_pipeline(config, "kubeflow", tmp_path)
