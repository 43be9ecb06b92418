"""Tables of every format, as people write them."""

import gzip
import hashlib
import os
import random
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import BrokenInput
from components.table_example_gen.executor import split_records
from components.table_example_gen.facts import merged_facts, shard_facts
from components.table_example_gen.options import Ingestion, TableReading
from components.table_example_gen.serialization import (
    example_column,
    framed,
    framed_examples,
    put_checksums,
    record_checksums,
    record_digests,
    records_of_frames,
    serialized_examples,
)
from components.table_example_gen.sources import plan_inputs, plan_shards, shard_batches, table_files

TEXT, WHOLE, NUMBER, NOTHING = pa.binary(), pa.int64(), pa.float32(), pa.null()


def read(path: Path | str, **reading: object) -> tuple[dict[str, pa.DataType], list[dict[str, object]]]:
    """Types of the columns, and the rows in the order of the file."""
    ingestion = Ingestion(reading=TableReading(**reading))
    shards = plan_inputs({"all": str(path)}, ingestion)
    facts = merged_facts(shard_facts(shard, ingestion) for shard in shards)
    if facts.error:
        raise BrokenInput(facts.error)
    rows = [
        row
        for shard in shards
        for batch in shard_batches(shard, ingestion.reading, facts.types)
        for row in batch.to_pylist()
    ]
    assert len(rows) == facts.rows
    return dict(facts.types), rows


def records(path: Path | str, **reading: object) -> dict[str, list[bytes]]:
    """Split -> its examples."""
    ingestion = Ingestion(reading=TableReading(**reading))
    shards = plan_inputs({"all": str(path)}, ingestion)
    facts = merged_facts(shard_facts(shard, ingestion) for shard in shards)
    found: dict[str, list[bytes]] = {}
    for shard in shards:
        for split, some in split_records(shard, facts, ingestion):
            found.setdefault(split, []).extend(some)
    return {split: sorted(some) for split, some in found.items()}


def written(folder: Path, content: str | bytes, name: str = "a.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.fixture
def frame() -> pd.DataFrame:
    chance = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "whole": chance.integers(-(2**40), 2**40, 300),
            "number": chance.normal(0, 100, 300).round(3),
            "some": [None if value < 0.3 else f'a "{value:.1f}",\nb' for value in chance.random(300)],
            "few": chance.choice([1.5, np.nan, 2.0], 300),
            "yes": chance.random(300) < 0.5,
            "when": [datetime(2026, 1, 1 + day % 28, day % 24, 30) for day in range(300)],
            "day": pd.to_datetime([f"2026-01-{1 + day % 28:02d}" for day in range(300)]).date,
            "label": chance.choice(["a", "b"], 300),
        }
    )


def test_all_that_pandas_writes_gives_the_same_examples(tmp_path, frame):
    import csv

    frame.to_csv(tmp_path / "plain.csv", index=False)
    frame.to_csv(tmp_path / "quoted.csv", index=False, quoting=csv.QUOTE_ALL)
    frame.to_csv(tmp_path / "indexed.csv")  # its index has a header without a name
    frame.to_csv(tmp_path / "zipped.csv.gz", index=False)
    frame.to_csv(tmp_path / "zipped.csv.zst", index=False)
    frame.to_csv(tmp_path / "tabs.tsv", index=False, sep="\t")
    frame.to_csv(tmp_path / "semicolons.csv", index=False, sep=";", decimal=",", encoding="utf-8-sig")
    (tmp_path / "blanks.csv").write_text(
        (tmp_path / "plain.csv").read_text().replace(",".join(frame.columns), " ,  ".join(frame.columns) + " ", 1)
    )
    frame.to_csv(tmp_path / "windows.csv", index=False, lineterminator="\r\n")
    frame.to_csv(tmp_path / "rows.csv", index=False, header=False, encoding="utf-8-sig")
    frame.to_csv(tmp_path / "rows.tsv.gz", index=False, header=False, sep="\t")
    frame.to_parquet(tmp_path / "table.parquet", index=False)
    frame.astype({"when": str, "day": str}).to_json(tmp_path / "lines.jsonl", orient="records", lines=True)

    expected = records(tmp_path / "plain.csv")
    assert {split: len(some) for split, some in expected.items()} == {"train": 241, "eval": 59}
    header = {"header": list(frame.columns)}
    options = {"semicolons.csv": {"delimiter": ";", "decimal": ","}, "rows.csv": header, "rows.tsv.gz": header}
    for file in sorted(tmp_path.iterdir()):
        assert records(file, **options.get(file.name, {})) == expected, file.name


def test_records_become_the_same_records_again(tmp_path, frame):
    frame.to_csv(tmp_path / "plain.csv", index=False)
    expected = records(tmp_path / "plain.csv")
    for name, compression in (("a.tfrecord", ""), ("b.tfrecord.gz", "GZIP")):
        with tf.io.TFRecordWriter(str(tmp_path / name), compression) as writer:
            for record in (*expected["train"], *expected["eval"]):
                writer.write(record)
        assert records(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "-2", ""], (WHOLE, [1, -2, None])),
        (["1", "2.5", " 3 "], (NUMBER, [1.0, 2.5, 3.0])),
        (["1", "nan", "-inf"], (NUMBER, [1.0, None, -np.inf])),
        (["1", "2", "three"], (TEXT, [b"1", b"2", b"three"])),
        ([" Male", "Female ", "  "], (TEXT, [b"Male", b"Female", None])),
        (["true", "False", ""], (TEXT, [b"true", b"False", None])),
        (["2026-01-31", "2026-02-01", ""], (TEXT, [b"2026-01-31", b"2026-02-01", None])),
        (["0x10", "0x11", "7"], (TEXT, [b"0x10", b"0x11", b"7"])),
        (["99999999999999999999", "1", "2"], (NUMBER, [float(np.float32(1e20)), 1.0, 2.0])),
        (["", "", ""], (NOTHING, [None, None, None])),
        (['"1"', '"2"', '""'], (WHOLE, [1, 2, None])),
        (['"a, ""b"""', '"c\nd"', "5' 3"], (TEXT, [b'a, "b"', b"c\nd", b"5' 3"])),
        (['5" pipe', '"a\nb"', "x"], (TEXT, [b'5" pipe', b"a\nb", b"x"])),
    ],
)
def test_a_column_of_csv_has_the_type_of_all_its_values(tmp_path, values, expected):
    path = written(tmp_path, "other,column\n" + "".join(f"x,{value}\n" for value in values))
    types, rows = read(path)
    assert (types["column"], [row["column"] for row in rows]) == expected


def test_what_the_config_calls_missing_is_missing_whatever_blanks_are_around(tmp_path):
    path = written(tmp_path, "age,job\n39, ?\n ?,NA\nNA,?\n5,x?\n")
    types, rows = read(path, missing=("?", "NA"))
    assert types == {"age": WHOLE, "job": TEXT}
    assert rows == [
        {"age": 39, "job": None},
        {"age": None, "job": None},
        {"age": None, "job": None},
        {"age": 5, "job": b"x?"},
    ]
    assert read(path)[0] == {"age": TEXT, "job": TEXT}


def test_blanks_stay_where_the_config_says_so(tmp_path):
    path = written(tmp_path, "a,b\n x , y\n")
    assert read(path, strip=False)[1] == [{"a": b" x ", "b": b" y"}]


@pytest.mark.parametrize(
    ("reading", "values", "expected"),
    [
        ({"decimal": ",", "thousands": "."}, ["1.234,5", "-7,25", "1.000.000"], (NUMBER, [1234.5, -7.25, 1e6])),
        ({"thousands": ","}, ['"1,234"', "+7", '"1,000,000"'], (WHOLE, [1234, 7, 1_000_000])),
        ({"thousands": ","}, ['"1,23"', "7", "8"], (TEXT, [b"1,23", b"7", b"8"])),
        ({"decimal": ","}, ["1,5", "2", ""], (NUMBER, [1.5, 2.0, None])),
        ({"thousands": "'"}, ["1'234.5", "2", ""], (NUMBER, [1234.5, 2.0, None])),
    ],
)
def test_numbers_are_read_as_the_config_says_they_are_written(tmp_path, reading, values, expected):
    path = written(tmp_path, "a;b\n" + "".join(f"x;{value}\n" for value in values))
    types, rows = read(path, delimiter=";", **reading)
    assert (types["b"], [row["b"] for row in rows]) == expected


def test_other_encodings_are_read_where_the_config_names_them(tmp_path):
    path = written(tmp_path, "name,ort\nJörg,Köln\n".encode("latin-1"))
    assert read(path, encoding="latin-1")[1] == [{"name": "Jörg".encode(), "ort": "Köln".encode()}]
    with pytest.raises(BrokenInput, match=r"a\.csv: line 2 is not UTF-8 .* or name its encoding by data\.encoding"):
        read(path)


def test_values_of_json_have_their_types_and_mixed_ones_are_text(tmp_path):
    path = written(
        tmp_path,
        '{"id": 1, "share": 0.5, "when": "2026-01-31T10:00:00Z", "mixed": 1, "tags": ["a", "b"], "yes": true}\n'
        '\n{"id": 2, "share": 1, "mixed": "x", "tags": [], "deep": {"er": 1}}\n',
        "a.jsonl",
    )
    types, rows = read(path)
    assert types == {
        "id": WHOLE, "share": NUMBER, "when": TEXT, "mixed": TEXT, "tags": pa.list_(TEXT), "yes": TEXT,
    }  # fmt: skip
    assert rows[0] == {
        "id": 1, "share": 0.5, "when": b"2026-01-31T10:00:00Z", "mixed": b"1", "tags": [b"a", b"b"], "yes": b"True",
    }  # fmt: skip
    assert rows[1] == {"id": 2, "share": 1.0, "when": None, "mixed": b"x", "tags": [], "yes": None}


def test_texts_are_taken_byte_for_byte(tmp_path):
    path = written(tmp_path, '{"text": " a \\n", "label": 1, "more": {"b": [1.50, true]}}\n', "a.jsonl")
    types, rows = read(path, as_text=True, strip=False)
    assert rows == [{"text": b" a \n", "label": b"1", "more": b'{"b":[1.5,true]}'}]
    assert set(types.values()) == {TEXT}
    path = written(tmp_path, "text,label\n 01 ,1.50\n")
    assert read(path, as_text=True, strip=False)[1] == [{"text": b" 01 ", "label": b"1.50"}]


def test_parquet_keeps_its_types_and_leaves_out_what_no_example_holds(tmp_path):
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "zip": pa.array(["01234", None]),
            "day": pa.array([datetime(2026, 1, 31).date(), None]),
            "tags": pa.array([["a"], None], pa.list_(pa.string())),
            "price": pa.array([1.25, None], pa.float64()),
            "struct": pa.array([{"a": 1}, None]),
            "dictionary": pa.array(["x", "y"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    types, rows = read(tmp_path / "a.parquet")
    assert types == {
        "zip": TEXT, "day": TEXT, "tags": pa.list_(TEXT), "price": NUMBER, "dictionary": TEXT,
    }  # fmt: skip
    assert rows[0] == {"zip": b"01234", "day": b"2026-01-31", "tags": [b"a"], "price": 1.25, "dictionary": b"x"}
    ingestion = Ingestion()
    (shard,) = plan_inputs({"all": str(tmp_path / "a.parquet")}, ingestion)
    assert shard_facts(shard, ingestion).left_out == {"struct": "struct<a: int64>"}


@pytest.mark.parametrize("quoted", [False, True])
def test_shards_of_any_size_hold_the_same_rows(tmp_path, quoted):
    chance = random.Random(0)
    fields = ['"a\nb, ""c"""', '"\r\n"', "plain", '"x"'] if quoted else ["plain", "1", ""]
    lines = [f"{number},{chance.choice(fields)}" for number in range(500)]
    path = written(tmp_path, "\ufeffnumber,text\n" + "\n".join(lines))
    whole = [row for shard in plan_shards([str(path)], TableReading()) for row in batch_rows(shard)]
    assert [row["number"] for row in whole] == list(range(500))
    for size in (40, 333, 2_000):
        shards = plan_shards([str(path)], TableReading(), block_bytes=size)
        assert len(shards) > 2_000 // size
        assert [row for shard in shards for row in batch_rows(shard)] == whole


def batch_rows(shard: object) -> list[dict[str, object]]:
    types = {"number": WHOLE, "text": TEXT}
    return [row for batch in shard_batches(shard, TableReading(), types) for row in batch.to_pylist()]


@pytest.mark.parametrize("text", ["a\n1\n22\n\n333\n4444", "a\n1\n22\n\n333\n4444\n", 'a\n1\n22\n\n"3"\n4444'])
def test_shards_end_behind_lines_with_and_without_quotes(tmp_path, text):
    path = tmp_path / "rows.csv"
    path.write_text(text)
    shards = plan_shards([str(path)], TableReading(), block_bytes=4)
    assert [shard.start for shard in shards] == [0, *(shard.end for shard in shards[:-1])]
    parts = [text[shard.start : shard.end] for shard in shards]
    assert "".join(parts) == text
    assert parts[:2] == ["a\n1\n", "22\n\n"]
    assert all(part.endswith("\n") for part in parts[:-1])


@pytest.mark.parametrize("blank", ["", " ", "\t", "\u00a0", "\u2003"])
def test_blanks_around_texts_are_no_part_of_them(blank):
    column = pa.array(["no part", f"{blank}Ä{blank}", blank, None, "NA"])[1:]
    assert example_column(column, TEXT, TableReading()).to_pylist() == ["Ä".encode(), None, None, b"NA"]
    plain = pa.array(["no part", f"{blank}b{blank}", "c"])[1:]
    assert example_column(plain, TEXT, TableReading()).to_pylist() == [b"b", b"c"]
    assert example_column(plain, TEXT, TableReading(missing=("c",))).to_pylist() == [b"b", None]
    as_written = example_column(plain, TEXT, TableReading(strip=False)).to_pylist()
    assert as_written == [f"{blank}b{blank}".encode(), b"c"]


def test_a_folder_a_pattern_and_several_files_are_read_in_the_order_of_their_names(tmp_path):
    for name, content in (
        ("b.csv", "a\n2\n"),
        ("a.csv", "a\n1\n"),
        ("notes.md", "no table"),
        ("c.parquet.txt", "a\n3\n"),
    ):
        written(tmp_path, content, name)
    assert [Path(file).name for file in table_files(str(tmp_path))] == ["a.csv", "b.csv", "c.parquet.txt"]
    assert [row["a"] for row in read(f"{tmp_path}/[ab].csv")[1]] == [1, 2]
    assert [row["a"] for row in read(f"{tmp_path}/b.csv\n{tmp_path}/a.csv")[1]] == [2, 1]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", "1.5,2,1.5\n", "the first line seems to be a row, for it has '1.5': .* by data.header"),
        ("a.csv", "a,b\r1,2\r", "lines from 1 on end with carriage returns alone"),
        ("a.csv.gz", gzip.compress(b"a,b\n" + b"1,2\n" * 9_999, mtime=0)[:-30], "the gzip file is damaged"),
        ("a.csv.zst", pa.compress(b"a,b\n" * 9_999, "zstd", asbytes=True)[:-10], "the compressed file is damaged"),
        ("a.parquet", b"PAR1 and no more", r"cannot be read as parquet: .*make it again"),
        ("a.tfrecord", b"no record at all, but long enough to have a header", "cannot be read as tfrecord"),
        ("a.csv", "a,b\n1,2\n3\n", "line 3 has 1 fields, the header has 2"),
        ("a.csv", 'a,b\n1,2\n"3,4\n', "the row that begins in line 3 is not valid CSV"),
        ("a.csv", "a,a\n1,2\n", "the header names the column 'a' more than once"),
        ("a.csv", "", "the file is empty"),
        ("a.jsonl", '{"a": 1}\n{"a": \n', "line 2 is not valid JSON"),
        ("a.jsonl", '{"a": 1}\n[1]\n', "line 2 holds no JSON object"),
    ],
)
def test_a_broken_file_is_one_sentence(tmp_path, name, content, sentence):
    path = written(tmp_path, content, name)
    with pytest.raises(BrokenInput, match=sentence) as stopped:
        read(path)
    assert str(path) in str(stopped.value)
    assert "\n" not in str(stopped.value)


def test_a_header_that_does_not_fit_the_file_is_named(tmp_path):
    rows, lines = written(tmp_path, "1,2\n3,4\n5\n"), written(tmp_path, '{"a": 1}', "a.jsonl")
    for path, header, sentence in (
        (rows, ["a", "b"], "line 3 has 1 fields, data.header names 2; mend the line"),
        (rows, ["a"], "line 1 has 2 fields, data.header names 1; mend the line"),
        (lines, ["a"], "data.header names columns of CSV and TSV; leave it out"),
    ):
        with pytest.raises(BrokenInput, match=sentence):
            read(path, header=header)


def test_rows_of_a_file_without_a_header_are_in_its_shards_once(tmp_path):
    path = written(tmp_path, "".join(f"{number},x\n" for number in range(1000)))
    reading = TableReading(header=("number", "x"))
    shards = plan_shards([str(path)], reading, block_bytes=500)
    batches = [batch for shard in shards for batch in shard_batches(shard, reading)]
    assert len(shards) > 5
    assert [row["number"] for batch in batches for row in batch.to_pylist()] == list(range(1000))


def test_files_that_do_not_belong_together_are_named(tmp_path):
    written(tmp_path, "a,b\n1,2\n", "one.csv")
    written(tmp_path, "a,c\n1,2\n", "two.csv")
    with pytest.raises(BrokenInput, match=r"two\.csv and .*one\.csv have different columns: .* 'b', 'c'"):
        read(tmp_path)
    (tmp_path / "two.csv").unlink()
    pd.DataFrame({"a": [1], "b": [2]}).to_parquet(tmp_path / "two.parquet")
    with pytest.raises(
        BrokenInput, match=r"two\.parquet is Parquet and .*one\.csv is CSV: expected files of one format"
    ):
        read(tmp_path)


def test_what_is_no_file_is_refused_without_being_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    for path, sentence in (
        (tmp_path / "pipe.csv", "no regular file"),
        ("/dev/zero", "no regular file"),
        (tmp_path / "none.csv", "no such file"),
        (tmp_path / "none-*.csv", "no file matches"),
    ):
        with pytest.raises(BrokenInput, match=sentence):
            read(path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/about.json").write_text("{}")  # tells of tables rather than being one
    with pytest.raises(BrokenInput, match="no table is in this folder"):
        read(tmp_path / "empty")


WHOLES = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 300)
NUMBERS = st.floats(width=32, allow_nan=False)
TEXTS = st.binary(max_size=300)
COLUMN_KINDS = {"whole": (pa.int64(), WHOLES), "number": (pa.float32(), NUMBERS), "text": (pa.binary(), TEXTS)}


def by_protobuf(batch: pa.RecordBatch) -> list[bytes]:
    written = []
    for row in batch.to_pylist():
        example = tf.train.Example()
        for field in batch.schema:
            feature = example.features.feature[field.name]
            value = row[field.name]
            kind = field.type.value_type if pa.types.is_list(field.type) else field.type
            values = value if isinstance(value, list) else [value]
            if pa.types.is_null(kind):
                continue
            of_kind = {pa.int64(): "int64_list", pa.float32(): "float_list", pa.binary(): "bytes_list"}[kind]
            chosen = getattr(feature, of_kind)
            chosen.SetInParent()
            chosen.value.extend(one for one in values if one is not None)
        written.append(example.SerializeToString(deterministic=True))
    return written


@st.composite
def batches(draw: st.DrawFn) -> pa.RecordBatch:
    rows = draw(st.integers(1, 40))
    names = draw(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=6, unique=True))
    columns = []
    for _ in names:
        arrow, values = COLUMN_KINDS[draw(st.sampled_from(sorted(COLUMN_KINDS)))]
        cells = st.none() | values
        if draw(st.booleans()):
            arrow, cells = pa.list_(arrow), st.none() | st.lists(cells, max_size=4)
        if draw(st.booleans()):  # few values, many rows
            cells = st.sampled_from(draw(st.lists(cells, min_size=1, max_size=2)))
        columns.append(pa.array(draw(st.lists(cells, min_size=rows, max_size=rows)), arrow))
    return pa.RecordBatch.from_arrays(columns, names=names)


@given(batches(), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_records_are_byte_for_byte_those_of_protobuf(batch, start):
    assert serialized_examples(batch).to_pylist() == by_protobuf(batch)
    part = batch.slice(start)
    assert serialized_examples(part).to_pylist() == by_protobuf(part)


def test_columns_of_few_values_between_others_are_byte_for_byte_those_of_protobuf():
    rows = 400
    columns = {
        "a": pa.array([number % 3 for number in range(rows)]),
        "b": pa.array([None if number % 5 == 0 else b"x" * (number % 2 * 100) for number in range(rows)], TEXT),
        "c": pa.array([None if number % 7 == 0 else 0.5 for number in range(rows)], NUMBER),
        "d": pa.array([number * 0.25 for number in range(rows)], NUMBER),
        "e": pa.array([number // 10 for number in range(rows)]),
        "f": pa.array([-1, 300] * (rows // 2)),
    }
    batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    for part in (batch, batch.slice(3), batch.slice(0, 0)):
        expected = by_protobuf(part)
        assert serialized_examples(part).to_pylist() == expected
        frames = framed_examples(part)
        assert records_of_frames(frames) == expected
        assert records_of_frames(frames.slice(5)) == expected[5:]
        put_checksums(frames, record_checksums(expected))
        assert frames.equals(framed(expected))


def test_a_column_without_any_value_is_a_feature_without_a_list():
    batch = pa.RecordBatch.from_arrays([pa.array([1, 2]), pa.nulls(2)], names=["a", "b"])
    assert serialized_examples(batch).to_pylist() == by_protobuf(batch)
    example = tf.train.Example.FromString(serialized_examples(batch)[0].as_py())
    assert example.features.feature["b"].WhichOneof("kind") is None


def test_a_name_that_begins_another_one_comes_behind_it_as_in_protobuf():
    batch = pa.RecordBatch.from_arrays([pa.array([1])] * 3, names=["thal", "thalach", "t"])
    assert serialized_examples(batch).to_pylist() == by_protobuf(batch)


def test_lengths_around_each_size_of_a_varint_are_right():
    texts = [b"x" * length for length in (0, 1, 113, 114, 115, 116, 117, 127, 128, 16_370, 16_383, 16_384, 2_100_000)]
    batch = pa.RecordBatch.from_arrays([pa.array(texts, pa.binary())], names=["text"])
    assert serialized_examples(batch).to_pylist() == by_protobuf(batch)


def test_digests_are_sha_256_of_each_record():
    found = record_digests([b"one", b""])
    assert found.tobytes() == hashlib.sha256(b"one").digest() + hashlib.sha256(b"").digest()
    assert found.shape == (2, 32)


def test_a_type_that_no_example_holds_is_refused():
    with pytest.raises((TypeError, pa.ArrowInvalid, pa.ArrowNotImplementedError)):
        serialized_examples(pa.RecordBatch.from_arrays([pa.array([True])], names=["a"]))
    assert np.array_equal(record_digests([]), np.empty((0, 32), np.uint8))
