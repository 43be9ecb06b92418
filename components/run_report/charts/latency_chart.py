"""How long a request takes."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.ticker import LogLocator

from components.run_report.charts.svg import FAINT, FIRST, new_figure, page_style, svg


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
