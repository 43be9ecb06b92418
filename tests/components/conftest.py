import json
from collections.abc import Callable
from pathlib import Path

import ml_metadata  # noqa: F401 (before TensorFlow, which would load an older libstdc++ where the private runtime is used)
import pytest
import tensorflow as tf
from tfx import types
from tfx.types import artifact_utils, standard_artifacts

from serving.reference_predictions import FILE_NAME, ReferencePredictions, example_id, write

ArtifactMaker = Callable[..., types.Artifact]


@pytest.fixture
def artifact(tmp_path: Path) -> ArtifactMaker:
    """Makes an artifact as TFX's launcher does: with a directory of its own, and of this version of TFX."""

    def make(artifact_type: type[types.Artifact], name: str, splits: tuple[str, ...] = ()) -> types.Artifact:
        made = artifact_type()
        made.uri = str(tmp_path / name)
        Path(made.uri).mkdir(parents=True, exist_ok=True)
        made.set_string_custom_property(artifact_utils.ARTIFACT_TFX_VERSION_CUSTOM_PROPERTY_KEY, "1.21.0")
        if splits:
            made.split_names = artifact_utils.encode_split_names(list(splits))
        return made

    return make


LABELS = ("blue", "green", "red")


@pytest.fixture
def examples() -> list[tf.train.Example]:
    """Forty rows of a number, a text and the label; some lack the number or the text."""
    made = []
    for row in range(40):
        example = tf.train.Example()
        if row % 7:
            example.features.feature["size"].float_list.value.append(row / 10)
        if row % 5:
            example.features.feature["shape"].bytes_list.value.append([b"round", b"flat"][row % 2])
        example.features.feature["label"].bytes_list.value.append(LABELS[row % 3].encode())
        made.append(example)
    return made


class ColourModel(tf.Module):
    """Size and shape in, one of three colours out: the signatures of a model of tables, made by hand."""

    def __init__(self, vocabulary: Path) -> None:
        super().__init__()
        vocabulary.write_text("".join(f"{label}\n" for label in LABELS))
        self.labels = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                str(vocabulary), tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER, tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
            ),
            "",
        )  # fmt: skip

    def probabilities(self, size: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
        size = tf.where(size > -1e37, tf.reshape(size, [-1]), 1.5)
        is_round = tf.cast(tf.equal(tf.reshape(shape, [-1]), "round"), tf.float32)
        return tf.nn.softmax(tf.stack([size, 3 - size, 1.7 * is_round], axis=1))

    def rank(self, probabilities: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        values, numbers = tf.math.top_k(probabilities, k=3)
        return self.labels.lookup(tf.cast(numbers, tf.int64)), values

    def parse(self, examples: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        spec = {
            "size": tf.io.FixedLenFeature([], tf.float32, -1e38),
            "shape": tf.io.FixedLenFeature([], tf.string, ""),
        }
        parsed = tf.io.parse_example(examples, spec)
        return parsed["size"], parsed["shape"]

    def serving_default(self, size: tf.Tensor, shape: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"output_0": self.rank(self.probabilities(size, shape))[0][:, 0]}

    def classify(self, size: tf.Tensor, shape: tf.Tensor) -> dict[str, tf.Tensor]:
        labels, probabilities = self.rank(self.probabilities(size, shape))
        return {"labels": labels, "probabilities": probabilities, "error": tf.fill([tf.shape(labels)[0]], "")}

    def serve_examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": self.probabilities(*self.parse(examples))}

    def transform_features(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"size": tf.maximum(self.parse(examples)[0], 0)}


def save_colour_model(model: ColourModel, path: Path) -> None:
    columns = {"size": tf.TensorSpec(None, tf.float32), "shape": tf.TensorSpec(None, tf.string)}
    records = {"examples": tf.TensorSpec([None], tf.string)}
    inputs = {"serving_default": columns, "classify": columns, "serve_examples": records, "transform_features": records}
    signatures = {
        name: tf.function(getattr(model, name)).get_concrete_function(**specs)
        for name, specs in inputs.items()
        if getattr(model, name) is not None
    }
    tf.saved_model.save(model, str(path), signatures)


@pytest.fixture
def trained(artifact: ArtifactMaker, examples: list[tf.train.Example], tmp_path: Path) -> Callable[..., types.Artifact]:
    """Makes a Trainer's Model artifact; the export can be of another class than what the reference was made with."""

    def train(exported: type[ColourModel] = ColourModel, name: str = "model", data: str = "data-1") -> types.Artifact:
        model_artifact = artifact(standard_artifacts.Model, name)
        save_colour_model(exported(tmp_path / "labels"), Path(model_artifact.uri, "Format-Serving"))
        reference = ColourModel(tmp_path / "labels")
        records = [example.SerializeToString(deterministic=True) for example in examples]
        probabilities = reference.probabilities(*reference.parse(tf.constant(records))).numpy()
        predictions = ReferencePredictions(
            ids=[example_id(record) for record in records],
            labels=[LABELS[best] for best in probabilities.argmax(axis=1)],
            probabilities=probabilities,
        )
        write(f"{model_artifact.uri}/{FILE_NAME}", predictions)
        provenance = {"data_fingerprint": data, "code_fingerprint": "code-1", "trained_rows": 40}
        Path(model_artifact.uri, "provenance.json").write_text(json.dumps(provenance))
        return model_artifact

    return train


@pytest.fixture
def eval_examples(artifact: ArtifactMaker, examples: list[tf.train.Example]) -> types.Artifact:
    """An Examples artifact as ExampleGen writes it."""
    made = artifact(standard_artifacts.Examples, "examples", ("train", "eval"))
    folder = Path(made.uri, "Split-eval")
    folder.mkdir()
    with tf.io.TFRecordWriter(f"{folder}/data_tfrecord-00000-of-00001.gz", "GZIP") as writer:
        for example in examples:
            writer.write(example.SerializeToString(deterministic=True))
    return made
