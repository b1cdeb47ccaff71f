"""Two models on the same labelled graphs: which ranks better, and whether that is more than chance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.raw_features import truth
from topotrain.data.split import Split, SplitRules
from topotrain.data.targets import TargetRule
from topotrain.errors import DataError
from topotrain.evaluation.evaluate import data_paths, find_model, hold_all, load_model, read_labelled
from topotrain.fields import DEMO, quality_name
from topotrain.metrics.paired import FIRST, MSE, SECOND, Difference, Side, paired
from topotrain.metrics.report import RankingReport, ranking_report
from topotrain.progress import Track
from topotrain.schema.check import SchemaCheck
from topotrain.text import aligned, as_csv, as_json
from topotrain.tracking.store import model_folder

WORDS = {"ranking_loss": "ranking loss ({quality})", "spearman": "Spearman", MSE: "MSE"}


@dataclass(frozen=True)
class Comparison:
    """How two sides differ.

    Attributes:
        first: titles of the models of one side.
        second: of the other.
        differences: one for each metric.
        labels: the label file.
        quality: the column of what is predicted.
        num_decoys: that both scored.
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    differences: tuple[Difference, ...]
    labels: Path
    quality: str
    num_decoys: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "first": list(self.first),
            "second": list(self.second),
            "labels": str(self.labels),
            "quality": self.quality,
            "num_decoys": self.num_decoys,
            "metrics": {one.metric: one.to_dict() for one in self.differences},
        }

    def text(self, form: str) -> str:
        """What is printed: ``table``, ``json`` or ``csv``."""
        if form == "json":
            return as_json(self.to_dict())
        if form == "csv":
            head = ["metric", FIRST, f"{FIRST}_spread", SECOND, f"{SECOND}_spread"]
            rows: list[list[Any]] = [[*head, "difference", "low", "high", "num_targets", "better"]]
            for one in self.differences:
                sides = [one.first.mean, one.first.spread, one.second.mean, one.second.spread]
                rows.append(
                    [one.metric, *sides, one.mean, *(one.interval or (None, None)), one.num_targets, one.better]
                )
            return as_csv(rows)
        cells = [["", FIRST, SECOND, "difference", "targets", "better"]]
        for one in self.differences:
            name = WORDS[one.metric].format(quality=quality_name(self.quality))
            between = " [{:.3f}, {:.3f}]".format(*one.interval) if one.interval else ""
            shown = [_cell(one.first), _cell(one.second), f"{one.mean:+.4f}{between}", str(one.num_targets)]
            cells.append([name, *shown, one.better or "can't be told"])
        lines = [
            f"{FIRST}: {', '.join(self.first)}",
            f"{SECOND}: {', '.join(self.second)}",
            f"on {self.num_decoys} decoys of {self.labels}",
            "",
            *aligned(cells, left=1),
            "",
            "difference: first less second, mean over targets [95 % bootstrap interval, the same targets for both];",
            "better: the side of which that interval leaves no doubt. ±: standard deviation between seeds.",
        ]
        return "\n".join(lines) + "\n"


def compare(
    first: str,
    second: str,
    *,
    graphs: str = DEMO,
    other_graphs: str | None = None,
    labels: str = DEMO,
    targets: TargetRule | None = None,
    allow_unverified: bool = False,
    experiment: str | None = None,
    tracking_uri: str | None = None,
    progress: Track | None = None,
) -> Comparison:
    """Score the same labelled graphs with two models, and test the difference target by target.

    Args:
        first: ``models:/NAME@alias``, ``models:/NAME/VERSION``, a run (id, unique prefix, name, ``latest``), a local
            folder; or several of them with commas between, the seeds of one recipe, whose values are averaged.
        second: likewise.
        graphs: graph directory; ``demo`` for that of the demo data set.
        other_graphs: of the second side, where its models take other features.
        labels: label file; ``demo`` for the hold-out targets of the demo data set.
        targets: where targets are written, for labels without a target.
        allow_unverified: whether graphs whose columns have no names may be checked by width alone.
        experiment: look for runs in this experiment only.
        tracking_uri: of the store; by default MLFLOW_TRACKING_URI, else ``mlflow.db`` here.
        progress: wraps the reading of graphs.

    Raises:
        TrackingError: no such model or run, or the store can't be used.
        DataError: graphs or labels can't be used, or the two sides are not of the same decoys and quality.
        SchemaError: graphs have other features than a model was trained on.
    """
    how = {"labels": labels, "targets": targets, "allow_unverified": allow_unverified, "progress": progress}
    where = {"experiment": experiment, "tracking_uri": tracking_uri}
    places = (first, graphs), (second, other_graphs or graphs)
    sides = [_Judged.of(text, folder, where, how) for text, folder in places]
    one, other = (side.split for side in sides)
    if one.column != other.column:
        raise DataError(f"one side predicts {one.column}, the other {other.column}", "the same quality")
    if one.label_digest != other.label_digest:
        raise DataError("the two graph directories do not hold the same labelled decoys", "a graph of each in both")
    return Comparison(
        sides[0].titles,
        sides[1].titles,
        tuple(paired(sides[0].reports, sides[1].reports)),
        data_paths(graphs, labels)[1],
        one.column,
        len(one.samples),
    )


@dataclass(frozen=True)
class _Judged:
    """One side: its models, and how each ranks the decoys."""

    titles: tuple[str, ...]
    reports: tuple[RankingReport, ...]
    split: Split

    @classmethod
    def of(cls, text: str, graphs: str, where: dict[str, Any], how: dict[str, Any]) -> _Judged:
        titles, reports, split = [], [], None
        for name in [part.strip() for part in text.split(",") if part.strip()]:
            is_model = name.startswith("models:/") or model_folder(name) is not None
            store, model = find_model(name if is_model else None, None if is_model else name, **where)
            scorer, _ = load_model(store, model)
            column = scorer.schema.label_column
            if split is None or split.column != column:
                split = _labelled(graphs, column, how)
            held = SchemaCheck.of_directory(
                scorer.schema, split.store.directory.root, allow_unverified=how["allow_unverified"]
            )
            hold_all(held, split)
            true, targets = truth(split)
            predicted = np.array(list(scorer.scores(split.known())))
            titles.append(model.title)
            reports.append(ranking_report(predicted, true, targets, quality=column))
        if split is None:
            raise DataError(f"{text!r} names no model", "models:/NAME/VERSION, or a run")
        if len({report.quality for report in reports}) > 1:
            raise DataError(f"{', '.join(titles)} do not predict the same quality", "seeds of one recipe")
        return cls(tuple(titles), tuple(reports), split)


def _labelled(graphs: str, column: str, how: dict[str, Any]) -> Split:
    graph_dir, label_path = data_paths(graphs, how["labels"])
    rules = SplitRules(column=column, rule=how["targets"])
    return read_labelled("comparison", GraphDirectory(graph_dir), label_path, rules, how["progress"])


def _cell(side: Side) -> str:
    return f"{side.mean:.4f}" + (f" ±{side.spread:.4f}" if side.spread is not None else "")
