"""Which checkpoints are worth keeping, and when to stop; pure, so that it can be stored and tested."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topotrain.config import TrainConfig
from topotrain.fields import BEST_SELECTION_METRIC, BEST_VAL_LOSS, KEPT_INDEX, SELECTION_METRIC, VAL_LOSS
from topotrain.text import as_json


@dataclass(frozen=True)
class Kept:
    """One epoch worth keeping.

    Attributes:
        epoch: counted from 0.
        value: of the primary metric, lower is better.
        metrics: all metrics of the epoch.
    """

    epoch: int
    value: float
    metrics: dict[str, float]

    @property
    def file_name(self) -> str:
        """Name of its checkpoint."""
        return f"epoch_{self.epoch:04d}.ckpt"


@dataclass(frozen=True)
class EpochOutcome:
    """What one epoch changed."""

    keep: Kept | None
    dropped: list[Kept]
    is_best: bool
    improved_metrics: dict[str, float]


@dataclass
class Selection:
    """The state of selection after some epochs.

    Attributes:
        config: ranks epochs and says how many to keep and how long to wait; always today's, never a stored one.
        kept: best first; ties go to the earlier epoch.
        waited: epochs since the primary metric improved.
        history: metrics of every epoch by epoch number.
    """

    config: TrainConfig
    kept: list[Kept] = field(default_factory=list)
    waited: int = 0
    history: dict[int, dict[str, float]] = field(default_factory=dict)

    @property
    def best(self) -> Kept | None:
        """The best epoch so far."""
        return self.kept[0] if self.kept else None

    @property
    def should_stop(self) -> bool:
        """Whether the primary metric has stalled for as long as the configuration allows."""
        return self.waited > 0 and self.waited >= self.config.early_stopping.patience

    @property
    def has_epochs_left(self) -> bool:
        """Whether the configuration asks for another epoch; one that leaves their number to the data does."""
        most = self.config.trainer.num_epochs
        return (most is None or len(self.history) < most) and not self.should_stop

    @property
    def points(self) -> dict[int, dict[str, float]]:
        """Everything recorded of each epoch, the best metrics so far included."""
        points: dict[int, dict[str, float]] = {}
        for epoch, metrics in sorted(self.history.items()):
            earlier = [self.history[e] for e in points]
            points[epoch] = {**metrics, **_improved(metrics, earlier)}
        return points

    def update(self, epoch: int, metrics: Mapping[str, float]) -> EpochOutcome:
        """Take the metrics of an epoch that has ended."""
        candidate = self._candidate(epoch, metrics)
        is_best = self.best is None or candidate.value < self.best.value
        self.waited = 0 if is_best else self.waited + 1
        ranked = sorted([*self.kept, candidate], key=lambda kept: (kept.value, kept.epoch))
        self.kept, dropped = ranked[: self.config.checkpoints.keep], ranked[self.config.checkpoints.keep :]
        improved = _improved(metrics, self.history.values())
        self.history[epoch] = dict(metrics)
        keep = candidate if candidate in self.kept else None
        return EpochOutcome(keep, [old for old in dropped if old.epoch != epoch], is_best, improved)

    def keep(self, epoch: int) -> None:
        """Keep an epoch of the history, whatever its rank."""
        self.kept.append(self._candidate(epoch, self.history[epoch]))

    def _candidate(self, epoch: int, metrics: Mapping[str, float]) -> Kept:
        return Kept(epoch, self.config.selection.primary(metrics), dict(metrics))

    def state_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint; ``figures`` is what checkpoints have always called the metrics."""
        kept = [{"epoch": one.epoch, "value": one.value, "figures": one.metrics} for one in self.kept]
        return {"kept": kept, "waited": self.waited, "history": self.history}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore counters and metrics; settings, the primary metric too, stay those of ``config``."""
        kept = [self._candidate(one["epoch"], one["figures"]) for one in state["kept"]]
        self.kept = sorted(kept, key=lambda one: (one.value, one.epoch))
        self.waited = state["waited"]
        self.history = {int(epoch): metrics for epoch, metrics in state["history"].items()}


def _improved(metrics: Mapping[str, float], earlier: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """``best_val_loss`` and ``best_selection_metric``, where this epoch is better than all before it."""
    before = list(earlier)
    return {
        best: metrics[name]
        for name, best in ((VAL_LOSS, BEST_VAL_LOSS), (SELECTION_METRIC, BEST_SELECTION_METRIC))
        if all(metrics[name] < one[name] for one in before)
    }


def write_kept_index(selection: Selection, folder: Path) -> Path:
    """Write which checkpoints are kept, best first, as recorded beside them."""
    index = folder / KEPT_INDEX
    rows = [
        {"rank": rank, "epoch": kept.epoch, "file": kept.file_name, **kept.metrics}
        for rank, kept in enumerate(selection.kept, start=1)
    ]
    index.write_text(as_json(rows), encoding="utf-8")
    return index
