"""Running benchmarks, each in a process of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from rich.console import Console

from benchmarks.harness.results import Measurement, Outcome, Results, measurements_table, this_machine

TEST_DATA = "INGRAPH_TEST_DATA"


@dataclass(frozen=True)
class Benchmark:
    """A benchmark, and how much of it is run.

    Attributes:
        name: what `--only` takes.
        title: what it is about.
        module: run by `python -m`.
        arguments: of the whole suite, which is to end within an hour on two cores.
        short: of the short form, which is to end in five; None where it is left out of it.
        needs_images: whether it needs the photos in $INGRAPH_TEST_DATA, see CONTRIBUTING.md.
    """

    name: str
    title: str
    module: str
    arguments: tuple[str, ...] = ()
    short: tuple[str, ...] | None = None
    needs_images: bool = False


# The file in which `python -m benchmarks` expects what a benchmark measured.
MEASUREMENTS_FILE = "INGRAPH_MEASUREMENTS"
_MEASUREMENTS = TypeAdapter(list[Measurement])


def report(title: str, measurements: Sequence[Measurement]) -> None:
    """Print a table, and leave the figures for `python -m benchmarks` where that started this process."""
    Console().print(measurements_table(title, measurements))
    if path := os.environ.get(MEASUREMENTS_FILE):
        Path(path).write_bytes(_MEASUREMENTS.dump_json(list(measurements)))


def reported(path: Path) -> list[Measurement]:
    """What a benchmark left in the file that it was told of.

    Raises:
        FileNotFoundError: it left nothing.
    """
    return _MEASUREMENTS.validate_json(path.read_bytes())


def peak_memory(process: str = "self") -> float:
    """The most that a process, this one or one by its id, ever had in memory, in MiB.

    Not by getrusage: its maximum counts what the process was before it became this program.
    """
    status = Path("/proc", process, "status").read_text(encoding="utf-8")
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024


def forget_peak_memory() -> None:
    """Let peak_memory begin anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


@contextlib.contextmanager
def watching_workers() -> Iterator[Callable[[], float]]:
    """Give a function of the most memory, in MiB, that a process below this one had since it was last called.

    Looked at twice a second, as a process that has ended tells it no more.
    """
    peaks: dict[int, float] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            for pid in _descendants(os.getpid()):
                with contextlib.suppress(OSError, StopIteration):
                    peaks[pid] = peak_memory(str(pid))

    def most() -> float:
        found = max(peaks.values(), default=0.0)
        peaks.clear()
        return found

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


def _descendants(pid: int) -> list[int]:
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                # Behind the name in brackets: the state, and the parent.
                parents[int(folder.name)] = int((folder / "stat").read_text("utf-8").rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a module's function in a new process: its memory is its own, and no library is warm.

    Raises:
        What the function raises.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def run_benchmark(benchmark: Benchmark, short: bool, limit_seconds: float = 1200) -> Outcome:
    """Run a benchmark in a process of its own; what it prints is kept for the reason, if it fails.

    Args:
        benchmark: which.
        short: whether in its short form.
        limit_seconds: after which it has failed.
    """
    if short and benchmark.short is None:
        return Outcome(benchmark.name, benchmark.title, "skipped", reason="not in the short form")
    if benchmark.needs_images and not os.environ.get(TEST_DATA):
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


def run_suite(benchmarks: Sequence[Benchmark], short: bool) -> Results:
    """Run them, printing what each measured; one that fails does not stop the others."""
    console = Console()
    outcomes = []
    for benchmark in benchmarks:
        with console.status(benchmark.title):
            outcome = run_benchmark(benchmark, short)
        _print(console, outcome)
        outcomes.append(outcome)
    return Results(datetime.now(UTC).date().isoformat(), short, this_machine(), tuple(outcomes))


def _print(console: Console, outcome: Outcome) -> None:
    if outcome.state != "measured":
        console.print(f"{outcome.name}: {outcome.state}: {outcome.reason}", markup=False)
        return
    console.print(measurements_table(f"{outcome.title} ({outcome.seconds:.0f} s)", outcome.measurements))
