"""Truth that comes later: labels joined with what was answered, and how good the answers were."""

from __future__ import annotations

import itertools
import multiprocessing
import os
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from components.errors import BrokenInput
from components.replay_gate.replay import some_labels, value_text
from components.request_logs import PHOTO_KEY, AnswerReader, PredictionLogs, Row, find_logs, version_of
from components.run_report.statistics import (
    Calibration,
    LiveFigure,
    LiveFigures,
    find_fall,
    live_calibration,
    live_figure,
)
from components.table_file import column_batches, find_files
from pipeline.options import RunConfig
from pipeline.run import model_base_path, runs_folder
from serving.answers import UnknownRule
from serving.client.metadata import IMAGE_INPUTS
from serving.missing_values import MISSING_FLOAT, MISSING_INTEGER
from serving.model_store import ModelStoreError, list_versions, served_version, withdraw
from serving.signatures.common import read_labels

_SEPARATOR = "\x1f"
_LABEL_FILES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")


# The float32 next to it is a little smaller.
_FAR_OUT = -MISSING_FLOAT * (1 - 1e-6)


@lru_cache(100_000)
def key_text(value: str | bytes | int | float | None) -> str:
    """A value as keys have it: the same for a number, the float32 that it was sent as, and its text in a file.

    "" stands for a missing one.
    """
    if value is None:
        return ""
    if isinstance(value, bytes | str):
        text = (value.decode("utf-8", "replace") if isinstance(value, bytes) else value).strip()
        try:
            value = int(text)
        except ValueError:
            try:
                value = float(text)
            except ValueError:
                return text
    if value != value or value == MISSING_INTEGER or abs(value) >= _FAR_OUT:  # NaN is not itself
        return ""
    return value_text(value)


@dataclass(frozen=True)
class LateLabels:
    """Labels by key.

    Attributes:
        columns: what the key is made of.
        numbers: key -> the number of the row, in the order in which labels came.
        labels: of each row, the name that people read.
        raw: of each row, as it stands in the training data.
        twice: how many rows give another label to a key that has one; the last one counts.
    """

    columns: tuple[str, ...]
    numbers: Mapping[str, int]
    labels: Sequence[str]
    raw: Sequence[str]
    twice: int


def read_labels_file(
    places: Sequence[str],
    label: str,
    names: Mapping[str, str],
    known: Sequence[str],
    key: Sequence[str],
    answers: Collection[str] = (),
) -> LateLabels:
    """Read files of late labels, in CSV, TSV or Parquet.

    Args:
        places: files, folders or patterns; their order is that in which the labels came.
        label: the column of the labels.
        names: what to call a raw value.
        known: the features that requests hold.
        key: the columns that a row is known by; () for all of `known` that the first file has.
        answers: labels that people read and models answer.

    Raises:
        BrokenInput: a file cannot be read, lacks a column or has it twice; or there is no label.
    """
    numbers: dict[str, int] = {}
    labels: list[str] = []
    raw: list[str] = []
    columns = tuple(key)
    twice = 0
    said: dict[str, tuple[str, str]] = {}  # a value of the file -> as people read it, and as data have it
    for file in (file for place in places for file in find_files(place, _LABEL_FILES)):
        for batch in column_batches(file, "labels"):
            if not columns:
                columns = tuple(name for name in known if name in batch.schema.names and name != label)
            missing = [name for name in (*columns, label) if name not in batch.schema.names]
            if missing or not columns:
                raise BrokenInput(
                    f"{file}: expected a column {missing[0] if missing else 'that requests hold, or --key'!r}, found "
                    f"{', '.join(batch.schema.names)}; --key names the columns that a row is known by, the config the "
                    "label's"
                )
            doubled = [name for name in (*columns, label) if batch.schema.names.count(name) > 1]
            if doubled:
                raise BrokenInput(
                    f"{file}: the column {doubled[0]!r} is there twice; expected it once, remove the other"
                )
            keys = pc.binary_join_element_wise(*(_texts(batch, name) for name in columns), _SEPARATOR).to_pylist()
            truths = _column(batch, label).to_pylist()
            for key_, truth in zip(keys, truths, strict=True):
                if not truth or truth.isspace():
                    continue
                if truth not in said:
                    said[truth] = _label_of(truth, names, answers)
                read, value = said[truth]
                number = numbers.setdefault(key_, len(labels))
                if number == len(labels):
                    labels.append(read)
                    raw.append(value)
                elif raw[number] != value:
                    twice += 1
                    labels[number], raw[number] = read, value
    if not labels:
        raise BrokenInput(f"{', '.join(places)}: no row has a label in the column {label!r}; expected some")
    return LateLabels(columns, numbers, labels, raw, twice)


def _label_of(text: str, names: Mapping[str, str], answers: Collection[str]) -> tuple[str, str]:
    """A label as people read it, and as the training data have it: " 1.0" is 1, if there is no label of that name."""
    known = (one for one in (text, text.strip(), key_text(text)) if one in names or one in answers)
    value = next(known, text)
    return names.get(value, value), value


def _key(parts: Sequence[Any]) -> str:
    return _SEPARATOR.join(map(key_text, parts))


def _column(batch: pa.RecordBatch, name: str) -> pa.StringArray:
    return batch.column(batch.schema.names.index(name)).cast(pa.string())


def _texts(batch: pa.RecordBatch, name: str) -> pa.StringArray:
    """A column as keys have it."""
    encoded = _column(batch, name).dictionary_encode(null_encoding="encode")
    return pa.array([key_text(value) for value in encoded.dictionary.to_pylist()], pa.string()).take(encoded.indices)


# With more labels than that, probabilities would take more memory than they tell.
_MOST_LABELS = 20


@dataclass
class _Joined:
    """Columns of joined rows."""

    number: array[int] = field(default_factory=lambda: array("q"))
    version: array[int] = field(default_factory=lambda: array("q"))
    day: array[int] = field(default_factory=lambda: array("i"))
    truth: array[int] = field(default_factory=lambda: array("i"))
    right: array[int] = field(default_factory=lambda: array("b"))
    probabilities: array[float] = field(default_factory=lambda: array("f"))
    slices: list[array[int]] = field(default_factory=list)


@dataclass(frozen=True)
class Truth:
    """What came of it.

    Attributes:
        served: the version that is served now, or the newest that has labels.
        figures: of each version, of its days, and of its slices.
        calibration: of the served version; None where no answer of it holds probabilities.
        joined: how many answered rows have a label.
        pending: how many have none yet.
        unused: labels of which no answer is logged.
        twice: see LateLabels.
        failed: joined rows that were answered with no label, and so are in no figure.
        unknown: joined rows that were answered with the label for unknown; likewise.
        strange: labels that no published version knows -> how many joined rows have them; they were answered wrongly.
        left_out: what could not be read, in words.
        fell_after: of find_fall, for the served version; None for no fall, or where no bound was asked for.
        key: the columns that rows were known by.
    """

    served: int
    figures: list[LiveFigure]
    calibration: Calibration | None
    joined: int
    pending: int
    unused: int
    twice: int
    failed: int
    unknown: int
    strange: Counter[str]
    left_out: list[str]
    fell_after: int | None
    key: tuple[str, ...]

    def live(self, bound: float | None) -> LiveFigures:
        """What reports show of it, with the verdict on a bound."""
        said = "" if bound is None else self.verdict(bound)
        return LiveFigures(
            found_at=datetime.now(UTC).isoformat(sep=" ", timespec="seconds"),
            served=self.served,
            figures=tuple(self.figures),
            calibration=self.calibration,
            verdict=said and (f"No fall {said}." if self.fell_after is None else f"{said[0].upper()}{said[1:]}."),
        )

    def verdict(self, bound: float) -> str:
        """Whether the served version fell below a bound, in words."""
        if self.fell_after is None:
            return f"of version {self.served} below {bound:g} is known"
        return f"version {self.served} is right less often than {bound:g}: known after {self.fell_after:,} rows"


@dataclass(frozen=True)
class _Published:
    """What the model base path says: the served version, labels by version, and each one's label for unknown.

    Likewise which features are asked, and the feature behind each input of another name.
    """

    served: int
    vocabularies: Mapping[int, list[str]]
    unknown: Mapping[int, str]
    inputs: list[str]
    feature_of_input: Mapping[str, str]


def _published(config: RunConfig, workdir: str) -> _Published:
    from components.serving_check.candidate import read_signatures
    from serving.signatures.common import SERVING_DEFAULT

    base_path = model_base_path(config, workdir)
    try:
        versions, served = list_versions(base_path), served_version(base_path)
    except ModelStoreError as error:
        raise BrokenInput(str(error)) from error
    if served is None:
        raise BrokenInput(f"{base_path}: no published version there; `ingraph run` publishes one")
    vocabularies, unknown = {}, {}
    for version in versions:
        try:
            vocabularies[version.number] = read_labels(version.path)
        except tf.errors.NotFoundError:
            continue
        rule = UnknownRule.of(version.provenance)
        if rule is not None:
            unknown[version.number] = rule.label
    signature = read_signatures(served.path).get(SERVING_DEFAULT)
    feature_of_input = config.preprocessing.renamed_inputs()
    if feature_of_input.keys() & set(IMAGE_INPUTS):
        feature_of_input = dict.fromkeys(IMAGE_INPUTS, PHOTO_KEY)
    inputs = sorted(feature_of_input.get(name, name) for name in signature.inputs) if signature is not None else []
    return _Published(served.number, vocabularies, unknown, inputs, feature_of_input)


def join_truth(
    config: RunConfig,
    workdir: str,
    logs: Sequence[str],
    labels: Sequence[str],
    key: Sequence[str] = (),
    fail_below: float | None = None,
    write_row: Callable[[Mapping[str, Any], str], None] | None = None,
) -> Truth:
    """Join late labels with logged answers; the logs are read once, as a stream, the labels are in memory.

    Args:
        config: of the model.
        workdir: what relative `models` of the config is relative to.
        logs: places of PredictionLogs.
        labels: places of files of labels, see read_labels_file.
        key: likewise.
        fail_below: the accuracy that the served version should have.
        write_row: told of each joined row, once for each label: its features, and the label as training data have it.

    Raises:
        BrokenInput: nothing is published, or nothing can be joined.
    """
    published = _published(config, workdir)
    label = config.preprocessing.label
    answers = set(itertools.chain.from_iterable(published.vocabularies.values()))
    late = read_labels_file(labels, label.column, label.names, published.inputs, key, answers)
    slices = [one.columns for one in config.evaluation.slices]
    wanted = None if write_row else {*late.columns, *itertools.chain.from_iterable(slices)}
    features = None if wanted is None else sorted(wanted)
    reader = AnswerReader(features, published.feature_of_input, published.vocabularies)
    read = _Reading(config.name, find_logs(logs), reader, _Joining(published, late, slices, write_row))
    joining, left_out = read.alone() if write_row else read.side_by_side()
    if not joining.rows:
        raise BrokenInput(
            f"{', '.join(logs)}: no answer of the model {config.name!r} is logged there{_beside(left_out)}; expected "
            "logs of `ingraph serve --request-log`, in which it has this name"
        )
    return joining.finish(left_out, fail_below)


@dataclass
class _Reading:
    """Reads logs and joins their rows."""

    model: str
    files: list[str]
    reader: AnswerReader
    joining: _Joining

    def alone(self) -> tuple[_Joining, list[str]]:
        """What was joined, and what was left out."""
        logs = PredictionLogs(self.files, self.model)
        refused: Counter[str] = Counter()
        for log in logs.logs():
            version = version_of(log)
            try:
                rows = self.reader.rows(log, version)
            except ValueError as error:
                refused[str(error)] += 1
                continue
            self.joining.add(rows, version, log.log_metadata.timestamp_secs // 86400)
        left_out = [f"{count:,} request{'s' * (count != 1)}: {said}" for said, count in refused.most_common(20)]
        return self.joining, logs.passed_over() + left_out

    def side_by_side(self) -> tuple[_Joining, list[str]]:
        """The same, by as many processes as there are processors: forks, which have the labels without a copy."""
        count = min(len(os.sched_getaffinity(0)), len(self.files))
        if count < 2:
            return self.alone()
        # One process may come to more than one share: each joins on its own.
        shares = [replace(self, files=self.files[place::count], joining=self.joining.empty()) for place in range(count)]
        with ProcessPoolExecutor(count, multiprocessing.get_context("fork"), _be, (shares,)) as processes:
            found = list(processes.map(_share, range(count)))
        for rows, _ in found:
            self.joining.take(rows)
        return self.joining, [said for _, left_out in found for said in left_out]


_shares: list[_Reading] = []


def _be(shares: list[_Reading]) -> None:
    _shares[:] = shares


def _share(place: int) -> tuple[_Part, list[str]]:
    joining, left_out = _shares[place].alone()
    return joining.part(), left_out


class _Part(NamedTuple):
    """What one process has joined."""

    rows: _Joined
    slice_names: dict[tuple[int, str], int]
    used: bytearray
    counts: list[int]


class _Joining:
    """Joins rows with labels, and works out what came of it."""

    def __init__(
        self,
        published: _Published,
        late: LateLabels,
        slices: Sequence[Sequence[str]],
        write_row: Callable[[Mapping[str, Any], str], None] | None,
    ) -> None:
        self._published, self._late, self._slices, self._write_row = published, late, slices, write_row
        every_label = itertools.chain(
            published.vocabularies.get(published.served, ()), *published.vocabularies.values()
        )
        self._classes = {one: place for place, one in enumerate(dict.fromkeys(every_label))}
        self._width = len(self._classes) if len(self._classes) <= _MOST_LABELS else 0
        self._nothing = [float("nan")] * self._width
        self._truths = [self._classes.get(one, -1) for one in late.labels]
        self._rows = _Joined(slices=[array("i") for _ in slices])
        self._slice_names: dict[tuple[int, str], int] = {}
        self._used = bytearray(len(late.labels))
        self._pending = self._failed = self._unknown = 0

    @property
    def rows(self) -> int:
        """How many answered rows there were, with a label or without."""
        return len(self._rows.number) + self._pending + self._failed + self._unknown

    def add(self, rows: Sequence[Row], version: int, day: int) -> None:
        columns, joined, classes = self._late.columns, self._rows, self._classes
        for row in rows:
            features = row.features
            number = self._late.numbers.get(_key([features.get(column) for column in columns]))
            if number is None:
                self._pending += 1
                continue
            if self._write_row is not None and not self._used[number]:
                self._write_row(features, self._late.raw[number])
            self._used[number] = 1
            if not row.answered:
                self._failed += 1
                continue
            if row.answered == self._published.unknown.get(version):
                self._unknown += 1
                continue
            joined.number.append(number)
            joined.version.append(version)
            joined.day.append(day)
            joined.truth.append(self._truths[number])
            joined.right.append(row.answered == self._late.labels[number])
            if self._width:
                values = self._nothing.copy()
                if row.probabilities is not None:
                    values = [0.0] * self._width
                    for name, probability in zip(row.labels, row.probabilities, strict=True):
                        values[classes.get(name, 0)] = probability
                joined.probabilities.extend(values)
            for place, names in enumerate(self._slices):
                joined.slices[place].append(self._slice(place, names, features))

    def _slice(self, place: int, names: Sequence[str], features: Mapping[str, Any]) -> int:
        texts = [key_text(features.get(name)) for name in names]
        if "" in texts:
            return -1
        name = ", ".join(f"{column} = {text}" for column, text in zip(names, texts, strict=True))
        return self._slice_names.setdefault((place, name), len(self._slice_names))

    def empty(self) -> _Joining:
        """Another for the same labels, which has joined nothing."""
        return _Joining(self._published, self._late, self._slices, self._write_row)

    def part(self) -> _Part:
        """What was joined here."""
        return _Part(self._rows, self._slice_names, self._used, [self._pending, self._failed, self._unknown])

    def take(self, part: _Part) -> None:
        """Add what was joined elsewhere."""
        places = [self._slice_names.setdefault(name, len(self._slice_names)) for name in part.slice_names]
        for name in ("number", "version", "day", "truth", "right", "probabilities"):
            getattr(self._rows, name).extend(getattr(part.rows, name))
        for mine, theirs in zip(self._rows.slices, part.rows.slices, strict=True):
            mine.extend(array("i", [places[place] if place >= 0 else -1 for place in theirs]))
        self._used = bytearray(np.maximum(np.frombuffer(self._used, np.uint8), np.frombuffer(part.used, np.uint8)))
        pending, failed, unknown = part.counts
        self._pending, self._failed, self._unknown = (
            self._pending + pending,
            self._failed + failed,
            self._unknown + unknown,
        )

    def finish(self, left_out: list[str], fail_below: float | None) -> Truth:
        joined = self._rows
        if not joined.number:
            said, labelled = _beside(left_out), self.rows - self._pending
            raise BrokenInput(
                f"all {labelled:,} rows that have a label were answered with none that counts{said}; expected labels"
                if labelled
                else f"none of {self._pending:,} answered rows has one of {len(self._late.labels):,} labels by "
                f"{', '.join(self._late.columns)}{said}; --key names the columns by which rows are known"
            )
        # In the order in which labels came: a look at more of them sees the same ones first.
        order = np.argsort(np.frombuffer(joined.number, np.int64), kind="stable")
        version = np.frombuffer(joined.version, np.int64)[order]
        day = np.frombuffer(joined.day, np.int32)[order]
        truth = np.frombuffer(joined.truth, np.int32).astype(np.int64)[order]
        right = np.frombuffer(joined.right, np.int8)[order].astype(bool)
        numbers = np.frombuffer(joined.number, np.int64)[order][(truth < 0) & ~right]
        strange = Counter(self._late.labels[number] for number in numbers.tolist()) if self._classes else Counter()
        if strange.total() == len(order):
            raise BrokenInput(
                f"none of {len(order):,} joined labels is one that the model knows: found {some_labels(strange)}, "
                f"expected {some_labels(self._classes)}; preprocessing.label.names in the config says what a value is "
                "called"
            )
        width = max(self._width, 1)
        probabilities = np.full((len(order), width), np.nan, np.float32)
        if self._width:
            probabilities = np.frombuffer(joined.probabilities, np.float32).reshape(-1, width)[order]
        versions = np.unique(version).tolist()
        served = self._published.served if self._published.served in versions else versions[-1]

        def figure(number: int, of_day: str, name: str, rows: np.ndarray) -> LiveFigure:
            return live_figure(number, of_day, name, right[rows], truth[rows], probabilities[rows])

        figures = []
        for number in versions:
            mine = np.flatnonzero(version == number)
            figures.append(figure(number, "", "", mine))
            figures += [figure(number, _day(one), "", mine[day[mine] == one]) for one in np.unique(day[mine]).tolist()]
            for place, names in enumerate(joined.slices):
                of_rows = np.frombuffer(names, np.int32)[order][mine]
                named = {id_: name for (where, name), id_ in self._slice_names.items() if where == place}
                figures += [
                    figure(number, "", named[one], mine[of_rows == one])
                    for one in np.unique(of_rows).tolist()
                    if one >= 0
                ]
        mine = version == served
        return Truth(
            served=served,
            figures=figures,
            calibration=live_calibration(truth[mine], probabilities[mine]),
            joined=len(order),
            pending=self._pending,
            unused=len(self._used) - sum(self._used),
            twice=self._late.twice,
            failed=self._failed,
            unknown=self._unknown,
            strange=strange,
            left_out=left_out,
            fell_after=None if fail_below is None else find_fall(right[mine], fail_below),
            key=self._late.columns,
        )


def _beside(left_out: Sequence[str]) -> str:
    return f"; left out: {'; '.join(left_out)}" if left_out else ""


def _day(number: int) -> str:
    return f"{datetime.fromtimestamp(number * 86400, UTC):%Y-%m-%d}" if number > 0 else "unknown"


def retrains(config: RunConfig, workdir: str) -> tuple[bool, str]:
    """Whether `ingraph retrain` has to do anything, by the late labels that the config names, and why in words.

    Withdraws a version that fell, where the config says so.

    Args:
        config: with evaluation.truth.when_below.
        workdir: what relative `runs` and `models` of the config are relative to.

    Raises:
        BrokenInput: nothing can be joined, or the version cannot be withdrawn.
    """
    options = config.evaluation.truth
    assert options is not None and options.at_least is not None
    found = join_truth(config, workdir, options.logs, options.labels, options.key, options.at_least)
    found.live(options.at_least).keep(runs_folder(config, workdir))
    said = found.verdict(options.at_least)
    if found.fell_after is None:
        return options.when_below == "withdraw", f"no fall {said}"
    if options.when_below == "retrain":
        return True, said
    base_path = model_base_path(config, workdir)
    try:
        if sum(not version.withdrawn for version in list_versions(base_path)) < 2:
            return True, f"{said}; it stays, since no other one is there to be served"
        withdraw(base_path, found.served, f"in the field {said}")
    except ModelStoreError as error:
        raise BrokenInput(str(error)) from error
    return True, f"{said}; it is withdrawn"
