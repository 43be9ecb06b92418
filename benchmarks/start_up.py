"""Start-up times: imports, `ingraph --help`, `ingraph runs list`, a server that is ready, its first answer.

    .venv/bin/python -m benchmarks.start_up [--turns 5]

Each is a process started anew, in turns; told are medians. Beside them stands the import of TensorFlow, without which
nothing can be served: long enough to be measured well, and no work of this project's.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.harness.results import Measurement
from benchmarks.harness.running import own_process, report
from benchmarks.serving.servers import COLUMNS, NAME, write_sum_model

HEART = str(Path(__file__).resolve().parents[1] / "configs/heart.yaml")
INGRAPH = str(Path(sys.executable).with_name("ingraph"))
TENSORFLOW = "import tensorflow"
READY, ANSWER = "server ready", "first answer of that server, from its start"
_PORT = re.compile(r"REST on http://127\.0\.0\.1:(\d+)")

Spent = dict[str, list[float]]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    turns = parser.parse_args().turns
    spent: Spent = {}
    with tempfile.TemporaryDirectory() as folder:
        own_process(write_sum_model, f"{folder}/1")
        run([INGRAPH, "run", HEART, "--workdir", f"{folder}/runs"])
        # The first turn brings files into memory.
        for turn in range(turns + 1):
            for name, seconds in one_turn(folder).items():
                spent.setdefault(name, []).extend([seconds] * (turn > 0))
    report("start-up", compared({name: statistics.median(seconds) for name, seconds in spent.items()}))


def one_turn(folder: str) -> dict[str, float]:
    """Seconds of everything, once."""
    commands: Mapping[str, list[str]] = {
        TENSORFLOW: [sys.executable, "-c", "import tensorflow"],
        "import of the REST client": [sys.executable, "-c", "import serving.client.rest"],
        "import of the gRPC client": [sys.executable, "-c", "import serving.client.grpc"],
        "ingraph --help": [INGRAPH, "--help"],
        "ingraph runs list": [INGRAPH, "runs", "list", "--workdir", f"{folder}/runs"],
    }
    found = {name: seconds_of(partial(run, command)) for name, command in commands.items()}
    return found | server_start(folder)


def seconds_of(call: Callable[[], None]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def run(command: list[str]) -> None:
    """Run a command that is to succeed."""
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)


def server_start(base_path: str) -> dict[str, float]:
    """Seconds until `ingraph serve` says that it serves, and until it has answered a first request."""
    command = [INGRAPH, "serve", "--model", f"{NAME}={base_path}", "--rest-port", "0", "--grpc-port", "0"]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            said = server.stdout.readline()
            port = _PORT.search(said)
            if port is None:
                raise SystemExit(f"`ingraph serve` said {said!r}, expected where it serves")
            ready = time.perf_counter() - started
            ask(int(port[1]))
            return {READY: ready, ANSWER: time.perf_counter() - started}
        finally:
            server.terminate()


def ask(port: int) -> None:
    """Send a row, and check what comes back."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    row = {f"column_{number}": [float(number)] for number in range(COLUMNS)}
    connection.request("POST", f"/v1/models/{NAME}:predict", json.dumps({"inputs": row}))
    answer = json.loads(connection.getresponse().read())
    connection.close()
    if answer != {"outputs": [float(sum(range(COLUMNS)))]}:
        raise SystemExit(f"the server answered {answer}, expected the sum of the columns")


def compared(seconds: Mapping[str, float]) -> list[Measurement]:
    """Everything beside the import of TensorFlow."""
    bare = seconds[TENSORFLOW]
    others = {name: value for name, value in seconds.items() if name != TENSORFLOW}
    return [
        Measurement(TENSORFLOW, bare, "s", "time"),
        *(Measurement(name, value, "s", "time", value / bare, TENSORFLOW) for name, value in others.items()),
    ]


if __name__ == "__main__":
    main()
