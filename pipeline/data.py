"""Raw data of a run: found, checked, and copied to where a pipeline can read them, before it starts."""

from __future__ import annotations

import base64
import csv
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from components.errors import BrokenInput
from components.table_file import TableFile
from pipeline.options import RunConfig
from serving.garbage_collection import garbage_collection_paused
from transform.options import TabularOptions, TextOptions

if TYPE_CHECKING:
    from serving.client.metadata import TensorDescription
import io

TableOptions = TabularOptions | TextOptions


def plain_csv(table: TableFile, folder: Path) -> TableFile:
    """A CSV file with the same rows, without a byte order mark and with a row on each line.

    CsvExampleGen reads line by line: a line break in a field would end the row. Each becomes a space.

    Args:
        table: what check_table accepts.
        folder: where a copy is made, under a name that changes with its content, if one is needed.

    Returns:
        `table` itself where nothing needs to be changed.
    """
    if table.is_plain_csv():
        return table
    with Path(table.path).open("rb") as content:
        copy = folder / hashlib.file_digest(content, "sha256").hexdigest()[:16] / "plain.csv"
    copy.parent.mkdir(parents=True, exist_ok=True)
    with copy.open("w", encoding="utf-8", newline="") as written:
        writer = csv.writer(written, lineterminator="\n")
        writer.writerow(" ".join(name.splitlines()) for name in table.columns())
        writer.writerows([" ".join(field.splitlines()) for field in row.fields.values()] for row in table.rows())
    return TableFile(str(copy))


@dataclass(frozen=True)
class TableFindings:
    """What is in a table that can be used.

    Attributes:
        rows: how many, the header apart.
        duplicates: how many of them repeat an earlier row.
        empty: column -> how many rows have nothing in it, of the columns that the config names.
    """

    rows: int
    duplicates: int
    empty: dict[str, int]

    def __str__(self) -> str:
        counts = [f"{self.rows:,} rows", *([f"{self.duplicates:,} repeat an earlier one"] if self.duplicates else [])]
        return ", ".join(counts + [f"{name!r} is empty in {count:,}" for name, count in self.empty.items() if count])


def check_table(table: TableFile, options: TableOptions) -> TableFindings:
    """Read the whole file once and compare it with what the config says of its columns.

    CsvExampleGen takes a file without a header for one with, and answers a short row with a stack trace of Beam's.

    Raises:
        BrokenInput: what TableFile says of its lines; or the file has no rows, lacks a column that the config names, or
            holds text where the config says that there are numbers.
    """
    columns = table.columns()
    _check_columns(table.path, columns, options)
    kinds = options.numeric_columns()
    empty = {name: 0 for name in columns if name in options.named_columns()}
    count, seen = 0, set()
    for row in table.rows():
        count += 1
        seen.add(hash(tuple(row.fields.values())))
        for name in empty:
            empty[name] += not row.fields[name].strip()
        for name in kinds:
            if row.fields[name].strip() and not _is_number(row.fields[name]):
                raise BrokenInput(
                    f"{table.path}: line {row.line}: column {name!r} is {row.fields[name]!r}, expected a number "
                    f"(preprocessing.columns.{name} in the config is {kinds[name]}); "
                    "mend the value, or call the column categorical"
                )
    if not count:
        raise BrokenInput(f"{table.path}: the file has a header and no rows; expected at least one row for each class")
    return TableFindings(rows=count, duplicates=count - len(seen), empty=empty)


def _check_columns(path: str, columns: Sequence[str], options: TableOptions) -> None:
    for name, key in options.named_columns().items():
        if name not in columns:
            raise BrokenInput(
                f"{path}: there is no column {name!r}, which preprocessing.{key} in the config names; "
                f"the columns are {', '.join(map(repr, columns))}"
            )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class StagedFile:
    """A file, or a folder with everything in it, and where the cluster finds it.

    Attributes:
        local: where it is here.
        remote: where the compiled pipeline says it is; the name changes with the content.
    """

    local: str
    remote: str

    def copy(self) -> None:
        """Copy it where it is not there yet.

        Raises:
            BrokenInput: the place cannot be written to.
        """
        import tensorflow as tf
        from tfx.dsl.io import fileio

        try:
            for local, remote in self._files():
                if not fileio.exists(remote):
                    fileio.makedirs(remote.rpartition("/")[0])
                    # Under its name only when it is whole: another run takes what is there.
                    fileio.copy(local, f"{remote}.part", overwrite=True)
                    fileio.rename(f"{remote}.part", remote, overwrite=True)
        except (OSError, tf.errors.OpError) as error:
            raise BrokenInput(
                f"{self.remote}: {self.local} cannot be copied there: {str(error).splitlines()[0]}; "
                "cluster.pipeline_root in the config says where data go"
            ) from error

    def _files(self) -> list[tuple[str, str]]:
        from tfx.dsl.io import fileio

        if not fileio.isdir(self.local):
            return [(self.local, self.remote)]
        found = []
        for folder, _, names in fileio.walk(self.local):
            below = folder.removeprefix(self.local).strip("/")
            found += [(f"{folder}/{name}", "/".join(filter(None, [self.remote, below, name]))) for name in names]
        return found


@dataclass(frozen=True)
class RawData:
    """Data that an ExampleGen can read.

    Attributes:
        path: of a table's file, or of what components.image_example_gen.image_files takes.
        findings: what is in it, for a person.
        fingerprint: of photos, see components.image_example_gen.image_files; "" for tables, which TFX looks at.
    """

    path: str
    findings: str
    fingerprint: str = ""


def table_data(config: RunConfig, path: str, folder: Path) -> RawData:
    """A table, checked, as CsvExampleGen can read it.

    Args:
        config: of the run.
        path: of the file.
        folder: where a copy is made, if the ExampleGen cannot read the file as it is.

    Raises:
        BrokenInput: it cannot be used; the message says where and why. Likewise the next two.
    """
    table = TableFile(path, config.data.format)
    findings = str(check_table(table, cast(TableOptions, config.preprocessing)))
    return RawData(plain_csv(table, folder).path, findings)


def text_data(config: RunConfig, path: str, folder: Path) -> RawData:
    """A table with a column of texts, checked; TextExampleGen reads it as it is."""
    table = TableFile(path, config.data.format)
    return RawData(table.path, str(check_table(table, cast(TableOptions, config.preprocessing))))


def image_data(config: RunConfig, path: str, folder: Path) -> RawData:
    """Image files, listed and fingerprinted; ImageExampleGen reads them where they are."""
    with garbage_collection_paused():
        from components.image_example_gen.image_files import input_fingerprint, list_images

    photos = list_images(path)
    classes = {photo.label for photo in photos}
    return RawData(path, f"{len(photos):,} photos of {_counted(sorted(classes))}", input_fingerprint(path))


def _counted(classes: Sequence[str]) -> str:
    return f"1 class, {classes[0]!r}" if len(classes) == 1 else f"{len(classes):,} classes"


@dataclass(frozen=True)
class SampleRequest:
    """One example of a run's data, as it is sent and as a person reads it.

    Attributes:
        rest: input -> values, for REST.
        grpc: the same for gRPC.
        shown: input -> value, for people.
        arguments: of `ingraph predict`.
    """

    rest: Mapping[str, Sequence[Any]]
    grpc: Mapping[str, Sequence[Any]]
    shown: Mapping[str, str]
    arguments: Sequence[str]


def sample_row(config: RunConfig, data: str, inputs: Mapping[str, TensorDescription]) -> SampleRequest:
    """The first row of a table, as a request.

    Args:
        config: of the run that published the model.
        data: the path of RawData.
        inputs: of the served signature.
    """
    from serving.client.table_columns import table_columns

    table = TableFile(data, config.data.format)
    row = next(table.rows()).fields
    row |= {name: row[column] for name, column in config.preprocessing.renamed_inputs().items()}
    columns = table_columns([row], inputs, table.path)
    shown = {column: row[column] for column in inputs}
    return SampleRequest(columns, columns, shown, [f"{name}={value}" for name, value in shown.items()])


def sample_image(config: RunConfig, data: str, inputs: Mapping[str, TensorDescription]) -> SampleRequest:
    """The first image file, as a request; see sample_row."""
    from components.image_example_gen.image_files import list_images

    file = list_images(data)[0].file
    content = Path(file).read_bytes()
    return SampleRequest(
        rest={"image": [base64.urlsafe_b64encode(content).decode()]},
        grpc={"image": [content]},
        shown={"image": file},
        arguments=[file],
    )


IMAGE_MEASURES = ("bytes", "format", "width", "height")


def image_measures(file: bytes) -> dict[str, int | bytes]:
    """IMAGE_MEASURES of an encoded photo, of which only the head is read; nothing of what is none."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(file)) as photo:
            values = (len(file), str(photo.format).encode(), photo.width, photo.height)
            return dict(zip(IMAGE_MEASURES, values, strict=True))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError):
        return {}


TEXT_MEASURES = ("characters", "words")


@dataclass(frozen=True)
class Measures:
    """What is measured of an input of which hardly a value comes twice, so that it has a distribution.

    Attributes:
        inputs: names of the input in requests, besides that of its feature.
        feature: config -> the feature of the training data that holds it.
        columns: names of what is measured.
        measure: values of the input -> what is measured of each, by column; nothing of what cannot be read.
    """

    inputs: Sequence[str]
    feature: Callable[[RunConfig], str]
    columns: Sequence[str]
    measure: Callable[[Sequence[bytes]], list[dict[str, int | float | bytes]]]


def measure_texts(texts: Sequence[bytes]) -> list[dict[str, int | float | bytes]]:
    """TEXT_MEASURES of each text in UTF-8."""
    decoded = [text.decode("utf-8", "replace") for text in texts]
    return [dict(zip(TEXT_MEASURES, (len(text), len(text.split())), strict=True)) for text in decoded]


def measure_images(images: Sequence[bytes]) -> list[dict[str, int | float | bytes]]:
    """IMAGE_MEASURES of each image, sent as a file or as its base64 text."""
    import tensorflow as tf

    from serving.signatures.image import image_files

    files: Sequence[bytes] = image_files(tf.constant(list(images), tf.string)).numpy()
    return [{**image_measures(file)} for file in files]
