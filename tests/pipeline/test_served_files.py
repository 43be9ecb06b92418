"""What a server needs of a model's files once it has loaded it."""

from __future__ import annotations

import shutil

import numpy as np
import tensorflow as tf

from serving.session_model import SessionModel


def test_a_loaded_model_answers_after_its_files_are_gone(heart_run, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(heart_run.base_path / "1", copy)
    model = SessionModel(str(copy))
    shutil.rmtree(copy)
    inputs = model.signatures["classify"].inputs
    patient = {name: np.array([b"" if info.dtype == tf.string else 1]) for name, info in inputs.items()}
    labels = model.run("classify", patient)["labels"]
    assert sorted(labels[0].tolist()) == [b"disease", b"healthy"]
