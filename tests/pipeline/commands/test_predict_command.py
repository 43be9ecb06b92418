"""`ingraph predict` against a running server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from click.testing import CliRunner, Result

from pipeline.cli import main
from pipeline.scoring.inputs import Batch
from pipeline.scoring.pipeline import model_inputs
from serving.client.metadata import TensorDescription
from serving.client.table_columns import table_value
from serving.client.tensors import input_array
from serving.missing_values import missing_value
from serving.server.app import EmbeddedServer
from serving.server.options import ServerOptions
from tests.serving.server import small_models


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    models = small_models.save_all(tmp_path_factory.mktemp("models"))
    with EmbeddedServer(models, ServerOptions(rest_port=0, grpc_port=0)) as server:
        yield server


@pytest.fixture(params=["--rest", "--grpc"])
def ask(server, request):
    """The command over either port."""
    port = server.rest_port if request.param == "--rest" else server.grpc_port

    def invoke(*arguments: str, standard_input: str | bytes = "") -> Result:
        return CliRunner().invoke(
            main, ["predict", *arguments, request.param, "--port", str(port)], input=standard_input
        )

    return invoke


def rows(result: Result) -> list[dict]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_column_value_pairs_are_one_row(ask):
    answer = rows(ask("patients", "age=63", "oldpeak=2.3", "thal=fixed", "--json"))

    assert answer == [{"input": "1", "output_0": "63|2.3|fixed"}]


def test_empty_values_are_sent_as_missing_ones(ask):
    (answer,) = rows(ask("patients", "age=", "oldpeak=1", "thal=", "--json"))

    assert answer["output_0"] == f"{missing_value('int64')}|1.0|{missing_value('string')}"


def test_a_csv_file_answers_row_by_row_and_ignores_other_columns(ask, tmp_path):
    path = tmp_path / "patients.csv"
    path.write_text('thal,age,oldpeak,target\n"fixed, or so",63,2.3,1\nnormal,41.0,,0\n')

    result = ask("patients", str(path), "--json")

    assert [answer["input"] for answer in rows(result)] == [f"{path}:1", f"{path}:2"]
    first, second = (answer["output_0"].split("|") for answer in rows(result))
    assert first == ["63", "2.3", "fixed, or so"]
    assert (second[0], float(second[1]), second[2]) == ("41", pytest.approx(missing_value("float")), "normal")
    assert result.stderr == f"ignored columns of {path} that the model does not take: target\n"


def test_more_rows_than_one_request_holds_are_all_answered_in_order(ask, tmp_path):
    path = tmp_path / "patients.csv"
    path.write_text("age,oldpeak,thal\n" + "".join(f"{age},0,x\n" for age in range(200)))

    answers = rows(ask("patients", str(path), "--json"))

    assert [answer["output_0"] for answer in answers] == [f"{age}|0.0|x" for age in range(200)]


def test_a_csv_is_read_from_standard_input(ask):
    answers = rows(ask("patients", "-", "--json", standard_input="age,oldpeak,thal\n1,2,x\n"))

    assert answers == [{"input": "standard input:1", "output_0": "1|2.0|x"}]


def test_sentences_and_files_of_sentences_are_rows(ask, tmp_path):
    path = tmp_path / "reviews.txt"
    path.write_text("third\nfourth = last\n")

    answers = rows(ask("greeting", "first", "x" * 1000, str(path), "--json"))

    assert [answer["output_0"] for answer in answers] == [
        "hello first", "hello " + "x" * 1000, "hello third", "hello fourth = last",
    ]  # fmt: skip


def test_numbers_are_parsed_for_a_model_that_takes_them(ask):
    assert [answer["y"] for answer in rows(ask("half_plus_two", "3", "4.5", "--json"))] == [3.5, 4.25]


def test_image_files_are_sent_as_their_bytes(ask, tmp_path):
    path = tmp_path / "grey.jpg"
    path.write_bytes(tf.io.encode_jpeg(tf.zeros([5, 7, 3], tf.uint8)).numpy())

    assert rows(ask("decoder", str(path), "--json")) == [{"input": str(path), "size": [5, 7, 3]}]


def test_photos_that_get_no_label_get_a_reason_and_an_exit_status(ask, tmp_path):
    png = tf.io.encode_png(tf.zeros([5, 7, 3], tf.uint8)).numpy()
    files = {"a.png": png, "b.heic": b"\0\0\0\x18ftypheic" + bytes(12), "c.jpg": b"text", "notes.txt": b"no photo"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    expected = [
        {"input": f"{tmp_path}/a.png", "output_0": "cat"},
        {"input": f"{tmp_path}/b.heic", "output_0": "", "error": "not a PNG image: it is HEIC"},
        {"input": f"{tmp_path}/c.jpg", "output_0": "", "error": "not a PNG image"},
    ]

    result = ask("photos", str(tmp_path), "--json")

    assert result.exit_code == 2
    assert [json.loads(line) for line in result.stdout.splitlines()] == expected
    table = ask("photos", str(tmp_path / "a.png"), str(tmp_path / "c.jpg"))
    assert table.exit_code == 2 and "error" in table.output and "not a PNG image" in table.output
    assert ask("photos", str(tmp_path / "c.jpg"), "--signature", "classify").exit_code == 2
    assert rows(ask("photos", str(tmp_path / "a.png"), "--json")) == expected[:1]


def test_another_signature_prints_labels_with_probabilities(ask):
    result = ask("greeting", "[red]film[/red]", "--signature", "classify")

    assert result.exit_code == 0
    assert "[red]film[/red]" in result.output
    assert "good 0.750, bad 0.250" in result.output


def test_binary_outputs_are_base64_in_json(ask):
    (answer,) = rows(ask("greeting", "hello", "--signature", "classify", "--json"))

    assert answer["raw_bytes"] == {"b64": "aGVsbG8="}
    assert answer["labels"] == ["good", "bad"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["patients", "age=63"], "the request lacks the columns oldpeak, thal; the model takes age, oldpeak, thal"),
        (["patients", "age=1", "oldpeak=1", "thal=x", "sex=1"], "the model takes no column sex"),
        (["patients", "age=1", "age=2"], "age is given twice"),
        (["patients", "age=old", "oldpeak=1", "thal=x"], "column age: expected int64, received 'old'"),
        (["patients", "age=1.5", "oldpeak=1", "thal=x"], "column age: expected int64, received '1.5'"),
        (["patients", "missing.csv"], "'missing.csv' is neither a file nor a column=value pair"),
        (["patients", "-"], "standard input holds no rows"),
        (["decoder", "rose.jpg"], "there is no file 'rose.jpg'; the model takes image files"),
        (["half_plus_two", "three"], "column x: expected float, received 'three'"),
        (["half_plus_two", "3", "--signature", "classify"], "has no signature 'classify'; it has serving_default"),
        (["foo", "3"], "the server has no model 'foo'"),
    ],
)
def test_what_cannot_be_predicted_is_one_sentence_and_status_2(ask, arguments, message):
    result = ask(*arguments)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_csv_without_a_column_is_refused_by_its_name(ask, tmp_path):
    path = tmp_path / "patients.csv"
    path.write_text("age,thal\n63,fixed\n")

    result = ask("patients", str(path))

    assert result.exit_code == 2
    assert f"{path} lacks the column oldpeak" in result.stderr


def test_a_server_that_is_not_running_is_named():
    result = CliRunner().invoke(main, ["predict", "heart", "age=63", "--port", "1"])

    assert result.exit_code == 2
    assert result.stderr == (
        "Error: no server answers at http://127.0.0.1:1 (REST); start one with: ingraph serve --model heart=BASE_PATH\n"
    )


def test_a_directory_stands_for_the_images_below_it(ask, tmp_path):
    (tmp_path / "set" / "deep").mkdir(parents=True)
    for number, name in enumerate(("set/b.jpg", "set/deep/a.JPEG", "set/notes.txt"), 1):
        pixels = tf.zeros([number, 2 * number, 3], tf.uint8)
        (tmp_path / name).write_bytes(tf.io.encode_jpeg(pixels).numpy())

    answers = rows(ask("decoder", str(tmp_path / "set"), "--json"))

    assert [(answer["input"], answer["size"]) for answer in answers] == [
        (str(tmp_path / "set" / "b.jpg"), [1, 2, 3]),
        (str(tmp_path / "set" / "deep" / "a.JPEG"), [2, 4, 3]),
    ]


def test_a_directory_without_such_files_is_named(ask, tmp_path):
    result = ask("decoder", str(tmp_path))

    assert result.exit_code == 2
    assert f"{tmp_path} holds no file that the model takes; expected names with .jpg" in result.output


def test_an_unknown_label_is_told(ask):
    result = ask("greeting", "Anna", "--label", "stable")

    assert result.exit_code == 2
    assert "Unrecognized servable version label: stable" in result.output


CELLS = ["63", " 63 ", "63.0", "-1", "+2", "1e2", "0x10", "63.5", "", "  ", "nan", "inf", "1_0", "x", "1e400"]
CELLS += [".5", "1.", "3" * 20]


@pytest.mark.parametrize("dtype", ["int32", "int64", "float", "double", "string", "bool"])
@pytest.mark.parametrize("cells", [CELLS, CELLS[:4], ["true", "False"], *([cell, "1"] for cell in CELLS)])
def test_the_cells_of_a_file_to_score_become_what_the_command_sends_of_each(dtype, cells):
    batch = Batch.of_rows("a.csv", range(len(cells)), {"x": pa.array(cells)})

    arrays, reasons = model_inputs(batch, {"x": TensorDescription(dtype, (None,))})

    for row, cell in enumerate(cells):
        try:
            expected = input_array("x", [table_value(cell, dtype)], dtype)
        except ValueError as error:
            assert reasons[row] == f"column x: {error}"
        else:
            np.testing.assert_array_equal(arrays["x"][row : row + 1], expected)
            assert arrays["x"].dtype == expected.dtype and row not in reasons
