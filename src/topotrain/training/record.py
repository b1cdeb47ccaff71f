"""What a run records of itself before the first step and after the last."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from topotrain.config import LoadedConfig
from topotrain.data.prepare import PreparedData
from topotrain.data.split import Split
from topotrain.fields import (
    CONFIG_ARTIFACT,
    COVERAGE_ARTIFACT,
    ORIGINAL_CONFIG_ARTIFACT,
    SCHEMA_ARTIFACT,
    TAG_SCHEMA_DIGEST,
    VALIDATION_PARAMETER,
    quality_name,
)
from topotrain.figures.png import write_png
from topotrain.figures.shared import learning_curves, predicted_against_true
from topotrain.tracking.provenance import installed_packages, system_facts
from topotrain.tracking.recorder import DatasetFacts, Recorder
from topotrain.training.judged import Judged
from topotrain.training.selection import Selection


def record_recipe(recorder: Recorder, loaded: LoadedConfig, data: PreparedData, num_parameters: int) -> None:
    """Record configuration, schema, coverage, data sets and environment."""
    recorder.text(data.schema.to_json(), SCHEMA_ARTIFACT)
    recorder.text(loaded.config.to_yaml(), CONFIG_ARTIFACT)
    recorder.text(loaded.original_text, ORIGINAL_CONFIG_ARTIFACT)
    recorder.json(data.coverage(), COVERAGE_ARTIFACT)
    recorder.text(installed_packages(), "environment/packages.txt")
    recorder.json(system_facts(), "environment/system.json")
    recorder.params(data.schema.parameters(), see=SCHEMA_ARTIFACT)
    recorder.params(loaded.config.flat(), see=CONFIG_ARTIFACT)
    recorder.params(
        {
            "data.num_train": str(len(data.module.train)),
            "data.num_val": str(len(data.module.val)),
            "data.digest": data.digest,
            VALIDATION_PARAMETER: data.val.label_digest,
            "model.num_parameters": str(num_parameters),
        },
        see=COVERAGE_ARTIFACT,
    )
    recorder.tags({TAG_SCHEMA_DIGEST: data.schema.digest})
    recorder.datasets([_dataset(data, data.train, "training"), _dataset(data, data.val, "validation")])


def _dataset(data: PreparedData, split: Split, context: Literal["training", "validation"]) -> DatasetFacts:
    return DatasetFacts(
        name=f"{data.graph_dir.name}-{split.name}",
        context=context,
        digest=split.digest,
        source=str(data.label_paths[split.name]),
        profile={"num_graphs": len(split.samples), "num_targets": len(split.targets), "digest": split.digest},
    )


def record_figures(recorder: Recorder, selection: Selection, judged: Judged, folder: Path) -> None:
    """Draw and record the figures of a run that has ended.

    Args:
        recorder: of the run.
        selection: its history.
        judged: its kept checkpoints on the validation graphs.
        folder: where the figures are written; they must stay until the recorder is closed.
    """
    best, quality = selection.best, quality_name(judged.data.schema.label_column)
    charts = [(learning_curves(selection.history, best.epoch if best else None, quality=quality), "training")]
    if best is not None:
        val, predicted = judged.data.module.val, judged.predicted(best).tolist()
        scatter = predicted_against_true(predicted, val.y.tolist(), val.targets, quality=quality)
        charts.append((scatter, f"validation, best epoch ({best.epoch})"))
    for chart, title in charts:
        path = folder / "figures" / f"{chart.name}.png"
        write_png(chart, path, title)
        recorder.file(path, "figures")
