"""The figures of an evaluation and of a run: both media show every value of one description."""

from __future__ import annotations

import re

import numpy as np
import pytest

from topotrain.evaluation.figures import FigureData, calibration, ranking_loss, spread_and_error, write_figures
from topotrain.figures import page, png
from topotrain.figures.chart import Axis, Chart, Panel, Series
from topotrain.figures.shared import CURVES, learning_curves, predicted_against_true
from topotrain.metrics.spread import spread_report

TARGETS = ["A", "A", "B", "B", "B"]
TRUE, PREDICTED = [0.0, 1.0, 0.2, 0.3, 0.8], [0.1, 0.9, 0.35, 0.3, 0.6]
HISTORY = {epoch: {name: 0.1 * epoch + number for number, name in enumerate(CURVES)} for epoch in range(3)}
LOSSES = {"model": {"A": 0.0, "B": 0.3}, "constant": {"A": 0.5, "B": 0.1}, "best raw feature": {"A": 0.2, "B": 0.9}}
DECOYS = ["a<1", "a2", "b1", "b2", "b3"]
SHOWN = FigureData("<m> on l", DECOYS, TARGETS, PREDICTED, TRUE, LOSSES, HISTORY, 2, 1)
CHARTS = [
    predicted_against_true(PREDICTED, TRUE, TARGETS, DECOYS),
    ranking_loss(SHOWN),
    calibration(SHOWN),
    learning_curves(HISTORY, best_epoch=2, evaluated_epoch=1),
    spread_and_error(SHOWN, spread_report(np.linspace(0.1, 0.9, 40), np.linspace(0.05, 0.2, 40), np.full(40, 0.4))),
]


@pytest.fixture(params=CHARTS, ids=lambda chart: chart.name)
def chart(request) -> Chart:
    return request.param


def positions(values) -> list[float]:
    """Of names on an axis of names, else the values themselves."""
    return [float(at if isinstance(value, str) else value) for at, value in enumerate(values)]


def test_every_value_is_within_the_axes_of_the_png(chart):
    figure = png.draw(chart, "title")
    for axes, panel in zip(figure.axes, chart.panels, strict=True):
        for axis, limits in (("x", axes.get_xlim()), ("y", axes.get_ylim())):
            values = [value for series in panel.series for value in positions(getattr(series, axis))]
            assert limits[0] <= min(values) <= max(values) <= limits[1]
            assert limits[1] - limits[0] < 4 * (max(values) - min(values) or 1), "lost in an empty panel"


def test_the_page_has_the_same_values_as_the_png(chart):
    traces = page.draw(chart).data
    series = [one for panel in chart.panels for one in panel.series]
    for trace, one in zip(traces, series, strict=True):
        assert (list(trace.x), list(trace.y)) == (list(one.x), list(one.y))
        assert trace.showlegend == bool(one.label)


def test_axes_are_labelled_in_both_media_once(chart):
    figure = png.draw(chart, "title")
    layout = page.draw(chart).layout.to_plotly_json()
    for number, (axes, panel) in enumerate(zip(figure.axes, chart.panels, strict=True), start=1):
        hidden = bool(chart.heights) and number < len(chart.panels)  # the lowest panel's axis is that of all
        suffix = "" if number == 1 else str(number)
        titles = [layout[f"{axis}axis{suffix}"]["title"].get("text") for axis in "xy"]
        assert axes.get_xlabel() == (titles[0] or "") == ("" if hidden else panel.x.label)
        assert axes.get_ylabel() == titles[1] == panel.y.label


def test_a_legend_that_would_not_fit_is_left_out():
    panel = Panel(Axis("x"), Axis("y"), [Series("line", [0, 1], [0, n], "#000000", label=str(n)) for n in range(21)])
    assert png.draw(Chart("n", "h", "c", [panel], (4, 4)), "t").axes[0].get_legend() is None


def test_the_least_loss_of_the_model_is_on_top():
    (panel,) = CHARTS[1].panels
    assert [series.label for series in panel.series] == list(LOSSES)
    assert panel.series[0].y == ["B", "A"]  # from below
    assert [series.x for series in panel.series] == [[0.3, 0.0], [0.1, 0.5], [0.9, 0.2]]


def test_captions_say_how_much_and_which_epoch():
    for chart in CHARTS[:3]:
        assert "5 decoys of 2 targets" in chart.caption
    assert CHARTS[3].caption.endswith("the run's best epoch (2); the evaluated model is of epoch 1.")
    assert "best epoch" not in learning_curves(HISTORY, None).caption
    assert learning_curves(HISTORY, None).panels[0].mark is None


def test_a_single_epoch_can_be_seen():
    once = learning_curves({0: HISTORY[0]}, None)
    assert {line.get_marker() for axes in png.draw(once, "t").axes for line in axes.lines} == {"o"}
    assert {trace.mode for trace in page.draw(once).data} == {"lines+markers"}


def test_a_model_without_a_run_has_no_learning_curves(tmp_path):
    write_figures(FigureData("t", DECOYS, TARGETS, PREDICTED, TRUE, LOSSES), tmp_path)
    names = {"predicted_against_true.png", "ranking_loss.png", "calibration.png", "figures.html"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_names_are_text_on_the_page(tmp_path):
    page.write_page([CHARTS[0]], tmp_path / "new" / "p.html", SHOWN.title)
    text = (tmp_path / "new" / "p.html").read_text()
    assert "&lt;m&gt; on l" in text
    assert "a<1" not in text.split("plotly-graph-div")[-1]
    assert re.search(r"a(&|.u0026)lt;1", text)


def test_equal_losses_of_zero_can_be_drawn():
    perfect = {name: {"A": 0.0, "B": 0.0} for name in LOSSES}
    chart = ranking_loss(FigureData("t", DECOYS, TARGETS, PREDICTED, TRUE, perfect))
    low, high = png.draw(chart, "t").axes[0].get_xlim()
    assert low < 0 < high
    assert np.isfinite([low, high]).all()
