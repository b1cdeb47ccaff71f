"""What a run's page says of it in short: data, schema, how it does beside what costs nothing, how to repeat it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from topotrain.config import TrainConfig
from topotrain.data.prepare import PreparedData
from topotrain.fields import CONFIG_ARTIFACT, DEMO, VAL_LOSS, VAL_RANKING_LOSS, VAL_SPEARMAN, quality_name
from topotrain.metrics.paired import METRIC_WORDS, difference_in_words
from topotrain.text import markdown_table
from topotrain.training.judged import Judged
from topotrain.training.selection import Selection

SHOWN_DIGEST = 12
SHOWN = {VAL_RANKING_LOSS: "ranking loss", VAL_SPEARMAN: "Spearman", VAL_LOSS: "MSE"}


def run_summary(config: TrainConfig, judged: Judged, selection: Selection, run_id: str) -> str:
    """The summary, Markdown; of a run without an epoch, what is known before the first."""
    parts = [_data(judged.data, config), *_verdict(judged, selection), _again(run_id)]
    return "\n\n".join(parts)


def _data(data: PreparedData, config: TrainConfig) -> str:
    graphs = "the demo data set" if config.paths.graph == DEMO else f"`{data.graph_dir.name}`"
    sides = " and ".join(
        f"{len(split.samples)} {word} graphs of {len(split.targets)} targets"
        for split, word in ((data.train, "training"), (data.val, "validation"))
    )
    schema = data.schema
    modules = ", ".join(f"`{module['id']}`" for module in schema.feature_modules.values())
    return (
        f"{sides}, {graphs}, predicting {quality_name(schema.label_column)} (data digest "
        f"`{data.digest[:SHOWN_DIGEST]}`). {schema.node_dim} node and {schema.edge_dim} edge columns"
        f"{f' by {modules}' if modules else ''} (schema digest `{schema.digest[:SHOWN_DIGEST]}`)."
    )


def _verdict(judged: Judged, selection: Selection) -> Iterator[str]:
    best = selection.best
    rows: dict[str, dict[str, Any]] = {name: dict(row) for name, row in judged.baselines.table.items()}
    against: dict[str, Any] = {}
    if best is not None:
        mine = f"**best epoch, {best.epoch} of {len(selection.history)}**"
        rows, against = {mine: best.metrics, **rows}, judged.against_baselines(best)
    head = ["", *SHOWN.values(), *(f"{word}: network less it" for word in METRIC_WORDS.values() if against)]
    lines = [head]
    for name, row in rows.items():
        cells = [_number(row.get(metric)) for metric in SHOWN]
        if against:
            differing = against.get(name)
            cells += [difference_in_words(differing.get(key)) if differing else "" for key in METRIC_WORDS]
        lines.append([name, *cells])
    yield "On the validation targets, beside free baselines:\n\n" + markdown_table(lines)
    if best is not None and (choice := judged.report(best).first_choice):
        yield (
            f"Its first choice is at least acceptable for {choice['acceptable']} of {choice['targets']} targets that "
            "have such a graph. Differences are means over targets, with 95 % intervals."
        )


def _again(run_id: str) -> str:
    return (
        "To repeat it:\n\n```\n"
        f"mlflow artifacts download --run-id {run_id} --artifact-path {CONFIG_ARTIFACT} --dst-path again\n"
        "topotrain run --config again/config.yaml\n```"
    )


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
