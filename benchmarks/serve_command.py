"""`ingraph serve`, as a person starts it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STOP_SECONDS = 60.0
_READY = re.compile(r"serving .+: REST on http://127\.0\.0\.1:(\d+), gRPC on 127\.0\.0\.1:(\d+)")


@dataclass(frozen=True)
class RunningServer:
    """Where it listens, and what it takes of the machine."""

    pid: int
    rest_port: int
    grpc_port: int

    def memory(self) -> float:
        """What it has in memory now, in MiB."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def open_files(self) -> int:
        """How many files and connections it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))


@contextmanager
def serve_command(name: str, base_path: str, *options: str) -> Iterator[RunningServer]:
    """Serve a model while the block runs, then stop the server by SIGTERM.

    Raises:
        SystemExit: it did not start, or did not end with status 0.
    """
    command = [str(Path(sys.executable).with_name("ingraph")), "serve", "--model", f"{name}={base_path}"]
    command += ["--rest-port", "0", "--grpc-port", "0", "--poll-seconds", "0.2", *options]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            ready = _READY.search(process.stdout.readline())
            if ready is None:
                raise SystemExit(f"the server did not start: {' '.join(command)}")
            yield RunningServer(process.pid, int(ready[1]), int(ready[2]))
            process.send_signal(signal.SIGTERM)
            if process.wait(STOP_SECONDS):
                raise SystemExit(f"the server ended with status {process.returncode}")
        finally:
            process.kill()
            process.wait()
