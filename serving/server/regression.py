"""Regress signatures and their results (servables/tensorflow/regressor.cc)."""

from __future__ import annotations

import numpy as np
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import regression_pb2

from serving.server.serving_error import invalid_argument

INPUTS = "inputs"
OUTPUTS = "outputs"


def regression_outputs(signature: meta_graph_pb2.SignatureDef) -> tuple[str, ...]:
    """Which output a regression is; the method name of the signature is not looked at.

    Raises:
        ServingError: INVALID_ARGUMENT, it is no regress signature.
    """
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise invalid_argument("Expected one output Tensor.")
    if INPUTS not in signature.inputs:
        raise invalid_argument(f"No regression inputs found in SignatureDef: {signature}")
    if OUTPUTS not in signature.outputs:
        raise invalid_argument(f"No regression outputs found in SignatureDef: {signature}")
    return (OUTPUTS,)


def regression_result(values: np.ndarray, examples: int) -> regression_pb2.RegressionResult:
    """The value of each example.

    Args:
        values: float32 [examples] or [examples, 1].
        examples: how many there are.

    Raises:
        ServingError: INVALID_ARGUMENT, the model's output is no regression.
    """
    if not (values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)):
        raise invalid_argument(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            f"[{','.join(map(str, values.shape))}]"
        )
    if values.shape[0] != examples:
        raise invalid_argument(f"Input batch size did not match output batch size: {examples} vs. {values.shape[0]}")
    if values.dtype != np.float32:
        raise invalid_argument(f"Expected output Tensor of DT_FLOAT.  Got: {values.dtype}")
    result = regression_pb2.RegressionResult()
    for value in values.ravel().tolist():
        result.regressions.add(value=value)
    return result
