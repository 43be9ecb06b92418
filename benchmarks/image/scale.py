"""Time and memory of photos by their number: what `ingraph run` does up to Transform.

    .venv/bin/python -m benchmarks.image.scale [--photos 500 5000]

Photos of 100 KB. Each number runs in a process of its own; a hundred photos show about what the libraries alone take.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from benchmarks.harness.measurement import Goal
from benchmarks.harness.pipelines import Scale, first_steps, growth
from benchmarks.harness.running import own_process, peak_memory, report

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


CONFIG = """
name: photos
task: image
data: {path: photos, minimum_examples: 5}
trainer: {mode: fine_tune, weights: none}
evaluation: {at_least: {accuracy: 0.5}}
"""
FEWEST = 100
IMAGE_SIZE = 100_000
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
        write_images(Path(folder) / "photos", photos)
        Path(folder, "photos.yaml").write_text(CONFIG, encoding="utf-8")
        steps = first_steps(f"{folder}/photos.yaml")
    return Scale(photos, steps, peak_memory())


def write_images(folder: Path, count: int) -> None:
    """PNG headers and noise: only the header is read when photos are ingested."""
    header = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000040000000400802000000")
    for number in range(count):
        file = folder / f"class{number % 4}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(header + os.urandom(IMAGE_SIZE - len(header)))


if __name__ == "__main__":
    main()
