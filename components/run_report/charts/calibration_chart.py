"""The reliability diagram."""

from __future__ import annotations

from components.run_report.calibration import Calibration
from components.run_report.charts.svg import FAINT, FIRST, new_figure, page_style, svg


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
