"""What tables in files hold, read as it was written, and what is said of those that cannot be read."""

from __future__ import annotations

import gzip
import io
import json
import random
import tracemalloc
from operator import itemgetter
from pathlib import Path

import pytest

from components.errors import BrokenInput
from components.table_file import (
    RecordReader,
    TableFile,
    decompressed_lines,
    is_row,
    json_records,
    padded_rows,
)
from pipeline.scoring.inputs import Columns, Source, read_items, read_rows

HARD_TEXT = 'one\r\ntwo\nthree\tfour, "five" \u2028six\x00 \\n café 👍'


def table(folder: Path, content: str | bytes, name: str = "table.csv", **options) -> TableFile:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return TableFile(str(path), **options)


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", f"text,label\r\n{quoted(HARD_TEXT)},good\r\nplain,bad\r\n"),
        ("a.tsv", f"text\tlabel\n{quoted(HARD_TEXT)}\tgood\nplain\tbad"),
        ("a.jsonl", f"{json.dumps({'text': HARD_TEXT, 'label': 'good'})}\n\n{{'text': 'plain', 'label': 'bad'}}"),
    ],
)
@pytest.mark.parametrize("byte_order_mark", ["", "\ufeff"])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_text_comes_out_of_every_format_as_it_was_written(tmp_path, name, content, byte_order_mark, compress):
    content = content.replace("'", '"') if name.endswith("jsonl") else content
    suffix = "" if compress is bytes else ".gz"
    read = table(tmp_path, compress((byte_order_mark + content).encode()), name + suffix)
    assert read.columns() == ["text", "label"]
    assert [row.fields for row in read.rows()] == [
        {"text": HARD_TEXT, "label": "good"},
        {"text": "plain", "label": "bad"},
    ]


def test_rows_know_the_line_in_which_they_begin(tmp_path):
    read = table(tmp_path, 'text,label\n"one\ntwo",a\n\nthree,b\n')
    assert [(row.line, row.fields["text"]) for row in read.rows()] == [(2, "one\ntwo"), (5, "three")]


def test_the_config_may_say_what_the_name_does_not(tmp_path):
    assert table(tmp_path, "text\tlabel\na, b\tx\n", "data.txt", table_format="tsv").columns() == ["text", "label"]


def test_json_lines_may_leave_keys_out_and_hold_other_values_than_text(tmp_path):
    read = table(tmp_path, '{"text": "a"}\n{"text": null, "stars": 4, "sure": true, "tags": ["x", "é"]}\n', "a.jsonl")
    assert read.columns() == ["text", "stars", "sure", "tags"]
    assert [list(row.fields.values()) for row in read.rows()] == [["a", "", "", ""], ["", "4", "true", '["x","é"]']]


def test_a_text_of_a_megabyte_is_read(tmp_path):
    (row,) = table(tmp_path, "text,label\n" + "word " * 200_000 + ",x\n").rows()
    assert len(row.fields["text"]) == 1_000_000


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", "", "the file is empty; expected a header line"),
        ("a.jsonl", "\n", "the file is empty; expected a JSON object on each line"),
        ("a.csv", "text,text\na,b\n", "names the column 'text' more than once"),
        ("a.csv", "films,,,label\na,b,c,d\n", "2 of the header's 4 columns have no name; give them names"),
        ("a.csv", "text,label\na\n", "line 2 has 1 fields, the header has 2"),
        ("a.csv", "text,label\n1,a,b\n", "line 2 has 3 fields, the header has 2; .* as R writes tables, put a name"),
        ("a.csv", 'text,label\n"a,b\nc,d\n', "row that begins in line 2 is not valid CSV: unexpected end of data"),
        ("a.tsv", 'text\tlabel\na\tb\n"a" b\tc\n', "the row that begins in line 3 is not valid TSV"),
        (
            "a.csv",
            b"text,label\nfine,x\ncaf\xe9,x\n",
            r"line 3 is not UTF-8 \(byte 4 is 0xe9\); save the file as UTF-8",
        ),
        ("a.csv", b'text,label\n"one\ntw\xff",x\n', r"line 3 is not UTF-8 \(byte 3 is 0xff\)"),
        ("a.tsv", "text\tlabel\n".encode("utf-16"), "the file is in UTF-16; save the table as CSV in UTF-8"),
        (
            "a.csv",
            b"PK\x03\x04\x14\x00",
            "the file is a workbook of a spreadsheet or a zip archive; save the table as CSV",
        ),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n', r"line 2 is not UTF-8 \(byte 11 is 0xe9\)"),
        ("a.jsonl", '{"text": "a"}\n{"text": \n', "line 2 is not valid JSON"),
        ("a.json", '[{"text": "a"}, {"text": "b"}]', "line 1 holds no JSON object; .* by jq"),
        ("a.json", '[\n  {"text": "a"}\n]', "line 1 holds no JSON object; .* lines=True"),
        ("a.jsonl", '{"text": "\\ud800"}\n', "line 1 is not valid JSON"),
        ("a.jsonl", '["a"]\n', "line 1 holds no JSON object"),
        ("a.csv.gz", gzip.compress(b"text,label\n" + b"a,b\n" * 1000, mtime=0)[:-20], "the gzip file is damaged"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path, name, content, sentence):
    with pytest.raises(BrokenInput, match=sentence):
        list(table(tmp_path, content, name).rows())


@pytest.mark.parametrize(
    ("header", "is_one"),
    [
        (["age", "income"], False),
        (["", "0", "1", "2", "label"], False),  # as pandas counts
        (["country", "2023", "2024"], False),
        (["39", " State-gov", " 77516", " <=50K"], True),
        (["5.1", "3.5", "Iris-setosa"], True),
        (["-1"], True),
        (["id1", "1e", "1.2.3"], False),
    ],
)
def test_a_header_with_numbers_that_do_not_count_seems_to_be_a_row(header, is_one):
    assert bool(is_row(header)) is is_one


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(BrokenInput, match=r"/nowhere\.csv: no such file; `data\.path` in the config names"):
        TableFile("/nowhere.csv").columns()


def test_short_rows_of_a_csv_in_memory_are_filled_and_columns_without_a_name_left_out():
    header, rows = padded_rows(b'\xef\xbb\xbfa,b,\n1\n2,"x\ny",3\n')
    assert header == ["a", "b"]
    assert rows == [{"a": "1", "b": ""}, {"a": "2", "b": "x\ny"}]


def test_records_go_on_behind_a_broken_one_and_say_what_is_wrong_with_it():
    lines = iter([b"a,b\n", b"1,2\n", b"3\n", b'"4,5\n', b"6,7\n", b"8,\xff\n", b"9,10\n"])
    assert list(RecordReader(lines, ",")) == [
        (1, ["a", "b"]),
        (2, ["1", "2"]),
        (3, "1 fields, the header has 2"),
        (4, "a quote opens a field and none closes it"),
        (5, ["6", "7"]),
        (6, "not UTF-8 (byte 3 is 0xff)"),
        (7, ["9", "10"]),
    ]


def test_json_records_are_numbered_by_line_and_what_is_no_json_is_an_error_among_them():
    records = dict(json_records([b'{"a": 1}\n', b"\n", b"{\n", b"[2]\n"]))
    assert records[1] == {"a": 1} and records[4] == [2]
    assert isinstance(records[3], ValueError)
    assert 2 not in records


def test_lines_are_unzipped_and_lose_their_byte_order_mark():
    content = b"\xef\xbb\xbfa\nb\n"
    assert list(decompressed_lines(io.BytesIO(content))) == [b"a\n", b"b\n"]
    assert list(decompressed_lines(io.BytesIO(gzip.compress(content)))) == [b"a\n", b"b\n"]
    with pytest.raises(OSError, match="the gzip file is damaged"):
        list(decompressed_lines(io.BytesIO(gzip.compress(content)[:-6])))


def test_what_is_not_utf8_after_a_byte_order_mark_is_named_as_it_stands_in_the_line(tmp_path):
    with pytest.raises(BrokenInput, match=r"line 1 is not UTF-8 \(byte 4 is 0xe9\); save the file as UTF-8"):
        table(tmp_path, b"\xef\xbb\xbfcaf\xe9,label\n").columns()


FIELDS = ["a", "", " b ", '"c"', '"d,e"', '"f\ng"', '"h""i"', 'j"k', '"l"m', '"n', "o\rp", "\0", "é", '"q\r\nr"', '""']


@pytest.mark.parametrize("seed", range(60))
def test_rows_of_separated_files_are_those_of_the_csv_module_whatever_stands_in_them(tmp_path, monkeypatch, seed):
    draw = random.Random(seed)
    fields = draw.sample(FIELDS, 3) if seed % 2 else FIELDS[:3]
    content = b"x,y\n"
    for _ in range(60):
        width = draw.choice([2] * 30 + [0, 1, 3])
        content += ",".join(draw.choices(fields, k=width)).encode() + draw.choice([b"\n"] * 5 + [b"\r\n"])
        content += b"\xe9,1\n" * (draw.random() < 0.02)
    content = content.removesuffix(b"\n") if seed % 3 else content
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    monkeypatch.setattr("pipeline.scoring.inputs._BYTES", draw.choice([20, 100, 1000]))

    found: list[tuple[int, list[str] | str]] = []
    for batch in read_rows(str(path), Columns({"y": "y", "x": "x"})):
        values = zip(*(batch.columns[name].to_pylist() for name in "xy"), strict=True) if len(batch) else ()
        found += zip(batch.lines.to_pylist(), map(list, values), strict=True)
        found += [(item.line, item.reason) for item in batch.bad]

    assert (
        sorted(found, key=itemgetter(0))
        == [(line, record) for line, record in RecordReader(iter(io.BytesIO(content).readline, b""), ",") if record][1:]
    )


def test_reading_takes_no_more_memory_where_there_are_more_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.scoring.inputs._records", None)  # of the csv module, for rows that are none
    path = tmp_path / "a.csv"
    path.write_text("thal,age\n" + f"{'normal' * 100},50\n" * 30_000)
    source = Source((str(path),), Columns({"thal": "thal", "age": "age"}), "rows")

    tracemalloc.start()
    assert sum(len(batch) for batch in read_items(source)) == 30_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < path.stat().st_size / 8
