"""Pictures of an evaluation as PNG files, light and legible, each with a caption; interactive ones are beside them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from topotrain.fields import TRAIN_MSE, VAL_LOSS, VAL_RANKING_LOSS, VAL_SPEARMAN
from topotrain.figures import LEGEND_TARGETS, new_figure, save_figure
from topotrain.metrics.calibration import NUM_BINS, calibration_bins

CURVES = (TRAIN_MSE, VAL_LOSS, VAL_SPEARMAN, VAL_RANKING_LOSS)
PALETTE = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999999", "#ee7733", "#332288", "#44aa99",
    "#882255", "#8c564b", "#88dd55", "#cc99ff", "#000000", "#ff3399", "#0000cc", "#886600", "#ffaaaa", "#005544",
)  # fmt: skip
MODEL_COLOUR, OTHER_COLOUR, FREE_COLOUR, LINE_COLOUR = "#4477aa", "#ee6677", "#ccbb44", "#999999"
CAPTION_CHARACTERS = 15  # an inch


@dataclass(frozen=True)
class EvaluationPicture:
    """What the pictures of one evaluation show.

    Attributes:
        title: what was judged.
        models: name of each decoy.
        targets: target of each decoy.
        predicted: predicted DockQ of each decoy.
        true: true DockQ of each decoy.
        ranking_loss: of each target, in DockQ units, by predictor; the model's first.
        history: figures of each epoch of the training run; empty where there was none.
        best_epoch: the run's best.
        epoch: of the model that was judged.
    """

    title: str
    models: Sequence[str]
    targets: Sequence[str]
    predicted: Sequence[float]
    true: Sequence[float]
    ranking_loss: Mapping[str, Mapping[str, float]]
    history: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    best_epoch: int | None = None
    epoch: int | None = None

    @property
    def names(self) -> list[str]:
        """Every target, sorted."""
        return sorted(set(self.targets))

    def rows(self, target: str) -> list[int]:
        """Positions of a target's decoys."""
        return [row for row, name in enumerate(self.targets) if name == target]

    def colour(self, target: str) -> str:
        """Of a target, the same in every picture."""
        return PALETTE[self.names.index(target) % len(PALETTE)]

    @property
    def by_loss(self) -> list[str]:
        """Targets, the least loss of the model first."""
        model = next(iter(self.ranking_loss.values()))
        return sorted(self.names, key=lambda name: (model[name], name))

    @property
    def captions(self) -> dict[str, str]:
        """What each picture shows, with units; by file name."""
        decoys = f"{len(self.true)} models of {len(self.names)} targets"
        captions = {
            "predicted_against_true": f"Predicted against true DockQ (both without unit, 0 to 1) of {decoys}, coloured "
            "by target. On the dotted line a prediction is right.",
            "ranking_loss": "DockQ lost by trusting the ranking: best true DockQ of a target minus that of its "
            f"top-ranked model, for {decoys}. 0 is perfect. Bars: the model; marks: free baselines on the same data.",
            "calibration": f"Mean true DockQ (with standard error) of the models whose prediction falls into each of "
            f"{NUM_BINS} equal ranges of predicted DockQ; below, how many fall there. {decoys.capitalize()}. On the "
            "dotted line predictions are right on average.",
        }
        if self.history:
            captions["learning_curves"] = (
                f"Training over {len(self.history)} epochs. Left: mean squared error (DockQ squared) in training and "
                "validation. Right: Spearman's correlation over all validation models, and mean validation ranking "
                f"loss (DockQ). Dotted: the run's best epoch ({self.best_epoch})"
                + (f"; the model judged is of epoch {self.epoch}." if self.epoch is not None else ".")
            )
        return captions


def draw_evaluation(picture: EvaluationPicture, folder: Path) -> list[Path]:
    """Draw every picture as a PNG file.

    Args:
        picture: what they show.
        folder: where they go; made if need be.

    Returns:
        The files.
    """
    draw = {
        "predicted_against_true": _scatter,
        "ranking_loss": _losses,
        "calibration": _calibration,
        "learning_curves": _curves,
    }
    paths = []
    for name, caption in picture.captions.items():
        figure = draw[name](picture)
        lines = textwrap.wrap(caption, int(CAPTION_CHARACTERS * figure.get_figwidth()))
        figure.supxlabel("\n".join(lines), fontsize=8, color="0.35", x=0.02, ha="left")
        figure.suptitle(picture.title, fontsize=10, x=0.02, ha="left")
        paths.append(folder / f"{name}.png")
        save_figure(figure, paths[-1])
    return paths


def _scatter(picture: EvaluationPicture) -> Any:
    figure, (axes,) = new_figure(1, inches=(7.2, 5.6))
    for name in picture.names:
        rows = picture.rows(name)
        points = [picture.true[row] for row in rows], [picture.predicted[row] for row in rows]
        axes.scatter(*points, s=22, alpha=0.75, linewidths=0, color=picture.colour(name), label=name)
    axes.plot([0, 1], [0, 1], color=LINE_COLOUR, linestyle=":")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="true DockQ", ylabel="predicted DockQ", aspect="equal")
    if len(picture.names) <= LEGEND_TARGETS:
        axes.legend(title="target", frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


def _losses(picture: EvaluationPicture) -> Any:
    names = picture.by_loss[::-1]  # the least loss on top
    figure, (axes,) = new_figure(1, inches=(8.4, 2.4 + 0.24 * len(names)))
    (model, losses), *others = picture.ranking_loss.items()
    axes.barh(names, [losses[name] for name in names], color=MODEL_COLOUR, alpha=0.85, height=0.62, label=model)
    for marker, colour, (label, values) in zip("oD", (FREE_COLOUR, OTHER_COLOUR), others, strict=False):
        axes.scatter([values[name] for name in names], names, marker=marker, s=26, color=colour, label=label, zorder=3)
    reach = max((value for values in picture.ranking_loss.values() for value in values.values()), default=0.0) or 1.0
    axes.set(xlabel="ranking loss (DockQ)", ylabel="target", xlim=(-0.02 * reach, 1.05 * reach))
    axes.margins(y=0.5 / len(names))
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), reverse=True)
    return figure


def _calibration(picture: EvaluationPicture) -> Any:
    figure, (top, bottom) = new_figure(1, rows=2, inches=(6.4, 6.4), height_ratios=[4, 1], sharex=True)
    bins = calibration_bins(np.array(picture.predicted), np.array(picture.true))
    top.plot([0, 1], [0, 1], color=LINE_COLOUR, linestyle=":")
    middles = [one.predicted for one in bins]
    errors = [one.error for one in bins]
    top.errorbar(middles, [one.true for one in bins], errors, fmt="o-", color=MODEL_COLOUR, capsize=3, linewidth=1.4)
    top.set(ylim=(-0.02, 1.02), xlim=(-0.02, 1.02), ylabel="mean true DockQ")
    bottom.bar([one.low for one in bins], [one.count for one in bins], 0.92 / NUM_BINS, align="edge", color="#bbccdd")
    for one in bins:
        bottom.annotate(str(one.count), (one.low + 0.46 / NUM_BINS, one.count), ha="center", va="bottom", fontsize=8)
    bottom.set(xlabel="predicted DockQ", ylabel="models")
    bottom.margins(y=0.25)
    return figure


def _curves(picture: EvaluationPicture) -> Any:
    figure, (left, right) = new_figure(2)
    epochs = sorted(picture.history)
    for axes, names in ((left, CURVES[:2]), (right, CURVES[2:])):
        for name, colour in zip(names, (MODEL_COLOUR, OTHER_COLOUR), strict=True):
            values = [picture.history[epoch][name] for epoch in epochs]
            axes.plot(epochs, values, label=name, color=colour, linewidth=1.6)
        if picture.best_epoch is not None:
            label = f"best epoch ({picture.best_epoch})"
            axes.axvline(picture.best_epoch, color=LINE_COLOUR, linestyle=":", label=label)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False, fontsize=8)
    left.set_ylabel("mean squared error (DockQ squared)")
    right.set_ylabel("correlation; ranking loss (DockQ)")
    return figure
