"""A SavedModel of photos that exists, from a directory or from TF-Hub."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from trainers.load_saved_model import load_saved_model
from trainers.training_error import TrainingError
from trainers.wrap_options import WrapOptions
from transform.image_options import ImageOptions


def wrapped_saved_model(options: WrapOptions, preprocessing: ImageOptions) -> Callable[[tf.Tensor], tf.Tensor]:
    """Pixels as `preprocessing` makes them -> the chosen output of the chosen signature.

    Its variables can be frozen, so the export needs no checkpoint and no loader but TensorFlow Serving's own.

    Raises:
        TrainingError: it cannot be loaded, or has no such signature or output, or takes other inputs.
    """
    loaded = load_saved_model(options.classifier, "trainer.classifier")
    signature = _signature(loaded, options)
    name = _pixel_input(signature, options.classifier, preprocessing)
    output = _output(signature, options)

    def call(pixels: tf.Tensor) -> tf.Tensor:
        return signature(**{name: pixels})[output]

    call.model = loaded  # type: ignore[attr-defined]  # its variables live as long as it does
    return call


def _signature(loaded: Any, options: WrapOptions) -> Any:
    if options.signature not in loaded.signatures:
        raise TrainingError(
            f"{options.classifier} has no signature {options.signature!r}; set trainer.signature to one of its own: "
            f"{', '.join(sorted(loaded.signatures)) or 'there are none'}"
        )
    return loaded.signatures[options.signature]


def _pixel_input(signature: Any, classifier: str, preprocessing: ImageOptions) -> str:
    inputs = signature.structured_input_signature[1]
    if len(inputs) != 1:
        raise TrainingError(
            f"{classifier} takes the inputs {', '.join(sorted(inputs))}, expected only pixels; wrap it in a function "
            "of pixels, and save that"
        )
    ((name, spec),) = inputs.items()
    given = tf.TensorSpec([None, preprocessing.height, preprocessing.width, 3], tf.float32)
    if spec.dtype != given.dtype or not spec.shape.is_compatible_with(given.shape) or _fixed_batch(spec):
        raise TrainingError(
            f"{classifier} takes {spec.dtype.name} {spec.shape}, preprocessing makes {given.dtype.name} {given.shape}; "
            "set preprocessing.height and preprocessing.width to what it takes, or save it with another signature"
        )
    return str(name)


def _fixed_batch(spec: tf.TensorSpec) -> bool:
    return spec.shape.rank is not None and spec.shape[0] is not None


def _output(signature: Any, options: WrapOptions) -> str:
    outputs = sorted(signature.structured_outputs)
    if options.output in outputs:
        return str(options.output)
    if options.output is None and len(outputs) == 1:
        return str(outputs[0])
    wanted = "has several outputs" if options.output is None else f"has no output {options.output!r}"
    raise TrainingError(f"{options.classifier} {wanted}; set trainer.output to one of {', '.join(outputs)}")
