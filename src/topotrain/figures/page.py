"""Charts as one interactive page that needs no network: plotly's code is inside, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from topotrain.figures.chart import GUIDE_COLOUR, Axis, Chart, Panel, Series

PIXELS = 100  # an inch
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; color: #222; background: #fff; max-width: 960px; margin: 24px auto;
padding: 0 16px; }}
h1 {{ font-size: 20px; }} h2 {{ font-size: 16px; margin: 32px 0 0; }} figure {{ margin: 0; }}
figcaption {{ color: #555; font-size: 13px; }}
</style>{head}</head><body>
<h1>{title}</h1>
{body}
</body></html>
"""
FIGURE = "<h2>{heading}</h2>\n<figure>{body}<figcaption>{caption}</figcaption></figure>"


@dataclass(frozen=True)
class PageFigure:
    """A figure of plotly with its words.

    Attributes:
        name: of its element on the page.
        heading: for people, short.
        caption: what it shows, with units.
        figure: of plotly.
    """

    name: str
    heading: str
    caption: str
    figure: Any


def write_page(charts: Sequence[Chart], path: Path, title: str) -> None:
    """Write charts into one HTML file of about 5 MB, nearly all of it plotly's code.

    Args:
        charts: what they show.
        path: file to write; its folder is made if need be.
        title: above them.
    """
    figures = [PageFigure(chart.name, chart.heading, chart.caption, draw(chart)) for chart in charts]
    write_figures(figures, path, title)


def write_figures(figures: Sequence[PageFigure], path: Path, title: str) -> None:
    """As ``write_page``, of figures that are drawn already."""
    bodies: list[str] = []
    for one in figures:
        body = one.figure.to_html(
            full_html=False,
            include_plotlyjs=not bodies,  # with the first figure; the others find it there
            div_id=one.name.replace("_", "-"),
            config={
                "displaylogo": False,
                "responsive": True,
                "modeBarButtonsToRemove": ["sendChartToCloud"],  # the figures stay where they are
            },
        )
        bodies.append(FIGURE.format(heading=escape(one.heading), body=body, caption=escape(one.caption)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(title, "\n".join(bodies)), encoding="utf-8")


def page(title: str, body: str, head: str = "") -> str:
    """A page as text.

    Args:
        title: above it, as plain text.
        body: HTML.
        head: HTML of its head, beside what all pages have there.
    """
    return PAGE.format(title=escape(title), body=body, head=head)


def draw(chart: Chart) -> Any:
    """The chart as a figure of plotly."""
    from plotly.subplots import make_subplots

    if chart.heights:
        total = sum(chart.heights)
        heights = [height / total for height in chart.heights]
        figure = make_subplots(len(heights), 1, shared_xaxes=True, row_heights=heights, vertical_spacing=0.04)
    else:
        figure = make_subplots(1, len(chart.panels))
    for number, panel in enumerate(chart.panels, start=1):
        _draw_panel(figure, panel, *((number, 1) if chart.heights else (1, number)))
    if chart.heights:
        figure.update_xaxes(title=None, row=1)
    figure.update_layout(
        template="plotly_white",
        height=int(PIXELS * chart.inches[1]),
        margin={"t": 30, "r": 16},
        font={"size": 13},
        legend={"title": {"text": escape(chart.legend)}} if len(chart.panels) == 1 else {"orientation": "h", "y": 1.12},
    )
    return figure


def _draw_panel(figure: Any, panel: Panel, row: int, col: int) -> None:
    for series in panel.series:
        figure.add_trace(_trace(series, panel), row=row, col=col)
    line = {"color": GUIDE_COLOUR, "dash": "dot"}
    if panel.diagonal:
        figure.add_shape(type="line", x0=0, y0=0, x1=1, y1=1, line=line, row=row, col=col)
    if panel.mark:
        at, label = panel.mark
        figure.add_vline(at, line=line, annotation_text=escape(label), row=row, col=col)
    figure.update_xaxes(**_axis(panel.x), row=row, col=col)
    figure.update_yaxes(**_axis(panel.y), row=row, col=col)
    if panel.square:
        figure.update_xaxes(constrain="domain", row=row, col=col)
        figure.update_yaxes(constrain="domain", scaleanchor="x", row=row, col=col)


def _axis(axis: Axis) -> dict[str, Any]:
    return {
        "title": escape(axis.label),
        "range": axis.limits,
        "hoverformat": None if axis.whole else ".4f",
        "tickformat": "d" if axis.whole else None,
    }


def _trace(series: Series, panel: Panel) -> Any:
    from plotly.graph_objects import Bar, Scatter

    y = [escape(value) if isinstance(value, str) else value for value in series.y]
    hover = f"{escape(panel.x.label)} %{{x}}<br>{escape(panel.y.label)} %{{y}}"
    shared: dict[str, Any] = {
        "x": list(series.x),
        "y": y,
        "name": escape(series.label),
        "showlegend": bool(series.label),
        "text": [escape(text) for text in series.texts] or None,
        "hovertemplate": ("%{text}<br>" if series.texts else "") + hover + ("" if series.label else "<extra></extra>"),
    }
    if series.kind == "bars":
        texts = {"textposition": "outside", "cliponaxis": False}
        return Bar(**shared, **texts, width=series.width, marker={"color": series.colour})
    if series.kind == "lying bars":
        return Bar(**shared, orientation="h", marker={"color": series.colour})
    if series.kind == "line":
        mode = "lines+markers" if series.marked else "lines"
        errors = {"type": "data", "array": list(series.errors)} if series.errors else None
        return Scatter(**shared, mode=mode, line={"color": series.colour}, error_y=errors)
    marker = {"color": series.colour, "symbol": series.marker, "size": 8, "opacity": 0.8}
    return Scatter(**shared, mode="markers", marker=marker)
