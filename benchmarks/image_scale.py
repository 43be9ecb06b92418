"""Time and memory of ImageExampleGen and Transform with 500 and with 5,000 photos.

    .venv/bin/python -m benchmarks.image_scale [--photos 500 5000]

Photos of 100 KB. Each number runs in a process of its own; one with four photos shows what the libraries alone take.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.harness.measurement import Goal
from benchmarks.harness.own_process import own_process
from benchmarks.harness.peak_memory import peak_memory
from benchmarks.harness.report import report
from benchmarks.scale import Scale, growth

FEWEST = 4
PHOTO_SIZE = 100_000
# What the allocator keeps differs by some MiB from run to run.
FLAT = Goal(1.05)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, nargs="+", default=[500, 5000])
    found = [own_process(measure, photos) for photos in (FEWEST, *parser.parse_args().photos)]
    report("photos by their number", growth("photos", found, memory_goal=FLAT))


def measure(photos: int) -> Scale:
    """Make the photos up and ingest them."""
    with tempfile.TemporaryDirectory() as folder:
        write_photos(Path(folder) / "photos", photos)
        steps = {"ingestion": ingest(folder), "Transform": analyse(folder)}
    return Scale(photos, steps, peak_memory())


def write_photos(folder: Path, count: int) -> None:
    """PNG headers and noise: only the header is read when photos are ingested."""
    header = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000040000000400802000000")
    for number in range(count):
        file = folder / f"class{number % 4}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(header + os.urandom(PHOTO_SIZE - len(header)))


def ingest(folder: str) -> float:
    """Seconds of the component's executor."""
    from tfx.dsl.components.base import base_beam_executor
    from tfx.types import standard_artifacts

    from components.image_example_gen.component import ImageExampleGen
    from components.image_example_gen.executor import Executor
    from pipeline.runners.hasten_beam import hasten_beam
    from pipeline.runners.local import BEAM_PIPELINE_ARGS

    hasten_beam()
    examples = standard_artifacts.Examples()
    examples.uri = f"{folder}/examples"
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=BEAM_PIPELINE_ARGS, tmp_dir=f"{folder}/temporary", unique_id="1"
    )
    component = ImageExampleGen(path=f"{folder}/photos", input_fingerprint="", eval_share=0.5)
    started = time.perf_counter()
    Executor(context).Do({}, {"examples": [examples]}, component.exec_properties)
    return time.perf_counter() - started


def analyse(folder: str) -> float:
    """Seconds of Transform's analysis of the train split."""
    import tensorflow as tf

    from benchmarks.transform_graph import transform_graph
    from transform.image import preprocessing_fn
    from transform.image_options import ImageOptions

    spec = {name: tf.io.VarLenFeature(tf.string) for name in ("image", "label", "path", "checksum")}
    options = {"preprocessing": ImageOptions().model_dump_json()}
    started = time.perf_counter()
    transform_graph(preprocessing_fn, options, spec, f"{folder}/examples/Split-train/*", f"{folder}/transform")
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
