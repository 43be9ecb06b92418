"""The part of Google Cloud Storage's JSON API that the model store uses, over HTTP, with everything kept in memory."""

import base64
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

import google_crc32c

PAGE = 10  # names a page, so that listings take several


@dataclass
class StoredObject:
    content: bytes
    generation: int
    updated: datetime


class Refused(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class FakeObjectStore(ThreadingHTTPServer):
    """One bucket, `bucket`; consistent as the real one is: requests take effect one after the other."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, StoredObject] = {}
        self.uploads: dict[str, tuple[str, dict[str, str]]] = {}
        self.lock = threading.RLock()
        self.generation = 0
        self.requests = 0
        self.refuse_after: int | None = None
        self.on_change: Callable[[], None] = lambda: None
        self.before: Callable[[str, str], None] = lambda method, address: None
        self.address = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> "FakeObjectStore":
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        return self

    def __exit__(self, *unused) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()

    def put(self, name: str, content: bytes, query: dict[str, str]) -> dict:
        if "ifGenerationMatch" in query:
            self.check_generation(self.objects.get(name), query["ifGenerationMatch"])
        self.generation += 1
        self.objects[name] = StoredObject(content, self.generation, datetime.now(UTC))
        self.on_change()
        return self.describe(name)

    def delete(self, name: str, query: dict[str, str]) -> None:
        stored = self.get(name, query)
        if "ifGenerationMatch" in query:
            self.check_generation(stored, query["ifGenerationMatch"])
        del self.objects[name]
        self.on_change()

    def get(self, name: str, query: dict[str, str]) -> StoredObject:
        stored = self.objects.get(name)
        if stored is None or stored.generation != int(query.get("generation", stored.generation)):
            raise Refused(404)
        return stored

    def describe(self, name: str) -> dict:
        stored = self.get(name, {})
        checksum = google_crc32c.Checksum(stored.content).digest()
        return {
            "kind": "storage#object",
            "bucket": "bucket",
            "name": name,
            "size": str(len(stored.content)),
            "generation": str(stored.generation),
            "updated": stored.updated.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "crc32c": base64.b64encode(checksum).decode(),
        }

    @staticmethod
    def check_generation(stored: StoredObject | None, expected: str) -> None:
        if (stored.generation if stored else 0) != int(expected):
            raise Refused(412)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one packet
    server: FakeObjectStore

    def log_message(self, *unused) -> None:
        pass

    def respond(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        if parts.path == "/storage/v1/b/bucket":  # the client asks in the background, for its telemetry
            return self.answer({"name": "bucket", "location": "EU", "projectNumber": "1"})
        self.server.before(self.command, unquote(self.path))
        with self.server.lock:
            self.server.requests += 1
            try:
                limit = self.server.refuse_after
                if limit is not None and self.server.requests > limit:
                    raise Refused(403)
                for method, pattern, action in ROUTES:
                    match = re.fullmatch(pattern, parts.path)
                    if method == self.command and match:
                        return action(self, query, body, *map(unquote, match.groups()))
                raise Refused(404)
            except Refused as refused:
                return self.answer({"error": {"code": refused.status, "message": "refused"}}, refused.status)

    do_GET = do_POST = do_PUT = do_DELETE = respond  # noqa: N815

    def answer(self, content: dict | bytes | None, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content).encode() if isinstance(content, dict) else content or b""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def list_objects(self, query: dict[str, str], body: bytes) -> None:
        names = sorted(name for name in self.server.objects if name.startswith(query.get("prefix", "")))
        names = [name for name in names if name > query.get("pageToken", "")]
        listing: dict = {"items": [self.server.describe(name) for name in names[:PAGE]]}
        if len(names) > PAGE:
            listing["nextPageToken"] = names[PAGE - 1]
        self.answer(listing)

    def get_object(self, query: dict[str, str], body: bytes, name: str) -> None:
        self.answer(self.server.describe(name))

    def download(self, query: dict[str, str], body: bytes, name: str) -> None:
        stored = self.server.get(name, query)
        content, headers = stored.content, {"X-Goog-Generation": str(stored.generation)}
        total, span = len(content), re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span is None:
            return self.answer(content, 200, headers)
        first, last = int(span[1]), min(int(span[2] or total), total - 1)
        if first >= total:
            raise Refused(416)
        return self.answer(
            content[first : last + 1], 206, {"Content-Range": f"bytes {first}-{last}/{total}", **headers}
        )

    def begin_upload(self, query: dict[str, str], body: bytes) -> None:
        if query["uploadType"] == "multipart":
            boundary = re.search(r'boundary="?([^"]+)"?', self.headers["Content-Type"])[1].encode()
            metadata, content = body.split(b"--" + boundary)[1:3]
            name = json.loads(metadata.partition(b"\r\n\r\n")[2])["name"]
            return self.answer(self.server.put(name, content.partition(b"\r\n\r\n")[2][:-2], query))
        name = json.loads(body)["name"]
        session = str(len(self.server.uploads))
        self.server.uploads[session] = (name, query)
        return self.answer(None, 200, {"Location": f"{self.server.address}/session/{session}"})

    def finish_upload(self, query: dict[str, str], body: bytes, session: str) -> None:
        name, query = self.server.uploads.pop(session)
        self.answer(self.server.put(name, body, query))

    def rewrite(self, query: dict[str, str], body: bytes, source: str, target: str) -> None:
        stored = self.server.get(source, {})
        self.server.check_generation(stored, query.get("ifSourceGenerationMatch", str(stored.generation)))
        if source.endswith("saved_model.pb") and "rewriteToken" not in query:  # as between storage classes
            size = str(len(stored.content))
            rewritten = {"done": False, "rewriteToken": "more", "totalBytesRewritten": "1", "objectSize": size}
            return self.answer(rewritten)
        described = self.server.put(target, stored.content, query)
        size = described["size"]
        return self.answer({"done": True, "totalBytesRewritten": size, "objectSize": size, "resource": described})

    def delete_object(self, query: dict[str, str], body: bytes, name: str) -> None:
        self.server.delete(name, query)
        self.answer(None, 204)


ROUTES: list[tuple[str, str, Callable]] = [
    ("GET", "/storage/v1/b/bucket/o", Handler.list_objects),
    ("GET", "/storage/v1/b/bucket/o/([^/]+)", Handler.get_object),
    ("GET", "/download/storage/v1/b/bucket/o/([^/]+)", Handler.download),
    ("POST", "/upload/storage/v1/b/bucket/o", Handler.begin_upload),
    ("PUT", "/session/(.+)", Handler.finish_upload),
    ("POST", "/storage/v1/b/bucket/o/([^/]+)/rewriteTo/b/bucket/o/([^/]+)", Handler.rewrite),
    ("DELETE", "/storage/v1/b/bucket/o/([^/]+)", Handler.delete_object),
]
