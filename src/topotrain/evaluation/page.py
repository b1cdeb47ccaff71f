"""The pictures of an evaluation as one interactive page that needs no network: plotly's code is inside, once."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from topotrain.evaluation.figures import (
    CURVES,
    FREE_COLOUR,
    LINE_COLOUR,
    MODEL_COLOUR,
    OTHER_COLOUR,
    EvaluationPicture,
)
from topotrain.metrics.calibration import NUM_BINS, calibration_bins

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

HEADINGS = {
    "predicted_against_true": "Predicted against true DockQ",
    "ranking_loss": "Ranking loss of each target",
    "calibration": "Calibration",
    "learning_curves": "Learning curves",
}
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; color: #222; background: #fff; max-width: 960px; margin: 24px auto;
padding: 0 16px; }}
h1 {{ font-size: 20px; }} h2 {{ font-size: 16px; margin: 32px 0 0; }} figure {{ margin: 0; }}
figcaption {{ color: #555; font-size: 13px; }}
</style></head><body>
<h1>{title}</h1>
{figures}
</body></html>
"""
FIGURE = "<h2>{heading}</h2>\n<figure>{body}<figcaption>{caption}</figcaption></figure>"


def write_page(picture: EvaluationPicture, path: Path) -> None:
    """Write every picture into one HTML file of about 5 MB, nearly all of it plotly's code."""
    draw = {
        "predicted_against_true": _scatter,
        "ranking_loss": _losses,
        "calibration": _calibration,
        "learning_curves": _curves,
    }
    parts: list[str] = []
    for name, caption in picture.captions.items():
        figure = draw[name](picture)
        figure.update_layout(template="plotly_white", margin={"t": 30, "r": 16}, font={"size": 13})
        body = figure.to_html(
            full_html=False,
            include_plotlyjs=not parts,  # with the first figure; the others find it there
            div_id=name.replace("_", "-"),
            config={
                "displaylogo": False,
                "responsive": True,
                "modeBarButtonsToRemove": ["sendChartToCloud"],  # the figures stay where they are
            },
        )
        parts.append(FIGURE.format(heading=HEADINGS[name], body=body, caption=html.escape(caption)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PAGE.format(title=html.escape(picture.title), figures="\n".join(parts)), encoding="utf-8")


def _scatter(picture: EvaluationPicture) -> Figure:
    from plotly.graph_objects import Figure

    figure = Figure()
    for name in picture.names:
        rows = picture.rows(name)
        figure.add_scatter(
            x=[picture.true[row] for row in rows],
            y=[picture.predicted[row] for row in rows],
            text=[html.escape(picture.models[row]) for row in rows],
            mode="markers",
            name=html.escape(name),
            marker={"color": picture.colour(name), "size": 7, "opacity": 0.75},
            hovertemplate="%{text}<br>true %{x:.3f}, predicted %{y:.3f}",
        )
    figure.add_shape(type="line", x0=0, y0=0, x1=1, y1=1, line={"color": LINE_COLOUR, "dash": "dot"})
    figure.update_xaxes(title="true DockQ", range=[-0.02, 1.02], constrain="domain")
    figure.update_yaxes(title="predicted DockQ", range=[-0.02, 1.02], constrain="domain", scaleanchor="x")
    figure.update_layout(height=620, legend={"title": {"text": "target"}})
    return figure


def _losses(picture: EvaluationPicture) -> Figure:
    from plotly.graph_objects import Figure

    figure = Figure()
    names = picture.by_loss[::-1]
    (model, losses), *others = picture.ranking_loss.items()
    hover = "%{y}: %{x:.3f} DockQ"
    labels = [html.escape(name) for name in names]
    figure.add_bar(
        x=[losses[name] for name in names],
        y=labels,
        orientation="h",
        name=html.escape(model),
        marker={"color": MODEL_COLOUR},
        hovertemplate=hover,
    )
    for symbol, colour, (label, values) in zip(
        ("circle", "diamond"), (FREE_COLOUR, OTHER_COLOUR), others, strict=False
    ):
        figure.add_scatter(
            x=[values[name] for name in names],
            y=labels,
            mode="markers",
            name=html.escape(label),
            marker={"color": colour, "symbol": symbol, "size": 9},
            hovertemplate=hover,
        )
    figure.update_xaxes(title="ranking loss (DockQ)", rangemode="tozero")
    figure.update_yaxes(title="target", type="category")
    figure.update_layout(height=200 + 26 * len(names))
    return figure


def _calibration(picture: EvaluationPicture) -> Figure:
    from plotly.subplots import make_subplots

    figure: Any = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.8, 0.2], vertical_spacing=0.04)
    bins = calibration_bins(np.array(picture.predicted), np.array(picture.true))
    figure.add_scatter(
        x=[one.predicted for one in bins],
        y=[one.true for one in bins],
        error_y={"type": "data", "array": [one.error for one in bins]},
        text=[str(one.count) for one in bins],
        mode="lines+markers",
        marker={"color": MODEL_COLOUR, "size": 8},
        hovertemplate="predicted %{x:.3f}, true %{y:.3f}<br>%{text} models<extra></extra>",
        row=1,
        col=1,
    )
    figure.add_bar(
        x=[one.low + 0.5 / NUM_BINS for one in bins],
        y=[one.count for one in bins],
        width=0.92 / NUM_BINS,
        marker={"color": "#bbccdd"},
        hovertemplate="%{y} models<extra></extra>",
        row=2,
        col=1,
    )
    figure.add_shape(type="line", x0=0, y0=0, x1=1, y1=1, line={"color": LINE_COLOUR, "dash": "dot"}, row=1, col=1)
    figure.update_xaxes(range=[-0.02, 1.02])
    figure.update_xaxes(title="predicted DockQ", row=2, col=1)
    figure.update_yaxes(title="mean true DockQ", range=[-0.02, 1.02], row=1, col=1)
    figure.update_yaxes(title="models", row=2, col=1)
    figure.update_layout(height=560, showlegend=False)
    return figure


def _curves(picture: EvaluationPicture) -> Figure:
    from plotly.subplots import make_subplots

    figure: Any = make_subplots(rows=1, cols=2)
    epochs = sorted(picture.history)
    for column, names in ((1, CURVES[:2]), (2, CURVES[2:])):
        for name, colour in zip(names, (MODEL_COLOUR, OTHER_COLOUR), strict=True):
            figure.add_scatter(
                x=epochs,
                y=[picture.history[epoch][name] for epoch in epochs],
                name=name,
                line={"color": colour, "dash": "solid" if column == 1 else "dash"},
                hovertemplate="epoch %{x}: %{y:.4f}",
                row=1,
                col=column,
            )
        if picture.best_epoch is not None:
            figure.add_vline(
                picture.best_epoch,
                line={"color": LINE_COLOUR, "dash": "dot"},
                annotation_text=f"best epoch ({picture.best_epoch})",
                row=1,
                col=column,
            )
    figure.update_xaxes(title="epoch")
    figure.update_yaxes(title="mean squared error (DockQ squared)", row=1, col=1)
    figure.update_yaxes(title="correlation; ranking loss (DockQ)", row=1, col=2)
    figure.update_layout(height=420, legend={"orientation": "h", "y": 1.12})
    return figure
