"""Evaluate a model on labelled graphs, beside free baselines, and keep the verdict on the server."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from topotrain.data.demo import demo_paths
from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.pooled_columns import pooled_columns
from topotrain.data.raw_features import raw_features, truth
from topotrain.data.split import Split, SplitRules, read_split
from topotrain.data.targets import TargetRule
from topotrain.errors import DataError
from topotrain.evaluation.figures import FigureData, write_figures
from topotrain.evaluation.table import against_table, hit_rate_csv, render, spread_lines, target_csv
from topotrain.fields import (
    DATASET_DIGEST_LENGTH,
    DEMO,
    DOCKQ_COLUMN,
    EVAL_PREFIX,
    HIT_RATE,
    TAG_EVAL_AT,
    TAG_EVAL_DIGEST,
    TAG_EVAL_HIT_RATES,
    TAG_EVAL_TARGETS,
    TREES,
    quality_name,
)
from topotrain.figures.shared import CURVES
from topotrain.metrics.baselines import CONSTANT, FEATURE, constant_baseline, feature_baseline
from topotrain.metrics.paired import against
from topotrain.metrics.ranking import Values
from topotrain.metrics.report import RankingReport, ranking_report
from topotrain.metrics.spread import SpreadReport, spread_report
from topotrain.metrics.trees import Trees
from topotrain.model.checkpoint import load_network
from topotrain.progress import Track
from topotrain.schema.check import SchemaCheck
from topotrain.schema.feature_schema import FeatureSchema
from topotrain.scoring.load import fetch_files, find_version, scorer_of_files, trees_of_files
from topotrain.scoring.scorer import Prediction, Scorer
from topotrain.scratch import scratch
from topotrain.text import as_json
from topotrain.tracking.artifacts import checkpoint_of_uri
from topotrain.tracking.in_words import version_in_words
from topotrain.tracking.records import EvaluatedModel, Verdict
from topotrain.tracking.store import Store, find_store

log = logging.getLogger("topotrain")

MODEL = "model"
WITH_TREES = f"{TREES}: boosted trees on pooled columns, which learned from the model's own training graphs"
WITHOUT_TREES = f"{TREES}: none, this model brings none (versions made by earlier topotrain, and checkpoints)"


@dataclass(frozen=True)
class Evaluation:
    """How a model ranks labelled graphs.

    Attributes:
        model: what was evaluated.
        reports: of the model and of the baselines, by name, the model's first; of the trees where it brings some.
        data: what it was evaluated on.
        run_id: where the verdict is kept; ``None`` for a model that is on no server.
        at: when, in UTC.
        quality: the column of what the model predicts.
        spread: of an ensemble's members beside its errors; ``None`` for a single model, which gives none.
    """

    model: EvaluatedModel
    reports: Mapping[str, RankingReport]
    data: Mapping[str, str]
    run_id: str | None
    at: str
    quality: str = DOCKQ_COLUMN
    spread: SpreadReport | None = None

    def to_dict(self) -> dict[str, Any]:
        """The report."""
        return {
            "model": {
                "uri": self.model.uri,
                "name": self.model.name,
                "version": self.model.version,
                "run_id": self.run_id or self.model.run_id,
                "model_id": self.model.model_id,
                "epoch": self.model.epoch,
            },
            "data": dict(self.data),
            "evaluated_at": self.at,
            "figures": {name: report.to_dict() for name, report in self.reports.items()},
            "first_choice": self.reports[MODEL].first_choice,
            "against_baselines": self.against_baselines,
            "spread": self.spread.to_dict() if self.spread else None,
        }

    @cached_property
    def against_baselines(self) -> dict[str, Any]:
        """How the model differs from each baseline, over the targets (see ``paired.against``)."""
        return against(self.reports[MODEL], {name: one for name, one in self.reports.items() if name != MODEL})

    def text(self, form: str, *, per_target: bool = False) -> str:
        """What is printed: ``table``, ``json`` or ``csv``."""
        document = self.to_dict()
        if form == "json":
            return as_json(document)
        table = render(document["figures"], form, "predictor", per_target=per_target)
        if form == "csv":
            return table
        data = self.data
        head = [
            f"{self.model.title} on {data['labels']}",
            f"data digest {data['digest']}; targets by {data['targets_by']}",
            f"{CONSTANT}: the mean true {quality_name(self.quality)} of these data; {FEATURE}: {data['raw_feature']}",
            WITH_TREES if TREES in self.reports else WITHOUT_TREES,
        ]
        spread = spread_lines(self.spread, quality_name(self.quality))
        return "\n".join([*head, "", table, *against_table(self.against_baselines), "", *spread, ""])


def evaluate(
    *,
    model: str | None = None,
    run: str | None = None,
    graphs: str = DEMO,
    labels: str = DEMO,
    targets: TargetRule | None = None,
    allow_unverified: bool = False,
    experiment: str | None = None,
    tracking_uri: str | None = None,
    progress: Track | None = None,
) -> Evaluation:
    """Score every labelled graph with a model, measure how well the scores rank, and record the verdict.

    Args:
        model: ``models:/NAME@alias``, ``models:/NAME/VERSION``, a local folder or ``starter``; by default the champion,
            else the candidate, else the starter.
        run: instead of a model: a run, whose best version or checkpoint is meant.
        graphs: graph directory; ``demo`` for that of the demo data set.
        labels: label file; ``demo`` for the hold-out targets of the demo data set.
        targets: where targets are written, for labels without a target.
        allow_unverified: whether graphs whose columns have no names may be checked by width alone.
        experiment: look for the run in this experiment only.
        tracking_uri: of the store; by default MLFLOW_TRACKING_URI, else ``mlflow.db`` here.
        progress: wraps the reading of graphs.

    Raises:
        TrackingError: no such model or run, or the store can't be used.
        DataError: graphs or labels can't be used.
        SchemaError: the graphs have other features than the model was trained on (both sides are shown), or features
            without names.
    """
    store, evaluated = find_model(model, run, experiment, tracking_uri)
    scorer, trees = load_model(store, evaluated)
    graph_dir, label_path = data_paths(graphs, labels)
    directory = GraphDirectory(graph_dir)
    held = SchemaCheck.of_directory(scorer.schema, directory.root, allow_unverified=allow_unverified)
    column = scorer.schema.label_column
    split = read_labelled("evaluation", directory, label_path, SplitRules(column=column, rule=targets), progress)
    hold_all(held, split)
    data = {
        "graphs": str(directory.root),
        "labels": str(label_path),
        "digest": split.digest[:DATASET_DIGEST_LENGTH],
        "targets_by": f"{split.targets_by}; label {quality_name(column)}",
    }
    at = datetime.now(UTC).isoformat(timespec="seconds")
    predictions = list(scorer.predictions(split.known()))
    predicted = np.array([one.score for one in predictions])
    reports, data["raw_feature"] = _reports(predicted, scorer.schema, trees, split)
    evaluation = Evaluation(evaluated, reports, data, evaluated.run_id, at, column, _spread(predictions, split))
    run_id = None if store is None else _record(store, evaluation, split)
    if run_id is None:
        log.info("%s is on no tracking server: the metrics are printed, not recorded", evaluated.title)
    return replace(evaluation, run_id=run_id)


def find_model(
    model: str | None, run: str | None, experiment: str | None, tracking_uri: str | None
) -> tuple[Store | None, EvaluatedModel]:
    """What is meant, and the store that it is on; one line says which version.

    Raises:
        DataError: both are given.
        TrackingError: no such model or run, or the store can't be used.
    """
    if model and run:
        raise DataError(f"model {model!r} and run {run!r} are both given", "one of them")
    if run:
        store = find_store(tracking_uri)
        return store, store.versions.evaluated_run(store.runs.find(run, experiment))
    found, uri, version = find_version(model, tracking_uri)
    if found is None:
        return None, EvaluatedModel(uri)
    if version is None:
        return found, found.versions.evaluated(uri)
    log.info(version_in_words(version, found))
    return found, found.versions.evaluated_version(version)  # an alias may have moved since


def read_labelled(
    name: str, directory: GraphDirectory, labels: Path, rules: SplitRules, progress: Track | None
) -> Split:
    """Read labelled graphs, and say which targets they are of."""
    split = read_split(name, directory, labels, rules, progress=progress)
    log.info(split.target_line)
    for warning in split.warnings:
        log.warning(warning)
    return split


def hold_all(held: SchemaCheck, split: Split) -> None:
    """Hold every graph against a model's schema."""
    for facts in split.facts():
        held(facts)
    held.report()


def data_paths(graphs: str, labels: str) -> tuple[Path, Path]:
    """Graph directory and label file; ``demo`` stands for those of the demo data set."""
    if (graphs == DEMO) != (labels == DEMO):
        raise DataError("the demo data set can't be mixed with other data", "--graphs and --labels, or neither of them")
    if graphs == DEMO:
        demo = demo_paths()
        return demo.graphs, demo.holdout_labels
    return Path(graphs), Path(labels).absolute()


def load_model(store: Store | None, evaluated: EvaluatedModel) -> tuple[Scorer, Trees | None]:
    """Its networks and schema, be it a version, a checkpoint or a local folder, and the trees that it brings."""
    with tempfile.TemporaryDirectory() as folder:
        if store is None or not evaluated.uri.startswith("runs:/"):
            files = fetch_files(evaluated.uri, store, Path(folder))
            return scorer_of_files(files, evaluated.uri), trees_of_files(files)
        return Scorer(*load_network(store.artifacts.fetch(checkpoint_of_uri(evaluated.uri), Path(folder)))), None


def _spread(predictions: Sequence[Prediction], split: Split) -> SpreadReport | None:
    spreads = [one.spread for one in predictions if one.spread is not None]
    predicted = np.array([one.score for one in predictions])
    return spread_report(predicted, np.array(spreads), truth(split)[0]) if spreads else None


def _reports(
    predicted: Values, schema: FeatureSchema, trees: Trees | None, split: Split
) -> tuple[dict[str, RankingReport], str]:
    """Of the model and of the baselines, and which raw feature was the best."""
    quality = split.column
    true, targets = truth(split)
    feature, report = feature_baseline(raw_features(split), true, targets, quality=quality)
    reports = {
        MODEL: ranking_report(predicted, true, targets, quality=quality),
        CONSTANT: constant_baseline(true, targets, quality=quality),
        FEATURE: report,
    }
    if trees is not None:
        pooled = pooled_columns(split.packed(schema), schema.node_dim, schema.edge_dim)
        reports[TREES] = ranking_report(trees.predict(pooled), true, targets, quality=quality)
    return reports, feature


def _record(store: Store, evaluation: Evaluation, split: Split) -> str | None:
    """Write report and figures, and record the verdict."""
    data = evaluation.data
    metrics = evaluation.reports[MODEL].metrics() | (evaluation.spread.metrics() if evaluation.spread else {})
    hit_rates = {key: value for key, value in metrics.items() if key.startswith(HIT_RATE)}
    with scratch("evaluate") as folder:
        _write_files(evaluation, split, _history(store, evaluation.model), folder)
        verdict = Verdict(
            metrics={f"{EVAL_PREFIX}{key}": value for key, value in metrics.items() if key not in hit_rates},
            dataset_name=f"{Path(data['graphs']).name}-{Path(data['labels']).stem}",
            dataset_digest=data["digest"],
            version_tags={
                TAG_EVAL_DIGEST: data["digest"],
                TAG_EVAL_AT: evaluation.at,
                TAG_EVAL_TARGETS: data["targets_by"],
                **({TAG_EVAL_HIT_RATES: json.dumps(hit_rates)} if hit_rates else {}),
            },
            folder=folder,
        )
        return store.verdicts.record(evaluation.model, verdict)


def _history(store: Store, evaluated: EvaluatedModel) -> tuple[dict[int, dict[str, float]], int | None]:
    if evaluated.run_id is None:
        return {}, None
    run = store.runs.get(evaluated.run_id)
    history = store.runs.history(run, CURVES)
    complete = {epoch: metrics for epoch, metrics in history.items() if len(metrics) == len(CURVES)}
    return complete, run.best_epoch


def _write_files(
    evaluation: Evaluation, split: Split, history: tuple[dict[int, dict[str, float]], int | None], folder: Path
) -> None:
    """Report, table and figures, as they go to the server."""
    document = evaluation.to_dict()
    (folder / "report.json").write_text(as_json(document), encoding="utf-8")
    if hit_rates := hit_rate_csv(document["figures"]):
        (folder / "hit_rates.csv").write_text(hit_rates, encoding="utf-8")
    (folder / "per_target.csv").write_text(target_csv(document["figures"], "predictor"), encoding="utf-8")
    model = evaluation.reports[MODEL]
    shown = FigureData(
        title=f"{evaluation.model.title} on {Path(evaluation.data['labels']).name} "
        f"(digest {evaluation.data['digest'][:8]})",
        decoys=[sample.key for sample in split.samples],
        targets=[sample.target for sample in split.samples],
        predicted=model.predicted.tolist(),
        true=model.true.tolist(),
        ranking_loss={
            f"{name} ({evaluation.data['raw_feature']})" if name == FEATURE else name: _losses(report)
            for name, report in evaluation.reports.items()
        },
        history=history[0],
        best_epoch=history[1],
        epoch=evaluation.model.epoch,
        quality=quality_name(evaluation.quality),
        spread=evaluation.spread,
    )
    write_figures(shown, folder)


def _losses(report: RankingReport) -> dict[str, float]:
    return {one.target: one.metrics["ranking_loss"] or 0.0 for one in report.targets}
