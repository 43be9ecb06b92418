"""How many examples there are of each class."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from components.run_report.charts.svg import FIRST, SECOND, new_figure, page_style, svg

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
