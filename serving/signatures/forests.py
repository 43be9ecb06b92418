"""Additive forests in core operations: decision trees whose leaves are summed, whichever library grew them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np
import tensorflow as tf

LEAF, AT_LEAST, IN_SET, OBLIQUE = range(4)


@dataclass(frozen=True)
class Forest:
    """Decision trees, and how their leaves are added.

    Every condition of numbers is `x >= threshold`: `x > t` is that of the next number above t. Libraries that compare
    in float32 are compared with in float32: thresholds become the smallest float32 that is not below them.

    Attributes:
        roots: int32 [trees], the node that each tree begins with.
        condition: int8 [nodes]: LEAF, AT_LEAST (a number is at least the threshold), IN_SET (a category is in a set),
            OBLIQUE (a weighted sum of numbers is at least the threshold).
        column: int32 [nodes]: of the numbers for AT_LEAST, of the categories for IN_SET, the row of the projections for
            OBLIQUE.
        threshold: float64 [nodes], of AT_LEAST and OBLIQUE.
        members: int32 [nodes], the row of `sets` for IN_SET.
        missing: bool [nodes], what the condition comes to where the value is missing.
        yes: int32 [nodes], the node that follows where the condition holds.
        no: int32 [nodes], the node that follows where it does not.
        leaf: int32 [nodes], the row of `leaf_values` for LEAF.
        sets: uint8 [sets, bytes], bitmaps of category numbers: number c is bit c % 8 of byte c // 8.
        category_counts: int32 [m]: numbers of category column j are 0 to category_counts[j] - 1, all others missing.
        projection_columns: int32 [projections, n], of the numbers; -1 fills a row up.
        projection_weights: float32 [projections, n].
        projection_replacements: float32 [projections, n], what stands in for a missing number; NaN: the sum is missing.
        leaf_values: float64 [leaves, outputs], or [leaves, 1] where each tree adds to one output.
        tree_outputs: int32 [trees], the output that a tree adds to, where leaves have one value.
        bias: float64 [outputs], where the sums begin.
    """

    roots: np.ndarray
    condition: np.ndarray
    column: np.ndarray
    threshold: np.ndarray
    members: np.ndarray
    missing: np.ndarray
    yes: np.ndarray
    no: np.ndarray
    leaf: np.ndarray
    sets: np.ndarray
    category_counts: np.ndarray
    projection_columns: np.ndarray
    projection_weights: np.ndarray
    projection_replacements: np.ndarray
    leaf_values: np.ndarray
    tree_outputs: np.ndarray
    bias: np.ndarray

    @property
    def is_oblique(self) -> bool:
        """Whether some condition looks at a weighted sum."""
        return bool((self.condition == OBLIQUE).any())

    @cached_property
    def levels(self) -> list[np.ndarray]:
        """The nodes by their distance from the root, of all trees; in a level, children follow in pairs: no, yes."""
        found = [self.roots]
        while True:
            inner = found[-1][self.condition[found[-1]] != LEAF]
            if not len(inner):
                return found
            found.append(np.stack([self.no[inner], self.yes[inner]], axis=1).reshape(-1))

    def compiled(self, dtype: type, width: int) -> Sequence[_Block | _Walk]:
        """What answers for the trees that are more than a leaf, of so many numbers of a dtype; made once."""
        if (dtype, width) not in self._compiled:
            blocks = _blocks(self, dtype)
            self._compiled[dtype, width] = [_Walk.of(self, dtype, width)] if blocks is None else blocks
        return self._compiled[dtype, width]

    @cached_property
    def _compiled(self) -> dict[tuple[type, int], Sequence[_Block | _Walk]]:
        return {}


_Table: TypeAlias = np.ndarray | tf.Variable
# Bytes of a constant that stands in each graph.
_SMALL = 1024


def _shared(table: np.ndarray) -> _Table:
    """A large table as a variable, of which there is one for all signatures.

    Of constants each signature has its own, and optimizing a graph copies them a dozen times: with tables of 9 MB, five
    signatures were 88 MB on disk and 850 in a session, where they are 10 and 90.
    """
    if table.nbytes <= _SMALL:
        return table
    with tf.init_scope():
        return tf.Variable(table, trainable=False)


def _comparable(thresholds: np.ndarray, dtype: type) -> np.ndarray:
    """The thresholds t of `x >= t` for numbers x of a dtype: the smallest of its numbers that are not below.

    A denormal number is 0 to TensorFlow's operations, so that none is a threshold.
    """
    tiny = np.finfo(dtype).tiny
    with np.errstate(over="ignore"):
        rounded: np.ndarray = thresholds.astype(dtype)
    rounded = np.where(rounded < thresholds, np.nextafter(rounded, dtype(np.inf)), rounded)
    rounded = np.where((rounded > 0) & (rounded < tiny), tiny, rounded)
    return np.where((rounded < 0) & (rounded > -tiny), dtype(0), rounded).astype(dtype)


def forest_scores(forest: Forest, numbers: tf.Tensor, categories: tf.Tensor) -> tf.Tensor:
    """float32 [batch, outputs]: for each output its bias and the leaves that a row comes to, added up in float64.

    Args:
        forest: the trees; their tables are variables, which a forest keeps and serving.signatures.common exports.
        numbers: float32 or float64 [batch, n], NaN where missing; the dtype is the one that conditions are compared in.
        categories: int64 [batch, m], the number of each category; missing where there is no such number.

    A tree of few leaves is answered by bit masks, as QuickScorer does (Lucchese et al., SIGIR 2015): each value of a
    column rules leaves out, which ones is looked up for all trees at once, and the leaf that no column rules out is the
    answer. Deep trees, and those of many columns, are walked level by level.
    """
    compiled = forest.compiled(numbers.dtype.as_numpy_dtype, numbers.shape[1])
    sums = tf.add_n([part.sums(numbers, categories, len(forest.bias)) for part in compiled])
    if isinstance(compiled[0], _Block):
        sums += _lone_leaves(forest)
    return tf.cast(sums + tf.constant(forest.bias, tf.float64), tf.float32)


# Tables of masks grow with the trees times the thresholds: those of a block of trees stay small, and in a core's cache.
_BLOCK_LEAVES = 4096
_MOST_BYTES = 64 << 20
# What masks cost beside a walk, by how often: a mask looked up and joined, against a step from a node to the next.
_MASKS_A_STEP = 12


@dataclass(frozen=True)
class _Columns:
    """The values that conditions can tell apart, each column's numbered from 0.

    Attributes:
        numbers: which columns of numbers there are conditions of.
        thresholds: [len(numbers), n], ascending in each row, filled up with infinity.
        counts: int32 [len(numbers)], how many thresholds each has. Value v of a column of numbers stands for those with
            v thresholds at or below them; the last one, for a missing one.
        categories: which columns of categories there are conditions of; the last value of each is a missing one.
        sizes: int32 [columns], how many values each has, numbers first.
    """

    numbers: np.ndarray
    thresholds: _Table
    counts: np.ndarray
    categories: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, forest: Forest, dtype: type, nodes: np.ndarray) -> _Columns:
        """Those of some of the nodes."""
        numeric = nodes[forest.condition[nodes] == AT_LEAST]
        numbers = np.unique(forest.column[numeric])
        compared = _comparable(forest.threshold[numeric], dtype)
        of_column = [np.unique(compared[forest.column[numeric] == column]) for column in numbers]
        counts = np.array([len(values) for values in of_column], np.int32)
        thresholds = np.full((len(numbers), max(counts, default=0)), np.inf, dtype)
        for row, values in zip(thresholds, of_column, strict=True):
            row[: len(values)] = values
        categories = np.unique(forest.column[nodes[forest.condition[nodes] == IN_SET]])
        sizes = np.concatenate([counts + 2, forest.category_counts[categories] + 1]).astype(np.int32)
        return cls(numbers, thresholds, counts, categories, sizes)

    def values(self, numbers: tf.Tensor, categories: tf.Tensor) -> tf.Tensor:
        """int32 [columns, batch]: the number of each value."""
        parts = []
        count = len(self.numbers)
        if count:
            values = tf.transpose(tf.gather(numbers, self.numbers, axis=1))
            passed = tf.searchsorted(tf.convert_to_tensor(self.thresholds), values, side="right")
            counts = self.counts[:, None]
            parts.append(tf.where(tf.math.is_nan(values), counts + 1, tf.minimum(passed, counts)))
        if len(self.categories):
            values = tf.transpose(tf.gather(categories, self.categories, axis=1))
            known_values = (self.sizes[count:, None] - 1).astype(np.int64)
            known = tf.logical_and(values >= 0, values < known_values)
            parts.append(tf.cast(tf.where(known, values, known_values), tf.int32))
        return tf.concat(parts, axis=0)

    def split(self, forest: Forest, node: int) -> tuple[int, np.ndarray]:
        """The column of a node, and for which of its values the node's condition holds, bool [values]."""
        numeric = forest.condition[node] == AT_LEAST
        known = self.numbers if numeric else self.categories
        place = int(np.searchsorted(known, forest.column[node]))
        column = place if numeric else place + len(self.numbers)
        holds = np.zeros(self.sizes[column], bool)
        if numeric:
            thresholds = self.thresholds[place]
            threshold = _comparable(forest.threshold[node : node + 1], thresholds.dtype.type)
            holds[np.searchsorted(thresholds, threshold[0]) + 1 :] = True
        else:
            bits = np.unpackbits(forest.sets[forest.members[node]], bitorder="little")
            holds[: len(bits)] = bits[: len(holds)]
        holds[-1] = forest.missing[node]
        return column, holds


@dataclass(frozen=True)
class _Block:
    """Some of the trees, whose leaves are bits: so many in a word, in as many words as a tree needs.

    Attributes:
        columns: the values that these trees tell apart.
        table: int32 or int64 [rows, words]: the leaves that some values leave over, a row for each choice of a value of
            each column of a group, one group after the other.
        strides: int32 [groups, columns]: how many rows are from a value of a column of a group to the next; 0 for
            columns of other groups.
        first: int32 [groups], the first row of each group.
        slots: float64 [words * (bits + 1), n]: the values of the leaf of each bit of each word, and 0 where no bit is
            left.
        outputs: int32 [words]: the output that the leaves of each word add to.
    """

    columns: _Columns
    table: _Table
    strides: np.ndarray
    first: np.ndarray
    slots: _Table
    outputs: np.ndarray

    def shared(self) -> _Block:
        """The same with the large tables as variables."""
        columns = replace(self.columns, thresholds=_shared(self.columns.thresholds))
        return replace(self, columns=columns, table=_shared(self.table), slots=_shared(self.slots))

    def sums(self, numbers: tf.Tensor, categories: tf.Tensor, outputs: int) -> tf.Tensor:
        """float64 [batch, outputs]: the leaves of each row, added up by output."""
        table, slots = tf.convert_to_tensor(self.table), tf.convert_to_tensor(self.slots)
        rows = tf.linalg.matmul(self.strides, self.columns.values(numbers, categories)) + self.first[:, None]
        first, *others = tf.unstack(rows)
        left = tf.gather(table, first)
        for rows in others:
            left = tf.bitwise.bitwise_and(left, tf.gather(table, rows))
        # One bit is left in one of a tree's words: as many bits are below it as leaves are before the answer. Where
        # none is left, all bits are below.
        before = tf.cast(tf.raw_ops.PopulationCount(x=left - 1), tf.int32)
        slot = before + tf.range(0, slots.shape[0], slots.shape[0] // table.shape[1])
        # Of single numbers, gather_nd takes two thirds of gather's time.
        leaves = tf.gather_nd(slots, slot[..., None])
        return _summed(leaves, self.outputs, outputs)


def _summed(leaves: tf.Tensor, outputs: np.ndarray, count: int) -> tf.Tensor:
    """float64 [batch, count]: leaves [batch, n, width] added up, each to its output where the width is 1."""
    if leaves.shape[2] > 1 or count == 1:
        return tf.reduce_sum(leaves, axis=1)
    return tf.linalg.matmul(tf.squeeze(leaves, axis=2), tf.one_hot(outputs, count, dtype=tf.float64))


def _leaf_ranges(forest: Forest, root: int) -> dict[int, tuple[int, int]]:
    """Node -> the first of the leaves below it, and the one behind the last; leaves are counted from no to yes."""
    ranges: dict[int, tuple[int, int]] = {}
    open_nodes, count = [(root, -1)], 0
    while open_nodes:
        node, first = open_nodes.pop()
        if forest.condition[node] == LEAF:
            ranges[node] = count, count + 1
            count += 1
        elif first < 0:
            open_nodes += [(node, count), (int(forest.yes[node]), -1), (int(forest.no[node]), -1)]
        else:
            ranges[node] = first, count
    return ranges


def _block(forest: Forest, trees: Sequence[int], dtype: type) -> _Block:
    """The tables of some of the trees."""
    ranges = [_leaf_ranges(forest, int(forest.roots[tree])) for tree in trees]
    leaves = [of_tree[int(forest.roots[tree])][1] for tree, of_tree in zip(trees, ranges, strict=True)]
    bits = 32 if max(leaves) <= 32 else 64
    unsigned, signed = (np.uint32, np.int32) if bits == 32 else (np.uint64, np.int64)
    words = [-(-count // bits) for count in leaves]
    first_word = np.cumsum([0, *words])
    columns = _Columns.of(forest, dtype, np.concatenate([[*of_tree] for of_tree in ranges]))
    tables = [np.full((size, first_word[-1]), np.iinfo(unsigned).max, unsigned) for size in columns.sizes]
    slots = np.zeros((first_word[-1], bits + 1, forest.leaf_values.shape[1]))

    def rule_out(table: np.ndarray, values: np.ndarray, word: int, start: int, end: int) -> None:
        for number in range(start // bits, -(-end // bits)):
            low, high = max(start - number * bits, 0), min(end - number * bits, bits)
            table[values, word + number] &= unsigned(~(((1 << high) - 1) ^ ((1 << low) - 1)) & ((1 << bits) - 1))

    for word, count, of_tree in zip(first_word, leaves, ranges, strict=False):
        tables[0][:, word : word + -(-count // bits)] &= _ones(count, bits, unsigned)
        for node, (start, end) in of_tree.items():
            if forest.condition[node] == LEAF:
                slots[word + start // bits, start % bits] = forest.leaf_values[forest.leaf[node]]
                continue
            middle = of_tree[int(forest.no[node])][1]
            column, holds = columns.split(forest, node)
            rule_out(tables[column], holds, word, start, middle)
            rule_out(tables[column], ~holds, word, middle, end)
    joined, strides = _joined_tables(tables)
    first = np.cumsum([0, *map(len, joined[:-1])]).astype(np.int32)
    outputs = np.repeat(forest.tree_outputs[[*trees]], words)
    table = np.concatenate(joined).view(signed)
    return _Block(columns, table, strides, first, slots.reshape(-1, slots.shape[2]), outputs)


# A look-up passes over all trees, so that columns of few values share one, in tables that a core's cache holds.
_JOINED_BYTES = 1 << 18


def _joined_tables(tables: Sequence[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """The tables of columns joined to those of groups of them, and _Block.strides."""
    joined: list[np.ndarray] = []
    strides: list[np.ndarray] = []
    for column in sorted(range(len(tables)), key=lambda column: -len(tables[column])):
        own = tables[column]
        own_stride = np.arange(len(tables)) == column
        for group, table in enumerate(joined):
            if table.nbytes * len(own) <= _JOINED_BYTES:
                joined[group] = (table[:, None] & own).reshape(-1, own.shape[1])
                strides[group] = strides[group] * len(own) + own_stride
                break
        else:
            joined.append(own)
            strides.append(own_stride.astype(np.int32))
    return joined, np.stack(strides).astype(np.int32)


def _ones(count: int, bits: int, dtype: type) -> np.ndarray:
    """Words of bits, the first `count` of which are set."""
    full, rest = divmod(count, bits)
    return np.array([(1 << bits) - 1] * full + ([(1 << rest) - 1] if rest else []), dtype)


def _blocks(forest: Forest, dtype: type) -> list[_Block] | None:
    """The trees as tables of masks; None where walking costs less, or the tables were too large."""
    inner = forest.condition != LEAF
    columns = len({*zip(forest.condition[inner].tolist(), forest.column[inner].tolist(), strict=True)})
    leaves = len(forest.leaf) - int(inner.sum())
    words = max(leaves / 32, len(forest.roots))
    trees = np.flatnonzero(forest.condition[forest.roots] != LEAF)
    if not columns or forest.is_oblique or columns * words > _MASKS_A_STEP * len(forest.roots) * len(forest.levels):
        return None
    made: list[_Block] = []
    size = 1 + int(_BLOCK_LEAVES / max(1.0, leaves / len(forest.roots)))
    for start in range(0, len(trees), size):
        made.append(_block(forest, trees[start : start + size].tolist(), dtype))
        if sum(block.table.nbytes + block.slots.nbytes for block in made) > _MOST_BYTES:
            return None
    return [block.shared() for block in made]


def _lone_leaves(forest: Forest) -> np.ndarray:
    """float64 [outputs]: the sums of the trees that are nothing but a leaf, which _blocks leaves out."""
    lone = np.flatnonzero(forest.condition[forest.roots] == LEAF)
    values = forest.leaf_values[forest.leaf[forest.roots[lone]]]
    if values.shape[1] == len(forest.bias):
        return values.sum(axis=0)
    return np.bincount(forest.tree_outputs[lone], values[:, 0], len(forest.bias))


@dataclass(frozen=True)
class _Walk:
    """All trees, gone down a level of the deepest one at a time.

    Level after level, the two nodes that follow a node stand side by side: a number, plus 1 where a condition holds.

    Attributes:
        forest: the trees.
        levels: of each, whether it has conditions of a set, and of a weighted sum.
        child: int32 [nodes], the first of the two that follow a node; a leaf follows itself.
        place: int32 [nodes], which of _walked_values a condition looks at; a leaf at the last one, of which none holds.
        thresholds: [nodes], of the numbers' dtype.
        bitmaps, start: see _bitmaps.
        projection: int32 [nodes], the row of a weighted sum among the projections; -1 where there is none.
        missing: bool [nodes], what a condition of a weighted sum comes to where that is missing.
        terms: of each term of the weighted sums, by projection: int32 [projections], which of _walked_values it is, and
            of the numbers' dtype, what stands in for a missing one, and its weight.
        leaf: int32 [nodes], the row of `leaf_values` for a leaf.
        leaf_values: float64 [leaves, n].
    """

    forest: Forest
    levels: Sequence[tuple[bool, bool]]
    child: _Table
    place: _Table
    thresholds: _Table
    bitmaps: _Table
    start: _Table
    projection: _Table
    missing: _Table
    terms: Sequence[Sequence[_Table]]
    leaf: _Table
    leaf_values: _Table

    @classmethod
    def of(cls, forest: Forest, dtype: type, width: int) -> _Walk:
        """What is looked up on the way.

        Args:
            forest: the trees.
            dtype: of the numbers.
            width: how many numbers there are.
        """
        nodes = np.concatenate(forest.levels)
        condition, column, missing = forest.condition[nodes], forest.column[nodes], forest.missing[nodes]
        is_leaf, in_set, oblique = (condition == kind for kind in (LEAF, IN_SET, OBLIQUE))
        child = np.arange(len(nodes), dtype=np.int32)
        child[~is_leaf] = len(forest.roots) + 2 * np.arange((~is_leaf).sum())
        place = np.full(len(nodes), 3 * width + len(forest.category_counts) + 1, np.int32)
        place[condition == AT_LEAST] = (column + width * missing)[condition == AT_LEAST]
        place[in_set] = column[in_set] + 3 * width
        thresholds = np.maximum(_comparable(forest.threshold[nodes], dtype), np.finfo(dtype).min)
        thresholds[is_leaf | in_set] = 0
        bitmaps, start = _bitmaps(forest, nodes)
        ends = np.cumsum([len(level) for level in forest.levels[:-1]])
        return cls(
            forest=forest,
            levels=[
                (bool(sets.any()), bool(sums.any()))
                for sets, sums in zip(np.split(in_set, ends)[:-1], np.split(oblique, ends)[:-1], strict=True)
            ],
            child=_shared(child),
            place=_shared(place),
            thresholds=_shared(thresholds),
            bitmaps=_shared(bitmaps),
            start=_shared(start),
            projection=_shared(np.where(oblique, column, -1).astype(np.int32)),
            missing=_shared(missing),
            terms=[[*map(_shared, term)] for term in _terms(forest, dtype, width)],
            leaf=_shared(forest.leaf[nodes]),
            leaf_values=_shared(forest.leaf_values),
        )

    def sums(self, numbers: tf.Tensor, categories: tf.Tensor, outputs: int) -> tf.Tensor:
        """float64 [batch, outputs]: the leaves of each row, added up by output."""
        values = _walked_values(self.forest, numbers, categories)
        batch = tf.shape(values)[0]
        row = tf.range(batch)[:, None] * values.shape[1]
        flat = tf.reshape(values, [-1])
        child, place, thresholds, bitmaps, start, projection, missing = (
            tf.convert_to_tensor(table)
            for table in (
                self.child, self.place, self.thresholds, self.bitmaps, self.start, self.projection, self.missing
            )
        )  # fmt: skip
        at = tf.tile(tf.range(len(self.forest.roots))[None, :], [batch, 1])
        for has_sets, has_sums in self.levels:
            value = tf.gather(flat, row + tf.gather(place, at))
            holds = tf.greater_equal(value, tf.gather(thresholds, at))
            if has_sets:
                begins, category = tf.gather(start, at), tf.cast(value, tf.int32)
                word = tf.where(begins >= 0, begins + tf.bitwise.right_shift(category, 5), 0)
                bit = tf.bitwise.right_shift(tf.gather(bitmaps, word), tf.bitwise.bitwise_and(category, 31))
                holds = tf.where(begins >= 0, tf.equal(tf.bitwise.bitwise_and(bit, 1), 1), holds)
            if has_sums:
                chosen = tf.gather(projection, at)
                total = self._weighted_sums(tf.maximum(chosen, 0), flat, row)
                above = tf.where(tf.math.is_nan(total), tf.gather(missing, at), total >= tf.gather(thresholds, at))
                holds = tf.where(chosen >= 0, above, holds)
            at = tf.gather(child, at) + tf.cast(holds, tf.int32)
        leaves = tf.gather(tf.convert_to_tensor(self.leaf_values), tf.gather(tf.convert_to_tensor(self.leaf), at))
        return _summed(leaves, self.forest.tree_outputs, outputs)

    def _weighted_sums(self, chosen: tf.Tensor, flat: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
        """[batch, trees]: the weighted sum of each chosen projection, added up in the order that YDF has.

        Args:
            chosen: int32 [batch, trees], their rows.
            flat: [n], the values.
            row: int32 [batch, 1], where those of each row begin.
        """
        total = tf.zeros(tf.shape(chosen), flat.dtype)
        for term in self.terms:
            place, replacement, weight = (tf.gather(tf.convert_to_tensor(table), chosen) for table in term)
            number = tf.gather(flat, row + place)
            total += tf.where(tf.math.is_nan(number), replacement, number) * weight
        return total


def _walked_values(forest: Forest, numbers: tf.Tensor, categories: tf.Tensor) -> tf.Tensor:
    """[batch, n] of the numbers' dtype: what conditions look at.

    Numbers three times, as a missing one is below all others for some conditions, above all for others, and NaN for a
    weighted sum; categories, of which a missing one has the number behind the last; 0; and minus infinity.
    """
    lowest = tf.constant(-np.inf, numbers.dtype)
    absent = tf.math.is_nan(numbers)
    counts = tf.constant(forest.category_counts, tf.int64)
    known = tf.logical_and(categories >= 0, categories < counts)
    return tf.concat(
        [
            tf.where(absent, lowest, numbers),
            tf.where(absent, -lowest, numbers),
            numbers,
            tf.cast(tf.where(known, categories, counts), numbers.dtype),
            tf.zeros([tf.shape(numbers)[0], 1], numbers.dtype),
            tf.fill([tf.shape(numbers)[0], 1], lowest),
        ],
        axis=1,
    )


def _bitmaps(forest: Forest, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int32 [n] and int32 [nodes]: bitmaps one after the other, and where that of each node begins; -1 for no set.

    The bit behind the last category is for a missing one.
    """
    in_set = nodes[forest.condition[nodes] == IN_SET]
    start = np.full(len(nodes), -1, np.int32)
    if not len(in_set):
        return np.zeros(1, np.int32), start
    counts = forest.category_counts[forest.column[in_set]]
    kinds, which = np.unique(
        np.stack([forest.members[in_set], counts, forest.missing[in_set]], axis=1), axis=0, return_inverse=True
    )
    members = np.unpackbits(forest.sets[kinds[:, 0]], axis=1, bitorder="little")
    bits = np.zeros((len(kinds), -(-(int(kinds[:, 1].max()) + 1) // 32) * 32), np.uint8)
    shared = min(members.shape[1], bits.shape[1])
    bits[:, :shared] = members[:, :shared]
    bits[np.arange(bits.shape[1]) >= kinds[:, 1:2]] = 0
    bits[np.arange(len(kinds)), kinds[:, 1]] = kinds[:, 2]
    start[forest.condition[nodes] == IN_SET] = which.reshape(-1) * (bits.shape[1] // 32)
    return np.packbits(bits, axis=1, bitorder="little").view("<i4").reshape(-1), start


def _terms(forest: Forest, dtype: type, width: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """See _Walk.terms. One that fills a projection up is a 0."""
    zero = 3 * width + len(forest.category_counts)
    columns = forest.projection_columns
    places = np.where(columns < 0, zero, columns + 2 * width).astype(np.int32)
    for term in range(columns.shape[1]):
        replacements, weights = forest.projection_replacements[:, term], forest.projection_weights[:, term]
        yield places[:, term], replacements.astype(dtype), weights.astype(dtype)
