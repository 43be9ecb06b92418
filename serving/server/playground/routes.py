"""The routes of the playground, under paths that TensorFlow Serving answers with 404."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web
from tensorflow_serving.apis import model_pb2

from serving.client.errors import CanonicalCode
from serving.server.errors import ServingError
from serving.server.json_tensors import error_to_json
from serving.server.models import ModelManager, ServedModel
from serving.server.playground.example_inputs import example_inputs
from serving.server.signatures import DEFAULT_SIGNATURE
from serving.server.versions import VersionState


def available_models(models: Mapping[str, ServedModel]) -> list[dict[str, Any]]:
    """Each model by name, with its available versions, highest first, and their labels."""
    return [
        {
            "name": name,
            "versions": [
                {
                    "number": version.number,
                    "labels": sorted(label for label, number in model.labels.items() if number == version.number),
                }
                for version in model.versions
                if version.state is VersionState.AVAILABLE
            ],
        }
        for name, model in sorted(models.items())
    ]


_PAGE = Path(__file__).with_name("page")
_HEADERS = {
    # Nothing is loaded from elsewhere, nothing inline runs, and no other page may frame this one.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}

_Handler = Callable[[web.Request], Awaitable[web.Response]]


def playground_routes(manager: ModelManager) -> list[web.RouteDef]:
    """`/`, the page's files, and the two documents that the REST API does not have.

    `/playground/models` lists the models that can be asked, `/playground/examples` inputs to start from; its query
    names `model`, `version` and `signature`.
    """

    async def models(request: web.Request) -> web.Response:
        return _json_response(orjson.dumps({"models": available_models(manager.models)}))

    async def examples(request: web.Request) -> web.Response:
        try:
            with manager.use(_spec(request)) as served:
                signature = request.query.get("signature", DEFAULT_SIGNATURE)
                document = await asyncio.to_thread(
                    example_inputs, served.version.path, signature, served.model.signatures.get(signature)
                )
        except ServingError as error:
            return _json_response(error_to_json(error.message), error.code.http_status)
        return _json_response(orjson.dumps(document))

    files = sorted(_PAGE.iterdir())
    return [
        web.get("/", _file_handler(_PAGE / "index.html")),
        web.get("/playground/models", models),
        web.get("/playground/examples", examples),
        *(web.get(f"/playground/{file.name}", _file_handler(file)) for file in files if file.name != "index.html"),
    ]


def _spec(request: web.Request) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=request.query.get("model", ""))
    version = request.query.get("version", "")
    if not (version.isascii() and version.isdigit() and len(version) < 19):
        raise ServingError(CanonicalCode.INVALID_ARGUMENT, f"version is {version!r}, expected the number of a version")
    spec.version.value = int(version)
    return spec


def _file_handler(file: Path) -> _Handler:
    # Read once: no request reaches the file system.
    body, content_type = file.read_bytes(), mimetypes.guess_type(file.name)[0]

    async def respond(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=content_type or "", charset="utf-8", headers=_HEADERS)

    return respond


def _json_response(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json", headers=_HEADERS)
