import pytest
import tensorflow as tf

from components.serving_check.candidate import Candidate, ModelUnavailable, RequestRefused
from components.serving_check.check import disagreements
from serving.reference_predictions import FILE_NAME, ReferencePredictions, write
from serving.session_model import SessionModel
from tests.components.colour_model import ColourModel


@pytest.fixture
def reasons(trained, eval_examples):
    """What the check says of an export, here in a session of the test's own process."""

    def find(exported: type[ColourModel], tolerance: float = 1e-5, maximum_examples: int = 1000) -> list[str]:
        model = trained(exported)
        path = f"{model.uri}/Format-Serving"
        files = tf.io.gfile.glob(f"{eval_examples.uri}/Split-eval/*")
        candidate = Candidate.read(path, f"{model.uri}/{FILE_NAME}", files, maximum_examples)
        session = SessionModel(path)

        def run(signature, inputs):
            try:
                return session.run(signature, inputs)
            except tf.errors.OpError as error:
                raise RequestRefused(error.message) from error

        try:
            return disagreements(run, candidate, tolerance)
        finally:
            session.close()

    return find


def test_a_faithful_export_agrees_missing_values_included(reasons):
    assert reasons(ColourModel) == []


class ForgetsMissingSizes(ColourModel):
    def classify(self, size, shape):
        return super().classify(tf.where(size > -1e37, size, 0.0), shape)


def test_a_value_treated_differently_in_one_signature_is_found(reasons):
    found = reasons(ForgetsMissingSizes)
    assert len(found) == 4
    assert all(reason.startswith("classify, example ") for reason in found[:3])
    assert "expected" in found[0]
    # Rows 0, 7, … 35 have no size: six in batches, and again alone.
    assert found[3] == "classify: 9 more answers differ"


class LabelsInAnotherOrder(ColourModel):
    def serving_default(self, size, shape):
        numbers = tf.argmax(self.probabilities(size, shape), axis=1)
        return {"output_0": tf.gather(["red", "green", "blue"], numbers)}


def test_labels_in_another_order_than_in_training_are_found(reasons):
    found = reasons(LabelsInAnotherOrder)
    assert found[0].startswith("serving_default, example ")
    assert "served 'blue', expected 'red'" in found[0] or "served 'red', expected 'blue'" in found[0]


class DependsOnItsBatch(ColourModel):
    def serve_examples(self, examples):
        answers = super().serve_examples(examples)["probabilities"]
        return {"probabilities": answers + tf.cast(tf.shape(answers)[0] == 1, tf.float32) * 1e-3}


def test_an_answer_that_depends_on_the_batch_size_is_found(reasons):
    found = reasons(DependsOnItsBatch)
    assert found[0].startswith("serve_examples, example ")
    assert found[0].endswith("within 1e-05 (in a batch of 1)")
    assert found[3] == "serve_examples: 37 more answers differ"
    assert reasons(DependsOnItsBatch, tolerance=1e-2) == []


class NeedsTheLabel(ColourModel):
    def transform_features(self, examples):
        label = tf.io.parse_example(examples, {"label": tf.io.FixedLenFeature([], tf.string)})["label"]
        return {"label": label}


def test_a_signature_that_needs_the_label_is_found(reasons):
    (reason,) = reasons(NeedsTheLabel)
    assert reason.startswith("transform_features, batch from example ")
    assert "Feature: label (data type: string) is required" in reason


class NoClassify(ColourModel):
    classify = None


def test_a_missing_signature_is_named(reasons):
    assert reasons(NoClassify) == [
        "the model has no signature 'classify'; its signatures are serve_examples, serving_default, transform_features"
    ]


class OtherOutput(ColourModel):
    def serving_default(self, size, shape):
        return {"colour": super().serving_default(size, shape)["output_0"]}


def test_a_missing_output_is_named(reasons):
    assert reasons(OtherOutput) == ["serving_default has no output 'output_0'; its outputs are colour"]


class InfiniteFeatures(ColourModel):
    def transform_features(self, examples):
        return {"inverse": 1 / super().transform_features(examples)["size"]}


def test_transformed_features_that_are_not_finite_are_named(reasons):
    assert reasons(InfiniteFeatures) == ["transform_features: feature 'inverse' has values that are not finite"]


def test_only_so_many_examples_are_sent_and_always_the_same(trained, eval_examples):
    model = trained()
    files = tf.io.gfile.glob(f"{eval_examples.uri}/Split-eval/*")
    chosen = [
        Candidate.read(f"{model.uri}/Format-Serving", f"{model.uri}/{FILE_NAME}", files, 12).expected.ids
        for _ in range(2)
    ]
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 12
    batches = list(Candidate.read(f"{model.uri}/Format-Serving", f"{model.uri}/{FILE_NAME}", files, 35).batches())
    assert batches[:3] == [slice(0, 32), slice(32, 35), slice(0, 1)]
    assert batches[-1] == slice(34, 35)


def test_examples_without_a_reference_are_left_out_and_counted(trained, eval_examples):
    model = trained()
    files = tf.io.gfile.glob(f"{eval_examples.uri}/Split-eval/*")
    path, reference = f"{model.uri}/Format-Serving", f"{model.uri}/{FILE_NAME}"
    full = Candidate.read(path, reference, files, 1000).expected
    write(reference, ReferencePredictions(full.ids[5:], full.labels[5:], full.probabilities[5:]))
    candidate = Candidate.read(path, reference, files, 1000)
    assert (candidate.examples_in_split, candidate.left_out, len(candidate.examples)) == (40, 5, 35)
    write(reference, ReferencePredictions(["other"], ["red"], full.probabilities[:1]))
    with pytest.raises(ModelUnavailable, match=r"none of the 40 examples in .* has a reference prediction"):
        Candidate.read(path, reference, files, 1000)
