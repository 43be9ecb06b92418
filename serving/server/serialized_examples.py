"""The examples of a request -> what a classify or regress signature is fed (servables/tensorflow/util.cc)."""

from __future__ import annotations

import numpy as np
from tensorflow_serving.apis import input_pb2

from serving.server.serving_error import invalid_argument


def serialized_examples(input_: input_pb2.Input) -> np.ndarray:
    """One serialized tf.Example per example, object [n]; a context stands in front of each, so that it counts less.

    Raises:
        ServingError: INVALID_ARGUMENT, there are no examples.
    """
    if input_.WhichOneof("kind") == "example_list_with_context":
        context = input_.example_list_with_context.context.SerializeToString()
        examples = input_.example_list_with_context.examples
    else:
        context, examples = b"", input_.example_list.examples
    if not examples:
        raise invalid_argument("Input is empty.")
    serialized = np.empty(len(examples), np.object_)
    serialized[:] = [context + example.SerializeToString() for example in examples]
    return serialized
