#!/usr/bin/env python
"""Train the model that comes with topotrain, and write its files: ``src/topotrain/starter``.

It learns from the training and validation targets of the demo data set and from any graph directories that are given,
with the defaults, and is an ensemble of folds: another tenth of each source's targets, by cluster where clusters are
given, is each member's validation data. That chooses the member's epoch, and says how it does on complexes that it has
not learned from. The demo hold-out is looked at once, for the card.

python scripts/train_starter.py --graphs bm5/graphs bm5/train.csv bm5/val.csv --source "Docking benchmark 5, ..."
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import shlex
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from starter_card import Decoy, Source, starter_card

import topotrain
from topotrain.data.demo import demo_paths, demo_version
from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.labels import read_labels
from topotrain.data.matching import match_labels
from topotrain.data.pooled_columns import pooled_columns
from topotrain.data.split import Split, read_split, target_of
from topotrain.data.stored_schema import inspect_directory
from topotrain.data.targets import Targets
from topotrain.fields import (
    CARD_ARTIFACT,
    DEMO,
    MODEL_FILES,
    RECIPE_ARTIFACT,
    SCHEMA_ARTIFACT,
    SIDECAR_NAME,
    STARTER,
    TREES_ARTIFACT,
    WEIGHTS_SUFFIX,
)
from topotrain.metrics.ranking import Values, by_target, mean_squared_error
from topotrain.metrics.report import ranking_report
from topotrain.schema.check import check_fits
from topotrain.schema.feature_schema import FeatureSchema
from topotrain.scoring.load import scorer_of_files, trees_of_files
from topotrain.scoring.scorer import Scorer
from topotrain.text import as_json
from topotrain.tracking.store import STARTER_DIR, Store, fetch_model
from topotrain.tracking.versions import DEFAULT_NAME

SEEDS = (222, 777, 1337, 101, 555)
SHARE = 0.1  # of each source's targets, for the validation of one member
DEMO_WORDS = (
    "the demo data set of topotrain, its training and validation targets: coordinates of the Protein Data Bank "
    "(CC0 1.0), decoys and labels MIT"
)
ALL_KINDS = "all"
# Of the version's recipe: what says nothing of where it was trained, nor names paths there.
KEPT = ("topotrain", "created", "out_of_fold")
KEPT_OF_MEMBERS = ("epoch", "weights_sha256", "network", "train_graphs", "own_settings", "metrics")
UNSAID = ("paths", "mlflow", "logging")  # sections of the configuration


def given_sources(arguments: argparse.Namespace) -> list[Source]:
    """The demo data set, then the directories that were given, named by their folders."""
    demo = demo_paths()
    sources = [Source(DEMO, demo.graphs, (demo.train_labels, demo.val_labels), DEMO_WORDS, demo_version())]
    if len(arguments.source) != len(arguments.graphs):
        raise SystemExit("one --source for each --graphs: where the graphs are from, and their licence")
    for (first, *labels), words in zip(arguments.graphs, arguments.source, strict=True):
        graphs = Path(first).absolute()
        name = graphs.name if graphs.name != "graphs" else graphs.parent.name
        sources.append(Source(name, graphs, tuple(map(Path, labels)), words))
    if len({source.name for source in sources}) < len(sources):
        raise SystemExit("each graph directory needs a name of its own: that of its folder")
    return sources


def join(sources: Sequence[Source], left_out: Collection[str], root: Path) -> list[Decoy]:
    """One graph directory of links to all of them, described as the demo data set is, which all of them must fit.

    Args:
        sources: the demo data set first.
        left_out: targets.
        root: for the directory ``graphs``.

    Raises:
        SchemaError: graphs of one have other features.
    """
    graphs, decoys = root / "graphs", []
    graphs.mkdir()
    shutil.copytree(sources[0].graphs / "logs", graphs / "logs")
    described = json.loads((sources[0].graphs / SIDECAR_NAME).read_text(encoding="utf-8"))
    entry = next(value for key, value in described.items() if "/" in key)
    del entry["edge_metadata"]["edge_count"]
    sidecar = {key: value for key, value in described.items() if "/" not in key}
    schema = inspect_directory(sources[0].graphs)
    for source in sources:
        found = inspect_directory(source.graphs)
        check_fits(
            schema, found, str(source.graphs), of="demo data", beside="graphs", wanted="graphs with its features"
        )
        (graphs / source.name).symlink_to(source.graphs, target_is_directory=True)
        own = [decoy for decoy in decoys_of(source) if decoy.target not in left_out]
        for decoy in own:
            about = {**entry["edge_metadata"], "model_key": decoy.key}
            sidecar[decoy.key] = {**entry, "edge_metadata": about}
        decoys += own
    (graphs / SIDECAR_NAME).write_text(json.dumps(sidecar), encoding="utf-8")
    return decoys


def decoys_of(source: Source) -> Iterator[Decoy]:
    """Its labelled graphs."""
    directory = GraphDirectory(source.graphs)
    targets = Targets(directory.root, directory.keys, labelled=True)
    for path in source.labels:
        with path.open(encoding="utf-8", newline="") as file:
            kinds = {row["MODEL"]: row.get("kind") or "unknown" for row in csv.DictReader(file)}
        found = match_labels(directory, targets, read_labels(path), path).found
        for key, label in found.items():
            target = target_of(label, key, targets).name
            yield Decoy(f"{source.name}/{key}", label.dockq, target, kinds[label.model], source.name)


def read_clusters(path: Path | None) -> dict[str, str]:
    """{target: cluster} of a CSV."""
    if path is None:
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {row["target"]: row["cluster"] for row in csv.DictReader(file)}


def folds(decoys: Sequence[Decoy], clusters: Mapping[str, str], share: float, number: int) -> list[set[str]]:
    """Targets for the validation of each member; none is in two of them."""
    found: list[set[str]] = []
    for _ in range(number):
        found.append(held_out(decoys, clusters, share, set().union(*found)))
    return found


def held_out(
    decoys: Sequence[Decoy], clusters: Mapping[str, str], share: float, taken: Collection[str] = ()
) -> set[str]:
    """Of each source a share, whole clusters, drawn by the digests of their names; none that are taken."""
    clustered: dict[str, dict[str, str]] = defaultdict(dict)  # cluster to {target: source}
    for decoy in decoys:
        clustered[clusters.get(decoy.target, decoy.target)][decoy.target] = decoy.source
    drawn = sorted(clustered, key=lambda name: hashlib.sha256(name.encode()).digest())
    chosen: set[str] = set()
    for source in dict.fromkeys(decoy.source for decoy in decoys):
        most = max(1, round(share * len({decoy.target for decoy in decoys if decoy.source == source})))
        for name in drawn:
            mine = set(clustered[name])
            if set(clustered[name].values()) == {source} and len(mine) <= most and not mine & set(taken):
                chosen, most = chosen | mine, most - len(mine)
    return chosen


def write_labels(decoys: Sequence[Decoy], path: Path) -> Path:
    """As a label file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = [(one.key, repr(one.dockq), one.target) for one in decoys]
        csv.writer(file).writerows([("MODEL", "dockq", "target"), *rows])
    return path


def trained(work: Path, decoys: Sequence[Decoy], members: Mapping[int, set[str]], overrides: Sequence[str]) -> Path:
    """The files of the ensemble, and beside them the trees of its first member.

    Args:
        work: folder of the graphs, for everything else.
        decoys: to learn from.
        members: {seed of one: its validation targets}.
        overrides: of the configuration.
    """
    uri = f"sqlite:///{work / 'mlflow.db'}"
    runs = []
    for seed, validation in members.items():
        parts = {
            "train": [decoy for decoy in decoys if decoy.target not in validation],
            "val": [decoy for decoy in decoys if decoy.target in validation],
        }
        labels = {f"{name}_labels": write_labels(part, work / f"{seed}_{name}.csv") for name, part in parts.items()}
        paths = {"graph": work / "graphs", "cache": work / "cache", **labels}
        settings = [f"paths.{key}={path}" for key, path in paths.items()]
        chosen = ["mlflow.register=best", f"dataloader.seed={seed}", *settings, *overrides]
        runs.append(topotrain.fit(None, overrides=chosen, tracking_uri=uri))
    store = Store.open(uri)
    made = topotrain.ensemble([run.run_id for run in runs], name=STARTER, tracking_uri=uri).version
    files = fetch_model(made, store, work / "version") / MODEL_FILES
    first = fetch_model(f"models:/{DEFAULT_NAME}/{runs[0].model_versions[0]}", store, work / "first") / MODEL_FILES
    shutil.copyfile(first / TREES_ARTIFACT, files / TREES_ARTIFACT)
    return files


def figures(predicted: Values, decoys: Sequence[Decoy]) -> dict[str, dict[str, Any]]:
    """Means over targets, for all decoys and for those of each kind."""
    table = {}
    for kind in (ALL_KINDS, *sorted({decoy.kind for decoy in decoys})):
        rows = [place for place, decoy in enumerate(decoys) if kind in (ALL_KINDS, decoy.kind)]
        scores, true = predicted[rows], np.array([decoys[row].dockq for row in rows])
        targets = [decoys[row].target for row in rows]
        report = ranking_report(scores, true, targets)
        errors = [mean_squared_error(scores[mine], true[mine]) for mine in by_target(targets).values()]
        table[kind] = {
            "targets": len(report.targets),
            "decoys": len(rows),
            "spearman": report.means["mean_spearman"],
            "ranking_loss": report.means["mean_ranking_loss"],
            "mse": float(np.mean(errors)),
        }
    return table


def judged_out_of_fold(
    files: Path, work: Path, decoys: Sequence[Decoy], members: Mapping[int, set[str]]
) -> dict[str, dict[str, Any]]:
    """Figures of single members, each on the decoys that were its validation data."""
    ensemble = scorer_of_files(files, STARTER)
    predicted: dict[str, float] = {}
    for seed, network in zip(members, ensemble.networks, strict=True):
        split = read_split("val", GraphDirectory(work / "graphs"), work / f"{seed}_val.csv", cache=work / "cache")
        scores = Scorer(network, ensemble.schema).scores(split.known())
        predicted.update(zip((sample.key for sample in split.samples), scores, strict=True))
    own = [decoy for decoy in decoys if decoy.key in predicted]
    return {"one network": figures(np.array([predicted[decoy.key] for decoy in own]), own)}


def judged(files: Path, split: Split, decoys: Sequence[Decoy]) -> dict[str, dict[str, Any]]:
    """Figures of the model, and of the trees that it brings."""
    scorer, trees = scorer_of_files(files, STARTER), trees_of_files(files)
    by_key = {decoy.key: decoy for decoy in decoys}
    ordered = [by_key[sample.key] for sample in split.samples]
    found = {STARTER: figures(np.array(list(scorer.scores(split.known()))), ordered)}
    if trees is not None:
        columns = pooled_columns(split.packed(scorer.schema), scorer.schema.node_dim, scorer.schema.edge_dim)
        found["boosted trees"] = figures(trees.predict(columns), ordered)
    return found


def judged_on_holdout(files: Path, cache: Path) -> dict[str, dict[str, Any]]:
    """Figures on the demo hold-out."""
    demo = demo_paths()
    source = Source(DEMO, demo.graphs, (demo.holdout_labels,), "")
    decoys = [replace(decoy, key=decoy.key.removeprefix(f"{DEMO}/")) for decoy in decoys_of(source)]
    return judged(files, read_split("holdout", GraphDirectory(demo.graphs), demo.holdout_labels, cache=cache), decoys)


def portable_schema(path: Path) -> FeatureSchema:
    """The schema without the paths of the directory it was resolved from."""
    schema = FeatureSchema.from_dict(json.loads(path.read_text(encoding="utf-8")))
    return replace(
        schema, edge_source=SIDECAR_NAME, node_source=SIDECAR_NAME, metadata_path=None, summary_path=None, notes=()
    )


def portable_recipe(path: Path) -> dict[str, Any]:
    """The recipe without what says where it was made."""
    recipe = json.loads(path.read_text(encoding="utf-8"))
    return {
        "model_name": STARTER,
        **{key: recipe[key] for key in KEPT if key in recipe},
        "config": {key: value for key, value in recipe["config"].items() if key not in UNSAID},
        "data": recipe["data"],
        "members": [portable_member(one) for one in recipe["members"]],
    }


def portable_member(member: Mapping[str, Any]) -> dict[str, Any]:
    """What a recipe says of a member, without paths."""
    kept = {key: member[key] for key in KEPT_OF_MEMBERS}
    own = {key: value for key, value in member["own_settings"].items() if key.partition(".")[0] not in UNSAID}
    return {**kept, "own_settings": own}


def write(out: Path, files: Path, schema: FeatureSchema, recipe: Mapping[str, Any]) -> None:
    """The files of a version, in place of those that are there; the card is printed too."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for path in (*files.glob(f"*{WEIGHTS_SUFFIX}"), files / TREES_ARTIFACT):
        shutil.copyfile(path, out / path.name)
    write_texts(out, schema, recipe)


def write_texts(out: Path, schema: FeatureSchema, recipe: Mapping[str, Any]) -> None:
    """Schema, recipe and card."""
    card = starter_card(recipe, schema)
    texts = {SCHEMA_ARTIFACT: schema.to_json(), RECIPE_ARTIFACT: as_json(recipe), CARD_ARTIFACT: card}
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")
    print(card)


def rewrite_card(out: Path, cross_validated: Path | None) -> None:
    """The card of the files that are there; with other figures of cross-validation where some are given."""
    recipe = json.loads((out / RECIPE_ARTIFACT).read_text(encoding="utf-8"))
    if cross_validated:
        recipe["cross_validated"] = text_of(cross_validated)
    write_texts(out, portable_schema(out / SCHEMA_ARTIFACT), recipe)


def text_of(path: Path | None) -> str:
    """Of a file, where there is one."""
    return path.read_text(encoding="utf-8").strip() if path else ""


def parsed() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--graphs", nargs="+", action="append", default=[], metavar=("DIR", "LABELS"), help="repeatable")
    add("--source", action="append", default=[], metavar="TEXT", help="where a directory is from, and its licence")
    add("--clusters", type=Path, help="CSV with columns target,cluster; a cluster is never divided")
    add("--leave-out", nargs="+", default=[], metavar="TARGET", help="targets like those of the demo hold-out")
    add("--cross-validated", type=Path, metavar="FILE", help="what benchmarks/cross_validation.py printed")
    add("--card-alone", action="store_true", help="write the card of the files that are there, and train nothing")
    add("--seeds", type=int, nargs="+", default=SEEDS)
    add("--override", action="append", default=[], help="of the configuration")
    add("--out", type=Path, default=STARTER_DIR)
    return parser.parse_args()


def command() -> str:
    """The command without ``--out``, paths by their last two parts."""
    words = ["/".join(Path(word).parts[-2:]) if word.startswith("/") else word for word in sys.argv[1:]]
    if "--out" in words:
        place = words.index("--out")
        del words[place : place + 2]
    return shlex.join(["python", "scripts/train_starter.py", *words])


def main() -> None:
    """Train, judge, write."""
    arguments = parsed()
    if arguments.card_alone:
        rewrite_card(arguments.out / MODEL_FILES, arguments.cross_validated)
        return
    with tempfile.TemporaryDirectory(prefix="topotrain-starter-") as name:
        work = Path(name)
        for folder in (work / "version", work / "first"):
            folder.mkdir()
        sources = given_sources(arguments)
        decoys = join(sources, arguments.leave_out, work)
        validation = folds(decoys, read_clusters(arguments.clusters), SHARE, len(arguments.seeds))
        members = dict(zip(arguments.seeds, validation, strict=True))
        files = trained(work, decoys, members, arguments.override)
        schema, recipe = portable_schema(files / SCHEMA_ARTIFACT), portable_recipe(files / RECIPE_ARTIFACT)
        recipe["data"]["sources"] = [source.to_dict(decoys) for source in sources]
        recipe["data"]["left_out"] = sorted(arguments.leave_out)
        recipe["command"] = command()
        recipe["figures"] = {
            "complexes that a network has not learned from": judged_out_of_fold(files, work, decoys, members),
            "demo hold-out": judged_on_holdout(files, work / "cache"),
        }
        recipe["cross_validated"] = text_of(arguments.cross_validated)
        write(arguments.out / MODEL_FILES, files, schema, recipe)


if __name__ == "__main__":
    main()
