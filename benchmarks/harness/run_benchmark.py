"""Run one benchmark."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness.benchmark import TEST_DATA, Benchmark
from benchmarks.harness.outcome import Outcome
from benchmarks.harness.report import MEASUREMENTS_FILE, reported


def run_benchmark(benchmark: Benchmark, short: bool, limit_seconds: float = 1200) -> Outcome:
    """Run a benchmark in a process of its own; what it prints is kept for the reason, if it fails.

    Args:
        benchmark: which.
        short: whether in its short form.
        limit_seconds: after which it has failed.
    """
    if short and benchmark.short is None:
        return Outcome(benchmark.name, benchmark.title, "skipped", reason="not in the short form")
    if benchmark.needs_photos and not os.environ.get(TEST_DATA):
        return Outcome(benchmark.name, benchmark.title, "skipped", reason=f"needs the photos that {TEST_DATA} names")
    arguments = benchmark.short if short else benchmark.arguments
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder, "measurements.json"), Path(folder, "log")
        failure = _call([sys.executable, "-m", benchmark.module, *(arguments or ())], file, log, limit_seconds)
        seconds = time.monotonic() - started
        if failure or not file.exists():
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing was said"]
            reason = f"{failure or 'it reported nothing'}: {said[-1].strip()}"
            return Outcome(benchmark.name, benchmark.title, "failed", seconds, reason)
        measurements = tuple(reported(file))
    return Outcome(benchmark.name, benchmark.title, "measured", seconds, measurements=measurements)


def _call(command: list[str], file: Path, log: Path, limit_seconds: float) -> str:
    """Why the command failed, "" where it did not."""
    # What a benchmark that is killed leaves lies in the folder too.
    environment = os.environ | {MEASUREMENTS_FILE: str(file), "TMPDIR": str(file.parent)}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            status = process.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            return f"not done after {limit_seconds:.0f} s"
        finally:
            _end(process)
    return f"status {status}" if status else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
