"""What a run says of the precision of its model."""

from __future__ import annotations

import json
from pathlib import Path

from components.serving_check.check import precision_remark


def provenance(folder: Path, **content) -> str:
    (folder / "provenance.json").write_text(json.dumps(content))
    return str(folder / "provenance.json")


def test_a_gain_is_said_for_each_batch_size(tmp_path):
    file = provenance(tmp_path, precision="bfloat16", time_of_float32={"1": 0.512, "8": 0.49})
    assert (
        precision_remark(file) == "bfloat16: the network takes 0.51 at batch 1, 0.49 at batch 8 of its time in float32"
    )


def test_no_gain_is_said_with_what_would_gain(tmp_path):
    file = provenance(tmp_path, precision="bfloat16", time_of_float32={"1": 1.0, "8": 1.08})
    assert precision_remark(file).endswith(
        "so nothing is gained on this machine; it is for CPUs with AVX512-BF16 or AMX"
    )


def test_nothing_is_said_of_float32_and_of_models_without_provenance(tmp_path):
    assert precision_remark(provenance(tmp_path, precision="float32")) == ""
    assert precision_remark(str(tmp_path / "missing.json")) == ""
