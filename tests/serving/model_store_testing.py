"""What the tests of the model base path share."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

from serving.model_store import ModelVersion, publish

FILES = {
    "saved_model.pb": "graph",
    "variables/variables.index": "index",
    "variables/variables.data-00000-of-00001": "weights",
    "assets/labels": "labels",
    "assets.extra/tf_serving_warmup_requests": "requests",
}


def write_saved_model(folder: Path, content: str, files: dict[str, str] = FILES) -> str:
    """A directory with the files of a SavedModel; each holds its own name and `content`."""
    for name, what in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{what} of {content}")
    return str(folder)


def provenance_of(content: str) -> dict:
    return {"data_fingerprint": f"data of {content}", "code_fingerprint": "code", "metrics": {"auc": 0.9}}


def publish_content(base: Path, folder: Path, content: str) -> ModelVersion:
    return publish(str(base), write_saved_model(folder / f"model of {content}", content), provenance_of(content))


def content_of(version: Path) -> str:
    """The content of a version; fails unless every file is there, unchanged, and the checksums say so."""
    provenance = json.loads((version / "assets.extra/provenance.json").read_text())
    content = provenance["data_fingerprint"].removeprefix("data of ")
    assert provenance["checksums"].keys() == FILES.keys()
    for name, what in FILES.items():
        assert (version / name).read_text() == f"{what} of {content}"
        assert hashlib.sha256((version / name).read_bytes()).hexdigest() == provenance["checksums"][name]
    return content


def visible_contents(base: Path) -> dict[int, str]:
    """What a server finds: the content of every directory whose name is an integer, each checked to be complete."""
    return {int(path.name): content_of(path) for path in base.iterdir() if path.name.isdigit()}


class Worker:
    """Another process that runs calls of the model store, each in a child of its own."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("model_store_worker.py"))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def send(self, call: str, *arguments, **options) -> None:
        self.process.stdin.write(json.dumps({"call": call, "arguments": arguments, **options}) + "\n")
        self.process.stdin.flush()

    def receive(self) -> dict:
        return json.loads(self.process.stdout.readline())

    def run(self, call: str, *arguments, **options) -> dict:
        self.send(call, *arguments, **options)
        return self.receive()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *unused) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()
