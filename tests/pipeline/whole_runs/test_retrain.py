"""`ingraph retrain` on spans of rows and of photos."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.retraining_month import NAME, WEEK, Month, live_through
from components.errors import BrokenInput, RunUnderWay
from components.image_example_gen.image_files import list_images
from pipeline.config import load_config
from pipeline.options import RunConfig
from pipeline.run import run_lock
from pipeline.runners.compile import cluster_pipeline
from pipeline.spans import IMAGE_SPANS, TABLE_SPANS, remove_old_windows, span_window, write_span_files
from serving import model_store
from serving.model_store import ModelVersion
from tests.pipeline.conftest import PROJECT, elements, ingraph, page_of, table, words

# What the last version of the week learned from.
SPANS = ["2026-01-05", "2026-01-06", "2026-01-08"]


@pytest.fixture(scope="module")
def week(tmp_path_factory) -> tuple[Month, Path]:
    workdir = tmp_path_factory.mktemp("week")
    return live_through(WEEK, workdir), workdir


def test_every_day_of_a_week_ends_as_it_should(week):
    month, _ = week
    for outcome, expected, said in zip(month.outcomes, WEEK, month.said, strict=True):
        assert outcome == expected, said


def test_no_request_fails_while_versions_come_and_go(week):
    month, _ = week
    assert month.failures == []
    assert month.answers > 100


def test_each_version_says_which_spans_it_learned_from_and_how_its_training_began(week):
    _, workdir = week
    versions = {version.number: version for version in model_store.list_versions(str(workdir / "models" / NAME))}
    assert {number: list(version.provenance["data_spans"]) for number, version in versions.items()} == {
        1: ["2026-01-01"],
        2: ["2026-01-01", "2026-01-02"],
        3: ["2026-01-04", "2026-01-05", "2026-01-06"],
        4: SPANS,
    }
    assert versions[1].provenance["warm_start"].startswith("cold: the served model, if there is one")
    assert versions[4].provenance["warm_start"] == "warm: from the served model, with 3 of 3 categories"


@pytest.fixture(scope="module")
def reports(week) -> dict[str, ElementTree.Element]:
    """The answer of each report of the week, and its page; of several with the same answer the last."""
    _, workdir = week
    pages = [page_of(path) for path in sorted((workdir / "runs" / NAME / "reports").glob("*.html"))]
    return {words(elements(elements(page, "header")[0], "strong")[0]): page for page in pages}


def test_the_report_of_a_span_that_drifted_says_which_column_how_far_and_what_is_allowed(reports):
    page = reports["The new model may not go live: DriftGate says no."]
    answer = words(elements(page, "header")[0])
    said = re.search(r"'income': Jensen-Shannon divergence (\S+) from span 2026-01-02, expected at most 0\.1", answer)
    demands = table(page, "What DriftGate demands")
    assert demands["income moved by at most 0.1"] == [f"{said[1]}, in span 2026-01-04", "no"]
    assert demands["age moved by at most 0.1"][1] == "yes"
    assert table(page, "The steps in the order")["DriftGate"][0] == "failed"


def test_the_report_of_a_published_model_shows_both_gates_of_retraining_and_the_spans(week, reports):
    page = reports["The new model may go live."]
    assert "All 6 gates passed. Published as version 4." in words(elements(page, "header")[0])
    assert "Spans 2026-01-05, 2026-01-06, 2026-01-08 were compared with span 2026-01-02" in words(page)
    artifacts = table(page, "The artifacts that the figures of this page come from")
    moved = json.loads(Path(artifacts["drift"][0], "drift.json").read_text())["spans"]
    assert list(moved) == SPANS
    furthest = max((moved[span]["income"], span) for span in SPANS)
    found = table(page, "What DriftGate demands")["income moved by at most 0.1"]
    assert found == [f"{furthest[0]:.4f}, in span {furthest[1]}", "yes"]
    compared = table(page, "What CompatibilityCheck demands")
    assert compared["serving_default: inputs and outputs as before"] == ["the same", "yes"]
    assert compared["classes as before"] == ["the same 2 classes", "yes"]
    assert table(page, "The new model")["spans of the data"] == [", ".join(SPANS)]
    assert table(page, "The model served when this report was made")["spans of the data"] == [", ".join(SPANS)]


def test_of_the_folders_of_windows_the_newest_stay(week):
    _, workdir = week
    windows = sorted(workdir.glob(f"runs/{NAME}/data/*/window"), key=lambda window: window.stat().st_mtime)
    assert len(windows) == 3
    tables = sorted(windows[-1].iterdir())
    assert all(table.is_symlink() for table in tables)
    assert [table.read_text().count("\n") for table in tables] == [1 + 300] * 3


def test_what_is_in_use_or_no_window_is_never_removed(tmp_path):
    for age, name in enumerate(["in_use", "old", "older", "oldest"]):
        (tmp_path / name).mkdir()
        (tmp_path / name / ("window.part" if name == "oldest" else "window.csv")).touch()
        os.utime(tmp_path / name, (1e9 - age * (name != "in_use") - 99 * (name == "in_use"),) * 2)
    (tmp_path / "table").mkdir()
    (tmp_path / "table/plain.csv").touch()
    remove_old_windows(tmp_path, in_use=tmp_path / "in_use", kept=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in_use", "old", "table"]


HOLD = """
import sys, time
from pathlib import Path
from pipeline.run import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_killed_process_leaves_the_lock_to_the_next(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        said = rf"{tmp_path}: process {holder.pid}, since 20.+ UTC, runs this pipeline"
        with pytest.raises(RunUnderWay, match=said), run_lock(tmp_path):
            pass
        holder.kill()
        holder.wait()
    with run_lock(tmp_path):
        pass


@pytest.fixture
def spans(tmp_path):
    """Writes files of spans and a config that takes the last two; answers the config's options of data."""

    def write(pattern: str, files: dict[str, str]):
        for name, rows in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(rows)
        config = tmp_path / "mine.yaml"
        config.write_text(
            "name: mine\ntask: tabular\n"
            f"data: {{spans: {{path: '{pattern}', window: 2}}}}\n"
            "preprocessing: {label: {column: b}}\nevaluation: {at_least: {auc: 0.6}}\n"
        )
        return load_config(str(config)).data

    return write


def names(window) -> list[str]:
    return [span.name for span in window.spans]


def test_numbered_spans_are_ordered_by_number_not_by_name(spans):
    data = spans(
        "span-{SPAN}/*.csv", {f"span-{n}/x.csv": "a,b\n1,2\n" for n in (2, 9, 10)} | {"span-x/x.csv": "a,b\n1,2\n"}
    )
    assert names(span_window(TABLE_SPANS, data, [])) == ["9", "10"]


def test_a_span_without_rows_makes_room_for_an_older_one(spans):
    files = {"2026-01-30.csv": "a,b\n1,2\n", "2026-01-31.csv": "a,b\n3,4\n", "2026-02-01.csv": "a,b\n"}
    window = span_window(TABLE_SPANS, spans("{YYYY}-{MM}-{DD}.csv", files), [])
    assert names(window) == ["2026-01-30", "2026-01-31"]
    assert str(window) == "2 spans, 2026-01-30 to 2026-01-31; without rows: 2026-02-01"


def test_a_folder_that_is_no_day_is_named(spans):
    with pytest.raises(BrokenInput, match=r"2026-02-30\.csv: the name is no day of the calendar"):
        span_window(TABLE_SPANS, spans("{YYYY}-{MM}-{DD}.csv", {"2026-02-30.csv": "a,b\n1,2\n"}), [])


def test_no_span_at_all_is_said_with_the_pattern(spans):
    with pytest.raises(BrokenInput, match=r"span-\{SPAN\}\.csv: no span is there"):
        span_window(TABLE_SPANS, spans("span-{SPAN}.csv", {}), [])


def test_a_span_that_was_delivered_again_is_new(spans):
    files = {"1.csv": "a,b\n1,2\n", "2.csv": "a,b\n3,4\n"}
    first = span_window(TABLE_SPANS, spans("{SPAN}.csv", files), [])
    served = ModelVersion(1, "", False, {"data_spans": first.fingerprints()})
    assert span_window(TABLE_SPANS, spans("{SPAN}.csv", files), [served]).last_published == served
    again = span_window(TABLE_SPANS, spans("{SPAN}.csv", files | {"2.csv": "a,b\n3,5\n"}), [served])
    assert again.last_published is None
    assert [span.name for span in again.unseen] == ["2"] and again.previous.name == "1"


def test_the_spans_of_a_withdrawn_version_are_compared_with_those_of_the_served_one(spans):
    data = spans("{SPAN}.csv", {"1.csv": "a,b\n1,2\n", "2.csv": "a,b\n3,4\n", "3.csv": "a,b\n5,6\n"})
    prints = {span.name: span.fingerprint for span in span_window(TABLE_SPANS, data, []).spans}
    served = ModelVersion(1, "", False, {"data_spans": {"2": prints["2"]}})
    withdrawn = ModelVersion(2, "", True, {"data_spans": prints})
    window = span_window(TABLE_SPANS, data, [withdrawn, served])
    assert window.last_published == withdrawn
    assert [span.name for span in window.unseen] == ["3"] and window.previous.name == "2"


def test_data_that_do_not_come_in_spans_are_refused(config_file, tmp_path):
    refused = ingraph("retrain", config_file("a,bought\n1,yes\n"), "--workdir", str(tmp_path))
    assert refused.status == 2
    assert "data.spans is missing" in refused.errors


@pytest.mark.parametrize("path", ["data/*.csv", "data/{YYYY}-{MM}.csv", "{SPAN}/{SPAN}.csv", "{DAY}.csv"])
def test_a_pattern_that_does_not_tell_spans_apart_is_refused(spans, path):
    with pytest.raises(BrokenInput, match=r"data\.spans\.path: expected \{SPAN\} once"):
        spans(path, {})


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
    window = span_window(IMAGE_SPANS, config.data, [])
    assert str(window) == "2 spans, 2026-01-30 to 2026-01-31; without rows: 2026-02-01"

    read = write_span_files(IMAGE_SPANS, window, config, tmp_path / "data").read_by(config)
    assert [(photo.file, photo.label) for photo in list_images(read.data.path)] == [
        (f"{tmp_path}/photos/2026-01-30/daisy/a.png", "daisy"),
        (f"{tmp_path}/photos/2026-01-30/rose/a.png", "rose"),
        (f"{tmp_path}/photos/2026-01-31/rose/a.png", "rose"),
        (f"{tmp_path}/photos/2026-01-31/tulip/a.png", "tulip"),
    ]


def test_a_new_span_is_compared_by_the_classes_and_measures_of_its_photos(config, tmp_path):
    prints = span_window(IMAGE_SPANS, config.data, []).fingerprints()
    served = ModelVersion(1, "", False, {"data_spans": {"2026-01-30": prints["2026-01-30"]}})
    spans = write_span_files(IMAGE_SPANS, span_window(IMAGE_SPANS, config.data, [served]), config, tmp_path / "data")

    assert (spans.previous, spans.compared) == ("2026-01-30", {"2026-01-31": "compared-2026-01-31.csv"})
    assert spans.bounds == dict.fromkeys(["label", "bytes", "format", "width", "height"], 0.3)
    with (spans.folder / "compared-2026-01-31.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    size = str((tmp_path / "photos/2026-01-31/rose/a.png").stat().st_size)
    assert rows == [
        {"label": label, "bytes": size, "format": "PNG", "width": "21", "height": "30"} for label in ("rose", "tulip")
    ]


def test_a_photo_that_changed_makes_its_span_new(config, tmp_path):
    served = ModelVersion(1, "", False, {"data_spans": span_window(IMAGE_SPANS, config.data, []).fingerprints()})
    assert span_window(IMAGE_SPANS, config.data, [served]).last_published == served
    Image.new("RGB", (20, 31)).save(tmp_path / "photos/2026-01-31/rose/a.png")
    assert [span.name for span in span_window(IMAGE_SPANS, config.data, [served]).unseen] == ["2026-01-31"]


def test_a_span_may_be_a_list_of_photos(config, tmp_path):
    (tmp_path / "7.csv").write_text("path,label\nphotos/2026-01-30/rose/a.png,flower\n")
    config = written(tmp_path, "{SPAN}.csv")
    read = write_span_files(IMAGE_SPANS, span_window(IMAGE_SPANS, config.data, []), config, tmp_path / "data").read_by(
        config
    )
    (photo,) = list_images(read.data.path)
    assert (photo.file, photo.label) == (f"{tmp_path}/photos/2026-01-30/rose/a.png", "flower")


def test_photos_without_class_folders_are_refused_with_a_path_that_has_them(tmp_path):
    with pytest.raises(BrokenInput, match=r"photos/\{YYYY\}-\{MM\}-\{DD\}/\*/\*.*received 'photos/\{SPAN\}/\*\.jpg'"):
        written(tmp_path, "photos/{SPAN}/*.jpg")


def test_a_bound_for_what_is_not_measured_of_photos_is_refused_by_name(config, tmp_path):
    config = written(tmp_path, "photos/{YYYY}-{MM}-{DD}/*/*", ", maximum_drift_of: {brightness: 0.1}")
    with pytest.raises(BrokenInput, match="'brightness'; the columns of the spans are 'label', 'bytes', 'format'"):
        write_span_files(IMAGE_SPANS, span_window(IMAGE_SPANS, config.data, []), config, tmp_path / "data")


def test_spans_of_photos_on_this_machine_are_refused_for_a_cluster(config, tmp_path):
    config = load_config(str(tmp_path / "flowers.yaml"), ["cluster.pipeline_root=gs://bucket/ingraph"])
    with pytest.raises(BrokenInput, match=r"the photos of spans are not copied to a cluster; give a path .* gs://"):
        cluster_pipeline(config, "kubeflow", tmp_path)
