"""How the training went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.ticker import MaxNLocator

from components.run_report.charts.svg import FIRST, SECOND, new_figure, page_style, svg

_COLOURS = {"loss": FIRST, "val_loss": SECOND}
NAMES = {"loss": "training rows", "val_loss": "held-out rows"}


@page_style
def learning_curves_chart(curves: Mapping[str, Sequence[float]]) -> str:
    """The loss of each epoch, and that of held-out rows where there were any."""
    figure = new_figure(6.4, 2.8)
    axes = figure.subplots()
    said = []
    for name, colour in _COLOURS.items():
        if values := curves.get(name):
            marker = "o" if len(values) == 1 else None
            axes.plot(range(1, len(values) + 1), values, color=colour, label=NAMES[name], marker=marker)
            said.append(f"of {NAMES[name]} from {values[0]:.4g} to {values[-1]:.4g} in {len(values)} epochs")
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return svg(figure, "The loss " + ", ".join(said))
