"""The programs in docs/examples, run against models with the signatures of the demo models, and docs/operations.md."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest
import tensorflow as tf

from pipeline.cli import main
from pipeline.exit_status import ExitStatus
from serving.server.app import EmbeddedServer
from serving.server.options import ServerOptions

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
# The columns of configs/heart.yaml's data.
PATIENT = {
    "age": tf.int64, "sex": tf.int64, "cp": tf.int64, "trestbps": tf.int64, "chol": tf.int64, "fbs": tf.int64,
    "restecg": tf.int64, "thalach": tf.int64, "exang": tf.int64, "oldpeak": tf.float32, "slope": tf.int64,
    "ca": tf.int64, "thal": tf.string,
}  # fmt: skip
EXPECTED = {
    "heart": "63|1|1|145|233|1|2|150|0|2.3|3|0|fixed",
    "reviews": "Afilmthatnobodywillforget.",
    "digits": "3x5",
}


class Echoes(tf.Module):
    """Models that answer with what they were asked, without spaces."""

    @tf.function(input_signature=[tf.TensorSpec(None, dtype, name=name) for name, dtype in PATIENT.items()])
    def heart(self, *columns: tf.Tensor) -> dict[str, tf.Tensor]:
        texts = [
            column
            if column.dtype == tf.string
            else tf.as_string(column, precision=1 if column.dtype.is_floating else -1)
            for column in columns
        ]
        return {"output_0": tf.strings.join(texts, separator="|")}

    @tf.function(input_signature=[tf.TensorSpec(None, tf.string, name="text")])
    def reviews(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"output_0": tf.strings.regex_replace(text, " ", "")}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def digits(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Of base64, as REST sends it, or of the file's bytes, as gRPC does."""
        url_safe = tf.strings.regex_replace(tf.strings.regex_replace(image, r"\+", "-"), "/", "_")
        is_file = tf.equal(tf.strings.substr(image[0], 1, 3), "PNG")
        file = tf.cond(is_file, lambda: image[0], lambda: tf.io.decode_base64(url_safe)[0])
        size = tf.shape(tf.io.decode_png(file))
        return {"output_0": tf.strings.join([tf.as_string(size[:1]), tf.as_string(size[1:2])], separator="x")}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    root = tmp_path_factory.mktemp("models")
    for name in EXPECTED:
        module = Echoes()
        tf.saved_model.save(module, str(root / name / "1"), signatures=getattr(module, name))
    with EmbeddedServer(
        {name: str(root / name) for name in EXPECTED}, ServerOptions(rest_port=0, grpc_port=0)
    ) as server:
        yield server


@pytest.fixture(scope="module")
def address(server: EmbeddedServer) -> str:
    return f"http://127.0.0.1:{server.rest_port}"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "digit.png"
    pixels = tf.random.stateless_uniform([3, 5, 3], (1, 2), 0, 255, tf.int32)
    path.write_bytes(tf.io.encode_png(tf.cast(pixels, tf.uint8)).numpy())
    return path


def output(*command):
    finished = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=120)
    assert finished.returncode == 0, finished.stderr
    said = finished.stdout.replace("\x1b[0m", "").strip()  # Maven ends with it, whatever it is told
    return dict(line.split(": ", 1) for line in said.splitlines())


def documents():
    return {name: f'{{"outputs":["{label}"]}}' for name, label in EXPECTED.items()}


def test_curl_asks_all_three_models(address, image):
    assert output("sh", EXAMPLES / "predict.sh", address, image) == documents()


def test_curl_stops_at_a_refusal_and_says_why(address, image):
    command = ["sh", EXAMPLES / "predict.sh", f"{address}/v1/models/none", image]

    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert finished.returncode == 1
    assert "Malformed request: POST /v1/models/none/v1/models/heart:predict" in finished.stderr
    assert finished.stdout == ""


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_node_asks_all_three_models(address, image):
    assert output("node", EXAMPLES / "predict.mjs", address, image) == EXPECTED


@pytest.mark.skipif(shutil.which("javac") is None, reason="no JDK is installed")
def test_java_asks_all_three_models(address, image):
    assert output("java", EXAMPLES / "Predict.java", address, image) == documents()


@pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed")
def test_go_asks_all_three_models(address, image):
    assert output("go", "run", EXAMPLES / "predict.go", address, image) == EXPECTED


# What package managers say where they reach nothing.
UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "no such host", "dial tcp", "Unknown host")


@pytest.fixture(scope="module")
def grpc_examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, in which packages and what is compiled may lie."""
    return Path(shutil.copytree(EXAMPLES / "grpc", tmp_path_factory.mktemp("grpc") / "examples"))


def set_up(folder: Path, *command: str) -> None:
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=400)
    said = finished.stdout + finished.stderr
    if finished.returncode and any(words in said for words in UNREACHABLE):
        pytest.skip(f"{command[0]} reaches no packages: {said.strip().splitlines()[-1]}")
    assert finished.returncode == 0, said


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_node_asks_all_three_models_over_grpc(server, image, grpc_examples):
    set_up(grpc_examples / "node", "npm", "ci", "--no-audit", "--no-fund")

    assert output("node", grpc_examples / "node/predict.mjs", f"127.0.0.1:{server.grpc_port}", image) == EXPECTED


@pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed")
def test_go_asks_all_three_models_over_grpc(server, image, grpc_examples):
    set_up(grpc_examples / "go", "go", "build", "-o", "predict", ".")

    assert output(grpc_examples / "go/predict", f"127.0.0.1:{server.grpc_port}", image) == EXPECTED


@pytest.mark.skipif(shutil.which("mvn") is None, reason="Maven is not installed")
def test_java_asks_all_three_models_over_grpc(server, image, grpc_examples):
    pom = grpc_examples / "java/pom.xml"
    set_up(pom.parent, "mvn", "--quiet", "compile")

    arguments = f"-Dexec.args=127.0.0.1:{server.grpc_port} {image}"
    assert output("mvn", "--quiet", "--file", pom, "exec:java", arguments) == EXPECTED


PROJECT = Path(__file__).parents[2]
PAGES = ("docs/operations.md", "docs/beam.md")
SOURCES = ("pipeline", "components", "serving", "trainers", "transform")
VARIABLE = "…"


def page(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def commands() -> list[str]:
    """What follows `$ ingraph` in the pages, with continued lines joined."""
    texts = [page(name).replace("\\\n", " ") for name in PAGES]
    return [line for text in texts for line in re.findall(r"^ *\$ ingraph (.+)$", text, re.MULTILINE)]


def quoted() -> list[str]:
    """The messages of the table: what stands in backticks in its second column."""
    rows = re.findall(r"^\| (?:\d+) \| ([^|]+) \|", page("docs/operations.md"), re.MULTILINE)
    return [message for row in rows for message in re.findall(r"`([^`]+)`", row)]


@cache
def templates() -> list[str]:
    """Every text of the sources, with `…` for what is put into it."""
    found = []
    for file in (file for folder in SOURCES for file in sorted((PROJECT / folder).rglob("*.py"))):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else VARIABLE for part in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def accept(command: click.Command, name: str, arguments: list[str]) -> None:
    """Have click parse a command line, subcommands too; nothing is run."""
    context = command.make_context(name, arguments)
    if isinstance(command, click.Group):
        inner, subcommand, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert inner is not None and subcommand is not None
        accept(subcommand, inner, rest)


@pytest.mark.parametrize("line", commands())
def test_a_command_exists_with_these_options(line):
    without_redirection = re.sub(r" >+ \S+| &$", "", line)
    accept(main, "ingraph", shlex.split(without_redirection))


def test_a_wrong_option_would_be_found():
    with pytest.raises(click.UsageError):
        accept(main, "ingraph", ["models", "prune", "models/heart", "--kept", "5"])


@pytest.mark.parametrize("message", quoted())
def test_a_quoted_message_is_one_of_the_code(message):
    assert any(message in template for template in templates())


def test_every_exit_status_has_a_message():
    statuses = {int(status) for status in re.findall(r"^\| (\d+) \|", page("docs/operations.md"), re.MULTILINE)}
    assert {status for status in ExitStatus if status is not ExitStatus.PUBLISHED} <= statuses
