"""Pictures of a run, light and legible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from topotrain.fields import TRAIN_MSE, VAL_LOSS, VAL_RANKING_LOSS, VAL_SPEARMAN
from topotrain.figures import LEGEND_TARGETS, new_figure, save_figure


def learning_curves(history: Mapping[int, Mapping[str, float]], best_epoch: int | None, path: Path) -> None:
    """Draw loss and ranking figures against the epoch, the best epoch marked.

    Args:
        history: figures of each epoch.
        best_epoch: the one to mark.
        path: PNG file to write.
    """
    figure, (left, right) = new_figure(2)
    epochs = sorted(history)
    for axes, names in ((left, (TRAIN_MSE, VAL_LOSS)), (right, (VAL_SPEARMAN, VAL_RANKING_LOSS))):
        for name in names:
            axes.plot(epochs, [history[epoch][name] for epoch in epochs], label=name, linewidth=1.6)
        if best_epoch is not None:
            axes.axvline(best_epoch, color="0.6", linestyle=":", label=f"best epoch ({best_epoch})")
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False)
    left.set_ylabel("mean squared error of DockQ")
    right.set_ylabel("correlation, and DockQ lost by ranking")
    save_figure(figure, path)


def predicted_against_true(
    predicted: Sequence[float], true: Sequence[float], targets: Sequence[str], path: Path
) -> None:
    """Draw predicted against true DockQ, coloured by target.

    Args:
        predicted: predicted DockQ of each decoy.
        true: true DockQ of each decoy.
        targets: target of each decoy.
        path: PNG file to write.
    """
    figure, (axes,) = new_figure(1)
    names = sorted(set(targets))
    for name in names:
        rows = [row for row, target in enumerate(targets) if target == name]
        axes.scatter([true[row] for row in rows], [predicted[row] for row in rows], s=22, alpha=0.8, label=name)
    axes.plot([0, 1], [0, 1], color="0.6", linestyle=":")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="true DockQ", ylabel="predicted DockQ", aspect="equal")
    axes.set_title(f"validation, best epoch: {len(true)} decoys of {len(names)} targets", fontsize=10)
    if len(names) <= LEGEND_TARGETS:
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))
    save_figure(figure, path)
