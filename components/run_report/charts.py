"""Charts of a report, as SVG."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from itertools import count
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import TightLayoutEngine
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator
from tensorflow_metadata.proto.v0 import statistics_pb2

from components.data_gate.splits import value_counts
from components.drift import ColumnShift
from components.run_report.dataset import ColumnSummary
from components.run_report.finished_run import Step
from components.run_report.statistics import Calibration, LiveFigure, MetricEstimate, ThresholdCurve

# matplotlib knows no colours of a page: these stand for the variables of templates/style.css and are replaced by them.
INK, FAINT, PAPER = "#010203", "#040506", "#070809"
FIRST, SECOND, GOOD, BAD, IDLE = "#0a0b0c", "#0d0e0f", "#101112", "#131415", "#161718"
SCALE = tuple(f"#2020{level:02x}" for level in range(16, 24))
_VARIABLES = {
    INK: "ink",
    FAINT: "faint",
    PAPER: "paper",
    FIRST: "first",
    SECOND: "second",
    GOOD: "good",
    BAD: "bad",
    IDLE: "idle",
} | {colour: f"scale-{level}" for level, colour in enumerate(SCALE)}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be read, searched and enlarged
    "svg.hashsalt": "ingraph",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "path.simplify": True,
}
_FIGURES = count()

# Decorates a function that draws.
page_style = matplotlib.rc_context(_STYLE)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches (72 points) of a page."""
    # Finds its margins in half the time that a constrained layout takes.
    return Figure(figsize=(width, height), layout=TightLayoutEngine(pad=0.4))


def svg(figure: Figure, description: str) -> str:
    """The figure as an `<svg>` element.

    Args:
        figure: what to draw, in the colours of this module.
        description: what a person who cannot see it should know.
    """
    layout = figure.get_layout_engine()
    if layout is not None:
        layout.execute(figure)
        # With a layout to be found, `savefig` draws everything twice.
        figure.set_layout_engine(None)
    buffer = io.StringIO()
    # The creator and the date would make each report differ, and name a host.
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawing = buffer.getvalue()
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing[drawing.index("<svg") :], flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        drawing = drawing.replace(colour, f"var(--{variable})")
    # Several pictures stand in one page, where each id may stand once.
    prefix = f"picture{next(_FIGURES)}-"
    drawing = re.sub(r'\bid="', f'id="{prefix}', drawing)
    drawing = re.sub(r"url\(#", f"url(#{prefix}", drawing)
    drawing = re.sub(r'(xlink:href|href)="#', rf'\1="#{prefix}', drawing)
    drawing = re.sub(r'font: ([\d.]+)px [^;"]+', r"font: \1px system-ui, sans-serif", drawing)
    return drawing.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" ', 1)


@page_style
def calibration_chart(found: Calibration) -> str:
    """How often the model is right, with 95 % intervals, against how sure it is; the diagonal is what it says."""
    figure = new_figure(4.2, 3.2)
    axes = figure.subplots()
    lowest = min(one.low for one in found.bins)
    axes.plot([lowest, 1], [lowest, 1], color=FAINT, linewidth=0.8, linestyle="--")
    for one in found.bins:
        axes.plot([one.confidence] * 2, [one.accuracy.low, one.accuracy.high], color=FIRST, linewidth=1.5)
    axes.plot([one.confidence for one in found.bins], [one.accuracy.value for one in found.bins], "o", color=FIRST)
    axes.set(xlabel="how sure the model is", ylabel="how often it is right", ylim=(-0.03, 1.03))
    return svg(figure, f"Calibration: the expected calibration error is {found.expected_error:.3f}")


SHOWN_CLASSES = 30


@page_style
def class_balance_chart(classes: Mapping[str, Mapping[str, int]]) -> str:
    """Bars of the share of each class, for each split; of very many classes the most frequent ones."""
    totals = {split: max(1, sum(counts.values())) for split, counts in classes.items()}
    labels = sorted({label for counts in classes.values() for label in counts})
    labels.sort(key=lambda label: -max(counts.get(label, 0) for counts in classes.values()))
    labels = labels[:SHOWN_CLASSES]
    figure = new_figure(6.4, 0.8 + 0.4 * len(labels))
    axes = figure.subplots()
    places = np.arange(len(labels))
    for number, (split, colour) in enumerate(zip(classes, (FIRST, SECOND), strict=False)):
        shares = [classes[split].get(label, 0) / totals[split] for label in labels]
        bars = axes.barh(places + 0.36 * number, shares, height=0.34, color=colour, label=split)
        axes.bar_label(bars, [f"{classes[split].get(label, 0):,}" for label in labels], padding=3, size=8)
    axes.set_yticks(places + 0.18, labels)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.margins(x=0.15)
    axes.legend(loc="lower right")
    said = "; ".join(
        f"{split}: " + ", ".join(f"{label} {counts.get(label, 0)}" for label in labels)
        for split, counts in classes.items()
    )
    return svg(figure, f"Examples of each class. {said}")


SHOWN_VALUES = 8


@page_style
def column_chart(column: ColumnSummary) -> str:
    """A small picture: a histogram of numbers, bars of the most frequent texts; "" where there is nothing to draw."""
    kinds = {one.WhichOneof("stats") for one in column.statistics.values()}
    if kinds == {"num_stats"}:
        drawn = {split: _histogram(one) for split, one in column.statistics.items()}
    elif kinds == {"string_stats"}:
        values = list(value_counts(next(iter(column.statistics.values()))))[:SHOWN_VALUES]
        if all(
            one.string_stats.unique > one.string_stats.common_stats.num_non_missing / 2
            for one in column.statistics.values()
        ):
            return ""
        drawn = {split: _bars(one, values) for split, one in column.statistics.items()}
    else:
        return ""
    # Nothing stands beside the values: there is no layout to be found, which would take half of the time.
    figure = Figure(figsize=(2.2, 0.6))
    axes = figure.add_axes((0.02, 0.07, 0.96, 0.86))
    for (split, (edges, shares)), colour in zip(drawn.items(), (FIRST, SECOND), strict=False):
        axes.stairs(
            shares,
            edges,
            color=colour,
            fill=colour == FIRST,
            alpha=0.45 if colour == FIRST else 1,
            linewidth=1.5,
            label=split,
        )
    axes.set_axis_off()
    return svg(figure, f"The values of {column.name}: {column.values}")


def _histogram(column: statistics_pb2.FeatureNameStatistics) -> tuple[list[float], list[float]]:
    standard = [one for one in column.num_stats.histograms if one.type == statistics_pb2.Histogram.STANDARD]
    buckets = standard[0].buckets if standard else []
    if not buckets or buckets[0].low_value == buckets[-1].high_value:
        return [0.0, 1.0], [1.0]
    edges = [bucket.low_value for bucket in buckets] + [buckets[-1].high_value]
    total = sum(bucket.sample_count for bucket in buckets) or 1.0
    width = edges[1] - edges[0]
    return edges, [bucket.sample_count / total / width for bucket in buckets]


def _bars(column: statistics_pb2.FeatureNameStatistics, values: list[str]) -> tuple[list[float], list[float]]:
    counts = value_counts(column)
    total = sum(counts.values()) or 1
    return [float(edge) for edge in range(len(values) + 1)], [counts.get(value, 0) / total for value in values]


CLASSES_WITH_NUMBERS = 12


@page_style
def confusion_chart(matrix: np.ndarray, labels: Sequence[str]) -> str:
    """Rows are true, columns predicted; the shade is the share of the row, the number the examples."""
    size = min(6.4, 1.8 + 0.55 * len(labels))
    figure = new_figure(max(size, 3.0), max(2.2, size - 0.8))
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    levels = np.minimum((shares * len(SCALE)).astype(int), len(SCALE) - 1)
    for row, column in np.ndindex(matrix.shape):
        axes.add_patch(_cell(row, column, SCALE[levels[row, column]]))
        if len(labels) <= CLASSES_WITH_NUMBERS:
            # On the lighter half of the scale the ink of the page, on the darker its paper.
            colour = PAPER if levels[row, column] >= len(SCALE) // 2 else INK
            axes.text(column, row, f"{matrix[row, column]:,}", ha="center", va="center", color=colour)
    axes.set_xlim(-0.5, len(labels) - 0.5)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xticks(range(len(labels)), labels, rotation=0 if len(labels) <= 4 else 90)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    right = int(np.trace(matrix))
    return svg(figure, f"Confusion matrix: {right} of {int(matrix.sum())} examples on the diagonal, so named rightly")


def _cell(row: int, column: int, colour: str) -> Rectangle:
    return Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, edgecolor="none")


@page_style
def intervals_chart(estimates: Sequence[MetricEstimate]) -> str:
    """A row for each metric, on an axis of its own: the new model above the one served before."""
    figure = new_figure(6.4, 0.75 * len(estimates) + 0.2)
    rows = figure.subplots(len(estimates), squeeze=False)[:, 0]
    for axes, estimate in zip(rows, estimates, strict=True):
        models = [("new", estimate.candidate, FIRST), ("served", estimate.baseline, SECOND)]
        for place, (_, interval, colour) in enumerate(models):
            if interval is not None:
                axes.plot([interval.low, interval.high], [place, place], color=colour, linewidth=2)
                axes.plot([interval.value], [place], "o", color=colour, markersize=6)
        places = [place for place, (_, interval, _) in enumerate(models) if interval is not None]
        axes.set_yticks(places, [models[place][0] for place in places])
        axes.set_ylim(max(places) + 0.6, -0.6)
        axes.set_title(estimate.name, loc="left", size=9)
        for side in ("left", "top", "right"):
            axes.spines[side].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color=FAINT, linewidth=0.4)
    said = "; ".join(
        f"{one.name} {one.candidate.value:.3f}, between {one.candidate.low:.3f} and {one.candidate.high:.3f}"
        for one in estimates
    )
    return svg(figure, f"The metrics of the new model with 95 % intervals: {said}")


@page_style
def latency_chart(latency: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """A row for each signature and size of the request: a point at the median, a line to the 99th percentile.

    Args:
        latency: signature -> examples in a request -> {"p50", "p99"}, in milliseconds.
    """
    rows = [
        (f"{signature}, {size} example{'s' * (size != '1')}", measured["p50"], measured["p99"])
        for signature, sizes in latency.items()
        for size, measured in sizes.items()
    ]
    figure = new_figure(6.4, 0.7 + 0.3 * len(rows))
    axes = figure.subplots()
    for place, (_, median, tail) in enumerate(rows):
        axes.plot([median, tail], [place, place], color=FIRST, linewidth=2, solid_capstyle="butt")
        axes.plot([median], [place], "o", color=FIRST, markersize=6)
        axes.plot([tail], [place], "|", color=FIRST, markersize=9, markeredgewidth=2)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    # Ten examples take hardly ever ten times as long as one, but signatures may lie far apart.
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda *_: "")
    axes.set_xlabel("milliseconds, a logarithmic scale")
    axes.grid(axis="x", color=FAINT, linewidth=0.4)
    axes.tick_params(axis="y", length=0)
    said = "; ".join(f"{name} {median:.2f} and {tail:.2f}" for name, median, tail in rows)
    return svg(figure, f"Milliseconds of a request, median and 99th percentile: {said}")


SHOWN_DAYS = 60


@page_style
def live_chart(figures: Sequence[LiveFigure]) -> str:
    """The accuracy of each day with its 95 % interval, of the newest days; a version's number where it begins."""
    shown = sorted((one for one in figures if one.day and one.accuracy), key=lambda one: (one.day, one.version))
    shown = shown[-SHOWN_DAYS:]
    figure = new_figure(6.4, 2.8)
    axes = figure.subplots()
    said, before = [], None
    for place, one in enumerate(shown):
        assert one.accuracy is not None
        axes.plot([place, place], [one.accuracy.low, one.accuracy.high], color=FIRST, linewidth=2)
        axes.plot([place], [one.accuracy.value], "o", color=FIRST, markersize=5)
        if one.version != before:
            axes.axvline(place - 0.5, color=FAINT, linewidth=0.8, linestyle="--")
            axes.text(place - 0.4, 1.0, f"version {one.version}", va="top", color=INK, size=8)
        before = one.version
        said.append(f"{one.day}, version {one.version}: {one.accuracy.value:.3f}")
    step = max(1, len(shown) // 8)
    axes.set_xticks(range(0, len(shown), step), [one.day for one in shown[::step]], rotation=30, ha="right")
    axes.set_ylabel("accuracy")
    axes.set_ylim(top=1.0)
    axes.set_xlim(-0.6, max(len(shown) - 0.4, 0.6))
    axes.grid(axis="y", color=FAINT, linewidth=0.4)
    return svg(figure, "The accuracy of each day: " + "; ".join(said))


_CURVE_COLOURS = {"loss": FIRST, "val_loss": SECOND}
NAMES = {"loss": "training rows", "val_loss": "held-out rows"}


@page_style
def learning_curves_chart(curves: Mapping[str, Sequence[float]]) -> str:
    """The loss of each epoch, and that of held-out rows where there were any."""
    figure = new_figure(6.4, 2.8)
    axes = figure.subplots()
    said = []
    for name, colour in _CURVE_COLOURS.items():
        if values := curves.get(name):
            marker = "o" if len(values) == 1 else None
            axes.plot(range(1, len(values) + 1), values, color=colour, label=NAMES[name], marker=marker)
            said.append(f"of {NAMES[name]} from {values[0]:.4g} to {values[-1]:.4g} in {len(values)} epochs")
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return svg(figure, "The loss " + ", ".join(said))


SHOWN_COLUMNS = 12


@page_style
def shift_chart(shifts: Sequence[ColumnShift], title: str) -> str:
    """A bar for each column up to its distance, and a mark at what chance explains; of many columns the first ones."""
    shown = shifts[:SHOWN_COLUMNS]
    figure = new_figure(6.4, 0.6 + 0.26 * len(shown))
    axes = figure.subplots()
    places = range(len(shown))
    axes.barh(places, [one.distance for one in shown], 0.5, color=[BAD if one.shifted else FIRST for one in shown])
    axes.plot([one.by_chance for one in shown], places, "|", color=INK, markersize=10, markeredgewidth=1.5)
    axes.set_yticks(places, [one.column for one in shown])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1 * max(max(one.distance, one.by_chance) for one in shown))
    axes.set_xlabel(title)
    axes.grid(axis="x", color=FAINT, linewidth=0.4)
    axes.tick_params(axis="y", length=0)
    said = "; ".join(f"{one.column} {one.distance:.3f}, by chance up to {one.by_chance:.3f}" for one in shown)
    return svg(figure, f"{title}: {said}")


@page_style
def importance_chart(parts: Sequence[tuple[str, float]]) -> str:
    """A bar for each column up to its mean contribution, in percentage points; of many columns the first ones."""
    shown = parts[:SHOWN_COLUMNS]
    figure = new_figure(6.4, 0.6 + 0.26 * len(shown))
    axes = figure.subplots()
    axes.barh(range(len(shown)), [100 * value for _, value in shown], 0.5, color=FIRST)
    axes.set_yticks(range(len(shown)), [name for name, _ in shown])
    axes.invert_yaxis()
    axes.set_xlabel("mean contribution, either way, in percentage points")
    axes.grid(axis="x", color=FAINT, linewidth=0.4)
    axes.tick_params(axis="y", length=0)
    return svg(figure, "Mean contributions: " + "; ".join(f"{name} {100 * value:.2f}" for name, value in shown))


_STATE_COLOURS = {"done": FIRST, "unchanged": FAINT, "failed": BAD, "not reached": IDLE}
_BOX = (1.0, 0.5)


@page_style
def steps_chart(steps: Sequence[Step]) -> str:
    """Boxes from top to bottom with name, state and time; arrows lead to the steps that take the outputs."""
    places = _places(steps)
    rows = 1 + max(row for _, row in places.values())
    figure = new_figure(6.4, 0.72 * rows)
    axes = figure.subplots()
    axes.set_axis_off()
    for step in steps:
        for upstream in _drawn_upstream(step, steps):
            (from_column, from_row), (column, row) = places[upstream], places[step.name]
            axes.annotate(
                "",
                xy=(column, -row + _BOX[1] / 2),
                xytext=(from_column, -from_row - _BOX[1] / 2),
                arrowprops={"arrowstyle": "-|>", "color": FAINT, "shrinkA": 0, "shrinkB": 0},
                zorder=0,
            )
    for step in steps:
        column, row = places[step.name]
        axes.add_patch(
            FancyBboxPatch(
                (column - _BOX[0] / 2, -row - _BOX[1] / 2),
                *_BOX,
                boxstyle="round,pad=0,rounding_size=0.08",
                facecolor=PAPER,
                edgecolor=_STATE_COLOURS[step.state],
                linewidth=1 if step.state == "not reached" else 2,
                linestyle="-" if step.state in ("done", "failed") else "--",
            )
        )
        axes.text(column, -row + 0.08, step.name, ha="center", va="center", color=INK, weight="bold", size=8.5)
        axes.text(column, -row - 0.12, _state(step), ha="center", va="center", color=INK, size=8)
    columns = [column for column, _ in places.values()]
    axes.set_xlim(min(columns) - 0.6, max(columns) + 0.6)
    axes.set_ylim(-rows + 0.6, 0.4)
    return svg(figure, "The steps of the run: " + "; ".join(f"{step.name} {_state(step)}" for step in steps))


def _state(step: Step) -> str:
    return f"{step.seconds:.1f} s" if step.state == "done" and step.seconds is not None else step.state


def _places(steps: Sequence[Step]) -> dict[str, tuple[float, int]]:
    """Step -> column and row: below all that it waits for, the steps of a row side by side."""
    rows: dict[str, int] = {}
    for step in steps:
        rows[step.name] = 1 + max((rows[name] for name in step.upstream if name in rows), default=-1)
    for step in steps:
        if not step.upstream:  # as near as possible to what waits for it
            rows[step.name] = min((rows[one.name] for one in steps if step.name in one.upstream), default=1) - 1
    places = {}
    for row in sorted(set(rows.values())):
        names = [name for name in rows if rows[name] == row]
        for place, name in enumerate(names):
            places[name] = (1.2 * (place - (len(names) - 1) / 2), row)
    return places


def _drawn_upstream(step: Step, steps: Sequence[Step]) -> list[str]:
    """The upstream steps that no other upstream step waits for: the other arrows say nothing new."""
    upstream_of = {one.name: set(one.upstream) for one in steps}
    reached: set[str] = set()
    waiting = [name for near in step.upstream for name in upstream_of.get(near, ())]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting.extend(upstream_of.get(name, ()))
    return [name for name in step.upstream if name in upstream_of and name not in reached]


@page_style
def threshold_charts(candidate: ThresholdCurve, baseline: ThresholdCurve | None, auc: float, positive: str) -> str:
    """Both curves side by side, of the new model and, thinner, of the one served before."""
    figure = new_figure(6.4, 3.1)
    roc, precision_recall = figure.subplots(1, 2)
    roc.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle="--")
    for curve, colour, name, width in ((baseline, SECOND, "served", 1.2), (candidate, FIRST, "new", 2)):
        if curve is not None:
            roc.plot(curve.false_positive_rate, curve.recall, color=colour, linewidth=width, label=name)
            precision_recall.step(curve.recall, curve.precision, color=colour, linewidth=width, label=name, where="pre")
    roc.set(xlabel="false positive rate", ylabel="recall", title="ROC")
    precision_recall.set(xlabel="recall", ylabel="precision", title="Precision and recall", ylim=(0, 1.05))
    roc.legend(loc="lower right")
    return svg(
        figure,
        f"ROC curve of the label {positive}, area {auc:.3f}, and its precision-recall curve, average precision "
        f"{candidate.average_precision:.3f}",
    )
