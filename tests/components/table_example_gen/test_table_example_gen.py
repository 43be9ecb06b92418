"""TableExampleGen through Beam."""

import bisect
import hashlib
import itertools
import json
from functools import reduce
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf
from pydantic import ValidationError
from tfx.dsl.io import filesystem_registry
from tfx.dsl.io.plugins.tensorflow_gfile import TensorflowFilesystem
from tfx.types import standard_artifacts

from components.errors import BrokenInput
from components.table_example_gen.component import TableExampleGen
from components.table_example_gen.executor import REPORT_FILE, Executor, in_threads, split_records
from components.table_example_gen.facts import merged_facts, shard_facts
from components.table_example_gen.options import Ingestion, SplitOptions, TableReading
from components.table_example_gen.serialization import framed, gzip_member, record_digests
from components.table_example_gen.sources import plan_inputs, plan_shards
from components.table_example_gen.splits import (
    Quantiles,
    hash_buckets,
    places_of_buckets,
    sample_sizes,
    time_quantiles,
)
from pipeline.runners.local import BEAM_PIPELINE_ARGS


def run(
    folder: Path | str, output: Path | str, patterns: dict[str, str] | None = None, **options: object
) -> standard_artifacts.Examples:
    component = TableExampleGen(str(folder), patterns or {"all": "*"}, Ingestion(**options))
    artifact = standard_artifacts.Examples()
    artifact.uri = str(output)
    context = Executor.Context(beam_pipeline_args=BEAM_PIPELINE_ARGS, tmp_dir=f"{output}/tmp", unique_id="1")
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


def test_batches_become_the_file_that_tensorflow_writes_one_record_at_a_time(tmp_path):
    batches = [[b"", b"a", b"bc" * 40_000], [bytes(range(256))] * 3 + [b"\xff"], [b"last"]]
    with tf.io.TFRecordWriter(str(tmp_path / "expected")) as writer:
        for record in itertools.chain(*batches):
            writer.write(record)
    frames = [framed(records) for records in batches]
    assert b"".join(frame for batch in frames for frame in batch.to_pylist()) == (tmp_path / "expected").read_bytes()
    # A part of an Arrow array, stored and compressed members behind each other.
    frames[1] = frames[1].slice(1, 2)
    content = b"".join(gzip_member(batch, level) for batch, level in zip(frames, (0, 1, 9), strict=True))
    (tmp_path / "members.gz").write_bytes(content)
    read = tf.data.TFRecordDataset(str(tmp_path / "members.gz"), "GZIP").as_numpy_iterator()
    assert list(read) == [*batches[0], *batches[1][1:3], *batches[2]]


def test_batches_in_threads_stay_in_their_order_and_few_are_taken_ahead():
    taken = []

    def items():
        for number in range(500):
            taken.append(number)
            yield number

    for number, result in enumerate(in_threads(lambda item: item * item, items())):
        assert result == number * number
        assert len(taken) - number < 30


def test_shards_that_look_unlike_the_whole_are_written_anew(tmp_path):
    rows = [f"{number},{number}" for number in range(400)] + ["400,0.5"]
    one, two = split_files(tmp_path / "one", rows, 401), split_files(tmp_path / "two", rows, 100)
    whole = [run(folder, folder.parent / f"{folder.name}-out") for folder in (one, two)]
    for split in ("train", "eval"):
        found = [
            sorted(
                (e.features.feature["a"].int64_list.value[0], e.features.feature["b"].float_list.value[0]) for e in some
            )
            for some in (records(artifact, split) for artifact in whole)
        ]
        assert found[0] == found[1]
        assert all(whole_number == number or (whole_number, number) == (400, 0.5) for whole_number, number in found[0])
    report = json.loads((tmp_path / "two-out" / REPORT_FILE).read_text())
    assert sum(report["examples"].values()) == 401


def split_files(folder: Path, rows: list[str], of_file: int) -> Path:
    folder.mkdir()
    for start in range(0, len(rows), of_file):
        part = rows[start : start + of_file]
        (folder / f"{start:04d}.csv").write_text("a,b\n" + "\n".join(part) + "\n")
    return folder


class InMemory(TensorflowFilesystem):
    """TensorFlow's file system `ram://` for TFX: one that no open() of Python knows, as object stores are."""

    @staticmethod
    def supported_schemes() -> list[str]:
        return ["ram://"]


def test_tables_that_are_not_on_a_disk_are_read_and_written_through_tfxs_file_systems(tmp_path):
    filesystem_registry.DEFAULT_FILESYSTEM_REGISTRY.register(InMemory, priority=0)
    frame = pd.DataFrame({"a": range(300), "b": [f"x{number % 7}" for number in range(300)]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "b.csv.gz", index=False)
    frame.to_csv(tmp_path / "c.csv.zst", index=False)
    frame.to_parquet(tmp_path / "d.parquet", index=False)
    frame.to_json(tmp_path / "e.jsonl", orient="records", lines=True)
    tf.io.gfile.makedirs("ram://tables")
    paths = sorted(tmp_path.iterdir())
    for path in paths:
        tf.io.gfile.copy(str(path), f"ram://tables/{path.name}", overwrite=True)

    def splits(folder: str) -> dict[str, list[bytes]]:
        found = {split: tf.io.gfile.glob(f"{folder}/Split-{split}/*") for split in ("train", "eval")}
        return {
            split: sorted(tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator()) for split, files in found.items()
        }

    run(tmp_path, f"{tmp_path}/out", {"all": "a.csv"})
    for number, path in enumerate(paths):
        run("ram://tables", f"ram://examples{number}", {"all": path.name})
        assert splits(f"ram://examples{number}") == splits(f"{tmp_path}/out"), path.name
    run("ram://tables", "ram://both", {"all": "?.csv*"})
    assert splits("ram://both")["eval"] == sorted(splits(f"{tmp_path}/out")["eval"] * 3)
    with pytest.raises(BrokenInput, match=r"ram://tables/f\.parquet: no such file"):
        run("ram://tables", tmp_path / "none", {"all": "f.parquet"})
    with tf.io.gfile.GFile("ram://tables/g.parquet", "wb") as file:
        file.write((tmp_path / "d.parquet").read_bytes()[:-20])
    with pytest.raises(BrokenInput, match=r"ram://tables/g\.parquet: the file cannot be read as parquet"):
        run("ram://tables", tmp_path / "none", {"all": "g.parquet"})


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


def values(record: bytes, name: str) -> list[object]:
    feature = tf.train.Example.FromString(record).features.feature[name]
    return list(getattr(feature, feature.WhichOneof("kind") or "bytes_list").value)


def split_of(path: Path, column: str = "id", block_bytes: int = 2**24, **options: object) -> dict[object, str]:
    """Value of a column -> its split."""
    ingestion = Ingestion(**options)
    shards = plan_shards([str(path)], ingestion.reading, block_bytes=block_bytes)
    facts = merged_facts(shard_facts(shard, ingestion) for shard in shards)
    if facts.error:
        raise BrokenInput(facts.error)
    found = [
        (values(record, column)[0], split)
        for shard in shards
        for split, records in split_records(shard, facts, ingestion)
        for record in records
    ]
    assert len(dict(found)) == len(found) == facts.rows
    return dict(found)


def table(folder: Path, header: str, rows: list[object]) -> Path:
    path = folder / "a.csv"
    path.write_text(f"id,{header}\n" + "".join(f"{number},{row}\n" for number, row in enumerate(rows)))
    return path


def share(splits: dict[object, str], split: str) -> float:
    return sum(found == split for found in splits.values()) / len(splits)


def test_rows_are_split_by_their_hash_as_tfx_splits_them():
    records = [f"record {number}".encode() for number in range(2_000)]
    expected = [
        bisect.bisect([75, 100], int(hashlib.sha256(record).hexdigest(), 16) % 100) for record in records
    ]  # of which TFX's own ExampleGens make train and eval
    assert places_of_buckets(hash_buckets(record_digests(records)), 0.25, 0).tolist() == expected


def test_a_row_stays_in_its_split_when_others_come_and_when_a_test_split_is_added(tmp_path):
    few = split_of(table(tmp_path, "x", [number % 7 for number in range(500)]))
    many = split_of(table(tmp_path, "x", [number % 7 for number in range(1_000)]))
    assert {row: many[row] for row in few} == few
    tested = split_of(table(tmp_path, "x", [number % 7 for number in range(1_000)]), test_share=0.1)
    assert {row for row, split in tested.items() if split == "eval"} == {row for row in many if many[row] == "eval"}
    assert 0.07 < share(tested, "test") < 0.13
    assert set(tested.values()) == {"train", "eval", "test"}


@pytest.mark.parametrize(
    "times",
    [
        [f"2026-{1 + day // 28:02d}-{1 + day % 28:02d}" for day in range(300)],
        [f"2026-01-01T{number // 60:02d}:{number % 60:02d}" for number in range(300)],
        list(range(1_700_000_000, 1_700_000_300)),
        [number / 7 for number in range(300)],
    ],
)
@pytest.mark.parametrize("block_bytes", [2**24, 300])
def test_the_newest_rows_are_held_out_wherever_they_stand(tmp_path, times, block_bytes):
    order = np.random.default_rng(0).permutation(300)
    path = table(tmp_path, "when", [times[place] for place in order])
    splits = split_of(path, block_bytes=block_bytes, split={"time": "when"}, eval_share=0.2, test_share=0.1)
    by_time = [splits[int(row)] for row in np.argsort(order)]
    assert by_time == ["train"] * 210 + ["test"] * 30 + ["eval"] * 60


def test_rows_of_one_time_stay_together_and_rows_without_one_are_learned_from(tmp_path):
    path = table(tmp_path, "when", ["2026-01-01"] * 90 + ["2026-01-02"] * 9 + [""])
    splits = split_of(path, split={"time": "when"}, eval_share=0.05)
    assert [splits[row] for row in (0, 90, 98, 99)] == ["train", "eval", "eval", "train"]


def test_a_time_that_does_not_sort_as_text_is_refused(tmp_path):
    with pytest.raises(BrokenInput, match=r"data\.split\.time is 'when', which holds '31\.01\.2026'; expected numbers"):
        split_of(table(tmp_path, "when", ["2026-01-01", "31.01.2026"]), split={"time": "when"})


def test_rows_of_a_group_stay_together(tmp_path):
    groups = [f"customer {number % 40}" for number in range(400)] + [""]
    splits = split_of(table(tmp_path, "who", groups), split={"group": "who"})
    for customer in range(40):
        assert len({splits[row] for row in range(customer, 400, 40)}) == 1
    assert set(splits.values()) == {"train", "eval"}


def test_a_column_says_the_split_and_is_no_feature(tmp_path):
    path = table(tmp_path, "split", ["train", "Validation", " test ", "TRAIN"])
    assert split_of(path, split={"column": "split"}, test_share=0.1) == {0: "train", 1: "eval", 2: "test", 3: "train"}
    ingestion = Ingestion(split=SplitOptions(column="split"), test_share=0.1)
    (shard,) = plan_inputs({"all": str(path)}, ingestion)
    records = [record for _, some in split_records(shard, shard_facts(shard, ingestion), ingestion) for record in some]
    assert all(set(tf.train.Example.FromString(record).features.feature) == {"id"} for record in records)
    with pytest.raises(BrokenInput, match=r"data\.split\.column is 'split', which says 'test' .* expected train, eval"):
        split_of(path, split={"column": "split"})


def test_near_duplicates_of_a_text_are_never_on_both_sides(tmp_path):
    path = tmp_path / "a.csv"
    lines = [f"{number},text number {number}\n" for number in range(1_000)]
    lines += [f'{1_000 + number},"Text, number {number}!"\n' for number in range(1_000)]
    path.write_text("id,text\n" + "".join(lines))
    ingestion = {"reading": TableReading(as_text=True, strip=False)}
    apart = split_of(path, **ingestion)
    together = split_of(path, **ingestion, text_column="text", block_bytes=5_000)
    keys = [str(number).encode() for number in range(2_000)]
    assert sum(apart[keys[number]] != apart[keys[1_000 + number]] for number in range(1_000)) > 200
    assert sum(together[keys[number]] != together[keys[1_000 + number]] for number in range(1_000)) == 0
    assert 0.15 < share(together, "eval") < 0.25


def test_a_text_without_a_near_duplicate_is_split_by_its_hash(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,text\n" + "".join(f"{number},text {number}\n" for number in range(500)) + '501,"Text, 7"\n')
    ingestion = {"reading": TableReading(as_text=True, strip=False)}
    apart, together = split_of(path, **ingestion), split_of(path, **ingestion, text_column="text")
    assert {row: split for row, split in together.items() if row not in (b"7", b"501")} == {
        row: split for row, split in apart.items() if row not in (b"7", b"501")
    }


def quantiles_of(numbers: np.ndarray, parts: int) -> Quantiles:
    return reduce(Quantiles.merged, (time_quantiles(pa.array(part), "x") for part in np.array_split(numbers, parts)))


def test_quantiles_are_the_same_however_the_rows_are_divided():
    generator = np.random.default_rng(0)
    numbers = np.concatenate([generator.normal(size=70_000), generator.integers(0, 9, 20_000)])
    whole = quantiles_of(numbers, 1)
    assert quantiles_of(generator.permutation(numbers), 7).counts == whole.counts
    # Each value with all of its rows.
    (kept,) = [value for value in whole.counts if value in range(9)][:1]
    assert whole.counts[kept][0] == (numbers == kept).sum()


def test_quantiles_of_few_values_are_exact():
    numbers = np.repeat([1.0, 2.0, 3.0], [70_000, 20_000, 10_000])
    assert [quantiles_of(numbers, 3).threshold(share) for share in (0.1, 0.25, 0.31)] == [3.0, 2.0, 1.0]


def test_quantiles_are_few_and_near_the_truth():
    numbers = np.random.default_rng(0).normal(size=100_000)
    merged = quantiles_of(numbers, 10)
    assert len(merged.counts) == 50_000
    assert (numbers >= merged.threshold(0.2)).mean() == pytest.approx(0.2, abs=0.002)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"time": "a", "group": "b"}, "expected one way to split, received time, group"),
        ({"files": {"train": "a.csv"}}, "files: expected files for train and eval, received train"),
        ({"by": "luck"}, "Input should be 'hash'"),
    ],
)
def test_a_split_that_is_none_is_refused(options, sentence):
    with pytest.raises(ValidationError, match=sentence):
        SplitOptions(**options)


def test_a_sample_has_about_the_share_of_each_label_and_some_of_each():
    assert sample_sizes({"a": 9_000, "b": 1_000}, 500) == {"a": 434, "b": 65}
    assert sample_sizes({"a": 100_000, "b": 3}, 500) == {"a": 500 - 3, "b": 3}
    assert sample_sizes({"a": 40, "b": 30}, 500) == {"a": 40, "b": 30}
    assert sample_sizes(dict.fromkeys(range(300), 7), 200) == dict.fromkeys(range(300), 1)
    assert sample_sizes({}, 200) == {}


def test_a_sample_of_each_split_is_the_same_each_time_and_keeps_the_rarest_label(tmp_path):
    (tmp_path / "in").mkdir()
    path = table(tmp_path / "in", "kind", ["rare" if number % 97 == 0 else "common" for number in range(2_000)])
    everything = run(path.parent, tmp_path / "all")
    first, second = (run(path.parent, tmp_path / name, sample=60, label="kind") for name in ("one", "two"))
    assert files(first) == files(second)
    for split in ("train", "eval"):
        whole, kept = (
            [one.SerializeToString(deterministic=True) for one in records(found, split)]
            for found in (everything, first)
        )
        assert len(kept) in (59, 60)
        assert set(kept) < set(whole)
        rare = sum(b"rare" in record for record in whole)
        assert sum(b"rare" in record for record in kept) >= min(20, rare) > 0
        common, taken = (
            sorted(hashlib.sha256(record).digest() for record in found if b"common" in record)
            for found in (whole, kept)
        )
        assert taken == common[: len(taken)]
    counts = json.loads((tmp_path / "one" / REPORT_FILE).read_text())["examples"]
    assert counts == {split: len(records(first, split)) for split in ("train", "eval")}
