"""When TensorFlow computes with oneDNN."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pipeline.run import onednn_for_photos

SWITCH = "TF_ENABLE_ONEDNN_OPTS"
IMPORTED = """
import os
from pipeline.onednn_for_photos import onednn_for_photos

with onednn_for_photos("image"):
    import tensorflow
print(os.environ.get("TF_ENABLE_ONEDNN_OPTS"))
"""


def test_a_run_on_photos_imports_tensorflow_with_onednn_and_leaves_the_environment_as_it_was():
    environment = {name: value for name, value in os.environ.items() if name not in (SWITCH, "TF_CPP_MIN_LOG_LEVEL")}
    done = subprocess.run([sys.executable, "-c", IMPORTED], env=environment, capture_output=True, text=True, check=True)
    assert "oneDNN custom operations are on" in done.stderr
    assert done.stdout.strip() == "None"


@pytest.mark.parametrize("task", ["tabular", "text"])
def test_a_run_on_rows_or_texts_leaves_the_choice_to_tensorflow(task, monkeypatch):
    monkeypatch.delenv(SWITCH, raising=False)
    with onednn_for_photos(task):
        assert SWITCH not in os.environ


def test_what_the_environment_says_holds(monkeypatch):
    monkeypatch.setenv(SWITCH, "0")
    with onednn_for_photos("image"):
        assert os.environ[SWITCH] == "0"
    assert os.environ[SWITCH] == "0"
