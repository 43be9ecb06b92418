import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tfx import types
from tfx.types import artifact_utils, standard_artifacts

from serving.reference_predictions import FILE_NAME, ReferencePredictions, example_id, write
from tests.components.colour_model import LABELS, ColourModel, save_colour_model

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
            truth=np.arange(len(records)) % 3,
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
