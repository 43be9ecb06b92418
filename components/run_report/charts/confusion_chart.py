"""The confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.patches import Rectangle

from components.run_report.charts.svg import INK, PAPER, SCALE, new_figure, page_style, svg

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
