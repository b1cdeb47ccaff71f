"""What Optuna draws of a tuning, as PNG files and as one interactive page."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import optuna

from topotrain.batches.tune_plan import Plan
from topotrain.figures.page import PageFigure, write_figures
from topotrain.figures.png import drawn_without_display, save_drawn
from topotrain.tracking.recorder import Recorder

log = logging.getLogger("topotrain")

LEAST = 2  # trials that have to have finished before anything can be compared
PICTURES = {
    "history": ("Optimisation history", "The metric of each trial, and the best so far."),
    "importances": ("Importance of the settings", "How much of the metric's variance each setting explains (fANOVA)."),
    "parallel_coordinates": ("Parallel coordinates", "Each line is a trial; its colour is the metric."),
    "slices": ("Slices", "The metric against each setting; dark trials are late ones."),
}


def record_pictures(study: optuna.Study, recorder: Recorder, folder: Path, plan: Plan) -> None:
    """Draw the study's pictures, and record them with the tuning's run.

    Args:
        study: with what was tried.
        recorder: of the tuning's run.
        folder: to draw in.
        plan: names the metric.
    """
    finished = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    if len(finished) < LEAST:
        log.info("fewer than %d trials finished: there is nothing to draw", LEAST)
        return
    figures = []
    for name, (heading, caption) in PICTURES.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pictures that Optuna calls experimental
            if name == "importances" and len({trial.value for trial in finished}) < LEAST:
                continue
            with drawn_without_display():
                drawn = _draw(optuna.visualization.matplotlib, name, study, plan)
                path = folder / f"{name}.png"
                save_drawn(drawn, path)
            recorder.file(path, "figures")
            figures.append(PageFigure(name, heading, caption, _draw(optuna.visualization, name, study, plan)))
    page = folder / "tuning.html"
    write_figures(figures, page, f"tuning {recorder.run_name}")
    recorder.file(page, "figures")


def _draw(by: Any, name: str, study: optuna.Study, plan: Plan) -> Any:
    metric = {"target_name": plan.metric}
    if name == "history":
        return by.plot_optimization_history(study, **metric)
    if name == "importances":
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=plan.recipe.dataloader.seed)
        return by.plot_param_importances(study, evaluator=evaluator, **metric)
    if name == "parallel_coordinates":
        return by.plot_parallel_coordinate(study, **metric)
    return by.plot_slice(study, **metric)
