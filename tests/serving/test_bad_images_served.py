"""Photos that cannot be used, sent to a running server: alone, and among good ones whose answers they leave alone."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.client.grpc import GrpcClient
from serving.client.rest import RestClient
from tests.serving.colour_photos import (
    BAD,
    BROKEN_TEXT,
    LABELS,
    MAX_PIXELS,
    animation_with_an_enormous_frame,
    enormous_jpeg,
    enormous_png,
    photo,
    save_colour_photo_model,
)

# A process of its own: its memory is the server's alone.
SERVE = """
import sys
from serving.server.embedded_server import EmbeddedServer
from serving.server.server_options import ServerOptions

with EmbeddedServer({"photos": sys.argv[1]}, ServerOptions(rest_port=0, grpc_port=0)) as server:
    print(server.rest_port, server.grpc_port, flush=True)
    sys.stdin.read()
"""
GOOD = [photo(LABELS[number % len(LABELS)], ("PNG", "JPEG")[number % 2]) for number in range(8)]
GOOD_LABELS = [LABELS[number % len(LABELS)] for number in range(8)]


class Server:
    """A running server, and how much memory it takes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self.rest_port, self.grpc_port = map(int, process.stdout.readline().split())

    def mebibytes(self, name: str) -> int:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines())
        return int(lines[name].split()[0]) // 1024

    def count_peak_from_here(self) -> None:
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("photos")
    saved_model = save_colour_photo_model(folder)
    base_path = folder / "base"
    base_path.mkdir()
    Path(saved_model).rename(base_path / "1")
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(base_path)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield Server(process)
        assert process.poll() is None  # it lives
        process.communicate(timeout=60)


@pytest.fixture(scope="module", params=["REST", "gRPC"])
def client(request, server) -> Iterator[RestClient | GrpcClient]:
    connected = RestClient(port=server.rest_port) if request.param == "REST" else GrpcClient(port=server.grpc_port)
    with connected:
        yield connected


def strings(values: Any) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else value for value in np.asarray(values).reshape(-1).tolist()]


def served(client: RestClient | GrpcClient, images: list[bytes]) -> list[str]:
    """Labels of files that are sent as base64 text."""
    texts = [base64.urlsafe_b64encode(image).decode() for image in images]
    return strings(client.predict("photos", {"image": texts})["output_0"])


def errors(client: RestClient | GrpcClient, images: list[bytes]) -> list[str]:
    return strings(client.predict("photos", {"image_bytes": images}, signature="classify")["error"])


@pytest.mark.parametrize("name", BAD)
def test_a_bad_photo_has_its_reason_and_good_ones_their_labels(client, name):
    file, reason = BAD[name]
    assert errors(client, [file]) == [reason]
    assert served(client, [file]) == [""]
    batch = [*GOOD[:3], file, *GOOD[3:]]
    assert errors(client, batch) == [""] * 3 + [reason] + [""] * 5
    assert served(client, batch) == [*GOOD_LABELS[:3], "", *GOOD_LABELS[3:]]


@pytest.mark.parametrize("name", BROKEN_TEXT)
def test_broken_base64_has_no_label_and_good_ones_have_theirs(client, name):
    texts = [base64.b64encode(image).decode() for image in GOOD]
    broken = BROKEN_TEXT[name].decode()
    assert strings(client.predict("photos", {"image": [broken]})["output_0"]) == [""]
    answer = client.predict("photos", {"image": [*texts[:5], broken, *texts[5:]]})
    assert strings(answer["output_0"]) == [*GOOD_LABELS[:5], "", *GOOD_LABELS[5:]]


def test_photos_that_would_fill_the_memory_take_no_more_than_the_declared_limit_allows(client, server):
    # Complete but for the JPEG, and taking 286 MiB each once decoded.
    bombs = [enormous_png(10000, 10000, rows=10000), enormous_jpeg(), animation_with_an_enormous_frame()]
    largest = photo("blue", width=1000, height=MAX_PIXELS // 1000)
    assert served(client, GOOD) == GOOD_LABELS
    server.count_peak_from_here()
    before = server.mebibytes("VmRSS")
    assert served(client, bombs) == ["", "", "white"]  # of an animation, the first frame counts
    assert served(client, [*GOOD, *bombs, largest]) == [*GOOD_LABELS, "", "", "white", "blue"]
    # A photo of so many pixels takes 3 MiB, a request 2 MiB several times over.
    assert server.mebibytes("VmHWM") - before < 100
