"""Charts as PNG files, light and legible, without a display."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from topotrain.figures.chart import GUIDE_COLOUR, Chart, Panel, Series

DPI = 130
LEGEND_ENTRIES = 20  # more would not fit
CAPTION_CHARACTERS = 15  # an inch
SMALL = 8  # points, for captions and legends
MARKERS = {"circle": "o", "diamond": "D", "square": "s"}


def write_png(chart: Chart, path: Path, title: str) -> None:
    """Draw a chart with its caption.

    Args:
        chart: what it shows.
        path: PNG file to write; its folder is made if need be.
        title: above it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(chart, title).savefig(path)


@contextmanager
def drawn_without_display() -> Iterator[None]:
    """Around what another library draws with pyplot: no window, and no figure is left."""
    import matplotlib

    if "matplotlib.pyplot" not in sys.modules:  # else the caller's backend is the caller's
        matplotlib.use("agg")
    import matplotlib.pyplot as plt

    before = set(plt.get_fignums())
    try:
        yield
    finally:
        for number in set(plt.get_fignums()) - before:
            plt.close(number)


def save_drawn(axes: Any, path: Path) -> None:
    """Write what another library drew.

    Args:
        axes: of matplotlib; one, or several of one figure.
        path: PNG file to write; its folder is made if need be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = (axes.flat[0] if hasattr(axes, "flat") else axes).figure
    figure.savefig(path, dpi=DPI, bbox_inches="tight")


def draw(chart: Chart, title: str) -> Any:
    """The chart as a figure of matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=chart.inches, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    if chart.heights:
        axes = figure.subplots(len(chart.panels), 1, squeeze=False, sharex=True, height_ratios=chart.heights).flat
    else:
        axes = figure.subplots(1, len(chart.panels), squeeze=False).flat
    for one, panel in zip(axes, chart.panels, strict=True):
        _draw_panel(one, panel)
        handles = [artist for artist in (_draw(one, series) for series in panel.series) if artist is not None]
        if panel.mark:
            at, label = panel.mark
            handles.append(one.axvline(at, color=GUIDE_COLOUR, linestyle=":", label=label))
        if 0 < len(handles) <= LEGEND_ENTRIES:
            beside = {"loc": "center left", "bbox_to_anchor": (1.02, 0.5)} if len(chart.panels) == 1 else {}
            one.legend(handles=handles, title=chart.legend or None, frameon=False, fontsize=SMALL, **beside)
    if chart.heights:
        for one in axes[:-1]:
            one.set_xlabel("")
    lines = textwrap.wrap(chart.caption, int(CAPTION_CHARACTERS * chart.inches[0]))
    figure.supxlabel("\n".join(lines), fontsize=SMALL, color="0.35", x=0.02, ha="left")
    figure.suptitle(title, fontsize=10, x=0.02, ha="left")
    return figure


def _draw_panel(axes: Any, panel: Panel) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.set(xlabel=panel.x.label, ylabel=panel.y.label)
    for axis, described, set_limits in ((axes.xaxis, panel.x, axes.set_xlim), (axes.yaxis, panel.y, axes.set_ylim)):
        if described.limits:
            set_limits(described.limits)
        if described.whole:
            axis.get_major_locator().set_params(integer=True)
    if panel.square:
        axes.set_aspect("equal")
    if panel.diagonal:
        axes.plot([0, 1], [0, 1], color=GUIDE_COLOUR, linestyle=":")


def _draw(axes: Any, series: Series) -> Any:
    """Draw one series; what stands for it in the legend, or ``None``."""
    options: dict[str, Any] = {"color": series.colour, "label": series.label or None}
    if series.kind == "points":
        options |= {"marker": MARKERS[series.marker], "s": 30, "alpha": 0.8, "linewidths": 0, "zorder": 3}
        drawn = axes.scatter(series.x, series.y, **options)
    elif series.kind == "line":
        form = "o-" if series.marked else "-"
        drawn = axes.errorbar(series.x, series.y, series.errors or None, fmt=form, capsize=3, linewidth=1.5, **options)
    elif series.kind == "bars":
        drawn = axes.bar(series.x, series.y, series.width, **options)
        axes.bar_label(drawn, series.texts, fontsize=SMALL)
        axes.margins(y=0.25)  # room for the texts
    else:
        drawn = axes.barh(series.y, series.x, height=0.62, alpha=0.85, **options)
        axes.margins(y=0.5 / len(series.y))
    return drawn if series.label else None
