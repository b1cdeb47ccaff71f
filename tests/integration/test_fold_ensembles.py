"""An ensemble of folds: made as its page says, with the errors that each member made on targets of its own."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shlex
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import topotrain
from kit.commands import exit_status
from kit.recorded import mlflow_client
from kit.structures import helix_pair, pdb_text, write_models
from kit.waiting import PATIENCE
from topotrain.data.graph_file import Graph, read_graph
from topotrain.fields import VAL_LOSS, VAL_RANKING_LOSS
from topotrain.scoring.load import load_scorer
from topotrain.tracking.store import Store

TARGETS = 11  # so that folds have not the same number of them, nor targets that of structures
SHORT = ("trainer.num_epochs=3", "checkpoints.keep=2", "dataloader.batch_size=4")


@dataclass(frozen=True)
class Folds:
    """A folder in which the page's commands were run."""

    root: Path
    version: str
    told: str

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.root / 'mlflow.db'}"

    def graphs(self, labels: Path) -> tuple[list[Graph], np.ndarray, dict[str, list[int]]]:
        """Graphs of a label file, their true values, and the rows of each target."""
        rows = list(csv.DictReader(labels.open()))
        found = [read_graph(self.root / "graphs" / f"{row['MODEL']}.pt", row["MODEL"]) for row in rows]
        places: dict[str, list[int]] = defaultdict(list)
        for place, row in enumerate(rows):
            places[row["MODEL"].split("/")[0]].append(place)
        return found, np.array([float(row["dockq"]) for row in rows]), places


def page(root: Path) -> tuple[list[list[str]], str]:
    """The commands and the manifest of the page's section."""
    text = (root / "docs" / "ensembles.md").read_text().partition("\n## Folds\n")[2].partition("\n## ")[0]
    (code,), (manifest,) = (re.findall(rf"```{name}\n(.*?)```", text, flags=re.DOTALL) for name in ("bash", "yaml"))
    return [shlex.split(line, comments=True) for line in code.strip().splitlines()], manifest


@pytest.fixture(scope="module")
def folds(root: Path, quick_python: str, _empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Folds:
    """Eleven targets of helices; the page's five folds of them, in small."""
    here = tmp_path_factory.mktemp("folds")
    (here / "mlflow.db").write_bytes(_empty_store.read_bytes())
    rows = ["MODEL,dockq"]
    for target in range(TARGETS):
        slides = [0.17 * target + step for step in range(3 + target % 3)]
        keys = write_models(here / "structures", slides, f"T{target}")
        rows += [f"{key},{0.05 + 0.13 * ((place + target) % 5):.2f}" for place, key in enumerate(keys)]
    (here / "labels.csv").write_text("\n".join(rows) + "\n")
    built = ("--out", here / "graphs", "--topology-module", "topology/none/v1")
    assert exit_status("build-graphs", here / "structures", *built) == 0
    commands, manifest = page(root)
    (here / "folds.yaml").write_text(manifest)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{here / 'mlflow.db'}"
    assert [command[:2] for command in commands] == [["topotrain", "split"], ["topotrain", "batch"]]
    for command, overrides in zip(commands, ((), SHORT), strict=True):
        given = [quick_python, "-m", *command, *(part for one in overrides for part in ("--override", one))]
        done = subprocess.run(
            given, cwd=here, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert done.returncode == 0, done.stderr
    (made,) = re.findall(r"ensemble: (models:/topoqa/\d+);", done.stderr)
    return Folds(here, made, done.stderr)


@pytest.fixture(scope="module")
def recipe(folds: Folds) -> dict[str, Any]:
    return dict(topotrain.describe(folds.version, folds.uri)["recipe"])


@pytest.fixture(scope="module")
def card(folds: Folds) -> str:
    return " ".join(topotrain.describe(folds.version, folds.uri)["card"].split())


def test_each_member_was_judged_on_the_targets_of_its_own_fold(folds, recipe):
    squares = within = ranking = 0.0
    graphs = targets = able = acceptable = 0
    files = {member["own_settings"]["paths.val_labels"]: member["version"] for member in recipe["members"]}
    assert sorted(Path(file).name for file in files) == [f"fold_{number}_val.csv" for number in range(1, 6)]
    for file, version in files.items():
        of_fold, true, places = folds.graphs(Path(file))
        off = np.array(load_scorer(version, Store.open(folds.uri)).score(of_fold)) - true
        squares += float(off @ off)
        graphs, targets = graphs + len(true), targets + len(places)
        for rows in places.values():
            within += float(((off[rows] - off[rows].mean()) ** 2).sum())
            first = true[rows][np.argmax((off + true)[rows])]
            ranking += float(true[rows].max() - first)
            able += bool(true[rows].max() >= 0.23)
            acceptable += bool(first >= 0.23)
    found = recipe["out_of_fold"]
    assert (found["graphs"], found["targets"]) == (graphs, targets) == (43, TARGETS)
    single = {"rel": 1e-4}  # validation is computed in single precision
    metrics = {VAL_LOSS: squares / graphs, VAL_RANKING_LOSS: ranking / targets}
    assert found["metrics"] == pytest.approx(metrics, **single)
    assert found["first_choice"] == {"acceptable": acceptable, "targets": able}
    assert found["within_target_error"] == pytest.approx(math.sqrt(within / (graphs - targets)), **single)
    assert not {"metrics", "first_choice", "within_target_error", "spread"} & recipe.keys(), "of the ensemble itself"


def test_the_ranges_are_those_of_all_that_some_member_learned_from(folds, recipe):
    graphs, _, _ = folds.graphs(folds.root / "labels.csv")
    ranges = recipe["data"]["column_ranges"]
    members = [
        topotrain.describe(one["version"], folds.uri)["recipe"]["data"]["train"]["column_ranges"]
        for one in recipe["members"]
    ]
    for side, part in (("node", "x"), ("edge", "edge_attr")):
        rows = torch.cat([getattr(graph, part) for graph in graphs]).double()
        assert ranges[side]["low"] == pytest.approx(rows.amin(dim=0).tolist(), rel=1e-6)
        assert ranges[side]["high"] == pytest.approx(rows.amax(dim=0).tolist(), rel=1e-6)
        deviations = [own[side]["deviation"] for own in members]
        assert ranges[side]["deviation"] == [max(column) for column in zip(*deviations, strict=True)]
    assert recipe["data"]["train_targets"] == sorted(f"T{number}" for number in range(TARGETS))


def test_its_card_says_what_is_known_of_its_members_and_what_not_of_itself(recipe, card):
    each = [member["train_graphs"] for member in recipe["members"]]
    assert f"trained on different data, {min(each)} to {max(each)} graphs each: together on those of 11 targets" in card
    assert "How it does as a whole is not known: its members share no validation data." in card
    found = recipe["out_of_fold"]
    assert (
        "43 graphs of 11 targets together, each once. These are figures of single networks, not of their mean" in card
    )
    assert f"- mean squared error: {found['metrics'][VAL_LOSS]:.4f} (mean over all graphs)" in card
    assert f"- ranking loss: {found['metrics'][VAL_RANKING_LOSS]:.4f} (mean over targets, in DockQ)" in card
    assert f"one target, standard deviation: {found['within_target_error']:.4f}" in card
    choice = found["first_choice"]
    assert f"(DockQ 0.23): {choice['acceptable']} of the {choice['targets']} targets" in card
    assert "- Conclusions in general: 11 targets are few." in card


def test_it_is_no_candidate_and_on_no_leaderboard(folds):
    client = mlflow_client(folds.uri)
    version = client.get_model_version("topoqa", folds.version.rpartition("/")[2])
    aliases = client.get_registered_model("topoqa").aliases
    assert aliases["candidate"] != version.version
    assert "candidate of topoqa stays where it is: --take-candidate" in folds.told
    assert VAL_LOSS not in version.tags
    assert VAL_LOSS not in client.get_run(version.run_id).data.metrics
    rows = topotrain.leaderboard(tracking_uri=folds.uri, limit=None)
    assert version.run_id not in {row["run_id"] for row in rows}


@pytest.fixture
def scored(folds: Folds, tmp_path, monkeypatch, capsys):
    """Standard error of scoring."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def score(*structures: Path) -> str:
        capsys.readouterr()
        assert exit_status("score", *structures, "--model", folds.version, "--tracking-uri", folds.uri) == 0
        return capsys.readouterr().err

    return score


def test_score_tells_by_the_errors_of_its_members(folds, recipe, scored):
    told = scored(*sorted((folds.root / "structures" / "T2").iterdir()))
    each, found = [member["train_graphs"] for member in recipe["members"]], recipe["out_of_fold"]
    number = f"{min(each)} to {max(each)}"
    assert (
        f"is 5 networks, which learned from {number} structures each, not all the same: of 11 complexes toget" in told
    )
    assert (
        "each of its 5 networks was tried on complexes that it had not learned from: of "
        f"{found['first_choice']['targets']} with an acceptable structure (DockQ of at least 0.23), it put one first "
        f"for {found['first_choice']['acceptable']}."
    ) in told
    error = found["within_target_error"]
    assert (
        "None of the 5 can be told apart: on complexes that they had not learned from, its 5 networks, each alone, "
        f"were off by {error:.2f}, so that differences under {2 * math.sqrt(2) * error:.2f} may be chance."
    ) in told
    assert "lie outside what it learned from" not in told, "they are among what it learned from"


def test_score_warns_of_what_no_member_learned_from(scored, tmp_path):
    (tmp_path / "far").mkdir()
    for number, gap in enumerate((5.0, 4.5)):
        (tmp_path / "far" / f"m{number}.pdb").write_text(pdb_text(helix_pair(size=30, gap=gap)))
    assert "Beware: 2 of 2 structures lie outside what it learned from (" in scored(tmp_path / "far")


def test_the_line_that_says_which_model_it_is(folds, recipe, tmp_path, capsys):
    client, each = mlflow_client(folds.uri), [member["train_graphs"] for member in recipe["members"]]
    client.set_registered_model_alias("topoqa", "champion", folds.version.rpartition("/")[2])
    try:
        where = ("--graphs", folds.root / "graphs", "--tracking-uri", folds.uri)
        assert exit_status("predict", *where, "--out", tmp_path / "scores.csv") == 0
    finally:
        client.delete_registered_model_alias("topoqa", "champion")
    said = (
        f"(champion): ensemble of 5, each trained on {min(each)} to {max(each)} graphs, not all the same; never judged"
    )
    assert said in capsys.readouterr().err


def test_the_files_say_so_too(folds, recipe, tmp_path):
    files = Store.open(folds.uri).versions.download(folds.version, tmp_path)
    assert json.loads((files / "artifacts" / "recipe.json").read_text())["out_of_fold"] == recipe["out_of_fold"]
