from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from serving.server.app import EmbeddedServer
from serving.server.config import LoadPolicy
from serving.server.options import ServerOptions
from tests.serving.server import small_models

QUICK = LoadPolicy(poll_seconds=0.05, load_retries=1, load_retry_seconds=0.2)
QUICK_OPTIONS = ServerOptions(rest_port=0, grpc_port=0, load_policy=QUICK)


@dataclass(frozen=True)
class Answer:
    status: int
    text: str
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def error(self) -> str:
        document = self.json
        assert list(document) == ["error"]
        message: str = document["error"]
        return message


@dataclass(frozen=True)
class Rest:
    """Raw HTTP: what is sent and what comes back, untouched by a client library's ideas of JSON."""

    port: int

    def call(self, method: str, path: str, body: Any = b"", **headers: str) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        with requests.Session() as session:
            session.trust_env = False
            url = f"http://127.0.0.1:{self.port}{path}"
            response = session.send(
                requests.Request(method, url, data=data or None, headers=headers).prepare(), timeout=30
            )
        return Answer(response.status_code, response.content.decode(), dict(response.headers))

    def predict(self, model: str, body: Any) -> Answer:
        return self.call("POST", f"/v1/models/{model}:predict", body)


@pytest.fixture(scope="session")
def base_paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return small_models.save_all(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def server(base_paths: dict[str, str]) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(base_paths, QUICK_OPTIONS) as server:
        yield server


@pytest.fixture(scope="session")
def rest(server: EmbeddedServer) -> Rest:
    return Rest(server.rest_port)


@pytest.fixture(scope="session")
def half_plus_two_versions(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, int], None]:
    """Puts version N of y = x / 2 + N into a base path as a Pusher does: complete, by one rename."""
    store = tmp_path_factory.mktemp("versions")

    def publish(base_path: Path, number: int) -> None:
        saved = store / str(number)
        if not saved.exists():
            small_models.save_half_plus_two(saved, addend=float(number))
        base_path.mkdir(parents=True, exist_ok=True)
        staged = base_path / f"staged-{number}"
        shutil.copytree(saved, staged)
        staged.rename(base_path / str(number))

    return publish
