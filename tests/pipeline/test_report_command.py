"""The report of the demo: that it opens anywhere, that its figures are those of the artifacts, and who gets one."""

from __future__ import annotations

import itertools
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import tensorflow as tf
from click.testing import CliRunner
from conftest import HeartRun, ingraph
from sklearn import metrics
from tfx.types import artifact_utils

from components.run_report.executor import Executor
from components.run_report.report_artifact import REPORT_PAGE, RunReportArtifact
from components.run_report.spec import RunReportSpec
from components.run_report.wilson_interval import wilson_interval
from pipeline.commands.report import report
from pipeline.metadata_store import open_metadata_store
from pipeline.recorded_run import read_recorded_run
from pipeline.run_record import read_run_record
from serving import reference_predictions

SECTIONS = ["gates", "steps", "data", "training", "quality", "mistakes", "latency", "lineage", "card"]


def run_id(finished) -> str:
    return re.search(r"heart: run (\S+)", finished.output).group(1)


def runs(heart_run: HeartRun) -> Path:
    return heart_run.workdir / "runs/heart"


def page_of(path: str | Path) -> ElementTree.Element:
    return ElementTree.fromstring(Path(path).read_text(encoding="utf-8").removeprefix("<!DOCTYPE html>"))


def words(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def elements(page: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [element for element in page.iter() if element.tag.rpartition("}")[2] == name]


def table(page: ElementTree.Element, caption: str) -> dict[str, list[str]]:
    """Header of the row -> its cells."""
    (found,) = [one for one in elements(page, "table") if words(elements(one, "caption")[0]).startswith(caption)]
    rows = [row for row in elements(found, "tr") if elements(row, "td")]
    return {words(elements(row, "th")[0]): [words(cell) for cell in elements(row, "td")] for row in rows}


@pytest.fixture(scope="module")
def page(heart_run: HeartRun) -> ElementTree.Element:
    return page_of(runs(heart_run) / "reports" / f"{run_id(heart_run.finished)}.html")


@pytest.fixture(scope="module")
def stopped(heart_run: HeartRun):
    """A run that DataGate stops: what comes before it is unchanged."""
    return ingraph(
        "run",
        "configs/heart.yaml",
        "--workdir",
        str(heart_run.workdir),
        "--set",
        "data.minimum_examples=1000",
        "--set",
        "model_card.intended_use=Research <only>",
    )


def test_the_screen_ends_with_the_path_of_the_report(heart_run: HeartRun):
    last = heart_run.finished.output.strip().splitlines()[-1]
    assert last.split() == ["report", str(runs(heart_run) / "reports" / f"{run_id(heart_run.finished)}.html")]


def test_every_section_is_there_once_and_reachable(page):
    ids = [element.get("id") for element in page.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    linked = [link.get("href") for link in elements(page, "a")]
    assert linked == ["#content", *(f"#{section}" for section in SECTIONS)]
    assert {"content", *SECTIONS} <= set(ids)
    named = {section.get("aria-labelledby") for section in elements(page, "section")}
    assert named == set(SECTIONS)


def test_who_cannot_see_the_page_can_read_it(page):
    assert page.get("lang") == "en"
    assert len(elements(page, "h1")) == len(elements(page, "main")) == 1
    levels = [int(one.tag[1]) for one in page.iter() if re.fullmatch(r"h[1-6]", one.tag)]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    pictures = elements(page, "svg")
    assert len(pictures) > 15
    assert all(picture.get("role") == "img" and len(picture.get("aria-label")) > 10 for picture in pictures)
    assert all(picture.get("alt") for picture in elements(page, "img"))
    assert all(words(elements(one, "caption")[0]) for one in elements(page, "table"))
    assert all(one.get("scope") for one in elements(page, "th"))
    scrolled = [one for one in elements(page, "div") if one.get("class") == "scroll"]
    assert all(one.get("tabindex") == "0" and one.get("role") == "region" and one.get("aria-label") for one in scrolled)


def test_the_page_loads_nothing_and_runs_nothing(page):
    assert elements(page, "script") == []
    addresses = [
        value
        for element in page.iter()
        for name, value in element.attrib.items()
        if name.rpartition("}")[2] in ("href", "src") and not value.startswith(("#", "data:"))
    ]
    assert addresses == []
    styles = "".join(words(one) for one in elements(page, "style"))
    assert "@import" not in styles and "url(" not in styles
    assert "prefers-color-scheme: dark" in styles


def test_pictures_have_no_colour_of_their_own(heart_run: HeartRun):
    text = (runs(heart_run) / "reports" / f"{run_id(heart_run.finished)}.html").read_text()
    drawings = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert [colour for drawing in drawings for colour in re.findall(r"#[0-9a-f]{6}\b", drawing)] == []


def test_the_answer_stands_first_with_its_reason(page):
    said = words(elements(page, "header")[0])
    assert "The new model may go live. All 4 gates passed. Published as version 1." in said
    assert "Version 1 is served now." in said or "Version 2 is served now." in said
    assert table(page, "What Evaluator demands")["auc at least 0.8"][1] == "yes"


def test_the_metrics_are_those_of_the_raw_predictions_and_the_raw_labels(heart_run: HeartRun, page):
    store = open_metadata_store(str(runs(heart_run) / "metadata.sqlite"))
    model = Path(read_recorded_run(store, run_id(heart_run.finished)).artifacts["model"].uri)
    reference = reference_predictions.read(str(model / reference_predictions.FILE_NAME))
    probability = dict(zip(reference.ids, reference.probabilities, strict=True))
    truth, healthy = [], []
    for path in runs(heart_run).glob("artifacts/CsvExampleGen/examples/*/Split-eval/*"):
        for record in tf.data.TFRecordDataset(str(path), "GZIP").as_numpy_iterator():
            target = tf.train.Example.FromString(record).features.feature["target"].int64_list.value[0]
            truth.append(target == 0)  # the config calls 0 healthy; the vocabulary is disease, healthy
            healthy.append(float(probability[reference_predictions.example_id(record)][1]))
    predicted = [one > 0.5 for one in healthy]
    shown = table(page, "Metrics, with 95 % confidence intervals")
    hits = sum(a == b for a, b in zip(truth, predicted, strict=True))
    interval = wilson_interval(hits, len(truth))
    assert shown["accuracy"][0] == f"{hits / len(truth):.4f} ({interval.low:.4f} to {interval.high:.4f})"
    assert shown["auc"][0].startswith(f"{metrics.roc_auc_score(truth, healthy):.4f} (")
    assert shown["cross_entropy"][0].startswith(f"{metrics.log_loss(truth, healthy):.4f} (")
    assert float(shown["accuracy"][1]) == pytest.approx(hits / len(truth), abs=1e-4)
    assert float(shown["auc"][1]) == pytest.approx(metrics.roc_auc_score(truth, healthy), abs=2e-3)
    classes = table(page, "Recall is the share")
    assert classes["healthy"][0] == str(sum(truth))
    assert classes["healthy"][1].startswith(f"{metrics.recall_score(truth, predicted):.4f} (")
    mistakes = len(elements(next(one for one in elements(page, "ol")), "li"))
    assert mistakes == min(8, len(truth) - hits)


def test_data_latency_and_lineage_are_those_of_the_artifacts(heart_run: HeartRun, page):
    counts = table(page, "Examples")
    assert sum(int(cells[0]) for cells in counts.values()) == 303
    assert len(table(page, "Columns of the data")) == 14
    published = json.loads((heart_run.base_path / "1/assets.extra/provenance.json").read_text())
    lineage = table(page, "The new model")
    assert lineage["fingerprint of the data"] == [published["data_fingerprint"]]
    assert lineage["fingerprint of code and config"] == [published["code_fingerprint"]]
    measured = published["serving_check"]["latency_ms"]["serve_examples"]["32"]
    assert table(page, "Milliseconds")["serve_examples"][1:3] == [f"{measured['p50']:.2f}", f"{measured['p99']:.2f}"]
    assert table(page, "First, best and last loss")["training rows"][3] == "200"


def test_a_run_that_a_gate_stopped_gets_a_report_that_says_why(heart_run: HeartRun, stopped):
    assert stopped.status == 2, stopped.output
    page = page_of(stopped.output.strip().splitlines()[-1].split()[-1])
    said = words(elements(page, "header")[0])
    assert "The new model may not go live: DataGate says no." in said
    assert "at least 1000 are needed" in said
    steps = table(page, "The steps in the order")
    assert steps["DataGate"][0] == "failed"
    assert steps["Transform"][0] == steps["ServingPusher"][0] == "not reached"
    assert steps["StatisticsGen"][0] == "unchanged"
    assert sum(int(cells[0]) for cells in table(page, "Examples").values()) == 303


def test_what_a_config_says_is_shown_as_text(stopped):
    page = page_of(stopped.output.strip().splitlines()[-1].split()[-1])
    assert "Research <only>" in words(page)


def test_a_report_is_made_anew_on_demand(heart_run: HeartRun):
    path = runs(heart_run) / "reports" / f"{run_id(heart_run.finished)}.html"
    before = path.read_text()
    path.write_text("gone")
    done = CliRunner().invoke(report, [run_id(heart_run.finished), "--workdir", str(heart_run.workdir)])
    assert done.exit_code == 0, done.output
    assert done.output.strip() == str(path)
    after = page_of(path)
    assert table(after, "Metrics, with")["auc"] == table(page_of_text(before), "Metrics, with")["auc"]


def page_of_text(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>"))


def test_two_runs_are_compared(heart_run: HeartRun, stopped):
    done = CliRunner().invoke(
        report, [run_id(heart_run.finished), run_id(stopped), "--workdir", str(heart_run.workdir)]
    )
    assert done.exit_code == 0, done.output
    page = page_of(done.output.strip())
    assert table(page, "Verdicts of the gates")["DataGate"] == ["passed", "failed"]
    assert table(page, "Keys that differ")["data.minimum_examples"] == ["20", "1000"]
    assert table(page, "Examples")["train"][0] == table(page, "Examples")["train"][1]


def test_a_run_that_is_not_there_is_said_with_those_that_are(heart_run: HeartRun):
    done = CliRunner().invoke(report, ["livers", "--workdir", str(heart_run.workdir)])
    assert done.exit_code == 2
    assert "livers: there is no such pipeline or run; expected one of heart/" in done.output


def test_the_component_makes_the_same_page_from_its_inputs(heart_run: HeartRun, page, tmp_path):
    folder, id_ = runs(heart_run), run_id(heart_run.finished)
    recorded = read_recorded_run(open_metadata_store(str(folder / "metadata.sqlite")), id_).artifacts
    inputs = {}
    for role, channel in RunReportSpec.INPUTS.items():
        artifact = channel.type()
        artifact.uri = recorded[role].uri
        if "split_names" in recorded[role].properties:
            artifact.split_names = artifact_utils.encode_split_names(["train", "eval"])
        for name, value in recorded[role].properties.items():
            if name in ("blessed", "pushed", "has_model") and isinstance(value, int):
                artifact.set_int_custom_property(name, value)
            elif name in ("reason", "pushed_version", "pushed_destination"):
                artifact.set_string_custom_property(name, value)
        inputs[role] = [artifact]
    output = RunReportArtifact()
    output.uri = str(tmp_path)
    config = json.dumps(dict(read_run_record(folder, id_).config))
    Executor().Do(inputs, {"report": [output]}, {"config": config, "run_id": id_})
    made = page_of(tmp_path / REPORT_PAGE)
    assert "The new model may go live." in words(elements(made, "header")[0])
    assert table(made, "Metrics, with") == table(page, "Metrics, with")
    assert "made inside of the run" in words(made)
