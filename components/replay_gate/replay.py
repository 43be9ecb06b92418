"""Replay: logged requests, read as a stream, answered by two models; where they differ, and how long they take."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from scipy import stats

from components.evaluator.options import ReplayOptions
from components.replay_gate.replayed_model import (
    EXAMPLES,
    NO_LABEL,
    Answers,
    LoggedRequest,
    ReplayedModel,
    logged_request,
    merged,
)
from components.request_logs import PredictionLogs
from serving.client.tensors import data_type_of
from serving.server.errors import ServingError
from serving.signatures.common import is_missing
from trainers.roc import wilson_interval

# Requests of one kind are run together up to so many rows, and wait up to so many bytes.
BATCH_ROWS = 256
BATCH_BYTES = 32 * 2**20
SHOWN_EXAMPLES = 3
# What of a log that is unlike others takes memory: kinds of changes, slices and reasons.
MOST_KINDS = 10_000
OTHERS = "(others)"


@dataclass
class Side:
    """How long requests take, as they were logged, one after the other.

    Attributes:
        p50: the median, in milliseconds. Likewise p99, the 99th percentile.
    """

    p50: float
    p99: float


@dataclass
class Latency:
    """Both models on the same requests, in turns.

    Attributes:
        requests: how many.
        served: the served model's.
        candidate: the other one's.
        ratio: of the medians, and the 95 % interval of that by 1,000 bootstrap resamples of the requests.
    """

    requests: int
    served: Side
    candidate: Side
    ratio: tuple[float, float, float]


@dataclass
class Change:
    """A kind of difference, and where it was seen first.

    Attributes:
        before: the label, or the reason why there was none.
        after: likewise.
        rows: how many.
        examples: some of them, input -> value for people.
    """

    before: str
    after: str
    rows: int = 0
    examples: list[dict[str, str]] = field(default_factory=list)


@dataclass
class SliceChange:
    """The rows of a slice.

    Attributes:
        name: "sex = male, cp = 2".
        rows: how many.
        changed: how many of them have another label, or none any more.
    """

    name: str
    rows: int = 0
    changed: int = 0

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """That of the share, after Wilson."""
        return wilson_interval(self.changed / self.rows, self.rows, confidence) if self.rows else (0.0, 1.0)


@dataclass
class Replay:
    """What came of it.

    Attributes:
        requests: how many were replayed.
        signatures: rows by the signature that they asked.
        whole: all rows.
        labels: kinds of changed labels, the most frequent first.
        newly_failing: rows that had a label and have none any more, by the reason. `before` is the label of the first.
        newly_answered: rows that have a label, and had none.
        failing: rows that have none from either model.
        slices: of the columns that the config names, the largest share of changed rows first.
        latency: None where nothing was measured.
        left_out: what could not be replayed, in words.
        other_labels: which labels only one of the models knows, in words; "" where they know the same.
        seconds: when the first and the last request were logged, since 1970.
    """

    requests: int = 0
    signatures: dict[str, int] = field(default_factory=dict)
    whole: SliceChange = field(default_factory=lambda: SliceChange("all rows"))
    labels: list[Change] = field(default_factory=list)
    newly_failing: list[Change] = field(default_factory=list)
    newly_answered: int = 0
    failing: int = 0
    slices: list[SliceChange] = field(default_factory=list)
    latency: Latency | None = None
    left_out: list[str] = field(default_factory=list)
    other_labels: str = ""
    seconds: tuple[int, int] | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> Replay:
        """What as_json has returned."""
        latency = content["latency"]
        made = {
            "whole": SliceChange(**content["whole"]),
            "labels": [Change(**one) for one in content["labels"]],
            "newly_failing": [Change(**one) for one in content["newly_failing"]],
            "slices": [SliceChange(**one) for one in content["slices"]],
            "latency": latency
            and Latency(
                latency["requests"], Side(**latency["served"]), Side(**latency["candidate"]), tuple(latency["ratio"])
            ),
        }
        return cls(**{**content, **made})


class _Counting:
    """Adds rows up, one batch after the other."""

    def __init__(self, slices: Sequence[Sequence[str]], feature_of_input: Mapping[str, str]) -> None:
        self._slices = [tuple(columns) for columns in slices]
        self._feature_of_input = feature_of_input
        self._labels: dict[tuple[str, str], Change] = {}
        self._failing: dict[str, Change] = {}
        self._of_slices: dict[str, SliceChange] = {}
        self._signatures: Counter[str] = Counter()
        self._lacking: Counter[str] = Counter()
        self.replay = Replay()

    def add(self, requests: Sequence[LoggedRequest], before: Answers, after: Answers) -> None:
        request = merged(requests)
        changed = before.labels != after.labels
        had, has = before.labels != NO_LABEL, after.labels != NO_LABEL
        lost = changed & ~has
        replay = self.replay
        replay.requests += len(requests)
        replay.whole.rows += request.rows
        counted = changed & had  # a label that there was not before takes none away
        replay.whole.changed += int(counted.sum())
        replay.newly_answered += int((has & ~had).sum())
        replay.failing += int((~has & ~had).sum())
        self._signatures[request.signature or "Classify"] += request.rows
        for row in np.flatnonzero(changed & had & has).tolist():
            was, now = before.labels[row], after.labels[row]
            _count(self._labels, (was, now), request, row, was, now)
        for row in np.flatnonzero(lost).tolist():
            reason = after.reasons[row]
            _count(self._failing, reason, request, row, before.labels[row], reason)
        if self._slices:
            self._add_slices(request, counted)

    def _add_slices(self, request: LoggedRequest, changed: np.ndarray) -> None:
        wanted = {column for columns in self._slices for column in columns}
        values = _features(request, wanted, self._feature_of_input)
        for columns in self._slices:
            lacking = [column for column in columns if column not in values]
            if lacking:
                self._lacking[lacking[0]] += request.rows
                continue
            for row, combination in enumerate(zip(*(values[column] for column in columns), strict=True)):
                if None in combination:
                    continue
                name = ", ".join(f"{column} = {value}" for column, value in zip(columns, combination, strict=True))
                if name not in self._of_slices and len(self._of_slices) >= MOST_KINDS:
                    name = OTHERS
                one = self._of_slices.setdefault(name, SliceChange(name))
                one.rows += 1
                one.changed += int(changed[row])

    def finish(self, left_out: Iterable[str]) -> Replay:
        replay = self.replay
        replay.signatures = dict(self._signatures)
        replay.labels = sorted(self._labels.values(), key=lambda change: -change.rows)
        replay.newly_failing = sorted(self._failing.values(), key=lambda change: -change.rows)
        replay.slices = sorted(self._of_slices.values(), key=lambda one: (-one.interval()[0], one.name))
        replay.left_out = [
            *left_out,
            *(f"slices by {column}: {rows:,} rows do not hold it" for column, rows in self._lacking.items()),
        ]
        return replay


def _count(kinds: dict[Any, Change], kind: Any, request: LoggedRequest, row: int, before: str, after: str) -> None:
    if kind not in kinds and len(kinds) >= MOST_KINDS:
        kind, before, after = OTHERS, OTHERS, OTHERS
    change = kinds.setdefault(kind, Change(before, after))
    change.rows += 1
    if len(change.examples) < SHOWN_EXAMPLES:
        change.examples.append({name: _shown(values) for name, values in _row(request, row).items()})


LONGEST_SHOWN = 80


def _row(request: LoggedRequest, row: int) -> dict[str, Any]:
    if set(request.inputs) != {EXAMPLES}:
        return {name: values[row] for name, values in request.inputs.items()}
    return {
        name: _first(feature)
        for name, feature in sorted(_parsed(request.inputs[EXAMPLES][row]).features.feature.items())
    }


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        try:
            text = value.decode()
        except UnicodeDecodeError:
            return f"{len(value):,} bytes"
    else:
        text = str(value.tolist() if isinstance(value, np.ndarray | np.generic) else value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 1]}…"


def _parsed(record: Any) -> tf.train.Example:
    try:
        return tf.train.Example.FromString(record)
    except (DecodeError, TypeError):
        return tf.train.Example()


def _first(feature: tf.train.Feature) -> Any:
    kind = feature.WhichOneof("kind")
    values = getattr(feature, kind).value if kind else ()
    return values[0] if values else None


def _features(
    request: LoggedRequest, wanted: set[str], feature_of_input: Mapping[str, str]
) -> dict[str, list[str | None]]:
    """The values of features as slices name them, None where one is missing; without those that no row has."""
    if set(request.inputs) == {EXAMPLES}:
        examples = [_parsed(record).features.feature for record in request.inputs[EXAMPLES].tolist()]
        found = {
            name: [_first(example[name]) if name in example else None for example in examples]
            for name in wanted
            if any(name in example for example in examples)
        }
        return {
            name: [None if value is None else value_text(value) for value in values] for name, values in found.items()
        }
    columns = {feature_of_input.get(name, name): values for name, values in request.inputs.items()}
    return {name: column_texts(columns[name]) for name in wanted if name in columns and columns[name].ndim == 1}


def column_texts(values: np.ndarray) -> list[str | None]:
    """The values of a column as slices name them, None where one is missing."""
    if values.dtype.kind not in "Oif":
        return [value_text(value) for value in values.tolist()]
    missing = is_missing(tf.constant(values.tolist(), tf.string) if values.dtype.kind == "O" else tf.constant(values))
    pairs = zip(values.tolist(), missing.numpy().tolist(), strict=True)
    return [None if is_gone else value_text(value) for value, is_gone in pairs]


def value_text(value: Any) -> str:
    """A value as slices name it: 1 and 1.0 are the same, and floats are told by what a float32 knows of them."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < LARGEST_WHOLE else f"{value:.7g}"
    return str(value)


# Beyond it a float64 does not know every whole number.
LARGEST_WHOLE = 2**53


class _Waiting:
    """Requests that wait to be run together; those of a kind have the same inputs."""

    def __init__(self) -> None:
        self._kinds: dict[Any, list[LoggedRequest]] = {}
        self._rows: Counter[Any] = Counter()
        self._bytes = 0

    def add(self, request: LoggedRequest) -> Iterator[list[LoggedRequest]]:
        """Those that are run now."""
        kind = (
            request.signature,
            tuple(
                (name, data_type_of(values).name, values.shape[1:]) for name, values in sorted(request.inputs.items())
            ),
        )
        self._kinds.setdefault(kind, []).append(request)
        self._rows[kind] += request.rows
        self._bytes += request.size
        if self._bytes >= BATCH_BYTES:
            yield from self.rest()
        elif self._rows[kind] >= BATCH_ROWS:
            del self._rows[kind]
            batch = self._kinds.pop(kind)
            self._bytes -= sum(request.size for request in batch)
            yield batch

    def rest(self) -> Iterator[list[LoggedRequest]]:
        kinds, self._kinds, self._rows, self._bytes = self._kinds, {}, Counter(), 0
        yield from kinds.values()


# Of so many requests the latency is measured, drawn from all by chance, as long as they take no more memory.
TIMED_REQUESTS = 200
TIMED_BYTES = 32 * 2**20
TIMED_SECONDS = 20.0
_REPEATS = 3


class _Sample:
    """A choice at random of a stream, the same one for the same stream.

    Source: Vitter, Random sampling with a reservoir (1985), algorithm R.
    """

    def __init__(self) -> None:
        self._random = random.Random(0)
        self._seen = 0
        self._size = 0
        self.requests: list[LoggedRequest] = []

    def add(self, request: LoggedRequest) -> None:
        self._seen += 1
        place = self._random.randrange(self._seen)
        if place >= TIMED_REQUESTS:
            return
        if len(self.requests) >= TIMED_REQUESTS:
            self._size -= self.requests.pop(place).size
        self.requests.append(request)
        self._size += request.size
        while self._size > TIMED_BYTES and len(self.requests) > 1:
            self._size -= self.requests.pop(self._random.randrange(len(self.requests))).size


def measure_latency(
    served: ReplayedModel, candidate: ReplayedModel, requests: Sequence[LoggedRequest]
) -> Latency | None:
    """Run requests one by one with either model in turns, so that what else the machine does concerns both.

    Each counts with the fastest of three times, which is what the model takes rather than what came between. None where
    both models answer none of them.
    """
    models = (served, candidate)
    found = []
    ends = time.monotonic() + TIMED_SECONDS
    for number, request in enumerate(requests):
        if time.monotonic() > ends:
            break
        try:
            for model in models:
                model.run(request)  # the first time of a kind takes longer
            best = [np.inf, np.inf]
            for repeat in range(_REPEATS):
                for side in (0, 1) if (number + repeat) % 2 else (1, 0):
                    started = time.perf_counter()
                    models[side].run(request)
                    best[side] = min(best[side], time.perf_counter() - started)
        except (ServingError, ValueError):
            continue
        found.append(best)
    if not found:
        return None
    milliseconds = 1000 * np.array(found).T
    drawn = np.random.default_rng(0).integers(0, len(found), (1000, len(found)))
    ratios = np.median(milliseconds[1][drawn], axis=1) / np.median(milliseconds[0][drawn], axis=1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    sides = [Side(*(float(value) for value in np.percentile(one, [50, 99]))) for one in milliseconds]
    ratio = (sides[1].p50 / sides[0].p50, float(low), float(high))
    return Latency(len(found), served=sides[0], candidate=sides[1], ratio=ratio)


def replay_requests(
    files: Sequence[str],
    model_name: str,
    served: str,
    candidate: str,
    slices: Sequence[Sequence[str]] = (),
    feature_of_input: Mapping[str, str] | None = None,
    maximum_rows: int | None = None,
) -> Replay:
    """Ask both models what was asked; the logs are read once, the newest file first, and never are in memory whole.

    Args:
        files: of PredictionLogs, see components.request_logs.
        model_name: whose requests are replayed.
        served: the directory of the served SavedModel.
        candidate: that of the other one.
        slices: columns, of which each combination of values is counted by itself.
        feature_of_input: the column behind each input of another name.
        maximum_rows: older requests than so many rows are left out; None for all.

    Raises:
        BrokenInput: a file or a model cannot be read.
    """
    logs = PredictionLogs(files[::-1], model_name)
    counting, waiting, sample = _Counting(slices, feature_of_input or {}), _Waiting(), _Sample()
    refused: Counter[str] = Counter()
    models = (ReplayedModel(served), ReplayedModel(candidate))

    def run(batches: Iterable[list[LoggedRequest]]) -> None:
        for batch in batches:
            try:
                before, after = (model.answers(batch) for model in models)
            except ValueError as error:
                refused[f"{batch[0].signature}: {error}"] += len(batch)
            else:
                counting.add(batch, before, after)

    read, is_enough = 0, False
    try:
        for log in logs.logs():
            if is_enough := maximum_rows is not None and read >= maximum_rows:
                break
            try:
                request = logged_request(log)
            except ValueError as error:
                refused[str(error)] += 1
                continue
            read += request.rows
            logs.note_time(log)
            sample.add(request)
            run(waiting.add(request))
        run(waiting.rest())
        replay = counting.finish(_left_out(logs, refused, maximum_rows if is_enough else None))
        replay.latency = measure_latency(*models, sample.requests)
    finally:
        for model in models:
            model.close()
    replay.seconds = logs.seconds
    replay.other_labels = _other_labels(*(model.labels for model in models))
    return replay


def _other_labels(served: Sequence[str], candidate: Sequence[str]) -> str:
    if not served or not candidate:
        return ""  # of a model without a list of labels nothing is known
    gone, added = [one for one in served if one not in candidate], [one for one in candidate if one not in served]
    said = [f"{word} {some_labels(labels)}" for word, labels in (("without", gone), ("with", added)) if labels]
    return f"the candidate has other labels: {', '.join(said)}" if said else ""


SHOWN_LABELS = 5


def some_labels(labels: Collection[str]) -> str:
    """The first of them, for people."""
    more = f" and {len(labels) - SHOWN_LABELS:,} more" if len(labels) > SHOWN_LABELS else ""
    return ", ".join(f"{one[:80]!r}" for one in islice(labels, SHOWN_LABELS)) + more


def _left_out(logs: PredictionLogs, refused: Counter[str], maximum_rows: int | None) -> list[str]:
    found = logs.passed_over()
    found += [f"{count:,} request{'s' * (count != 1)}: {reason}" for reason, count in refused.most_common(20)]
    if maximum_rows is not None:
        found.append(f"requests older than the newest {maximum_rows:,} rows")
    return found


def beyond(replay: Replay, options: ReplayOptions) -> list[str]:
    """A sentence for each bound that does not hold; none where all do.

    All rows together are held against `may_flip` by their share; each slice by a test of its own, all of which together
    are wrong in at most 5 % of cases (Bonferroni), so that many slices are no more likely to stop a model than one. The
    latency is beyond its bound where the whole interval of the ratio is.
    """
    whole = replay.whole
    if not whole.rows:
        left_out = f"; left out: {'; '.join(replay.left_out)}" if replay.left_out else ""
        return [
            f"no logged request could be replayed in {', '.join(options.logs)}{left_out}; log requests of this model "
            "(`ingraph serve --request-log`), or remove evaluation.replay"
        ]
    reasons = []
    share = whole.changed / whole.rows
    if share > options.may_flip:
        low, high = whole.interval()
        reasons.append(
            f"{whole.changed:,} of {whole.rows:,} logged rows ({share:.2%}, 95 % interval {low:.2%} to {high:.2%}) "
            f"would be answered otherwise, expected at most {options.may_flip:.2%}{_mostly(replay)}"
            f"{replay.other_labels and f'; {replay.other_labels}'}"
        )
    for one in slices_beyond(replay, options.may_flip):
        low, high = one.interval()
        reasons.append(
            f"slice {one.name}: {one.changed:,} of {one.rows:,} rows ({one.changed / one.rows:.2%}, 95 % interval "
            f"{low:.2%} to {high:.2%}), expected at most {options.may_flip:.2%}"
        )
    if options.at_most_slower is not None and replay.latency is not None:
        ratio, low, high = replay.latency.ratio
        if low > options.at_most_slower:
            reasons.append(
                f"it takes {ratio:.2f} times as long as the served model (95 % interval {low:.2f} to {high:.2f}), "
                f"expected at most {options.at_most_slower:g} times"
            )
    return reasons


SHOWN_SLICES = 5


def slices_beyond(replay: Replay, may_flip: float) -> list[SliceChange]:
    """The slices in which certainly more rows change than may, the worst first; not more than SHOWN_SLICES.

    By the exact binomial test, since Wilson's interval is too narrow at its lower end where few of few rows change.
    """
    level = 0.05 / max(len(replay.slices), 1)
    found = [one for one in replay.slices if stats.binom.sf(one.changed - 1, one.rows, may_flip) < level]
    return sorted(found, key=lambda one: -one.changed / one.rows)[:SHOWN_SLICES]


def _mostly(replay: Replay) -> str:
    kinds = [f"{one.rows:,} from {one.before!r} to {one.after!r}" for one in replay.labels[:2]]
    kinds += [f"{one.rows:,} fail: {one.after}" for one in replay.newly_failing[:1]]
    return f": {', '.join(kinds)}" if kinds else ""
