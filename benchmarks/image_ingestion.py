"""The memory of ImageExampleGen with 500 and with 5,000 photos.

    .venv/bin/python -m benchmarks.image_ingestion

Photos of 100 KB. Each ingestion runs in a process of its own, which prints the most memory it ever had; one with four
photos shows what the libraries alone take.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COUNTS = (4, 500, 5000)
PHOTO_SIZE = 100_000


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ingest", help=argparse.SUPPRESS)
    if folder := parser.parse_args().ingest:
        ingest(folder)
        return
    print(f"{'photos':>7} {'most memory, MiB':>17} {'seconds':>8}")
    for count in COUNTS:
        with tempfile.TemporaryDirectory() as made:
            write_photos(Path(made) / "photos", count)
            started = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.image_ingestion", "--ingest", made],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            print(f"{count:7} {done.stdout.splitlines()[-1]:>17} {time.monotonic() - started:8.0f}", flush=True)


def write_photos(folder: Path, count: int) -> None:
    """PNG headers and noise: only the header is read when photos are ingested."""
    header = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000040000000400802000000")
    for number in range(count):
        file = folder / f"class{number % 4}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(header + os.urandom(PHOTO_SIZE - len(header)))


def ingest(folder: str) -> None:
    """Run the component's executor, and print the most memory this process had, in MiB."""
    from tfx.dsl.components.base import base_beam_executor
    from tfx.types import standard_artifacts

    from components.image_example_gen.component import ImageExampleGen
    from components.image_example_gen.executor import Executor
    from pipeline.runners.local import BEAM_PIPELINE_ARGS

    examples = standard_artifacts.Examples()
    examples.uri = f"{folder}/examples"
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=BEAM_PIPELINE_ARGS, tmp_dir=f"{folder}/temporary", unique_id="1"
    )
    component = ImageExampleGen(path=f"{folder}/photos", input_fingerprint="", eval_share=0.5)
    Executor(context).Do({}, {"examples": [examples]}, component.exec_properties)
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    print(int(peak.split()[1]) // 1024)


if __name__ == "__main__":
    main()
