"""topotrain: train graph networks that score models (decoys) of protein complexes.

The names below are the Python front door, the commands as functions; everything else is found by room (see README.md).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from topotrain.version import __version__ as __version__

if TYPE_CHECKING:
    from topotrain.batches.batch import batch as batch
    from topotrain.batches.tune import tune as tune
    from topotrain.config import load_config as load_config
    from topotrain.evaluation.compare import compare as compare
    from topotrain.evaluation.evaluate import evaluate as evaluate
    from topotrain.evaluation.predictions_file import ranking_metrics as ranking_metrics
    from topotrain.evaluation.promote import promote as promote
    from topotrain.evaluation.promote import rollback as rollback
    from topotrain.features import build_graphs as build_graphs
    from topotrain.features import label_decoys as label  # noqa: F401 (by another name)
    from topotrain.features.split import split_structures as split  # noqa: F401 (by another name)
    from topotrain.reports.describe import describe as describe
    from topotrain.reports.leaderboard import leaderboard as leaderboard
    from topotrain.reports.monitor import monitor as monitor
    from topotrain.reports.summarise import summarise as summarise
    from topotrain.reports.verify import verify as verify
    from topotrain.scoring.ensemble import ensemble as ensemble
    from topotrain.scoring.explain import explain as explain
    from topotrain.scoring.import_checkpoint import import_checkpoint as import_checkpoint
    from topotrain.scoring.predict_directory import predict_directory as predict  # noqa: F401 (by another name)
    from topotrain.scoring.structures import score_structures as score  # noqa: F401 (by another name)
    from topotrain.training.fit import TrainResult as TrainResult
    from topotrain.training.fit import fit as fit
    from topotrain.training.fit_or_resume import fit_or_resume as fit_or_resume
    from topotrain.training.resume import resume as resume

# Module and name of each.
_DOORS = {
    "TrainResult": ("training.fit", "TrainResult"),
    "batch": ("batches.batch", "batch"),
    "build_graphs": ("features", "build_graphs"),
    "compare": ("evaluation.compare", "compare"),
    "describe": ("reports.describe", "describe"),
    "ensemble": ("scoring.ensemble", "ensemble"),
    "evaluate": ("evaluation.evaluate", "evaluate"),
    "explain": ("scoring.explain", "explain"),
    "fit": ("training.fit", "fit"),
    "fit_or_resume": ("training.fit_or_resume", "fit_or_resume"),
    "import_checkpoint": ("scoring.import_checkpoint", "import_checkpoint"),
    "label": ("features", "label_decoys"),
    "leaderboard": ("reports.leaderboard", "leaderboard"),
    "load_config": ("config", "load_config"),
    "monitor": ("reports.monitor", "monitor"),
    "predict": ("scoring.predict_directory", "predict_directory"),
    "promote": ("evaluation.promote", "promote"),
    "ranking_metrics": ("evaluation.predictions_file", "ranking_metrics"),
    "resume": ("training.resume", "resume"),
    "rollback": ("evaluation.promote", "rollback"),
    "score": ("scoring.structures", "score_structures"),
    "split": ("features.split", "split_structures"),
    "summarise": ("reports.summarise", "summarise"),
    "tune": ("batches.tune", "tune"),
    "verify": ("reports.verify", "verify"),
}
# The room ``metrics`` has a command's name: called, it is the command (see there).
__all__ = ["__version__", "metrics", *_DOORS]


def __getattr__(name: str) -> Any:
    """Import on first use: torch and Lightning take seconds, and most commands need neither."""
    if name == "metrics":
        return import_module(f"{__name__}.metrics")
    if name not in _DOORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _DOORS[name]
    return getattr(import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    """The functions too, which are there before they are imported."""
    return sorted({*globals(), *__all__})
