"""The model card of a version: what it is, what it was trained on, how it does, what it is not for."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from topotrain.fields import (
    DEMO,
    RECIPE_ARTIFACT,
    SCHEMA_ARTIFACT,
    TAG_GIT_COMMIT,
    TAG_GIT_DIRTY,
    VAL_LOSS,
    VAL_PEARSON,
    VAL_RANKING_LOSS,
    VAL_SPEARMAN,
    quality_name,
)
from topotrain.schema.feature_schema import FeatureSchema

SHOWN_TARGETS = 12
LINE = 110  # characters
FEW_TARGETS = 50
# Metric, heading, and whether more is better.
METRICS = (
    (VAL_LOSS, "mean squared error", False),
    (VAL_RANKING_LOSS, "ranking loss", False),
    (VAL_SPEARMAN, "Spearman", True),
    (VAL_PEARSON, "Pearson", True),
)


def model_card(recipe: Mapping[str, Any], schema: FeatureSchema) -> str:
    """The card as Markdown.

    Args:
        recipe: the version's ``recipe.json``.
        schema: what its network takes.
    """
    parts = (_heading, _takes, _trained_on, _metrics, _not_for, _use, _made_with)
    return "\n\n".join("\n".join(part(recipe, schema)) for part in parts) + "\n"


def _paragraph(text: str) -> list[str]:
    return textwrap.wrap(text, LINE)


def _heading(recipe: Mapping[str, Any], schema: FeatureSchema) -> Iterator[str]:
    run, checkpoint = recipe["run"], recipe["checkpoint"]
    yield f"# {recipe['model_name']}: predicted {quality_name(schema.label_column)} of interface graphs"
    yield ""
    if "data" in recipe:
        made = f"Epoch {checkpoint['epoch']} (counted from 0) of the training run {run['name']} (`{run['id']}`)"
    else:
        made = f"Imported from `{checkpoint['file']}` (SHA-256 `{checkpoint['sha256']}`) by run `{run['id']}`"
    yield f"{made}, {recipe['created']}, topotrain {recipe['topotrain']}."


def _takes(recipe: Mapping[str, Any], schema: FeatureSchema) -> Iterator[str]:
    yield "## What it takes and gives"
    yield ""
    yield from _paragraph(
        f"One graph of a protein-protein interface, {schema.node_dim} node and {schema.edge_dim} edge columns in raw "
        f"units, to a predicted {quality_name(schema.label_column)} between 0 and 1."
    )
    yield ""
    yield f"- edge module: {schema.edge_module or 'unknown'}, variant: {schema.edge_variant or 'unknown'}"
    others = {kind: module["id"] for kind, module in schema.feature_modules.items() if kind != "edge"}
    yield from (f"- {kind} module: {name}" for kind, name in others.items())
    for side, columns in (("node", schema.node_columns), ("edge", schema.edge_columns)):
        if columns is None:
            yield f"- {side} columns: unnamed, so graphs are held to their number alone"
        else:
            yield f"- {side} columns: {columns[0]} to {columns[-1]}; all of them in `{SCHEMA_ARTIFACT}`"
    yield f"- schema digest: `{schema.digest}`"


def _trained_on(recipe: Mapping[str, Any], schema: FeatureSchema) -> Iterator[str]:
    yield "## What it was trained on"
    yield ""
    data = recipe.get("data")
    if data is None:
        yield "Not known here: the weights were trained elsewhere."
        return
    if recipe["config"]["paths"]["graph"] == DEMO:
        yield "The demo data set of topotrain, which is there to try the program out."
        yield ""
    for name, word in (("train", "training"), ("val", "validation")):
        split = data[name]
        targets = split["targets"]
        more = f" and {len(targets) - SHOWN_TARGETS} more" if len(targets) > SHOWN_TARGETS else ""
        shown = f"{', '.join(targets[:SHOWN_TARGETS])}{more}"
        yield f"- {word}: {split['num_graphs']} graphs of {len(targets)} targets ({shown})"
        yield f"  - digest of graphs and labels `{split['digest']}`"
        yield f"  - digest of labels alone `{split['label_digest']}`"
    yield from (f"- note: {line}" for line in data["warnings"])


def _metrics(recipe: Mapping[str, Any], schema: FeatureSchema) -> Iterator[str]:
    yield "## How it does"
    yield ""
    metrics = recipe.get("metrics")
    if not metrics:
        yield "No metrics: it was imported, not trained here. Evaluate it on your own labelled graphs first."
        return
    split, quality = recipe["data"]["val"], quality_name(schema.label_column)
    yield from _paragraph(
        f"On the {split['num_graphs']} validation graphs, beside predictors that cost next to nothing: the mean "
        f"{quality} of the training graphs, a line in the number of edges, and boosted trees on each graph's columns "
        "pooled, fitted to the same graphs. Correlations pool all graphs; "
        f"ranking loss (best true {quality} minus that of the top-ranked graph) is the mean over targets. The epoch "
        "was chosen by these very graphs, so its metrics are somewhat too good."
    )
    yield ""
    rows = {"this model": metrics, **recipe["baselines"]}
    yield "| | " + " | ".join(heading for _, heading, _ in METRICS) + " |"
    yield "|---|" + "---|" * len(METRICS)
    for name, row in rows.items():
        yield f"| {name} | " + " | ".join(_number(row.get(metric)) for metric, _, _ in METRICS) + " |"
    lost = [
        f"{heading} of the {name}"
        for name, row in recipe["baselines"].items()
        for metric, heading, more in METRICS
        if row[metric] is not None and (metrics[metric] <= row[metric] if more else metrics[metric] >= row[metric])
    ]
    yield ""
    won = "It beats all of them in every metric that is defined."
    yield f"**It does not beat: {'; '.join(lost)}.**" if lost else won
    yield from _over_targets(recipe)


def _over_targets(recipe: Mapping[str, Any]) -> Iterator[str]:
    """What the validation targets, drawn again and again, say of the differences."""
    against, choice = recipe.get("against_baselines"), recipe.get("first_choice")
    if against is None:
        return
    yield ""
    yield from _paragraph(
        "Over the targets (mean difference, this model less the baseline, with its 95 % interval, bootstrap over "
        "targets, the same ones for both):"
    )
    yield ""
    names = {"ranking_loss": "ranking loss", "spearman": "Spearman", "mse": "mean squared error"}
    yield "| | " + " | ".join(names.values()) + " |"
    yield "|---|" + "---|" * len(names)
    for name, row in against.items():
        yield f"| less {name} | " + " | ".join(_difference(row.get(metric)) for metric in names) + " |"
    if choice is not None:
        yield ""
        yield from _paragraph(
            f"Its first choice is at least acceptable (DockQ 0.23) for {choice['acceptable']} of the "
            f"{choice['targets']} validation targets that have such a graph."
        )


def _difference(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "undefined"
    between = "" if found["low"] is None else f" [{found['low']:+.3f}, {found['high']:+.3f}]"
    return f"{found['difference']:+.4f}{between} {found['verdict']}"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _not_for(recipe: Mapping[str, Any], schema: FeatureSchema) -> Iterator[str]:
    yield "## What it must not be used for"
    yield ""
    yield "- Graphs with other features than these, or other units: it would answer, and the answer would mean nothing."
    yield "- Comparing different complexes: a score ranks decoys of one target; it is no affinity, no proof of binding."
    yield "- Interfaces unlike those it was trained on (antibodies, peptides, nucleic acids, other docking programs),"
    yield "  before it was evaluated on labelled graphs of that kind."
    yield "- Any decision about a person's health."
    data = recipe.get("data")
    if data and len(data["train"]["targets"]) < FEW_TARGETS:
        train, val = (len(data[name]["targets"]) for name in ("train", "val"))
        yield f"- Conclusions in general: {train} training and {val} validation targets are few."
    if data and recipe["config"]["paths"]["graph"] == DEMO:
        yield "- Real work: it was trained on the demo data set."


def _use(recipe: Mapping[str, Any], schema: FeatureSchema) -> Iterator[str]:
    uri = f"models:/{recipe['model_name']}/VERSION"
    yield "## How to use it"
    yield ""
    yield "```bash"
    yield f"topotrain predict --model {uri} --graphs graphs/ --out predictions.csv --rank"
    yield f"mlflow models serve -m {uri} --env-manager local"
    yield "```"
    yield ""
    yield f'or `mlflow.pyfunc.load_model("{uri}")`, which takes a table with a column `graph` or `path`.'


def _made_with(recipe: Mapping[str, Any], schema: FeatureSchema) -> Iterator[str]:
    code, system = recipe["code"], recipe["system"]
    commit = code.get(TAG_GIT_COMMIT)
    dirty = " with changes that were not committed" if code.get(TAG_GIT_DIRTY) == "true" else ""
    yield "## What it was made with"
    yield ""
    yield f"- commit `{commit}`{dirty}" if commit else "- commit: unknown, topotrain ran from an installation"
    yield f"- Python {system['python']} on {system['platform']}; all packages, the configuration and the network's"
    yield f"  shape are in `{RECIPE_ARTIFACT}`"
