"""Classifications and regressions -> the JSON that TensorFlow Serving answers with (util/json_tensor.cc)."""

from __future__ import annotations

import json

import numpy as np
from tensorflow_serving.apis import classification_pb2, regression_pb2

from serving.server.float_texts import float_texts


def classifications_to_json(result: classification_pb2.ClassificationResult) -> bytes:
    """{"results": …}: per example a list of [label, score]."""
    rows = []
    for classifications in result.classifications:
        scores = float_texts(np.array([entry.score for entry in classifications.classes], np.float32))
        pairs = zip(classifications.classes, scores, strict=True)
        rows.append(", ".join(f"[{json.dumps(entry.label, ensure_ascii=False)}, {score}]" for entry, score in pairs))
    lists = ", ".join(f"[{row}]" for row in rows)
    return f'{{\n    "results": [{lists}\n    ]\n}}'.encode()


def regressions_to_json(result: regression_pb2.RegressionResult) -> bytes:
    """{"results": …}: one number per example."""
    values = float_texts(np.array([regression.value for regression in result.regressions], np.float32))
    return f'{{\n    "results": [{", ".join(values)}]\n}}'.encode()
