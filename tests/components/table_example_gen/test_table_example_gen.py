"""TableExampleGen through Beam."""

import json
from pathlib import Path

import pytest
import tensorflow as tf
from tfx.types import standard_artifacts

from components.errors import BrokenInput
from components.table_example_gen.component import TableExampleGen
from components.table_example_gen.executor import REPORT_FILE, Executor
from components.table_example_gen.options import Ingestion
from pipeline.runners.local import BEAM_PIPELINE_ARGS


def run(
    folder: Path, output: Path, patterns: dict[str, str] | None = None, **options: object
) -> standard_artifacts.Examples:
    component = TableExampleGen(str(folder), patterns or {"all": "*"}, Ingestion(**options))
    artifact = standard_artifacts.Examples()
    artifact.uri = str(output)
    context = Executor.Context(beam_pipeline_args=BEAM_PIPELINE_ARGS, tmp_dir=str(output / "tmp"), unique_id="1")
    Executor(context).Do({}, {"examples": [artifact]}, component.exec_properties)
    return artifact


def files(artifact: standard_artifacts.Examples) -> dict[str, bytes]:
    return {
        str(path.relative_to(artifact.uri)): path.read_bytes() for path in sorted(Path(artifact.uri).glob("Split-*/*"))
    }


def records(artifact: standard_artifacts.Examples, split: str) -> list[tf.train.Example]:
    paths = sorted(str(path) for path in Path(artifact.uri, f"Split-{split}").iterdir())
    return [
        tf.train.Example.FromString(record) for record in tf.data.TFRecordDataset(paths, "GZIP").as_numpy_iterator()
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    rows = "".join(f"{number},{number / 4},name {number}\n" for number in range(200))
    (tmp_path / "in" / "a.csv").write_text(f"whole,number,text\n{rows}")
    (tmp_path / "in" / "b.csv").write_text("whole,number,text\n-1,,\n,x,y\n")
    return tmp_path / "in"


def test_all_tables_of_a_folder_become_examples_with_types_of_the_whole(folder, tmp_path):
    artifact = run(folder, tmp_path / "out")

    assert json.loads(artifact.split_names) == ["train", "eval"]
    assert artifact.get_string_custom_property("payload_format") == "FORMAT_TF_EXAMPLE"
    assert artifact.get_string_custom_property("file_format") == "tfrecords_gzip"
    assert sorted(files(artifact)) == [
        f"Split-{split}/data_tfrecord-0000{shard}-of-00002.gz" for split in ("eval", "train") for shard in (0, 1)
    ]
    examples = [*records(artifact, "train"), *records(artifact, "eval")]
    features = [example.features.feature for example in examples]
    wholes = [tuple(feature["whole"].int64_list.value) for feature in features]
    assert sorted(wholes) == sorted([*((number,) for number in range(200)), (-1,), ()])
    # A number in one file and a text in another: the column is text everywhere.
    (second,) = [feature for feature in features if list(feature["whole"].int64_list.value) == [2]]
    assert list(second["number"].bytes_list.value) == [b"0.5"]
    report = json.loads((tmp_path / "out" / REPORT_FILE).read_text())
    assert report["columns"] == {"whole": "int64", "number": "binary", "text": "binary"}
    assert report["examples"] == {"train": len(records(artifact, "train")), "eval": len(records(artifact, "eval"))}


def test_the_same_rows_become_the_same_bytes_in_each_run_and_place(folder, tmp_path):
    first = files(run(folder, tmp_path / "one"))
    assert files(run(folder, tmp_path / "two")) == first
    elsewhere = folder.rename(tmp_path / "elsewhere")
    assert files(run(elsewhere, tmp_path / "three")) == first


def test_splits_of_the_input_stay_what_they_are(folder, tmp_path):
    artifact = run(folder, tmp_path / "out", {"train": "a.csv", "eval": "b.csv"}, split_of_input=True)
    assert (len(records(artifact, "train")), len(records(artifact, "eval"))) == (200, 2)


def test_files_may_lack_columns_where_that_is_said(folder, tmp_path):
    (folder / "c.csv").write_text("whole,more\n7,1.5\n")
    with pytest.raises(BrokenInput, match=r"c\.csv and .*a\.csv have different columns"):
        run(folder, tmp_path / "refused")
    artifact = run(folder, tmp_path / "out", columns_differ=True)
    features = [example.features.feature for split in ("train", "eval") for example in records(artifact, split)]
    (added,) = [feature for feature in features if feature["more"].float_list.value]
    assert (list(added["whole"].int64_list.value), list(added["text"].bytes_list.value)) == ([7], [])


def test_a_broken_line_is_a_sentence_and_no_trace_of_beam(folder, tmp_path):
    (folder / "b.csv").write_text("whole,number,text\n1,2,3\n4,5\n")
    with pytest.raises(BrokenInput, match=r"b\.csv: line 3 has 2 fields, the header has 3; mend the line$"):
        run(folder, tmp_path / "out")


def test_tables_without_rows_are_refused(folder, tmp_path):
    for file in folder.iterdir():
        file.write_text("whole,number,text\n")
    with pytest.raises(BrokenInput, match="hold no rows"):
        run(folder, tmp_path / "out")
