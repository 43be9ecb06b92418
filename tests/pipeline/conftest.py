"""The command line as a person uses it, and what stands in a report."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.serving_check import model_process
from pipeline import cli
from serving import check_process
from serving.client.grpc import GrpcClient
from serving.client.rest import RestClient
from serving.server.app import EmbeddedServer
from serving.server.options import ServerOptions
from tests.pipeline.pipelines_api import PipelinesApi, serve_pipelines_api

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    status: int
    output: str
    errors: str


@dataclass(frozen=True)
class HeartRun:
    """The finished demo run."""

    workdir: Path
    finished: Finished

    @property
    def base_path(self) -> Path:
        return self.workdir / "models/heart"

    @property
    def served_version(self) -> int:
        """The newest: a test may have published another."""
        return max(int(path.name) for path in self.base_path.iterdir() if path.name.isdigit())

    @property
    def artifacts(self) -> Path:
        return self.workdir / "runs/heart/artifacts"


# TFX takes longer to load than most runs of small data: processes are forked from one that has loaded it.
LOADED = multiprocessing.get_context("forkserver")
LOADED.set_forkserver_preload(["setuptools", "pipeline.dag", "pipeline.runners.local", "pipeline.history", __name__])


def ingraph(*arguments: str, project: Path = PROJECT, fresh: bool = False) -> Finished:
    """Run the command line in a process of its own.

    Args:
        arguments: of `ingraph`.
        project: whose code is run.
        fresh: in an interpreter that is started for it, as on a command line. Photos need it, whose runs decide by the
            environment how TensorFlow is loaded.
    """
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder, "output"), Path(folder, "errors")
        if fresh or project != PROJECT:
            command = [sys.executable, "-c", "from pipeline.cli import main; main()", *arguments]
            with output.open("wb") as stdout, errors.open("wb") as stderr:
                status = subprocess.run(
                    command, cwd=project, stdout=stdout, stderr=stderr, timeout=900, check=False
                ).returncode
        else:
            process = LOADED.Process(target=run_main, args=(arguments, dict(os.environ), output, errors))
            process.start()
            process.join(900)
            if process.exitcode is None:
                process.kill()
                pytest.fail(f"ingraph {' '.join(arguments)} did not end within 15 minutes")
            status = process.exitcode
        return Finished(status, output.read_text(encoding="utf-8"), errors.read_text(encoding="utf-8"))


def run_main(arguments: Sequence[str], environment: Mapping[str, str], output: Path, errors: Path) -> None:
    """What a fork of the loaded process does."""
    for descriptor, file in ((1, output), (2, errors)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(PROJECT)
    sys.argv = ["ingraph", *arguments]
    if arguments[0] in ("run", "retrain"):
        model_process._ahead.append(_forked_model_process())
    cli.main()


def _forked_model_process() -> model_process.StartedProcess:
    """ServingCheck's process, as a fork that has loaded TensorFlow already; a fresh run starts its own."""

    def serve() -> None:
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # the pipe among them that would tell Popen of an exec
        sys.stdin = os.fdopen(0)
        check_process.main()
        os._exit(0)

    errors = tempfile.TemporaryFile()  # noqa: SIM115 (StartedProcess.end closes it)
    process = subprocess.Popen(
        ["python"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, preexec_fn=serve
    )
    return model_process.StartedProcess(process, errors)


@pytest.fixture(scope="module", params=["REST", "gRPC"])
def client(request, server) -> Iterator[RestClient | GrpcClient]:
    """Asks the module's `server`, each test once in either way."""
    connected = RestClient(port=server.rest_port) if request.param == "REST" else GrpcClient(port=server.grpc_port)
    with connected:
        yield connected


def answers_over_both(saved_model: str, rest: Mapping[str, Any], grpc: Mapping[str, Any], folder: Path) -> list[str]:
    """serving_default's answers over REST, which are those over gRPC, of a SavedModel that is served from the folder.

    Args:
        saved_model: its directory.
        rest: what is asked over REST: input name -> values that JSON has.
        grpc: the same as arrays.
        folder: takes a copy, as version 1 of a model.
    """
    shutil.copytree(saved_model, folder / "asked/1")
    options = ServerOptions(rest_port=0, grpc_port=0)
    with (
        EmbeddedServer({"asked": str(folder / "asked")}, options) as server,
        RestClient(port=server.rest_port) as rest_client,
        GrpcClient(port=server.grpc_port) as grpc_client,
    ):
        answers = strings(rest_client.predict("asked", rest)["output_0"])
        assert strings(grpc_client.predict("asked", grpc)["output_0"]) == answers
    return answers


def training_graphs_answers(model: Path, features: Mapping[str, Any]) -> np.ndarray:
    """What the libraries that trained a table's model say of transformed features: probabilities, [n, classes].

    Args:
        model: what the Trainer left, with the members of a blend.
        features: `numbers` and `categories`, as far as there are.
    """
    import keras
    import ydf

    tried = json.loads((model / "provenance.json").read_text())["members"]
    columns = {f"number{place}": values for place, values in enumerate(np.asarray(features["numbers"]).T)}
    columns |= {
        f"category{place}": values.astype(bytes) for place, values in enumerate(np.asarray(features["categories"]).T)
    }
    mean = 0.0
    for name in (name for name, one in tried["members"].items() if one["weight"]):
        if (model / f"members/{name}.keras").exists():
            answers = keras.models.load_model(model / f"members/{name}.keras").predict(dict(features), verbose=0)
        else:
            answers = ydf.load_model(str(model / f"members/{name}")).predict(columns)
            answers = np.stack([1 - answers, answers], axis=1) if answers.ndim == 1 else answers
        mean = mean + tried["members"][name]["weight"] * answers.astype(np.float64)
    powers = mean ** (1 / tried["calibration"]["temperature"])
    return powers / powers.sum(axis=1, keepdims=True)


def strings(values: Any) -> list[str]:
    """The texts in an answer, over REST or gRPC, in one row."""
    return [value.decode() if isinstance(value, bytes) else value for value in np.asarray(values).reshape(-1).tolist()]


@pytest.fixture
def pipelines_api() -> Iterator[PipelinesApi]:
    with serve_pipelines_api() as api:
        yield api


@pytest.fixture
def config_file(tmp_path) -> Callable[..., str]:
    """Writes a config and its CSV file, and answers the config's path."""

    def write(csv: str | bytes | None, extra: str = "") -> str:
        if csv is not None:
            content = csv if isinstance(csv, bytes) else csv.encode()
            (tmp_path / "data.csv").write_bytes(content)
        path = tmp_path / "mine.yaml"
        path.write_text(
            "name: mine\n"
            "task: tabular\n"
            "data: {path: data.csv, minimum_examples: 5}\n"
            "preprocessing:\n"
            "  label: {column: bought}\n"
            f"{extra}"
            "trainer: {model: linear, epochs: 60, learning_rate: 0.05}\n"
            "evaluation: {at_least: {auc: 0.6}}\n"
        )
        return str(path)

    return write


def page_of(path: str | Path) -> ElementTree.Element:
    return page_of_text(Path(path).read_text(encoding="utf-8"))


def page_of_text(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>"))


def words(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def elements(page: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [element for element in page.iter() if element.tag.rpartition("}")[2] == name]


def table(page: ElementTree.Element, caption: str) -> dict[str, list[str]]:
    """Header of the row -> its cells."""
    (found,) = [one for one in elements(page, "table") if words(elements(one, "caption")[0]).startswith(caption)]
    rows = [row for row in elements(found, "tr") if elements(row, "td")]
    return {words(elements(row, "th")[0]): [words(cell) for cell in elements(row, "td")] for row in rows}
