"""Charts that a training run and an evaluation both show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from topotrain.fields import DOCKQ_COLUMN, TRAIN_MSE, VAL_LOSS, VAL_RANKING_LOSS, VAL_SPEARMAN, quality_name
from topotrain.figures.chart import PALETTE, Axis, Chart, Panel, Series

ERRORS, RANKING = (TRAIN_MSE, VAL_LOSS), (VAL_SPEARMAN, VAL_RANKING_LOSS)
CURVES = (*ERRORS, *RANKING)
DOCKQ = quality_name(DOCKQ_COLUMN)
QUALITY_LIMITS = (-0.02, 1.02)  # so that points at 0 and 1 are whole


def learning_curves(
    history: Mapping[int, Mapping[str, float]],
    best_epoch: int | None,
    evaluated_epoch: int | None = None,
    quality: str = DOCKQ,
) -> Chart:
    """Errors and ranking metrics against the epoch.

    Args:
        history: metrics of each epoch, ``CURVES`` among them.
        best_epoch: to mark, if there is one.
        evaluated_epoch: that of the model which is evaluated, for the caption.
        quality: name of what is predicted.
    """
    epochs = sorted(history)
    mark = None if best_epoch is None else (float(best_epoch), f"best epoch ({best_epoch})")
    colours = dict(zip(CURVES, PALETTE, strict=False))

    def panel(label: str, names: Sequence[str]) -> Panel:
        series = [
            Series("line", epochs, [history[epoch][name] for epoch in epochs], colours[name], label=name)
            for name in names
        ]
        return Panel(Axis("epoch", whole=True), Axis(label), series, mark=mark)

    caption = (
        f"Training over {len(history)} epochs. Left: mean squared error ({quality} squared) in training and "
        f"validation. Right: Spearman's correlation over all validation decoys, and mean validation ranking loss "
        f"({quality})."
    )
    if best_epoch is not None:
        evaluated = "" if evaluated_epoch is None else f"; the evaluated model is of epoch {evaluated_epoch}"
        caption += f" Dotted: the run's best epoch ({best_epoch}){evaluated}."
    return Chart(
        "learning_curves",
        "Learning curves",
        caption,
        [
            panel(f"mean squared error ({quality} squared)", ERRORS),
            panel(f"correlation; ranking loss ({quality})", RANKING),
        ],
        inches=(9.0, 4.2),
    )


def predicted_against_true(
    predicted: Sequence[float],
    true: Sequence[float],
    targets: Sequence[str],
    decoys: Sequence[str] = (),
    quality: str = DOCKQ,
) -> Chart:
    """Predicted against true quality, coloured by target.

    Args:
        predicted: predicted DockQ, or another quality, of each decoy.
        true: the true one of each decoy.
        targets: target of each decoy.
        decoys: name of each decoy, for those who point at it.
        quality: its name.
    """
    names = sorted(set(targets))
    series = []
    for number, name in enumerate(names):
        rows = [row for row, target in enumerate(targets) if target == name]
        series.append(
            Series(
                "points",
                [true[row] for row in rows],
                [predicted[row] for row in rows],
                PALETTE[number % len(PALETTE)],
                label=name,
                texts=[decoys[row] for row in rows] if decoys else (),
            )
        )
    axes = Axis(f"true {quality}", QUALITY_LIMITS), Axis(f"predicted {quality}", QUALITY_LIMITS)
    return Chart(
        "predicted_against_true",
        f"Predicted against true {quality}",
        f"Predicted against true {quality} (both without unit, 0 to 1) of {len(true)} decoys of {len(names)} targets, "
        "coloured by target. On the dotted line a prediction is right.",
        [Panel(*axes, series, diagonal=True, square=True)],
        inches=(7.2, 5.6),
        legend="target",
    )
