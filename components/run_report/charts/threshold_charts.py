"""ROC and precision-recall curves."""

from __future__ import annotations

from components.run_report.charts.svg import FAINT, FIRST, SECOND, new_figure, page_style, svg
from components.run_report.threshold_curve import ThresholdCurve


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
