"""A stand-in for the API of Kubeflow Pipelines."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class PipelinesApi:
    """What the real client sent it, to the address that it listens on."""

    address: str
    runs: list[dict[str, Any]] = field(default_factory=list)
    recurring_runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    experiments: list[dict[str, str]] = field(default_factory=list)

    def answer(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        asked = urlsplit(path)
        kind = next((part for part in asked.path.split("/") if part in ("experiments", "recurringruns", "runs")), "")
        if method == "DELETE":
            self.recurring_runs.pop(path.rpartition("/")[2])
            return {}
        if method == "POST":
            return self._made(kind, body)
        if kind == "recurringruns":
            (predicate,) = json.loads(parse_qs(asked.query)["filter"][0])["predicates"]
            found = [run for run in self.recurring_runs.values() if run[predicate["key"]] == predicate["stringValue"]]
            return {"recurringRuns": found}
        return {"experiments": self.experiments} if kind == "experiments" else {"multi_user": False}

    def _made(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        if kind == "experiments":
            self.experiments.append({"experiment_id": "e1", "display_name": body["display_name"]})
            return dict(self.experiments[-1])
        if kind == "recurringruns":
            name = f"r{len(self.recurring_runs) + 1}"
            self.recurring_runs[name] = {**body, "recurring_run_id": name}
            return self.recurring_runs[name]
        self.runs.append(body)
        return {"run_id": f"r{len(self.runs)}"}


@contextmanager
def serve_pipelines_api() -> Iterator[PipelinesApi]:
    """The stand-in, on a free port of this machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def do_DELETE(self) -> None:
            self._answer()

        def _answer(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
            data = json.dumps(api.answer(self.command, self.path, body)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api = PipelinesApi(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
