"""What tables hold: counted, and made readable for CsvExampleGen."""

import csv
import gzip
from pathlib import Path

import pytest

from components.errors import BrokenInput
from components.table_file import TableFile
from pipeline.data import check_table, plain_csv
from transform.options import LabelOptions, TextOptions

OPTIONS = TextOptions(label=LabelOptions(column="opinion"), column="review")


def written(folder: Path, content: str | bytes, name: str = "reviews.csv") -> TableFile:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return TableFile(str(path))


def rows_of(table: TableFile) -> list[list[str]]:
    with Path(table.path).open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'review,opinion\n"good, really",fresh\n,rotten\n  ,rotten\n"good, really",fresh\nbad,\n'),
        ("a.tsv", "review\topinion\ngood, really\tfresh\n\trotten\n  \trotten\ngood, really\tfresh\nbad\t\n"),
        (
            "a.jsonl",
            '{"review": "good, really", "opinion": "fresh"}\n{"review": null, "opinion": "rotten"}\n'
            '{"review": "  ", "opinion": "rotten"}\n'
            '{"opinion": "fresh", "review": "good, really"}\n{"review": "bad"}\n',
        ),
    ],
)
def test_rows_duplicates_and_empty_texts_are_counted(tmp_path, name, content):
    findings = check_table(written(tmp_path, content, name), OPTIONS)
    assert (findings.rows, findings.duplicates, findings.empty) == (5, 1, {"review": 2, "opinion": 1})
    assert str(findings) == "5 rows, 1 repeat an earlier one, 'review' is empty in 2, 'opinion' is empty in 1"


def test_a_byte_order_mark_and_line_breaks_in_fields_are_taken_out(tmp_path):
    table = written(tmp_path, '\ufeffreview,opinion\r\n"one\r\ntwo ""three""\nfour",fresh\r\nfive,rotten\r\n')
    assert check_table(table, OPTIONS).rows == 2
    plain = plain_csv(table, tmp_path / "data")
    assert rows_of(plain) == [["review", "opinion"], ['one two "three" four', "fresh"], ["five", "rotten"]]
    assert len(Path(plain.path).read_bytes().splitlines()) == 3


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", b"review\topinion\na, b\tfresh\n"),
        ("a.jsonl", b'{"review": "a, b", "opinion": "fresh"}\n'),
        ("a.csv.gz", gzip.compress(b'review,opinion\n"a, b",fresh\n', mtime=0)),
    ],
)
def test_every_format_becomes_a_plain_csv_file(tmp_path, name, content):
    plain = plain_csv(written(tmp_path, content, name), tmp_path / "data")
    assert rows_of(plain) == [["review", "opinion"], ["a, b", "fresh"]]


def test_a_file_that_needs_no_change_is_used_as_it_is(tmp_path):
    table = written(tmp_path, 'review,opinion\n"a, b",fresh\n')
    assert plain_csv(table, tmp_path / "data") is table
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("text,opinion\na,b\n", "no column 'review', which preprocessing.column in the config names"),
        ("review,label\na,b\n", "no column 'opinion', which preprocessing.label.column in the config names"),
        (b"review,opinion\nfine,fresh\ncaf\xe9,fresh\n", r"line 3 is not UTF-8 \(byte 4 is 0xe9\)"),
        ("review,opinion\n", "has a header and no rows"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_place(tmp_path, content, sentence):
    with pytest.raises(BrokenInput, match=sentence):
        check_table(written(tmp_path, content), OPTIONS)
