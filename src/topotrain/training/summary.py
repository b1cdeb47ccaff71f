"""What a run's page says of it in short: data, schema, how it does beside what costs nothing, how to repeat it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from topotrain.config import TrainConfig
from topotrain.data.prepare import PreparedData
from topotrain.fields import CONFIG_ARTIFACT, DEMO, VAL_LOSS, VAL_RANKING_LOSS, VAL_SPEARMAN, quality_name
from topotrain.metrics.paired import differences_in_words
from topotrain.text import markdown_table
from topotrain.training.judged import Judged
from topotrain.training.selection import Kept, Selection

SHOWN_DIGEST = 12
SHOWN = {VAL_RANKING_LOSS: "ranking loss", VAL_SPEARMAN: "Spearman", VAL_LOSS: "MSE"}


def run_summary(config: TrainConfig, judged: Judged, selection: Selection, run_id: str) -> str:
    """The summary, Markdown, the verdict first: the page shows three lines until somebody asks for more.

    Of a run without an epoch it says what is known before the first.
    """
    parts = [*_verdict(judged, selection), _data(judged.data, config), _again(run_id)]
    return "\n\n".join(parts)


def _verdict(judged: Judged, selection: Selection) -> Iterator[str]:
    best = selection.best
    rows: dict[str, Mapping[str, float | None]] = dict(judged.baselines.table)
    if best is not None:
        name = f"epoch {best.epoch}"
        against, rows = judged.against_baselines(best), {name: best.metrics, **rows}
        shown = ", ".join(f"{words} {_number(best.metrics[metric])}" for metric, words in SHOWN.items())
        yield f"**Best epoch: {best.epoch} of {len(selection.history)}**, {shown}.{_first_choice(judged, best)}"
        yield f"{name} less each free baseline, mean over the validation targets [95 % interval]:".capitalize()
        yield "\n".join(f"- {name}: {differences_in_words(found)}" for name, found in against.items())
    table = [["", *SHOWN.values()]]
    table += [[name, *(_number(row.get(metric)) for metric in SHOWN)] for name, row in rows.items()]
    yield markdown_table(table)


def _first_choice(judged: Judged, kept: Kept) -> str:
    choice = judged.report(kept).first_choice
    if not choice:
        return ""
    return f" Its first choice is at least acceptable for {choice['acceptable']} of {choice['targets']} targets."


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


def _again(run_id: str) -> str:
    return (
        "To repeat it:\n\n```\n"
        f"mlflow artifacts download --run-id {run_id} \\\n  --artifact-path {CONFIG_ARTIFACT} --dst-path again\n"
        "topotrain run --config again/config.yaml\n```"
    )


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
