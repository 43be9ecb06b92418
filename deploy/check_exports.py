"""Load published models as TensorFlow Serving does, and answer their warm-up requests: `make compat`.

Imports nothing but TensorFlow, its session loader and TensorFlow Serving's messages, so that it runs in an environment
of the version that TensorFlow Serving's images hold:

    python deploy/check_exports.py models/heart --save answers.npz        # with the TensorFlow that trained the model
    python deploy/check_exports.py models/heart --compare answers.npz     # with another one

Exit status: 0 when every model has answered every request, the same where answers are compared; 1 when not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

WARM_UP_FILE = "assets.extra/tf_serving_warmup_requests"
TOLERANCE = 1e-5  # between two versions of TensorFlow


def largest_version(base_path: Path) -> Path:
    """What TensorFlow Serving would load.

    Raises:
        SystemExit: there is none.
    """
    versions = [path for path in base_path.iterdir() if path.name.isdigit()] if base_path.is_dir() else []
    if not versions:
        raise SystemExit(f"{base_path} holds no version; expected a model base path, such as models/heart")
    return max(versions, key=lambda path: int(path.name))


def answers(version: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Every output of every warm-up request, by "request/signature/output"; what is asked of classify, of explain too.

    Raises:
        tf.errors.OpError: the model does not load, or a request fails.
    """
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta_graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(version))
        for number, record in enumerate(tf.compat.v1.io.tf_record_iterator(str(version / WARM_UP_FILE))):
            request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
            asked = request.model_spec.signature_name or "serving_default"
            explains = asked == "classify" and "explain" in meta_graph.signature_def
            for name in (asked, "explain") if explains else (asked,):
                signature = meta_graph.signature_def[name]
                feeds: dict[str, Any] = {
                    signature.inputs[alias].name: tf.make_ndarray(tensor) for alias, tensor in request.inputs.items()
                }
                fetches = {alias: info.name for alias, info in signature.outputs.items()}
                for alias, value in session.run(fetches, feeds).items():
                    yield f"{number}/{name}/{alias}", value


def differences(received: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> list[str]:
    """The names of the answers that are not the same."""
    different = sorted(received.keys() ^ expected.keys())
    for name in sorted(received.keys() & expected.keys()):
        ours, theirs = received[name], expected[name]
        same = (
            np.allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
            if ours.dtype.kind == "f" and ours.shape == theirs.shape
            else np.array_equal(ours, theirs)
        )
        if not same:
            different.append(name)
    return different


def decisions(received: dict[str, np.ndarray]) -> int:
    """How many rows were answered with a label by serving_default."""
    return sum(len(value) for name, value in received.items() if name.endswith("/serving_default/output_0"))


def main() -> None:
    """Check the models on the command line."""
    parser = argparse.ArgumentParser(description="Load published models as TensorFlow Serving does.")
    parser.add_argument("base_paths", nargs="+", type=Path, metavar="BASE_PATH")
    parser.add_argument("--save", type=Path, help="write the answers to a file")
    parser.add_argument("--compare", type=Path, help="compare the answers with those of a file")
    arguments = parser.parse_args()
    received = {}
    for base_path in arguments.base_paths:
        version = largest_version(base_path)
        named = {f"{base_path.name}/{name}": value for name, value in answers(version)}
        received |= named
        explained = sum(len(value) for name, value in named.items() if name.endswith("/explain/base"))
        rows = f"{len(named)} answers, {decisions(named):,} labels of serving_default among them"
        rows += f", and {explained:,} explanations" * bool(explained)
        print(f"{version}: loaded by TensorFlow {tf.__version__}, {rows}")
        if not named:
            raise SystemExit(f"{version} holds no warm-up requests to answer")
    if arguments.save is not None:
        np.savez(arguments.save, **received)
    if arguments.compare is not None:
        with np.load(arguments.compare, allow_pickle=True) as saved:
            different = differences(received, dict(saved))
        if different:
            sys.exit(f"answers differ: {', '.join(different)}")
        print(f"all {len(received)} answers are the same, row by row, and so are {decisions(received):,} labels")


if __name__ == "__main__":
    main()
