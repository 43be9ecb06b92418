"""`ingraph report` and `ingraph runs`."""

from __future__ import annotations

import errno
import itertools
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import pytest
import tensorflow as tf
from click.testing import CliRunner
from sklearn import metrics
from tfx.types import artifact_utils

from components.errors import BrokenInput
from components.run_report import evaluation
from components.run_report.component import REPORT_PAGE, Executor, RunReportArtifact, RunReportSpec
from components.run_report.pages import report_page
from components.run_report.statistics import wilson_interval
from pipeline import reports
from pipeline.commands.runs import report, runs
from pipeline.history import find_run, open_metadata_store, read_recorded_run, read_run_record
from serving import reference_predictions
from tests.pipeline.conftest import PROJECT, HeartRun, elements, ingraph, page_of, page_of_text, table, words

SECTIONS = ["gates", "steps", "data", "training", "quality", "mistakes", "latency", "lineage", "card"]


def run_id(finished) -> str:
    return re.search(r"heart: run (\S+)", finished.output).group(1)


def runs_folder(heart_run: HeartRun) -> Path:
    return heart_run.workdir / "runs/heart"


@pytest.fixture(scope="module")
def page(heart_run: HeartRun) -> ElementTree.Element:
    return page_of(runs_folder(heart_run) / "reports" / f"{run_id(heart_run.finished)}.html")


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
    assert last.split() == ["report", str(runs_folder(heart_run) / "reports" / f"{run_id(heart_run.finished)}.html")]


def test_every_section_is_there_once_and_reachable(page):
    ids = [element.get("id") for element in page.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    linked = [link.get("href") for link in elements(elements(page, "nav")[0], "a")]
    assert linked == [f"#{section}" for section in SECTIONS]
    assert {"content", *SECTIONS} <= set(ids)
    named = {section.get("aria-labelledby") for section in elements(page, "section")}
    assert named == set(SECTIONS)


def test_every_section_with_figures_links_to_the_artifacts_that_they_come_from(heart_run: HeartRun, page):
    sources = {
        section.get("aria-labelledby"): [link.get("href").removeprefix("#artifact-") for link in elements(section, "a")]
        for section in elements(page, "section")
    }
    assert sources == {
        "gates": [
            "verdict", "model", "baseline_model", "evaluation", "model_blessing", "infra_blessing", "pushed_model",
        ],
        "steps": [],
        "data": ["examples", "statistics", "schema", "anomalies"],
        "training": ["model"],
        "quality": ["examples", "model", "baseline_model", "evaluation"],
        "mistakes": ["examples", "model"],
        "latency": ["infra_blessing"],
        "lineage": [],
        "card": [],
    }  # fmt: skip
    folders = table(page, "The artifacts that the figures of this page come from")
    rows = {row.get("id"): words(elements(row, "th")[0]) for row in elements(page, "tr")}
    for name in {name for names in sources.values() for name in names}:
        assert rows[f"artifact-{name}"] == name
        assert Path(folders[name][0]).is_dir()


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
    text = (runs_folder(heart_run) / "reports" / f"{run_id(heart_run.finished)}.html").read_text()
    drawings = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert [colour for drawing in drawings for colour in re.findall(r"#[0-9a-f]{6}\b", drawing)] == []


def test_the_answer_stands_first_with_its_reason(page):
    said = words(elements(page, "header")[0])
    assert "The new model may go live. All 4 gates passed. Published as version 1." in said
    assert "Version 1 is served now." in said or "Version 2 is served now." in said
    assert table(page, "What Evaluator demands")["auc at least 0.8"][1] == "yes"


@dataclass(frozen=True)
class RawPredictions:
    """Of each example of the eval split, from the Trainer's file and the examples alone."""

    truth: list[bool]
    healthy: list[float]
    sex: list[int]

    @property
    def predicted(self) -> list[bool]:
        return [one > 0.5 for one in self.healthy]

    @property
    def right(self) -> list[bool]:
        return [a == b for a, b in zip(self.truth, self.predicted, strict=True)]


@pytest.fixture(scope="module")
def raw(heart_run: HeartRun) -> RawPredictions:
    store = open_metadata_store(str(runs_folder(heart_run) / "metadata.sqlite"))
    model = Path(read_recorded_run(store, run_id(heart_run.finished)).artifacts["model"].uri)
    reference = reference_predictions.read(str(model / reference_predictions.FILE_NAME))
    probability = dict(zip(reference.ids, reference.probabilities, strict=True))
    found = RawPredictions([], [], [])
    for path in runs_folder(heart_run).glob("artifacts/TableExampleGen/examples/*/Split-eval/*"):
        for record in tf.data.TFRecordDataset(str(path), "GZIP").as_numpy_iterator():
            features = tf.train.Example.FromString(record).features.feature
            # The config calls 0 healthy; the vocabulary is disease, healthy.
            found.truth.append(features["target"].int64_list.value[0] == 0)
            found.sex.append(features["sex"].int64_list.value[0])
            found.healthy.append(float(probability[reference_predictions.example_id(record)][1]))
    return found


def test_the_metrics_are_those_of_the_raw_predictions_and_the_raw_labels(raw: RawPredictions, page):
    truth, healthy, predicted = raw.truth, raw.healthy, raw.predicted
    shown = table(page, "Metrics, with 95 % confidence intervals")
    hits = sum(raw.right)
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


def test_of_many_examples_a_part_is_drawn_and_the_report_says_of_how_many(heart_run: HeartRun, raw, monkeypatch):
    monkeypatch.setattr(evaluation, "MOST_EXAMPLES", len(raw.truth) // 2)
    run = reports.read_finished_run(runs_folder(heart_run), run_id(heart_run.finished))
    drawn = evaluation.read_predictions(run)
    assert len(drawn.ids) == len(set(drawn.ids)) == len(raw.truth) // 2
    of_all = dict(zip(raw.healthy, raw.truth, strict=True))
    assert [of_all[float(row[1])] for row in drawn.probabilities] == drawn.truth.astype(bool).tolist()
    said = words(page_of_text(report_page(run)))
    assert f"On {len(drawn.ids)} of the {len(raw.truth)} examples of the eval split" in said


def test_slices_mistaken_classes_and_thresholds_are_those_of_the_raw_predictions(raw: RawPredictions, page):
    slices = table(page, "Metrics of parts of the eval split")
    for sex in (0, 1):
        rows = [row for row, value in enumerate(raw.sex) if value == sex]
        interval = wilson_interval(sum(raw.right[row] for row in rows), len(rows))
        share = f"{interval.value:.4f} ({interval.low:.4f} to {interval.high:.4f})"
        assert slices[f"sex={sex}"][:2] == [str(len(rows)), share]
        loss = metrics.log_loss([raw.truth[row] for row in rows], [raw.healthy[row] for row in rows])
        assert float(slices[f"sex={sex}"][3]) == pytest.approx(loss, abs=1e-4)
    pairs = table(page, "What is mixed up most")
    names = {True: "healthy", False: "disease"}
    for name, (predicted, count) in pairs.items():
        taken_for = [names[said] for true, said in zip(raw.truth, raw.predicted, strict=True) if names[true] == name]
        assert count == str(taken_for.count(predicted)) and predicted != name
    demanded = table(page, "What Evaluator demands")
    accuracy = sum(raw.right) / len(raw.right)
    assert demanded["accuracy at least 0.7"] == [f"{accuracy:.4f}", "yes" if accuracy >= 0.7 else "no"]
    assert f"accuracy at least 0.7: {accuracy:.4f}" in words(elements(page, "header")[0])


def test_calibration_is_that_of_the_raw_predictions(raw: RawPredictions, page):
    shown = table(page, "Calibration by how sure the model is")
    sure = [max(one, 1 - one) for one in raw.healthy]
    distances = []
    for low in range(5, 10):
        rows = [row for row, one in enumerate(sure) if low / 10 <= one < (low + 1) / 10 or (low == 9 and one == 1)]
        if rows:
            mean = sum(sure[row] for row in rows) / len(rows)
            right = sum(raw.right[row] for row in rows) / len(rows)
            cells = shown[f"{low / 10:.1f} to {(low + 1) / 10:.1f}"]
            assert cells[0] == str(len(rows)) and cells[2].startswith(f"{right:.4f} (")
            assert float(cells[1]) == pytest.approx(mean, abs=1e-4)
            distances.append(len(rows) * abs(right - mean))
    error = 100 * sum(distances) / len(sure)
    assert f"the model is {error:.1f} percentage points more or less often right" in words(page)


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
    (picture,) = [one for one in elements(page, "svg") if one.get("aria-label").startswith("Milliseconds")]
    assert f"serve_examples, 32 examples {measured['p50']:.2f} and {measured['p99']:.2f}" in picture.get("aria-label")
    assert lineage["spans of the data"] == ["none: the data did not come in spans"]
    tried = published["members"]["members"]
    shown = {name: (cells[0], cells[5]) for name, cells in table(page, "Members of the blend").items() if name in tried}
    assert {name: weight for name, (weight, _) in shown.items()} == {
        name: f"{one['weight']:.2f}" for name, one in tried.items()
    }
    assert shown["trees"][1] == f"trees {tried['trees']['chosen']['trees']}, growth level by level"


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
    path = runs_folder(heart_run) / "reports" / f"{run_id(heart_run.finished)}.html"
    before = path.read_text()
    path.write_text("gone")
    done = CliRunner().invoke(report, [run_id(heart_run.finished), "--workdir", str(heart_run.workdir)])
    assert done.exit_code == 0, done.output
    assert done.output.strip() == str(path)
    after = page_of(path)
    assert table(after, "Metrics, with")["auc"] == table(page_of_text(before), "Metrics, with")["auc"]


def test_a_report_that_cannot_be_written_is_one_sentence(heart_run: HeartRun, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EROFS, "Read-only file system", "/disc/runs/heart/reports")

    monkeypatch.setattr(reports, "write_report", refuse)
    done = CliRunner().invoke(report, ["heart", "--workdir", str(heart_run.workdir)])

    assert done.exit_code == 2
    assert done.output == (
        "/disc/runs/heart/reports: the report cannot be written: Read-only file system; make the folder writable\n"
    )


def test_two_runs_are_compared(heart_run: HeartRun, stopped):
    done = CliRunner().invoke(
        report, [run_id(heart_run.finished), run_id(stopped), "--workdir", str(heart_run.workdir)]
    )
    assert done.exit_code == 0, done.output
    page = page_of(done.output.strip())
    assert table(page, "Verdicts of the gates")["DataGate"] == ["passed", "failed"]
    assert table(page, "Keys that differ")["data.minimum_examples"] == ["10", "1000"]
    assert table(page, "Examples")["train"][0] == table(page, "Examples")["train"][1]


def test_a_run_that_is_not_there_is_said_with_those_that_are(heart_run: HeartRun):
    done = CliRunner().invoke(report, ["livers", "--workdir", str(heart_run.workdir)])
    assert done.exit_code == 2
    assert "livers: there is no such pipeline or run; expected one of heart/" in done.output


def test_the_component_makes_the_same_page_from_its_inputs(heart_run: HeartRun, page, tmp_path):
    folder, id_ = runs_folder(heart_run), run_id(heart_run.finished)
    recorded = read_recorded_run(open_metadata_store(str(folder / "metadata.sqlite")), id_).artifacts
    inputs = {}
    for role, channel in RunReportSpec.INPUTS.items():
        if role == "replay_blessing":  # the config has no request logs
            continue
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


@pytest.fixture(scope="module")
def first_id(heart_run: HeartRun) -> str:
    return re.search(r"heart: run (\S+)", heart_run.finished.output).group(1)


def asked(heart_run: HeartRun, *arguments: str) -> str:
    done = CliRunner().invoke(runs, [*arguments, "--workdir", str(heart_run.workdir)])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_run_is_listed_with_its_verdict_version_metrics_and_report(heart_run: HeartRun, first_id):
    (line,) = [line for line in asked(heart_run, "list").splitlines() if first_id in line.split()[:2]]
    name, id_, verdict, version, *metrics = line.split()
    assert (name, id_, verdict, version) == ("heart", first_id, "published", "1")
    provenance = json.loads((heart_run.base_path / "1/assets.extra/provenance.json").read_text())
    assert f"auc {provenance['metrics']['auc']:.4f}" in " ".join(metrics)
    assert line.rstrip().endswith(f"reports/{first_id}.html")


def test_the_same_as_json_for_programs(heart_run: HeartRun, first_id):
    (found,) = [run for run in json.loads(asked(heart_run, "list", "heart", "--json")) if run["run_id"] == first_id]
    assert (found["verdict"], found["version"], found["reason"]) == ("published", "1", "published as version 1")
    assert {"accuracy", "auc", "cross_entropy"} <= set(found["metrics"])
    assert {step["name"] for step in found["steps"]} >= {"TableExampleGen", "Transform", "ServingPusher"}


def test_a_pipeline_that_never_ran_has_no_runs(heart_run: HeartRun):
    assert asked(heart_run, "list", "livers").startswith("No runs of livers in ")


def test_one_run_is_shown_with_its_steps(heart_run: HeartRun, first_id):
    said = asked(heart_run, "show", first_id)
    assert re.search(r"Transform +\d+\.\d s", said)
    assert "verdict    published: published as version 1" in said
    assert f"reports/{first_id}.html" in said and f"logs/{first_id}.log" in said


@pytest.fixture
def demo_runs(heart_run: HeartRun, tmp_path) -> Path:
    """A folder of runs that holds those of the demo."""
    (tmp_path / "heart").symlink_to(heart_run.workdir / "runs/heart")
    return tmp_path


@pytest.mark.parametrize("wanted", ["heart/{id}", "{id}", "{beginning}"])
def test_a_run_is_found_by_its_id_or_the_beginning_of_it(demo_runs, first_id, wanted):
    # All but the last three digits, of microseconds: no other run began in the same millisecond.
    named = wanted.format(id=first_id, beginning=first_id[:-3])
    assert find_run(demo_runs, named) == (demo_runs / "heart", first_id)


@pytest.mark.parametrize("wanted", ["heart", None])
def test_without_an_id_the_newest_run_is_found(demo_runs, heart_run: HeartRun, wanted):
    newest = max(log.stem for log in (heart_run.workdir / "runs/heart/logs").iterdir())
    assert find_run(demo_runs, wanted) == (demo_runs / "heart", newest)


def test_where_nothing_ran_it_says_how_to_begin(tmp_path):
    with pytest.raises(BrokenInput, match="no pipeline has run here; start one with `ingraph run CONFIG`"):
        find_run(tmp_path, None)


def test_listing_loads_no_tensorflow(heart_run: HeartRun):
    script = (
        "import sys\n"
        "from pipeline.commands.runs import runs\n"
        f"runs(['list', '--workdir', {str(heart_run.workdir)!r}], standalone_mode=False)\n"
        "print(sorted({'tensorflow', 'tfx', 'tensorflow_model_analysis'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
