"""Ranking reports as a table, JSON or CSV; all of them are plain documents here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from topotrain.fields import DOCKQ_COLUMN, HIT_RATE, quality_name
from topotrain.metrics.paired import METRIC_WORDS, difference_in_words
from topotrain.metrics.ranking import CLASSES
from topotrain.metrics.report import TOPS
from topotrain.metrics.spread import WIDTHS, SpreadReport
from topotrain.text import aligned, as_csv, as_json

Document = Mapping[str, Any]

UNDEFINED = "undefined"

# Key, and words for people.
ROWS = (
    ("num_targets", "targets"),
    ("num_models", "decoys"),
    ("mean_ranking_loss", "ranking loss ({quality}), mean"),
    ("mean_spearman", "Spearman, mean over targets"),
    ("mean_pearson", "Pearson, mean over targets"),
    ("mean_kendall", "Kendall, mean over targets"),
    ("mean_roc_auc", "ROC AUC at 0.23, mean"),
    ("mean_enrichment", "enrichment, top 10 %, mean"),
    ("hits_top1", "hits in top 1"),
    ("hits_top5", "hits in top 5"),
    ("hits_top10", "hits in top 10"),
    ("mse", "MSE, all decoys"),
    ("mae", "MAE, all decoys"),
    ("pearson", "Pearson, all decoys"),
    ("spearman", "Spearman, all decoys"),
)
INTERVALS = "[low, high]: 95 % bootstrap interval of the mean over targets."
DEFINED = "n: targets for which the metric is defined, where not all are."
NOTES = (
    f"{INTERVALS} Hits: targets with a decoy of at least acceptable/medium/high quality",
    f"(DockQ 0.23, 0.49, 0.80) in the top. {DEFINED}",
)
DIFFERENCES = "model less: mean difference over targets [95 % bootstrap interval, the same targets for both]."
NOTES_WITHOUT_CLASSES = (f"{INTERVALS} {DEFINED}",)


def summary_table(columns: Mapping[str, Document]) -> list[str]:
    """One column for each data set or predictor, one row for each metric."""
    (quality,) = {document.get("quality", DOCKQ_COLUMN) for document in columns.values()}
    cells = [["", *columns]]
    for key, words in _rows(columns):
        shown = words.format(quality=quality_name(quality))
        cells.append([shown, *(_cell(document, key) for document in columns.values())])
    return [*aligned(cells, left=1), "", *(NOTES if quality == DOCKQ_COLUMN else NOTES_WITHOUT_CLASSES)]


def _rows(columns: Mapping[str, Document]) -> list[tuple[str, str]]:
    """Those of ``ROWS`` that the documents hold: metrics by thresholds of DockQ are of DockQ alone."""
    document = next(iter(columns.values()))
    return [(key, words) for key, words in ROWS if key in document]


def target_table(document: Document) -> list[str]:
    """One row for each target."""
    targets: Mapping[str, Document] = document["targets"]
    names = list(next(iter(targets.values())))
    cells = [["target", *names]]
    cells += [[target, *(_short(row[name]) for name in names)] for target, row in targets.items()]
    return aligned(cells, left=1)


def summary_csv(columns: Mapping[str, Document], first: str) -> str:
    """One row for each data set or predictor, one column for each metric; an undefined one is empty."""
    header = [first]
    for key, _ in _rows(columns):
        header += [key, *([f"{key}_low", f"{key}_high", f"{key}_num_defined"] if key.startswith("mean_") else [])]
    rows: list[list[Any]] = [header]
    for name, document in columns.items():
        row = [name]
        for key, _ in _rows(columns):
            row.append(document[key])
            if key.startswith("mean_"):
                row += [*(document["intervals"][key] or (None, None)), document["num_defined"][key]]
        rows.append(row)
    return as_csv(rows)


def target_csv(columns: Mapping[str, Document], first: str) -> str:
    """One row for each target of each data set or predictor."""
    rows: list[list[Any]] = []
    for name, document in columns.items():
        for target, values in document["targets"].items():
            rows.append([name, target, *values.values()])
    names = next(iter(next(iter(columns.values()))["targets"].values()))
    return as_csv([[first, "target", *names], *rows])


def hit_rate_csv(columns: Mapping[str, Document]) -> str:
    """The share of targets with a decoy of each class in the top, one row for each predictor and top; empty of none."""
    rows: list[list[Any]] = [["predictor", "top", *CLASSES]]
    for name, document in columns.items():
        for top in TOPS:
            rates = [document.get(f"{HIT_RATE}_top{top}_{quality}") for quality in CLASSES]
            if any(rate is not None for rate in rates):
                rows.append([name, top, *rates])
    return as_csv(rows) if len(rows) > 1 else ""


def render(columns: Mapping[str, Document], form: str, first: str, *, per_target: bool) -> str:
    """The document that is printed.

    Args:
        columns: by data set or predictor.
        form: ``table``, ``json`` or ``csv``; JSON always holds every target.
        first: what the names of ``columns`` are.
        per_target: whether table and CSV hold targets (the table beside the summary, the CSV instead of it).
    """
    if form == "json":
        return as_json(columns)
    if form == "csv":
        return target_csv(columns, first) if per_target else summary_csv(columns, first)
    lines = summary_table(columns)
    if per_target:
        for name, document in columns.items():
            lines += ["", f"{first} {name}", *target_table(document)]
    return "\n".join(lines) + "\n"


def against_table(found: Mapping[str, Document]) -> list[str]:
    """How a model differs from each baseline, as ``paired.against`` says."""
    cells = [["model less", *METRIC_WORDS.values()]]
    cells += [[name, *(difference_in_words(row.get(key)) for key in METRIC_WORDS)] for name, row in found.items()]
    return [*aligned(cells, left=1), "", DIFFERENCES]


def _cell(document: Document, key: str) -> str:
    value = document[key]
    if value is None:
        return UNDEFINED
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.4f}"
    between = document["intervals"].get(key)
    if between:
        text += " [{:.3f}, {:.3f}]".format(*between)
    counted = document["num_defined"].get(key, document["num_targets"])
    return text if counted == document["num_targets"] else f"{text} n={counted}"


def _short(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def spread_lines(report: SpreadReport | None, quality: str) -> list[str]:
    """How well an ensemble's spread tells its error, in words; that a single model gives none, where there is none."""
    if report is None:
        return ["spread: none, a single model gives none (topotrain ensemble makes one of several, which does)"]
    within = ", ".join(
        f"{found:.0%} within {width} ({expected:.0%})"
        for width, found, expected in zip(WIDTHS, report.within, report.normal, strict=True)
    )
    told = UNDEFINED if report.spearman is None else f"{report.spearman:.4f}"
    ratio = UNDEFINED if report.ratio is None else f"{report.ratio:.2f}"
    return [
        f"spread: {report.mean:.4f} ({quality}), mean standard deviation over the members; the error is {ratio} times",
        f"as large (root mean squares); Spearman of spread and error {told}; true {quality} within so many standard",
        f"deviations of the prediction (normal errors of that size): {within}",
    ]
