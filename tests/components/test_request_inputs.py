import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from components.serving_check.candidate import RequestRefused, request_inputs, without_label


def signature(**dtypes: tf.DType) -> meta_graph_pb2.SignatureDef:
    definition = meta_graph_pb2.SignatureDef()
    for name, dtype in dtypes.items():
        definition.inputs[name].dtype = dtype.as_datatype_enum
    return definition


def example(**values: list) -> tf.train.Example:
    made = tf.train.Example()
    for name, items in values.items():
        feature = made.features.feature[name]
        kind = {bytes: feature.bytes_list, int: feature.int64_list, float: feature.float_list}[type(items[0])]
        kind.value.extend(items)
    return made


def test_each_input_takes_the_feature_of_its_name_in_its_own_dtype():
    inputs = request_inputs(
        signature(age=tf.int64, oldpeak=tf.float32, thal=tf.string),
        [example(age=[63], oldpeak=[2.5], thal=[b"fixed"]), example(age=[41], oldpeak=[0.5], thal=[b"normal"])],
    )
    assert inputs["age"].dtype == np.int64
    assert inputs["oldpeak"].dtype == np.float32
    assert inputs["age"].tolist() == [63, 41]
    assert inputs["oldpeak"].tolist() == [2.5, 0.5]
    assert inputs["thal"].tolist() == [b"fixed", b"normal"]


def test_a_missing_feature_is_sent_in_the_form_of_its_dtype():
    empty = example(age=[1])
    empty.features.feature["age"].int64_list.Clear()
    inputs = request_inputs(signature(age=tf.int64, oldpeak=tf.float32, thal=tf.string), [empty])
    assert inputs["age"].tolist() == [-(2**31)]
    assert inputs["oldpeak"].tolist() == [np.float32(-1e38)]
    assert inputs["thal"].tolist() == [b""]


def test_serialized_examples_carry_no_label():
    given = without_label(example(age=[63], target=[1]), ["age"])
    (record,) = request_inputs(signature(examples=tf.string), [given])["examples"]
    assert tf.train.Example.FromString(record) == example(age=[63])


def test_an_input_of_another_name_takes_its_feature_which_serialized_examples_keep():
    given = without_label(example(review=[b"fine"], label=[b"fresh"]), ["text"], {"text": "review"})
    assert request_inputs(signature(text=tf.string), [given])["text"].tolist() == [b"fine"]
    (record,) = request_inputs(signature(examples=tf.string), [given])["examples"]
    features = tf.train.Example.FromString(record).features.feature
    assert features["review"].bytes_list.value == [b"fine"]
    assert "label" not in features


def test_an_image_goes_to_either_input_as_bytes():
    photo = without_label(example(image_bytes=[b"png"], label=[b"cat"]), ["image"])
    assert request_inputs(signature(image=tf.string), [photo])["image"].tolist() == [b"png"]
    assert request_inputs(signature(image_bytes=tf.string), [photo])["image_bytes"].tolist() == [b"png"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (example(age=[1, 2]), "feature 'age' of an example has 2 values, a request takes one"),
        (example(age=[1.5]), "feature 'age' of an example is a float_list, its input takes int64"),
    ],
)
def test_a_feature_that_fits_no_request_is_refused(given, message):
    with pytest.raises(RequestRefused, match=message):
        request_inputs(signature(age=tf.int64), [given])
