"""StatisticsGen, DataGate and DriftGate: figures of data, which of them stop a run, and in which words."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import path_pb2, schema_pb2
from tfx import types
from tfx.components.distribution_validator.executor import Executor as DistributionValidatorExecutor
from tfx.components.example_validator.executor import Executor as ExampleValidatorExecutor
from tfx.components.statistics_gen import executor as tfx_statistics_gen
from tfx.proto.distribution_validator_pb2 import DistributionValidatorConfig
from tfx.types import artifact_utils, channel_utils, standard_artifacts
from tfx.utils import io_utils, json_utils

from components import statistics_gen
from components.data_gate.component import DataGate, Executor, read_rows
from components.data_gate.judge import judge
from components.data_gate.leaks import LeakSearch
from components.data_gate.splits import SplitFindings, joined
from components.data_gate.verdict import Verdict
from components.drift_gate import Executor as DriftGateExecutor
from components.errors import AnomaliesFound, BrokenInput

SCHEMA = """
feature { name: "age" type: INT presence { min_fraction: 1 } shape { dim { size: 1 } }
          int_domain { min: 0 max: 120 } }
feature { name: "thal" type: BYTES presence { min_fraction: 1 } shape { dim { size: 1 } } domain: "thal"
          distribution_constraints { min_domain_mass: 0.9 } }
feature { name: "target" type: INT }
string_domain { name: "thal" value: "fixed" value: "normal" value: "reversible" }
"""


def patients(**changes) -> pd.DataFrame:
    rows = 40
    columns = {
        "age": [30 + row for row in range(rows)],
        "thal": [("fixed", "normal", "reversible")[row % 3] for row in range(rows)],
        "target": [row % 2 for row in range(rows)],
    }
    return pd.DataFrame(columns | changes)


def verdict_on(
    train: pd.DataFrame,
    evaluation: pd.DataFrame | None = None,
    schema: str | None = SCHEMA,
    minimum_examples: int = 1,
    label: str = "target",
    texts: tuple[str, ...] = (),
) -> Verdict:
    """The verdict on real statistics and anomalies; without a schema the one inferred from the train split."""
    statistics = {
        name: tfdv.generate_statistics_from_dataframe(frame)
        for name, frame in {"train": train, "eval": evaluation}.items()
        if frame is not None
    }
    if schema is None:
        expected = tfdv.infer_schema(statistics["train"])
    else:
        expected = text_format.Parse(schema, schema_pb2.Schema())
    splits = [
        SplitFindings(name, found.datasets[0], tfdv.validate_statistics(found, expected))
        for name, found in statistics.items()
    ]
    path = "" if schema is None else "configs/heart.pbtxt"
    return judge(splits, expected, label, schema is not None, minimum_examples, path, texts)


def test_a_new_sentence_is_no_anomaly_but_a_new_category_is():
    said = {"said": [f"文章{row % 15}" for row in range(40)]}
    train, new = patients(**said), patients(said=[f"新{row}" for row in range(40)])
    assert verdict_on(train, new, schema=None, texts=("said",)).warnings == ()
    (warning,) = verdict_on(train, new, schema=None).warnings
    assert "column 'said'" in warning and "'新38' (1 row)" in warning


def test_a_flag_that_is_more_than_0_and_1_elsewhere_is_told_by_its_range():
    train, new = patients(flag=[0, 1] * 20), patients(flag=[0, 1, 2, 5] * 10)
    (warning,) = verdict_on(train, new, schema=None).warnings
    assert warning == (
        "eval split, column 'flag': the schema expects 0 or 1 in every row, found whole numbers from 0 to 5; "
        "correct the values, or allow for all of them in the schema, inferred from the train split."
    )


def test_data_that_follows_its_schema_passes_with_counts_and_class_balance():
    verdict = verdict_on(patients(), patients().head(11))
    assert verdict.as_json() == {
        "stopped": False,
        "reasons": (),
        "warnings": (),
        "examples": {"train": 40, "eval": 11},
        "classes": {"train": {"0": 20, "1": 20}, "eval": {"0": 6, "1": 5}},
    }


def test_where_nothing_is_learned_one_label_for_all_examples_stops_no_run():
    assert verdict_on(patients(target=[1] * 40)).unusable
    assert not verdict_on(patients(target=[1] * 40), label="").stopped


def test_unlisted_values_within_the_allowance_are_listed_as_a_warning():
    verdict = verdict_on(patients(thal=["1", "2", *["fixed", "normal"] * 19]))
    assert not verdict.stopped
    assert verdict.warnings == (
        "train split, column 'thal': '2' (1 row), '1' (1 row) not among 'fixed', 'normal', 'reversible', but within "
        "the 10 % that the schema lets pass; the model treats them as unseen values. "
        "Correct them, or list them in configs/heart.pbtxt.",
    )


def test_unlisted_values_beyond_the_allowance_stop_a_curated_run_and_are_named_once():
    verdict = verdict_on(patients(thal=["odd"] * 10 + ["normal"] * 30))
    assert verdict.anomalies == (
        "train split, column 'thal': the schema expects text in every row, one of 'fixed', 'normal', 'reversible', "
        "found 'odd' (10 rows); correct the values, or list them in configs/heart.pbtxt.",
    )
    assert verdict.warnings == ()


def test_text_in_a_number_column_is_quoted():
    verdict = verdict_on(patients(age=[str(row) for row in range(20)] + ["old"] * 19 + ["n/a"]))
    assert verdict.anomalies == (
        "train split, column 'age': the schema expects whole numbers in every row, 0 or more, 120 or less, "
        "found string, such as 'old' (19 rows), 'n/a' (1 row); correct the values, or change the type in "
        "configs/heart.pbtxt.",
    )


def test_a_missing_column_is_named():
    verdict = verdict_on(patients(), patients().drop(columns="age"))
    assert verdict.anomalies == (
        "eval split, column 'age': the schema expects whole numbers in every row, 0 or more, 120 or less, "
        "found no value in any row; add the column, or remove it in configs/heart.pbtxt.",
    )


def test_a_column_the_schema_does_not_know_is_named():
    verdict = verdict_on(patients(weight=[70.5] * 40))
    assert verdict.anomalies == (
        "train split, column 'weight': the schema expects no such column, found values in 40 rows; "
        "remove the column, or describe it in configs/heart.pbtxt.",
    )


def test_missing_values_are_counted():
    verdict = verdict_on(patients(thal=[None, None, *["normal"] * 38]))
    assert verdict.anomalies == (
        "train split, column 'thal': the schema expects text in every row, one of 'fixed', 'normal', 'reversible', "
        "found none in 2 of 40 rows; fill in the values, or allow for missing ones in configs/heart.pbtxt.",
    )


def test_a_number_out_of_range_is_shown():
    (sentence,) = verdict_on(patients(age=[150, *range(39)])).anomalies
    assert "0 or more, 120 or less" in sentence
    assert "150" in sentence


def test_values_an_inferred_schema_did_not_see_are_warnings():
    verdict = verdict_on(patients(), patients(thal=["other"] * 3 + ["normal"] * 37), schema=None)
    assert not verdict.stopped
    assert verdict.warnings == (
        "eval split, column 'thal': the schema expects text in every row, one of 'fixed', 'normal', 'reversible', "
        "found 'other' (3 rows); correct the values, or list them in the schema, inferred from the train split.",
    )


@pytest.mark.parametrize(
    ("evaluation", "found"),
    [
        (patients().drop(columns="age"), "found no value in any row"),
        (patients(age=["old"] * 40), "found string, such as 'old' (40 rows)"),
    ],
)
def test_a_missing_column_and_a_wrong_type_stop_also_on_an_inferred_schema(evaluation, found):
    (sentence,) = verdict_on(patients(), evaluation, schema=None).anomalies
    assert sentence.startswith("eval split, column 'age': the schema expects whole numbers in every row")
    assert found in sentence


def test_a_mostly_numeric_text_column_is_pointed_out_on_an_inferred_schema():
    verdict = verdict_on(patients(age=[*(str(row) for row in range(38)), "old", "old"]), schema=None)
    assert verdict.warnings == (
        "train split, column 'age': most values are numbers, but it is read as text because of 'old' (2 rows); "
        "correct them if the column should be numeric.",
    )


def test_no_label_column_stops_and_lists_the_columns():
    verdict = verdict_on(patients().drop(columns="target"))
    assert verdict.unusable == (
        "train split: there is no label column 'target'; the columns are age, thal. "
        "Name one of them as the label in the config, or add the column to the data.",
    )
    assert verdict.anomalies == ()


@pytest.mark.parametrize(("labels", "value"), [([1] * 40, "'1'"), (["sick"] * 40, "'sick'"), ([2.5] * 40, "'2.5'")])
def test_one_class_only_stops_and_names_it(labels, value):
    verdict = verdict_on(patients(target=labels), schema=None)
    assert verdict.unusable == (
        f"train split: the label column 'target' holds one value only, {value}, in 40 rows; "
        "at least two classes are needed, add examples of another.",
    )


def test_labels_that_are_written_otherwise_in_another_split_stop_and_are_named():
    verdict = verdict_on(
        patients(target=["yes", "no"] * 20), patients(target=[*["yes."] * 15, *["no."] * 25]), schema=None
    )
    assert verdict.unusable == (
        "eval split: the label column 'target' holds 'no.' (25 rows), 'yes.' (15 rows), none of the labels of the "
        "train split, 'no', 'yes'; write the same label alike in both.",
    )


def test_an_empty_label_column_stops():
    verdict = verdict_on(patients(), patients(target=[None] * 40))
    assert "label column 'target'" in verdict.unusable[0]


def test_rows_without_a_label_are_counted_in_a_warning():
    verdict = verdict_on(patients(target=[None, None, None, *["yes", "no"] * 18, "yes"]), schema=None)
    assert not verdict.stopped
    assert verdict.warnings == (
        "train split: the label column 'target' is empty in 3 of 40 rows; they are neither trained nor evaluated on.",
    )
    assert verdict.classes == {"train": {"yes": 19, "no": 18}}


def test_too_few_examples_stop():
    verdict = verdict_on(patients(), patients().head(4), minimum_examples=10)
    assert verdict.unusable == ("eval split: 4 examples, at least 10 are needed; add data, or change the split.",)


def test_a_split_without_examples_stops_with_one_sentence():
    verdict = verdict_on(patients(), patients().head(0))
    assert verdict.reasons == ("eval split: no examples, at least 1 are needed; add data, or change the split.",)
    assert verdict.examples == {"train": 40, "eval": 0}


GATE_SCHEMA = """
feature { name: "thal" type: BYTES domain: "thal" }
feature { name: "target" type: INT }
string_domain { name: "thal" value: "fixed" value: "normal" }
"""
GOOD = pd.DataFrame({"thal": ["fixed", "normal"] * 5, "target": [0, 1] * 5})


def write_examples(folder: Path, frame: pd.DataFrame) -> list[str]:
    """Two files of examples of a split, in which None is no value."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {"i": "int64_list", "f": "float_list", "O": "bytes_list"}
    files = [f"{folder}/data_tfrecord-0000{shard}-of-00002.gz" for shard in range(2)]
    for shard, file in enumerate(files):
        with tf.io.TFRecordWriter(file, "GZIP") as writer:
            for row in frame[shard::2].to_dict("records"):
                example = tf.train.Example()
                for name, value in row.items():
                    values = getattr(example.features.feature[name], kinds[frame[name].dtype.kind]).value
                    if value is not None:
                        values.append(value.encode() if isinstance(value, str) else value)
                writer.write(example.SerializeToString(deterministic=True))
    return files


@pytest.fixture
def run_gate(artifact):
    """Statistics and anomalies as TFX's components write them, then the gate; answers verdict.json."""

    def run(train: pd.DataFrame, evaluation: pd.DataFrame, search: LeakSearch | None = None) -> dict:
        examples = artifact(standard_artifacts.Examples, "examples", ("train", "eval"))
        statistics = artifact(standard_artifacts.ExampleStatistics, "statistics", ("train", "eval"))
        for split, frame in {"train": train, "eval": evaluation}.items():
            if search:
                write_examples(Path(examples.uri, f"Split-{split}"), frame)
            io_utils.write_bytes_file(
                f"{statistics.uri}/Split-{split}/FeatureStats.pb",
                tfdv.generate_statistics_from_dataframe(frame).SerializeToString(),
            )
        schema = artifact(standard_artifacts.Schema, "schema")
        io_utils.write_pbtxt_file(f"{schema.uri}/schema.pbtxt", text_format.Parse(GATE_SCHEMA, schema_pb2.Schema()))
        anomalies = artifact(standard_artifacts.ExampleAnomalies, "anomalies")
        ExampleValidatorExecutor().Do({"statistics": [statistics], "schema": [schema]}, {"anomalies": [anomalies]}, {})
        verdict = artifact(standard_artifacts.ExampleAnomalies, "verdict")
        try:
            Executor().Do(
                {"examples": [examples], "statistics": [statistics], "schema": [schema], "anomalies": [anomalies]},
                {"verdict": [verdict]},
                {
                    "label": "target",
                    "schema_is_curated": 1,
                    "minimum_examples": 5,
                    "schema_path": "heart.pbtxt",
                    "leak_search": search.as_json() if search else "",
                },
            )
        finally:
            run.verdict = json.loads(Path(verdict.uri, "verdict.json").read_text())
        return run.verdict

    return run


def test_good_data_passes_and_the_verdict_is_recorded(run_gate):
    assert run_gate(GOOD, GOOD.head(6)) == {
        "stopped": False,
        "reasons": [],
        "warnings": [],
        "examples": {"train": 10, "eval": 6},
        "classes": {"train": {"0": 5, "1": 5}, "eval": {"0": 3, "1": 3}},
    }


def test_an_anomaly_in_the_eval_split_stops_the_run(run_gate):
    with pytest.raises(AnomaliesFound) as stopped:
        run_gate(GOOD, GOOD.replace("fixed", "broken"))
    assert str(stopped.value) == (
        "eval split, column 'thal': the schema expects text, one of 'fixed', 'normal', found 'broken' (5 rows); "
        "correct the values, or list them in heart.pbtxt."
    )
    assert run_gate.verdict["stopped"]
    assert run_gate.verdict["reasons"] == [str(stopped.value)]


def test_what_cannot_be_learned_from_is_broken_input(run_gate):
    with pytest.raises(BrokenInput, match="train split: the label column 'target' holds one value only, '0'"):
        run_gate(GOOD.assign(target=0), GOOD)


TELLING = pd.DataFrame({"thal": ["fixed", "normal"] * 50, "target": [0, 1] * 50})


def test_a_leak_in_the_examples_is_a_warning_and_stops_no_run(run_gate):
    verdict = run_gate(TELLING, GOOD, LeakSearch())
    assert not verdict["stopped"]
    assert verdict["warnings"] == [
        "column 'thal' alone tells the label (AUC 1.000 on 100 rows of the train split): it is probably known only "
        "afterwards; leave it out with `preprocessing.columns: {thal: ignored}`, or keep it with `data.allow: [thal]`."
    ]
    assert run_gate(TELLING, GOOD, LeakSearch(allow=("thal",)))["warnings"] == []
    assert run_gate(TELLING, GOOD)["warnings"] == []


def test_a_run_that_stops_anyway_is_not_searched(run_gate):
    with pytest.raises(AnomaliesFound):
        run_gate(TELLING, GOOD.replace("fixed", "broken"), LeakSearch())
    assert run_gate.verdict["warnings"] == []


def test_rows_are_read_from_all_files_with_what_is_missing(tmp_path):
    frame = pd.DataFrame(
        {"thal": ["fixed", None, "normal", ""], "age": [1, 2, 3, 4], "size": [0.5, math.nan, 2.0, 1.0]}
    )
    read = read_rows(write_examples(tmp_path / "Split-train", frame), 4)
    assert (read.count, read.total) == (4, 4)
    assert {name: column.to_pylist() for name, column in read.columns.items()} == {
        "thal": [b"fixed", b"normal", None, None],
        "age": [1, 3, 2, 4],
        "size": [0.5, 2.0, None, 1.0],
    }


def test_of_many_rows_a_sample_is_read_and_the_same_one_each_time(tmp_path):
    files = write_examples(tmp_path / "Split-train", pd.DataFrame({"row": range(2000)}))
    first, again = (read_rows(files, 2000, maximum=300).columns["row"].to_pylist() for _ in range(2))
    assert first == again
    assert len(set(first)) == 300
    assert np.mean(first) == pytest.approx(1000, abs=100)


def test_a_column_that_is_of_another_type_in_a_further_file_is_read(tmp_path):
    numbers = write_examples(tmp_path / "a", pd.DataFrame({"code": [7, 8], "size": [1, 2]}))
    texts = write_examples(tmp_path / "b", pd.DataFrame({"code": ["x", "y"], "size": [0.5, 0.25]}))
    batches = [read_rows(files, 2).columns for files in (numbers, texts)]
    codes, sizes = (joined([batch[name] for batch in batches]).to_pylist() for name in ("code", "size"))
    assert (codes, sizes) == ([b"7", b"8", b"x", b"y"], [1.0, 2.0, 0.5, 0.25])


def test_a_part_of_a_column_of_texts_is_taken_with_its_own_values():
    whole = pa.array([f"value {number}".encode() if number % 7 else b"" for number in range(1000)], pa.large_binary())

    part = joined([whole.slice(400, 300)])

    assert part.to_pylist() == [f"value {number}".encode() if number % 7 else None for number in range(400, 700)]


def test_several_values_of_a_row_are_one(tmp_path):
    example = tf.train.Example()
    example.features.feature["words"].bytes_list.value.extend([b"a", b"b"])
    with tf.io.TFRecordWriter(f"{tmp_path}/several.gz", "GZIP") as writer:
        writer.write(example.SerializeToString())
    assert read_rows([f"{tmp_path}/several.gz"], 1).columns["words"].to_pylist() == [b"[b'a', b'b']"]


def test_the_search_comes_through_a_parameter_as_it_was():
    search = LeakSearch(("text",), ("id",), {"0": "no"}, ("a", "duplicates"))
    assert LeakSearch.from_json(search.as_json()) == search


def test_the_component_takes_the_channels_and_answers_a_verdict():
    gate = DataGate(
        examples=channel_utils.as_channel([standard_artifacts.Examples()]),
        anomalies=channel_utils.as_channel([standard_artifacts.ExampleAnomalies()]),
        statistics=channel_utils.as_channel([standard_artifacts.ExampleStatistics()]),
        schema=channel_utils.as_channel([standard_artifacts.Schema()]),
        label="target",
        schema_is_curated=True,
    )
    assert gate.exec_properties == {
        "label": "target",
        "schema_is_curated": 1,
        "minimum_examples": 1,
        "schema_path": "",
        "leak_search": "",
    }
    assert gate.outputs["verdict"].type == standard_artifacts.ExampleAnomalies


def sales(seed=0, mean=50.0, city=("Oslo", "Rome"), income=None) -> pd.DataFrame:
    source = np.random.default_rng(seed)
    incomes = source.normal(mean, 10, 400) if income is None else [income] * 400
    return pd.DataFrame({"income": incomes, "city": source.choice(city, 400)})


@pytest.fixture
def compare_spans(tmp_path):
    """Compares spans with the one called `previous`; answers what drift.json holds."""

    def compare(bounds: dict[str, float], **spans: pd.DataFrame) -> dict:
        statistics, anomalies, drift = (tmp_path / name for name in ("statistics", "anomalies", "drift"))
        measured = standard_artifacts.ExampleStatistics()
        measured.uri, measured.split_names = str(statistics), artifact_utils.encode_split_names(list(spans))
        for name, rows in spans.items():
            content = tfdv.generate_statistics_from_dataframe(rows).SerializeToString()
            io_utils.write_bytes_file(f"{statistics}/Split-{name}/FeatureStats.pb", content)
        found, verdict = standard_artifacts.ExampleAnomalies(), standard_artifacts.ExampleAnomalies()
        found.uri, verdict.uri = str(anomalies), str(drift)
        config = DistributionValidatorConfig()
        for column, bound in bounds.items():
            feature = config.default_slice_config.feature.add(path=path_pb2.Path(step=[column]))
            feature.distribution_comparator.jensen_shannon_divergence.threshold = bound
        DistributionValidatorExecutor().Do(
            {"statistics": [measured], "baseline_statistics": [measured]},
            {"anomalies": [found]},
            {
                "distribution_validator_config": config,
                "include_split_pairs": json_utils.dumps([(name, "previous") for name in spans if name != "previous"]),
            },
        )
        inputs = {"anomalies": [found], "statistics": [measured]}
        DriftGateExecutor().Do(inputs, {"drift": [verdict]}, {"previous_span": "2026-01-01"})
        return json.loads((drift / "drift.json").read_text())

    return compare


def test_a_span_like_the_one_before_passes_and_its_divergences_are_kept(compare_spans):
    found = compare_spans({"income": 0.1, "city": 0.1}, previous=sales(), today=sales(seed=1))
    assert found["previous"] == "2026-01-01"
    assert set(found["spans"]["today"]) == {"income", "city"}
    assert all(0 < divergence < 0.05 for divergence in found["spans"]["today"].values())


def test_a_number_that_moved_is_named_with_its_divergence_and_its_bound(compare_spans):
    with pytest.raises(AnomaliesFound) as stopped:
        compare_spans({"income": 0.1, "city": 0.1}, previous=sales(), good=sales(seed=1), bad=sales(seed=2, mean=80))
    (sentence,) = str(stopped.value).splitlines()
    assert sentence.startswith("span bad, column 'income': Jensen-Shannon divergence 0.")
    assert "from span 2026-01-01, expected at most 0.1" in sentence
    assert "data.spans.maximum_drift_of.income" in sentence


def test_a_category_that_was_replaced_is_named(compare_spans):
    with pytest.raises(AnomaliesFound, match=r"column 'city': Jensen-Shannon divergence 0\.\d+ from span 2026-01-01"):
        compare_spans({"city": 0.1}, previous=sales(), today=sales(city=("Lima", "Rome")))


def test_a_wider_bound_lets_the_same_span_pass(compare_spans):
    found = compare_spans({"income": 0.99}, previous=sales(), today=sales(mean=80))
    assert found["spans"]["today"]["income"] > 0.3


@pytest.mark.parametrize(("income", "what"), [("high", "text"), (None, "nothing")])
def test_a_column_that_cannot_be_compared_stops_the_run_too(compare_spans, income, what):
    today = sales(income=income) if income else sales().drop(columns="income")
    with pytest.raises(AnomaliesFound, match=f"column 'income' holds {what}, and numbers in span 2026-01-01"):
        compare_spans({"income": 0.1}, previous=sales(), today=today)


def examples_of(folder: Path, rows: Mapping[str, list[dict[str, list]]]) -> types.Artifact:
    """Splits of rows: column -> its values in the row."""
    for split, of_split in rows.items():
        (folder / f"Split-{split}").mkdir(parents=True)
        with tf.io.TFRecordWriter(str(folder / f"Split-{split}/data.gz"), "GZIP") as file:
            for row in of_split:
                features = {name: feature_of(values) for name, values in row.items()}
                file.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    examples = standard_artifacts.Examples()
    examples.uri, examples.span = str(folder), 7
    examples.split_names = artifact_utils.encode_split_names(list(rows))
    return examples


def feature_of(values: list) -> tf.train.Feature:
    if values and isinstance(values[0], str):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode() for value in values]))
    if values and isinstance(values[0], int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    return tf.train.Feature(float_list=tf.train.FloatList(value=values)) if values else tf.train.Feature()


def statistics_of(
    made_by: type, examples: types.Artifact, folder: Path, runner: str = "DirectRunner"
) -> types.Artifact:
    statistics = standard_artifacts.ExampleStatistics()
    statistics.uri = str(folder)
    arguments = [f"--runner={runner}"]
    context = made_by.Context(beam_pipeline_args=arguments, tmp_dir=f"{folder}-tmp", unique_id="1")
    made_by(context).Do({"examples": [examples]}, {"statistics": [statistics]}, {"exclude_splits": "[]"})
    return statistics


def column_values(row: int, text: str = "") -> dict[str, list]:
    return {
        "many": [f"value {row}"],
        "few": [] if row % 7 == 0 else ["a", "b", "", "ü"][row % 4 : row % 4 + 1],
        "whole": [row % 13 - 5],
        "number": [] if row % 5 == 0 else [row / 3, float("nan"), -float(row)][row % 3 : row % 3 + 1],
        "list": ["x", "y", "z"][: row % 4],
        "nothing": [],
        **({"text": [text]} if text else {}),
    }


def test_statistics_of_small_data_are_those_that_a_beam_pipeline_computes(tmp_path, monkeypatch):
    rows = [column_values(row) for row in range(900)]
    examples = examples_of(tmp_path / "examples", {"train": rows, "eval": rows[:40]})
    theirs = statistics_of(tfx_statistics_gen.Executor, examples, tmp_path / "theirs")
    monkeypatch.setattr(tfx_statistics_gen.Executor, "Do", lambda *_: pytest.fail("a pipeline was made"))
    ours = statistics_of(statistics_gen.Executor, examples, tmp_path / "ours", "FlinkRunner")  # whatever the runner
    assert (ours.split_names, ours.span) == (theirs.split_names, theirs.span) == ('["train", "eval"]', 7)
    for split in ("train", "eval"):
        found = [tfdv.load_stats_binary(f"{one.uri}/Split-{split}/FeatureStats.pb") for one in (ours, theirs)]
        assert found[0] == found[1]
    assert len(found[0].datasets[0].features) == 6


@pytest.mark.parametrize(
    "rows",
    [
        [column_values(row) for row in range(1100)],  # more values than are counted one by one
        [column_values(row, "long " * 300) for row in range(3)],
    ],
)
def test_what_sketches_do_not_count_exactly_is_left_to_a_pipeline(rows, tmp_path, monkeypatch):
    examples, taken = examples_of(tmp_path / "examples", {"train": rows}), []
    monkeypatch.setattr(tfx_statistics_gen.Executor, "Do", lambda *_: taken.append(True))
    statistics_of(statistics_gen.Executor, examples, tmp_path / "statistics")
    assert taken == [True]


@pytest.mark.parametrize("bound", ["_SMALL", "_SMALL_SPLIT"])
def test_statistics_of_large_data_are_left_to_a_pipeline(bound, tmp_path, monkeypatch):
    examples, taken = examples_of(tmp_path / "examples", {"train": [column_values(row) for row in range(9)]}), []
    monkeypatch.setattr(tfx_statistics_gen.Executor, "Do", lambda *_: taken.append(True))
    monkeypatch.setattr(statistics_gen, bound, 100)
    statistics_of(statistics_gen.Executor, examples, tmp_path / "statistics")
    assert taken == [True]
