"""What keeps a new model from those who ask the old one."""

from __future__ import annotations

import json
from contextlib import nullcontext

import pytest
import tensorflow as tf
from tfx.types import standard_artifacts

from components.compatibility_check.changes import class_changes
from components.compatibility_check.component import Executor
from components.errors import IncompatibleModel

COLUMNS = {"age": tf.int64, "city": tf.string}


def model(folder, columns=COLUMNS, labels=("no", "yes"), signatures=("classify", "serving_default"), output=tf.string):
    """An artifact with a model of these columns, whose signatures differ in nothing but their names."""

    @tf.function(input_signature=[{name: tf.TensorSpec([None], dtype, name=name) for name, dtype in columns.items()}])
    def answer(columns):
        return {
            "output_0": tf.fill([tf.size(next(iter(columns.values())))], tf.constant(0 if output != tf.string else ""))
        }

    def flat(**values):
        return answer(values)

    specs = {name: tf.TensorSpec([None], dtype, name=name) for name, dtype in columns.items()}
    concrete = tf.function(flat).get_concrete_function(**specs)
    artifact = standard_artifacts.Model()
    artifact.uri = str(folder)
    saved = folder / "Format-Serving"
    tf.saved_model.save(tf.Module(), str(saved), signatures=dict.fromkeys(signatures, concrete))
    (saved / "assets").mkdir(exist_ok=True)
    (saved / "assets/labels").write_text("".join(f"{label}\n" for label in labels))
    artifact.set_int_custom_property("has_model", 1)
    artifact.set_int_custom_property("served_version", 7)
    return artifact


def check(tmp_path, class_changes="stop", **changed):
    served, candidate = model(tmp_path / "served"), model(tmp_path / "candidate", **changed)
    Executor().Do({"model": [candidate], "baseline_model": [served]}, {}, {"class_changes": class_changes})


def test_a_model_that_answers_the_same_requests_passes(tmp_path):
    check(tmp_path)


def test_another_signature_harms_nobody(tmp_path):
    check(tmp_path, signatures=("classify", "explain", "serving_default"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"columns": COLUMNS | {"income": tf.float32}}, r"classify: new input 'income', float32 \[-1\]"),
        ({"columns": {"age": tf.int64}}, "classify: the input 'city' is gone"),
        ({"columns": {"age": tf.float32, "city": tf.string}}, r"input 'age' is float32 \[-1\], before int64 \[-1\]"),
        ({"signatures": ("serving_default",)}, "the signature 'classify' is gone"),
        ({"output": tf.int32}, "serving_default: output 'output_0' is int32, before string"),
        ({"labels": ("maybe", "no", "yes")}, "compared with version 7, served now: new class 'maybe'"),
        ({"labels": ("no",)}, "class 'yes' is gone"),
    ],
)
def test_what_a_client_would_notice_stops_the_run(tmp_path, changed, said):
    with pytest.raises(IncompatibleModel, match=said):
        check(tmp_path, **changed)


UNKNOWN = {"unknown": {"label": "unsure", "threshold": 0.7}}


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (UNKNOWN, UNKNOWN, ""),
        ({}, UNKNOWN, "serving_default may answer 'unsure' for unknown, which the served model never does"),
        (UNKNOWN, {}, "the answer 'unsure' for unknown is gone"),
        ({"unknown": {"label": "?", "threshold": 0.7}}, UNKNOWN, r"may answer 'unsure' for unknown, before '\?'"),
    ],
)
def test_an_answer_for_unknown_that_is_new_or_gone_stops_the_run_unless_classes_may_change(
    tmp_path, before, after, said
):
    served, candidate = model(tmp_path / "served"), model(tmp_path / "candidate")
    published = tmp_path / "served/Format-Serving/assets.extra/provenance.json"
    published.parent.mkdir()
    for file, provenance in ((published, before), (tmp_path / "candidate/provenance.json", after)):
        file.write_text(json.dumps(provenance))
    inputs = {"model": [candidate], "baseline_model": [served]}
    Executor().Do(inputs, {}, {"class_changes": "allow"})
    with pytest.raises(IncompatibleModel, match=said) if said else nullcontext():
        Executor().Do(inputs, {}, {"class_changes": "stop"})


def test_classes_may_change_where_the_config_allows_it_and_inputs_still_may_not(tmp_path):
    check(tmp_path / "classes", class_changes="allow", labels=("maybe", "yes"))
    with pytest.raises(IncompatibleModel, match="the input 'city' is gone"):
        check(tmp_path / "inputs", class_changes="allow", labels=("maybe", "yes"), columns={"age": tf.int64})


def test_without_a_served_model_everything_is_compatible(tmp_path):
    nothing = standard_artifacts.Model()
    nothing.set_int_custom_property("has_model", 0)
    inputs = {"model": [model(tmp_path / "candidate")], "baseline_model": [nothing]}
    Executor().Do(inputs, {}, {"class_changes": "stop"})


def test_classes_in_another_order_are_said():
    (said,) = class_changes(["no", "yes"], ["yes", "no"])
    assert said.startswith("the classes are in another order, 'yes', 'no', before 'no', 'yes'")
