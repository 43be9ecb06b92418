"""Leaks: what lets a model answer well here, and badly where nobody knows the label yet."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.data_gate.association import (
    FOLDS,
    class_indicators,
    decoded_texts,
    holds_sentences,
    label_names,
    missing_auc,
    named_label,
    neighbour_auc,
    order_auc,
    out_of_fold_auc,
)
from components.data_gate.splits import CodedColumn, SplitRows, coded, compact, joined

TELLS_LABEL = 0.99
# Of an identifier. Where the share of a class rises steadily along it, from none of the rows to all of them, the area
# is 5/6: what is well above that is no trend of the times.
ORDER_TELLS_LABEL = 0.9
_NEARLY_ALL = 0.99
_FEW = 0.1
_SHOWN = 10
_ROWS_PER_VALUE = 30
_TEXTS = 20_000
# Each has some arrays of the rows.
_THREADS = 4
_SHORTEST_TEXT = 20  # characters
_SEED = 11


def find_leaks(search: LeakSearch, label: str, splits: Mapping[str, SplitRows]) -> list[str]:
    """A sentence for each leak: the column, the figure, what to write into the config.

    Args:
        search: where to look.
        label: the label column.
        splits: the train split first, then others.
    """
    (name, train), *others = splits.items()
    columns = {
        column: coded(joined([rows.columns.get(column, pa.nulls(rows.count)) for rows in splits.values()]))
        for column in (search.columns or train.columns)
        if column in train.columns and column != label and column not in search.ignored
    }
    # What copies of a row do not have in common.
    naming = [key for key, column in columns.items() if _names_rows(column.codes[: train.count], column)]
    found = list(_unknown_names(search, train))
    labelled = _labelled(search, label, name, train, [column for key, column in columns.items() if key not in naming])
    if labelled is not None:
        found += _about_columns(search, columns, labelled)
    start = train.count
    for other, rows in others:
        if columns and not search.allows_duplicates:
            place = slice(start, start + rows.count)
            found += _copies(search, columns, naming, (name, train), (other, rows), place)
        start += rows.count
    return found


def _unknown_names(search: LeakSearch, train: SplitRows) -> Iterator[str]:
    for name in search.allow:
        if name != DUPLICATES and name not in train.columns:
            yield (
                f"`data.allow` names {name!r}, which is no column of the data; expected {DUPLICATES!r} or one of "
                f"{', '.join(map(repr, train.columns))}."
            )


@dataclass(frozen=True)
class _Labelled:
    """The rows of the train split that have a label.

    Attributes:
        chosen: int64 [rows], their places.
        labels: of them, as they are in the data and by their names.
        positives: see components.data_gate.association.
        folds: by chance.
        folds_of_copies: with rows of the same values in one fold.
        split: its name.
    """

    chosen: np.ndarray
    labels: tuple[pa.Array, pa.Array]
    positives: np.ndarray
    folds: np.ndarray
    folds_of_copies: np.ndarray
    split: str

    def measured(self, area: float) -> str:
        """The figure, and what it was measured on."""
        rest = ", one class against the rest," if len(self.positives) > 1 else ""
        return f"AUC {area:.3f}{rest} on {len(self.chosen):,} rows of the {self.split} split"


def _labelled(
    search: LeakSearch, label: str, split: str, train: SplitRows, columns: Sequence[CodedColumn]
) -> _Labelled | None:
    """None where no two classes have rows enough.

    Args:
        columns: what copies of a row have in common.
    """
    if label not in train.columns:
        return None
    chosen = np.flatnonzero(train.columns[label].is_valid().to_numpy(zero_copy_only=False))
    labels = train.columns[label].take(pa.array(chosen))
    named = label_names(labels, search.label_names)
    positives = class_indicators(named)
    if not len(positives):
        return None
    folds = np.random.default_rng(_SEED).integers(0, FOLDS, len(chosen))
    if columns:
        keys = row_keys([column.codes[chosen] for column in columns], salts_of(len(columns)))
    return _Labelled(
        chosen=chosen,
        labels=(label_names(labels, {}), named),
        positives=positives,
        folds=folds,
        folds_of_copies=(keys % np.uint64(FOLDS)).astype(np.int64) if columns else folds,
        split=split,
    )


def _about_columns(search: LeakSearch, columns: Mapping[str, CodedColumn], labelled: _Labelled) -> list[str]:
    searched = [name for name in columns if name not in search.allow]
    # numpy sorts without the interpreter's lock.
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _THREADS)) as threads:
        found = threads.map(lambda name: _about_column(search, name, columns[name], labelled), searched)
        sentences = {name: sentence for name, sentence in zip(searched, found, strict=True) if sentence}
    further = list(sentences)[_SHOWN:]
    if not further:
        return list(sentences.values())
    shown = ", ".join(map(repr, further[:_SHOWN])) + (", …" if len(further) > _SHOWN else "")
    return [*list(sentences.values())[:_SHOWN], f"{len(further):,} further columns tell the label likewise: {shown}."]


def _about_column(search: LeakSearch, name: str, column: CodedColumn, labelled: _Labelled) -> str | None:
    """What is to be said of a column: the first of what may be found."""
    codes = column.codes[labelled.chosen]
    keep = f"keep it with `data.allow: [{_in_yaml(name)}]`"
    leave = f"leave it out with `preprocessing.columns: {{{_in_yaml(name)}: ignored}}`, or {keep}"
    remedy = leave if search.can_ignore else f"take it out of the data, or {keep}"
    area = missing_auc(codes, labelled.positives)
    if area > TELLS_LABEL:
        return (
            f"whether column {name!r} is empty alone tells the label ({labelled.measured(area)}): it is probably "
            f"filled in only afterwards; {remedy}."
        )
    if not (codes >= 0).any():
        return None
    sentences = column.is_text and holds_sentences(column.values)
    if sentences or not search.can_ignore:
        sentence = _about_texts(name, column, labelled)
        if sentence or not search.can_ignore:
            return sentence
    orders = [codes, *_other_orders(codes, column.values)] if column.is_text and not sentences else [codes]
    area = max(max(order_auc(order, labelled.positives), neighbour_auc(order, labelled.positives)) for order in orders)
    if area > ORDER_TELLS_LABEL and _is_significant(area, labelled.positives) and _numbers_rows(codes, column):
        return (
            f"column {name!r} numbers the rows, and their order tells the label ({labelled.measured(area)}): they were "
            f"probably sorted by label when they were numbered; {remedy}."
        )
    area = max(area, _categories_auc(codes, labelled))
    if area > TELLS_LABEL:
        return (
            f"column {name!r} alone tells the label ({labelled.measured(area)}): it is probably known only afterwards; "
            f"{remedy}."
        )
    return None


def _in_yaml(name: str) -> str:
    """A name as it stands in a list in YAML; quoted where it could be read as something else."""
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*( [A-Za-z0-9_.-]+)*", name)
    words = {"yes", "no", "on", "off", "true", "false", "null", "y", "n"}
    return name if plain and name.lower() not in words else json.dumps(name, ensure_ascii=False)


def _about_texts(name: str, column: CodedColumn, labelled: _Labelled) -> str | None:
    rows = np.random.default_rng(_SEED).permutation(len(labelled.chosen))[:_TEXTS]
    codes = column.codes[labelled.chosen[rows]]
    rows, codes = rows[codes >= 0], codes[codes >= 0]
    if not column.is_text:
        return None
    texts = column.values.take(pa.array(codes))
    found = next(filter(None, (named_label(texts, labels.take(pa.array(rows))) for labels in labelled.labels)), None)
    if found is None:
        return None
    return (
        f"column {name!r} holds the label as a word: {found.word!r} stands in {found.own:.1%} of the texts with this "
        f"label and in {found.others:.1%} of the others (of {len(rows):,} texts of the {labelled.split} split); take "
        f"the labels out of the texts, or keep them with `data.allow: [{_in_yaml(name)}]`."
    )


def _is_significant(area: float, positives: np.ndarray) -> bool:
    """Whether chance is out of the question: five standard deviations of Mann and Whitney's statistic (1947)."""
    size, rows = positives.sum(axis=1).min(), positives.shape[1]
    return bool(area - 0.5 > 5 * np.sqrt((rows + 1) / (12 * size * (rows - size))))


def _categories_auc(codes: np.ndarray, labelled: _Labelled) -> float:
    """Values of many rows fall into every fold; of others, copies of one row shall not tell of each other."""
    many_rows = compact(codes)[1] * _ROWS_PER_VALUE <= len(codes)
    return out_of_fold_auc(codes, labelled.positives, labelled.folds if many_rows else labelled.folds_of_copies)


def _padded(values: pa.Array) -> pa.Array:
    """Texts in which a whole number has twelve digits, so that they sort as the numbers do: a-9 before a-10."""
    texts = pc.replace_substring_regex(decoded_texts(values), r"(\d+)", r"000000000000\1")
    return pc.replace_substring_regex(texts, r"\d*(\d{12})", r"\1")


_YEAR_LAST = r"^(\d{12})[./-](\d{12})[./-](\d{12})(.*)$"


def _other_orders(codes: np.ndarray, values: pa.Array) -> list[np.ndarray]:
    """Codes of texts in other orders: as numbers, by the numbers in them, and as dates by year, month and day."""
    padded = _padded(values)
    numbers = pa.array([_number(text) for text in decoded_texts(values).to_pylist()], pa.float64())
    orders = [padded] if numbers.null_count > _FEW * len(numbers) else [padded, joined([numbers])]
    if pc.mean(pc.match_substring_regex(padded, _YEAR_LAST)).as_py() >= _NEARLY_ALL:
        orders += [pc.replace_substring_regex(padded, _YEAR_LAST, order) for order in (r"\3\2\1\4", r"\3\1\2\4")]
    return [np.where(codes < 0, -1, coded(joined([order])).codes[codes]) for order in orders]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _numbers_rows(codes: np.ndarray, column: CodedColumn) -> bool:
    """Whether whole numbers, those at the end of texts included, were given out one by one.

    Drawn at random as densely as these lie, far more of them would have come twice (the birthday problem); measurements
    that never repeat lie farther apart.
    """
    present = codes[codes >= 0]
    if not len(present):
        return False
    if column.is_text:
        ends = pc.struct_field(pc.extract_regex(_padded(column.values), r"(?P<end>\d{12})\D*$"), "end")
        numbers = np.array([int(end) if end else -1 for end in ends.to_pylist()])[present]
    else:
        numbers = column.values.to_numpy()[present]
    different = np.unique(numbers)
    repeated = len(numbers) - len(different)
    if repeated > (1 - _NEARLY_ALL) * len(numbers) or (different != np.floor(different)).any() or len(different) < 2:
        return False
    expected = len(numbers) * np.log(2) / (2 * np.median(np.diff(different)))
    return bool(expected >= 10 * (repeated + 1))


def _names_rows(codes: np.ndarray, column: CodedColumn) -> bool:
    """Whether a column has another text, and no sentence, in nearly every row, or numbers the rows."""
    if column.is_text:
        return compact(codes)[1] >= _NEARLY_ALL * len(codes) and not holds_sentences(column.values)
    return _numbers_rows(codes, column)


def _copies(
    search: LeakSearch,
    columns: Mapping[str, CodedColumn],
    naming: Sequence[str],
    train: tuple[str, SplitRows],
    other: tuple[str, SplitRows],
    place: slice,
) -> Iterator[str]:
    """Rows of another split, which stand at `place` in the columns, that stand in the train split too."""
    (train_name, train_rows), (name, rows) = train, other
    count = train_rows.count
    codes = {key: np.append(column.codes[:count], column.codes[place]) for key, column in columns.items()}
    kind, apart = "rows" if search.can_ignore else "texts", ["the label"]
    if search.can_ignore:
        found = find_copies(list(codes.values()), count)
        if found.by_nature and naming:
            found = find_copies([column for key, column in codes.items() if key not in naming], count)
            apart += map(repr, naming)
    else:
        ((key, texts),) = codes.items()
        # The last one is for -1, no text.
        lengths = np.array([*(len(str(text)) for text in decoded_texts(columns[key].values).to_pylist()), 0])
        found = find_copied_texts(texts, lengths[texts] >= _SHORTEST_TEXT, count)
    if found.by_nature:
        return
    sampled = train_rows.total > count or rows.total > rows.count
    held_out = f"{rows.count:,} {kind} {'drawn from' if sampled else 'of'} the {name} split"
    learned = f"{f'among {count:,} drawn from' if sampled else 'in'} the {train_name} split"
    yield (
        f"{found.count:,} of {held_out} ({found.share:.1%}) stand {learned} too, {' and '.join(apart)} apart: the "
        f"model has seen them, so the metrics say less of new ones; remove the copies, or keep them with "
        f"`data.allow: [{DUPLICATES}]`."
    )


DUPLICATES = "duplicates"


@dataclass(frozen=True)
class LeakSearch:
    """Which columns are searched for leaks, and which findings are known already.

    Attributes:
        columns: those that a model sees; () for each but the label and what is ignored.
        ignored: columns of which no model sees anything.
        label_names: raw value of the label -> what it is called, where that is something else.
        allow: columns of which nothing is to be said; DUPLICATES for rows that stand in both splits.
        texts: columns of texts, whose values are no categories.
    """

    columns: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    label_names: Mapping[str, str] = field(default_factory=dict)
    allow: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()

    @property
    def can_ignore(self) -> bool:
        """Whether a config can leave a column out: not where it names the one column that there is."""
        return not self.columns

    @property
    def allows_duplicates(self) -> bool:
        """Whether rows that stand in both splits are known."""
        return DUPLICATES in self.allow

    def as_json(self) -> str:
        """A parameter of a component."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> LeakSearch:
        """What `as_json` wrote."""
        given = json.loads(text)
        lists = {name: tuple(given[name]) for name in ("columns", "ignored", "allow", "texts") if name in given}
        return cls(label_names=given["label_names"], **lists)


MINIMUM_COPIES = 3
# So little that an accuracy is no more than that too good.
MINIMUM_SHARE = 0.01
# Columns depend on each other, so more rows are equal by nature than independent halves say: four times as many in the
# Census Income data without its weights, nine times where a town goes with its state.
DEPENDENCE = 30
# A row that more than so many others explain may well be equal to one of them by chance.
_EXPLAINED = 0.01
_HALVES = 6
_SEED = 7


@dataclass(frozen=True)
class Copies:
    """Rows of one split that stand in another one too.

    Attributes:
        count: how many rows there are of which every column is equal in a row of the other split.
        share: of the rows of the split.
        by_nature: whether the data explain them without anybody having copied rows.
    """

    count: int
    share: float
    by_nature: bool


def row_keys(columns: Sequence[np.ndarray], salts: np.ndarray) -> np.ndarray:
    """A number for each row, the same for rows with the same values.

    Args:
        columns: codes, int64 [rows] each, one at least.
        salts: uint64 [columns], another for each column.
    """
    keys = np.zeros(len(columns[0]), np.uint64)
    for codes, salt in zip(columns, salts, strict=True):
        keys += _mixed(codes.astype(np.uint64) + salt)
    return keys


def _mixed(values: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014): close numbers come to lie far apart."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def salts_of(columns: int) -> np.ndarray:
    """uint64 [columns], the same each time."""
    return np.random.default_rng(_SEED).integers(0, 2**63, columns, dtype=np.uint64)


def find_copies(columns: Sequence[np.ndarray], train_rows: int) -> Copies:
    """Rows behind the first `train_rows` that are equal to one of these.

    Args:
        columns: codes of both splits, int64 [rows] each, the train split first. A single one is not
            enough to know a row again.
        train_rows: how many rows are of the train split.
    """
    if len(columns) < 2:
        return Copies(0, 0.0, True)
    keys = row_keys(columns, salts_of(len(columns)))
    train, others = keys[:train_rows], keys[train_rows:]
    if not len(train) or not len(others):
        return Copies(0, 0.0, True)
    equal = _matches(others, train)
    count, share = _share(equal)
    # Where most rows are repeated in the train split alone, it is the data that repeat themselves.
    if count < MINIMUM_COPIES or share < MINIMUM_SHARE or len(np.unique(train)) < len(train) / 2:
        return Copies(count, share, True)
    expected = _expected_matches(columns, train_rows, equal)
    surprising = expected < _EXPLAINED
    by_nature = (equal[surprising] > 0).sum() <= DEPENDENCE * expected[surprising].sum()
    return Copies(count, share, bool(by_nature))


def find_copied_texts(codes: np.ndarray, long_enough: np.ndarray, train_rows: int) -> Copies:
    """Texts behind the first `train_rows` that stand among these word for word.

    Args:
        codes: of both splits, int64 [rows], the train split first, -1 where there is no text.
        long_enough: bool [rows], whether nobody would write the same again by chance.
        train_rows: how many rows are of the train split.
    """
    train, others = codes[:train_rows], codes[train_rows:]
    if not len(train) or not len(others):
        return Copies(0, 0.0, True)
    count, share = _share(np.where(long_enough[train_rows:] & (others >= 0), _matches(others, train), 0))
    return Copies(count, share, count < MINIMUM_COPIES or share < MINIMUM_SHARE)


def _share(matches: np.ndarray) -> tuple[int, float]:
    count = int((matches > 0).sum())
    return count, count / len(matches)


def _expected_matches(columns: Sequence[np.ndarray], train_rows: int, equal: np.ndarray) -> np.ndarray:
    """How many rows of the train split each other row would be equal to if halves of the columns were independent.

    The largest expectation of several random halves; rows that are equal in both halves do not count for it.
    """
    expected = np.zeros(len(equal))
    salts, random = salts_of(len(columns)), np.random.default_rng(_SEED)
    for _ in range(_HALVES):
        half = np.array_split(random.permutation(len(columns)), 2)
        matches = []
        for part in half:
            keys = row_keys([columns[place] for place in part], salts[part])
            matches.append(_matches(keys[train_rows:], keys[:train_rows]) - equal)
        expected = np.maximum(expected, matches[0] * matches[1] / train_rows)
    return expected


def _matches(keys: np.ndarray, among: np.ndarray) -> np.ndarray:
    """How often each key stands among others."""
    different, counts = np.unique(among, return_counts=True)
    places = np.minimum(np.searchsorted(different, keys), len(different) - 1)
    return np.where(different[places] == keys, counts[places], 0)
