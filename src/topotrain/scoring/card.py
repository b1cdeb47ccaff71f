"""The model card of a version: what it is, what it was trained on, how it does, what it is not for."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from topotrain.fields import (
    DEMO,
    DOCKQ_COLUMN,
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
from topotrain.metrics.paired import METRIC_WORDS, difference_in_words
from topotrain.schema.feature_schema import FeatureSchema
from topotrain.scoring.recipe import recorded
from topotrain.text import least_to_most

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
    ensemble = (_members,) if "members" in recipe else ()
    parts = (_heading, _takes, *ensemble, _trained_on, _metrics, _not_for, _use, _made_with)
    return "\n\n".join("\n".join(part(recipe, schema)) for part in parts) + "\n"


def _paragraph(text: str) -> list[str]:
    return textwrap.wrap(text, LINE)


def _heading(recipe: Mapping[str, Any], schema: FeatureSchema) -> Iterator[str]:
    run, checkpoint = recipe["run"], recipe.get("checkpoint", {})
    yield f"# {recipe['model_name']}: predicted {quality_name(schema.label_column)} of interface graphs"
    yield ""
    if "members" in recipe:
        made = f"An ensemble of {len(recipe['members'])} models, made by run {run['name']} (`{run['id']}`)"
    elif "data" in recipe:
        made = f"Epoch {checkpoint['epoch']} (counted from 0) of the training run {run['name']} (`{run['id']}`)"
    else:
        made = f"Imported from `{checkpoint['file']}` (SHA-256 `{checkpoint['sha256']}`) by run `{run['id']}`"
    yield f"{made}, {recipe['created']}, topotrain {recipe['topotrain']}."


def _takes(recipe: Mapping[str, Any], schema: FeatureSchema) -> Iterator[str]:
    yield "## What it takes and gives"
    yield ""
    yield from _paragraph(
        f"One graph of a protein-protein interface, {schema.node_dim} node and {schema.edge_dim} edge columns in raw "
        f"units, to a predicted {quality_name(schema.label_column)} between 0 and 1"
        + (", the mean over its members, and their standard deviation." if "members" in recipe else ".")
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


def _members(recipe: Mapping[str, Any], schema: FeatureSchema) -> Iterator[str]:
    yield "## Its members"
    yield ""
    yield "| version | run | epoch | training graphs | its own settings | mean squared error | Spearman |"
    yield "|---|---|---|---|---|---|---|"
    for one in recipe["members"]:
        run, metrics = one["run"], one["metrics"] or {}
        settings = ", ".join(f"{key}={value}" for key, value in one["own_settings"].items())
        cells = [one["version"], f"{run['name'] or 'run'} (`{run['id']}`)", one["epoch"], one["train_graphs"], settings]
        cells += [_number(metrics[name]) if name in metrics else None for name in (VAL_LOSS, VAL_SPEARMAN)]
        yield f"| {' | '.join('-' if cell in (None, '') else str(cell) for cell in cells)} |"
    yield ""
    yield "SHA-256 of their weights, which are here byte for byte:"
    yield ""
    yield from (f"- {one['version']}: `{one['weights_sha256']}`" for one in recipe["members"])


def _trained_on(recipe: Mapping[str, Any], schema: FeatureSchema) -> Iterator[str]:
    yield "## What it was trained on"
    yield ""
    data = recipe.get("data")
    if data is None:
        yield "Not known here: the weights were trained elsewhere."
        return
    if recorded(recipe, "config", "paths", "graph") == DEMO:
        yield "The demo data set of topotrain, which is there to try the program out."
        yield ""
    if "train" not in data:
        yield from _on_different_data(recipe)
        return
    for name, word in (("train", "training"), ("val", "validation")):
        split = data.get(name)
        if split is None:
            yield f"- {word}: not the same for all members"
            continue
        yield f"- {word}: {split['num_graphs']} graphs of {_targets(split['targets'])}"
        yield f"  - digest of graphs and labels `{split['digest']}`"
        yield f"  - digest of labels alone `{split['label_digest']}`"
    yield from (f"- note: {line}" for line in data.get("warnings", []))


def _on_different_data(recipe: Mapping[str, Any]) -> Iterator[str]:
    targets, each = recipe["data"].get("train_targets"), [one["train_graphs"] for one in recipe["members"]]
    if targets is None:
        yield "Its members were trained on different data, or do not say on which."
        return
    yield from _paragraph(
        f"Its members were trained on different data, {least_to_most(each)} graphs each: together on those of "
        f"{_targets(targets)}. The card of each member says on which."
    )


def _targets(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_TARGETS} more" if len(names) > SHOWN_TARGETS else ""
    return f"{len(names)} targets ({', '.join(names[:SHOWN_TARGETS])}{more})"


def _metrics(recipe: Mapping[str, Any], schema: FeatureSchema) -> Iterator[str]:
    yield "## How it does"
    yield ""
    metrics, members = recipe.get("metrics"), recipe.get("members")
    if not metrics and "out_of_fold" in recipe:
        yield from _each_alone(recipe["out_of_fold"], quality_name(schema.label_column))
        return
    if not metrics:
        why = (
            "its members share no validation data that could be read"
            if members
            else "it was imported, not trained here"
        )
        yield f"No metrics: {why}. Evaluate it on your own labelled graphs first."
        return
    split, quality, baselines = recipe["data"]["val"], quality_name(schema.label_column), recipe.get("baselines", {})
    beside = (
        f", beside predictors that cost next to nothing: the mean {quality} of the training graphs, a line in the "
        "number of edges, and boosted trees on each graph's columns pooled, fitted to the same graphs"
    )
    epoch = "The epochs of its members were" if members else "The epoch was"
    yield from _paragraph(
        f"On the {split['num_graphs']} validation graphs{beside if baselines else ''}. Correlations pool all graphs; "
        f"ranking loss (best true {quality} minus that of the top-ranked graph) is the mean over targets. {epoch} "
        "chosen by these very graphs, so its metrics are somewhat too good."
    )
    yield ""
    rows = {"this model": metrics, **(_mean_of(members) if members else {}), **baselines}
    yield "| | " + " | ".join(heading for _, heading, _ in METRICS) + " |"
    yield "|---|" + "---|" * len(METRICS)
    for name, row in rows.items():
        yield f"| {name} | " + " | ".join(_number(row.get(metric)) for metric, _, _ in METRICS) + " |"
    lost = [
        f"{heading} of the {name}"
        for name, row in baselines.items()
        for metric, heading, more in METRICS
        if row[metric] is not None and (metrics[metric] <= row[metric] if more else metrics[metric] >= row[metric])
    ]
    if baselines:
        won = "It beats all of them in every metric that is defined."
        yield ""
        yield f"**It does not beat: {'; '.join(lost)}.**" if lost else won
    yield from _over_targets(recipe)
    if "spread" in recipe:
        yield from _spread(recipe["spread"], quality)


def _each_alone(folds: Mapping[str, Any], quality: str) -> Iterator[str]:
    """How each member of an ensemble of folds does on targets that it had not learned from."""
    yield from _paragraph(
        "How it does as a whole is not known: its members share no validation data. Evaluate it on your own labelled "
        "graphs first. Each member alone was validated on targets that it had not learned from, "
        f"{folds['graphs']} graphs of {folds['targets']} targets together, each once. These are figures of single "
        "networks, not of their mean, and somewhat too good, since these graphs chose their epochs:"
    )
    metrics, choice, within = folds["metrics"], folds.get("first_choice"), folds.get("within_target_error")
    yield ""
    over = {VAL_LOSS: "mean over all graphs", VAL_RANKING_LOSS: f"mean over targets, in {quality}"}
    words = {name: heading for name, heading, _ in METRICS}
    yield from (f"- {words[name]}: {value:.4f} ({over[name]})" for name, value in metrics.items())
    if within is not None:
        yield f"- error among the graphs of one target, standard deviation: {within:.4f}"
    if choice is not None:
        of = f"{choice['acceptable']} of the {choice['targets']} targets that have such a graph"
        yield f"- first choice at least acceptable (DockQ 0.23): {of}"


def _spread(spread: Mapping[str, Any], quality: str) -> Iterator[str]:
    """How far an ensemble's spread tells its error."""
    ratio, told = (_number(spread[name]) for name in ("error_ratio", "spearman"))
    yield ""
    yield from _paragraph(
        f"Its members lie {spread['mean']:.4f} ({quality}) apart on these graphs, mean standard deviation; the error "
        f"is {ratio} times that (root mean squares), and {spread['within_2_std']:.0%} of the true values lie within "
        f"two such deviations. Spearman of spread and error: {told}. The spread is no error bar unless that factor is "
        "near 1, and says which scores to doubt more only as far as that correlation is above 0."
    )


def _mean_of(members: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The mean of each metric over members that were judged on the same data."""
    mean = {name: sum(one["metrics"][name] for one in members) / len(members) for name, _, _ in METRICS}
    return {"mean of its members": mean}


def _over_targets(recipe: Mapping[str, Any]) -> Iterator[str]:
    """What the validation targets, drawn again and again, say of the differences."""
    against, choice = recipe.get("against_baselines"), recipe.get("first_choice")
    if against is not None:
        yield from _differences(against)
    if choice is not None:
        yield ""
        yield from _paragraph(
            f"Its first choice is at least acceptable (DockQ 0.23) for {choice['acceptable']} of the "
            f"{choice['targets']} validation targets that have such a graph."
        )


def _differences(against: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield from _paragraph(
        "Over the targets (mean difference, this model less the baseline, with its 95 % interval, bootstrap over "
        "targets, the same ones for both):"
    )
    yield ""
    yield "| | " + " | ".join(METRIC_WORDS.values()) + " |"
    yield "|---|" + "---|" * len(METRIC_WORDS)
    for name, row in against.items():
        yield f"| less {name} | " + " | ".join(difference_in_words(row.get(metric)) for metric in METRIC_WORDS) + " |"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _not_for(recipe: Mapping[str, Any], schema: FeatureSchema) -> Iterator[str]:
    yield "## What it must not be used for"
    yield ""
    yield "- Graphs with other features than these, or other units: it would answer, and the answer would mean nothing."
    yield "- Comparing different complexes: a score ranks decoys of one target; it is no affinity, no proof of binding."
    yield "- Trusting the first choice of one complex alone: means hide how far complexes differ."
    if schema.label_column == DOCKQ_COLUMN:
        yield "  Of 123 that the default recipe had not seen, a tenth were ranked with a Spearman under 0.4, and for a"
        yield "  fifth the first choice was more than 0.1 DockQ below the best (docs/defaults.md)."
    yield "- Interfaces unlike those it was trained on (antibodies, peptides, nucleic acids, other docking programs),"
    yield "  before it was evaluated on labelled graphs of that kind."
    yield "- Any decision about a person's health."
    data = recipe.get("data")
    if data and {"train", "val"} <= data.keys() and len(data["train"]["targets"]) < FEW_TARGETS:
        train, val = (len(data[name]["targets"]) for name in ("train", "val"))
        yield f"- Conclusions in general: {train} training and {val} validation targets are few."
    elif data and 0 < len(data.get("train_targets", ())) < FEW_TARGETS:
        yield f"- Conclusions in general: {len(data['train_targets'])} targets are few."
    if recorded(recipe, "config", "paths", "graph") == DEMO:
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
