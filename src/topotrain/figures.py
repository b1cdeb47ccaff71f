"""Pictures, light and legible: how one is begun and written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

INCHES = (9.0, 4.0)
DPI = 130
LEGEND_TARGETS = 20


def new_figure(  # type: ignore[no-untyped-def]  # noqa: ANN201 (matplotlib is imported on use)
    columns: int, *, rows: int = 1, inches: tuple[float, float] | None = None, **options: Any
):
    """A light figure without a display, and its axes in reading order.

    Args:
        columns: of axes.
        rows: of axes.
        inches: its size.
        options: of ``Figure.subplots``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches or (INCHES if columns > 1 else (6.4, 4.8)), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False, **options).flat)
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(alpha=0.25)
        one.set_axisbelow(True)
    return figure, axes


def save_figure(figure, path: Path) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Write a figure as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
