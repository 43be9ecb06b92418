"""Runs calls of serving.model_store in processes of their own that can be killed, or have another user, at any step.

One JSON request a line on standard input; each runs in a forked child, so that imports are paid for once.
"""

import fcntl
import io
import json
import os
import signal
import sys
from pathlib import Path

from serving import model_store
from serving.model_store import local  # noqa: F401  (imported before the user changes)

# Functions of the operating system that change nothing; a kill before them is a kill after the call before.
READING = {"stat", "lstat", "fstat", "fspath", "scandir", "listdir", "read", "readinto", "getpid", "urandom", "seek"}


def kill_before_step(step: int) -> None:
    """Let this process kill itself right before its `step`-th call (from 1) that touches the file system."""
    counted = 0

    def count(frame, event, function):
        nonlocal counted
        if event != "c_call" or function.__name__ in READING:
            return
        touches_files = function.__module__ in ("posix", "io", fcntl.__name__) or isinstance(
            getattr(function, "__self__", None), io.IOBase
        )
        counted += touches_files
        if touches_files and counted == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)


def run(request: dict) -> None:
    os.umask(request.get("umask", 0o022))
    if "user" in request:
        os.setgid(request["user"])
        os.setuid(request["user"])
    if "step" in request:
        kill_before_step(request["step"])
    getattr(model_store, request["call"])(*request["arguments"])
    sys.setprofile(None)


def run_forked(request: dict) -> dict:
    """What came of the call: {"killed": bool, "error": the ModelStoreError's text or None}."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            run(request)
            status = 0
        except model_store.ModelStoreError as error:
            os.write(writing, str(error).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    error = Path(f"/proc/self/fd/{reading}").read_text() or None
    os.close(reading)
    status = os.waitpid(child, 0)[1]
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    if not killed and status != 0:
        raise RuntimeError(f"{request} ended with status {status}")
    return {"killed": killed, "error": error}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run_forked(json.loads(line))), flush=True)
