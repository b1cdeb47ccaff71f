"""The figures of an evaluation: PNG files, and all of them in one interactive page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from topotrain.figures.chart import GUIDE_COLOUR, PALETTE, Axis, Chart, Marker, Panel, Series
from topotrain.figures.page import write_page
from topotrain.figures.png import write_png
from topotrain.figures.shared import DOCKQ, QUALITY_LIMITS, learning_curves, predicted_against_true
from topotrain.metrics.calibration import NUM_BINS, calibration_bins
from topotrain.metrics.spread import WIDTHS, SpreadReport

MODEL_COLOUR, COUNT_COLOUR = PALETTE[0], "#bbccdd"
BASELINES: tuple[tuple[Marker, str], ...] = (
    ("circle", PALETTE[3]),
    ("diamond", PALETTE[1]),
    ("square", PALETTE[2]),
)
PAGE = "figures.html"


@dataclass(frozen=True)
class FigureData:
    """What the figures of one evaluation show.

    Attributes:
        title: what was evaluated.
        decoys: name of each decoy.
        targets: target of each decoy.
        predicted: predicted DockQ, or another quality, of each decoy.
        true: the true one of each decoy.
        ranking_loss: of each target, in its units, by predictor; the model's first.
        history: metrics of each epoch of the training run; empty where there was none.
        best_epoch: the run's best.
        epoch: of the evaluated model.
        quality: name of what is predicted.
        spread: of an ensemble's members beside its errors; ``None`` for a single model.
    """

    title: str
    decoys: Sequence[str]
    targets: Sequence[str]
    predicted: Sequence[float]
    true: Sequence[float]
    ranking_loss: Mapping[str, Mapping[str, float]]
    history: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    best_epoch: int | None = None
    epoch: int | None = None
    quality: str = DOCKQ
    spread: SpreadReport | None = None

    @property
    def extent(self) -> str:
        """How much was evaluated, for captions."""
        return f"{len(self.true)} decoys of {len(set(self.targets))} targets"


def write_figures(shown: FigureData, folder: Path) -> None:
    """Draw every figure as a PNG file named after it, and all of them in ``figures.html``."""
    charts = [
        predicted_against_true(shown.predicted, shown.true, shown.targets, shown.decoys, shown.quality),
        ranking_loss(shown),
        calibration(shown),
    ]
    if shown.spread is not None:
        charts.append(spread_and_error(shown, shown.spread))
    if shown.history:
        charts.append(learning_curves(shown.history, shown.best_epoch, shown.epoch, shown.quality))
    for chart in charts:
        write_png(chart, folder / f"{chart.name}.png", shown.title)
    write_page(charts, folder / PAGE, shown.title)


def ranking_loss(shown: FigureData) -> Chart:
    """The ranking loss of each target, the least of the model on top."""
    (model, losses), *baselines = shown.ranking_loss.items()
    names = sorted(losses, key=lambda name: (losses[name], name), reverse=True)
    series = [Series("lying bars", [losses[name] for name in names], names, MODEL_COLOUR, label=model)]
    for (label, values), (marker, colour) in zip(baselines, BASELINES, strict=False):
        series.append(Series("points", [values[name] for name in names], names, colour, label=label, marker=marker))
    reach = max(value for one in shown.ranking_loss.values() for value in one.values()) or 1.0
    return Chart(
        "ranking_loss",
        "Ranking loss of each target",
        f"{shown.quality} lost by trusting the ranking: best true {shown.quality} of a target minus that of its "
        f"top-ranked decoy, for {shown.extent}. 0 is perfect. Bars: the model; marks: free baselines on the same data.",
        [Panel(Axis(f"ranking loss ({shown.quality})", (-0.02 * reach, 1.05 * reach)), Axis("target"), series)],
        inches=(8.4, 2.4 + 0.24 * len(names)),
    )


def calibration(shown: FigureData) -> Chart:
    """Mean truth against mean prediction in ranges of the prediction, and how many decoys are in each."""
    bins = calibration_bins(np.array(shown.predicted), np.array(shown.true))
    counts = [str(one.count) for one in bins]
    means = Series(
        "line",
        [one.predicted for one in bins],
        [one.true for one in bins],
        MODEL_COLOUR,
        texts=[f"{count} decoys" for count in counts],
        errors=[one.error for one in bins],
    )
    middles = [one.low + 0.5 / NUM_BINS for one in bins]
    numbers = Series("bars", middles, [one.count for one in bins], COUNT_COLOUR, texts=counts, width=0.92 / NUM_BINS)
    axis = Axis(f"predicted {shown.quality}", QUALITY_LIMITS)
    return Chart(
        "calibration",
        "Calibration",
        f"Mean true {shown.quality} (with standard error) of the decoys whose prediction falls into each of "
        f"{NUM_BINS} equal ranges of predicted {shown.quality}; below, how many fall there. "
        f"{shown.extent.capitalize()}. On the dotted line predictions are right on average.",
        [
            Panel(axis, Axis(f"mean true {shown.quality}", QUALITY_LIMITS), [means], diagonal=True),
            Panel(axis, Axis("decoys", whole=True), [numbers]),
        ],
        inches=(6.4, 6.4),
        heights=(4, 1),
    )


def spread_and_error(shown: FigureData, report: SpreadReport) -> Chart:
    """Whether an ensemble errs more where its members disagree, and whether intervals hold what they should."""
    spreads = [group.spread for group in report.groups]
    errors = Series(
        "line",
        spreads,
        [group.error for group in report.groups],
        MODEL_COLOUR,
        label="error",
        texts=[f"{group.count} decoys" for group in report.groups],
    )
    equal = Series("line", spreads, spreads, GUIDE_COLOUR, label="as large as the spread")
    within = Series("line", WIDTHS, report.within, MODEL_COLOUR, label="measured")
    normal = Series("line", WIDTHS, report.normal, GUIDE_COLOUR, label="normal errors of that size")
    return Chart(
        "spread_and_error",
        "Spread and error",
        f"Left: root mean squared error ({shown.quality}) of {len(report.groups)} groups of decoys with like spread "
        "(standard deviation over the members), against their spread. Right: the fraction of decoys whose true "
        f"{shown.quality} is within so many standard deviations of the prediction. {shown.extent.capitalize()}.",
        [
            Panel(Axis(f"spread ({shown.quality})"), Axis(f"error ({shown.quality})"), [errors, equal]),
            Panel(
                Axis("standard deviations", whole=True), Axis("fraction of decoys", QUALITY_LIMITS), [within, normal]
            ),
        ],
        inches=(9.0, 4.2),
    )
