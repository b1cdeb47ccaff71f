"""The model that comes with topotrain: what it is made of, when it is used, and the script that makes it."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from safetensors import safe_open

import topotrain
from kit.commands import exit_status
from kit.recorded import mlflow_client
from kit.waiting import PATIENCE
from topotrain.data.demo import demo_paths, write_demo_structures
from topotrain.data.stored_schema import inspect_directory
from topotrain.features import build_graphs
from topotrain.fields import CARD_ARTIFACT, MODEL_FILES, RECIPE_ARTIFACT, SCHEMA_ARTIFACT
from topotrain.metrics.ranking import by_target
from topotrain.scoring.load import load_model
from topotrain.tracking.store import STARTER_DIR

FILES = STARTER_DIR / MODEL_FILES
MEGABYTE = 1_000_000
SAID = "the starter model that comes with topotrain is used"
NO_STORE = f"there is no tracking store here: {SAID}"
NO_VERSION = "no version of topoqa is champion or candidate (registered models: {}): " + SAID
GOOD, BAD = 0.8, 0.1  # DockQ
TARGET = "1BGS_AE"
Run = Callable[..., tuple[str, str]]


def labels_of(path: Path) -> dict[str, float]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["MODEL"]: float(row["dockq"]) for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two best and the two worst models of a hold-out complex, named by what they are."""
    root = tmp_path_factory.mktemp("starter")
    write_demo_structures(root / "all")
    known = labels_of(demo_paths().holdout_labels)
    order = sorted((key for key in known if key.startswith(f"{TARGET}/")), key=lambda key: known[key])
    (root / "few").mkdir()
    for name, key in zip(("bad_1", "bad_2", "good_1", "good_2"), (*order[:2], *order[-2:]), strict=True):
        shutil.copyfile(root / "all" / "holdout" / f"{key}.pdb", root / "few" / f"{name}.pdb")
    return root / "few"


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    """What the starter model says of itself."""
    content: dict[str, Any] = json.loads((FILES / RECIPE_ARTIFACT).read_text(encoding="utf-8"))
    return content


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """A command that ends with this status: what it printed and what it said."""

    def command(*words: object, status: int = 0) -> tuple[str, str]:
        capsys.readouterr()
        assert exit_status(*words) == status
        shown = capsys.readouterr()
        return shown.out, shown.err

    return command


def test_its_files_are_plain_small_and_name_no_place() -> None:
    names = {path.name for path in FILES.iterdir()}
    assert {SCHEMA_ARTIFACT, RECIPE_ARTIFACT, CARD_ARTIFACT} < names
    assert {Path(name).suffix for name in names} == {".safetensors", ".json", ".md"}
    assert sum(path.stat().st_size for path in FILES.iterdir()) < 4 * MEGABYTE
    for path in FILES.iterdir():
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:  # refuses what is none, such as a pickle
                assert list(file.metadata()) == ["spec"]
        else:
            assert not re.search(r"""["' `]/\w|sqlite:|file:""", path.read_text(encoding="utf-8")), path.name


def test_they_are_data_of_the_package(root: Path) -> None:
    import tomllib

    package = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["topotrain"]
    for path in FILES.iterdir():
        name = path.relative_to(STARTER_DIR.parent).as_posix()
        assert any(fnmatch(name, pattern) for pattern in package), name


def test_the_card_and_the_recipe_are_of_these_weights(recipe: dict[str, Any]) -> None:
    card = (FILES / CARD_ARTIFACT).read_text(encoding="utf-8")
    weights = sorted(FILES.glob("*.safetensors"))
    names = [f"- **{one['name']}**: " for one in recipe["data"]["sources"]]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in weights]
    assert digests == [one["weights_sha256"] for one in recipe["members"]]
    for path, digest in zip(weights, digests, strict=True):
        assert f"- `{path.name}`: `{digest}`" in card
    for words in ("Apache-2.0", "CC0 1.0", "## Limits", recipe["command"], *names):
        assert words in card, words


def test_the_readme_has_its_figures_on_the_demo_hold_out(root: Path, recipe: dict[str, Any]) -> None:
    found = recipe["figures"]["demo hold-out"]["starter"]["all"]
    said = f"Spearman {found['spearman']:.2f}, ranking loss {found['ranking_loss']:.2f}, MSE {found['mse']:.3f}"
    assert said in " ".join((root / "README.md").read_text().split())


def test_it_learned_from_nothing_of_the_demo_hold_out(recipe: dict[str, Any]) -> None:
    learned = {target[:4] for target in recipe["data"]["train_targets"]}
    assert len(learned) > 120
    kept_away = {key[:4] for key in labels_of(demo_paths().holdout_labels)}
    assert kept_away
    assert not learned & kept_away
    assert not learned & set(recipe["data"]["left_out"])


def test_it_takes_what_is_built_by_default(few: Path, tmp_path: Path) -> None:
    schema = load_model("starter", None).scorer.schema
    build_graphs(few / "good_1.pdb", tmp_path / "graphs")
    assert inspect_directory(tmp_path / "graphs").digest == schema.digest
    assert inspect_directory(demo_paths().graphs).digest == schema.digest


def test_without_a_store_it_scores_and_tells_good_from_bad(run: Run, few: Path, tmp_path: Path) -> None:
    table, told = run("score", few, "--report", "report.html", "--annotate", "annotated")
    assert told.splitlines().count(NO_STORE) == 1
    assert "The starter model is 5 networks, which learned from " in told
    scores = {row["MODEL"]: float(row["PRED_DOCKQ"]) for row in csv.DictReader(table.splitlines())}
    assert min(scores["good_1"], scores["good_2"]) > max(scores["bad_1"], scores["bad_2"])
    assert "PRED_DOCKQ_STD" in table.splitlines()[0]
    assert "starter model" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "annotated" / "view.pml").is_file()
    assert not (tmp_path / "mlflow.db").exists()
    residues, told = run("explain", few / "good_1.pdb")
    assert residues.startswith("CHAIN,NUMBER,NAME,IMPORTANCE\n")
    assert NO_STORE in told
    assert run("score", few, "--model", "starter")[0] == table
    assert topotrain.score(few).rows[0].model.startswith("good")


def test_on_every_complex_of_the_hold_out_good_ones_are_above_bad_ones(run: Run, tmp_path: Path) -> None:
    demo = demo_paths()
    assert NO_STORE in run("predict", "--labels", demo.holdout_labels, "--out", "p.csv")[1]
    with (tmp_path / "p.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["DockQ"]]
    for places in by_target([row["TARGET"] for row in rows]).values():
        mine = [(float(rows[place]["DockQ"]), float(rows[place]["PRED_DOCKQ"])) for place in places]
        good, bad = ([score for true, score in mine if (true >= GOOD, true < BAD)[worse]] for worse in (0, 1))
        assert mean(good) > mean(bad)
    judged = json.loads(run("evaluate", "--format", "json")[0])
    assert judged["figures"]["model"]["num_targets"] == 4
    assert judged["figures"]["model"]["mean_spearman"] > 0.4


def test_a_store_without_a_champion_and_a_candidate(run: Run, few: Path, store_uri: str) -> None:
    one = few / "good_1.pdb"
    assert NO_VERSION.format("none") in run("score", one, "--tracking-uri", store_uri)[1]
    mlflow_client(store_uri).create_registered_model("other")
    assert NO_VERSION.format("other") in run("score", one, "--tracking-uri", store_uri)[1]


@pytest.mark.server
def test_a_server_without_a_champion_and_a_candidate(run: Run, few: Path, server: str) -> None:
    assert NO_VERSION.format("none") in run("score", few / "good_1.pdb", "--tracking-uri", server)[1]


def test_a_candidate_takes_its_place_and_it_can_still_be_named(run: Run, few: Path, structure_model: Any) -> None:
    uri = ("--tracking-uri", structure_model.uri)
    own, told = run("score", few / "good_1.pdb", *uri)
    assert "topoqa version 1 (candidate) learned from " in told
    assert "starter" not in told
    named, told = run("score", few / "good_1.pdb", "--model", "starter", *uri)
    assert "The starter model is 5 networks, which learned from " in told
    assert SAID not in told
    assert named != own


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:///named.db"])
@pytest.mark.parametrize("named", ["by an option", "by the variable"])
def test_a_store_that_is_named_must_be_there(
    run: Run, few: Path, uri: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    option = ("--tracking-uri", uri) if named == "by an option" else ()
    if not option:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    table, told = run("score", few / "good_1.pdb", *option, status=2)
    assert table == ""
    assert SAID not in told
    assert told.splitlines()[-1].startswith("error: ")
    assert uri.rpartition("/")[2] in told.splitlines()[-1]


def test_a_named_model_is_no_starter(run: Run, few: Path) -> None:
    """Where a version is asked for, there has to be a store."""
    told = run("score", few / "good_1.pdb", "--model", "models:/topoqa@champion", status=2)[1]
    assert "no such tracking store" in told
    assert SAID not in told


def test_a_word_that_is_no_model_is_told_apart_from_a_store_that_is_missing(run: Run, few: Path) -> None:
    (told,) = run("score", few / "good_1.pdb", "--model", "strater", status=2)[1].splitlines()
    assert told.startswith("error: there is no model 'strater'; expected models:/NAME@alias")
    assert told.endswith("did you mean 'starter'?")


def test_graphs_with_other_features_are_refused(run: Run, structure_model: Any) -> None:
    told = run("predict", "--model", "starter", "--graphs", structure_model.graphs, "--out", "p.csv", status=2)[1]
    error = told.splitlines()[-1]
    assert error.startswith("error: graph ")
    assert "node dim" in error
    assert not Path("p.csv").exists()


def test_its_card_is_shown(run: Run) -> None:
    story = run("describe", "starter")[0]
    assert (FILES / CARD_ARTIFACT).read_text(encoding="utf-8").rstrip() in story
    assert run("compare", "starter", "starter")[0].startswith("first: starter\nsecond: starter\n")


@pytest.fixture(scope="module")
def script(root: Path) -> Any:
    """The script as a module."""
    sys.path.insert(0, str(root / "scripts"))
    try:
        spec = importlib.util.spec_from_file_location("train_starter", root / "scripts" / "train_starter.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def test_validation_takes_whole_clusters_of_one_source(script: Any) -> None:
    decoys = [
        script.Decoy(f"{source}/{source}{number}/m", 0.5, f"{source}{number}", "docking", source)
        for source in ("a", "b")
        for number in range(20)
    ]
    clusters = {f"a{number}": f"pair {number // 2}" for number in range(20)} | {"a0": "both", "b0": "both"}
    chosen = script.held_out(decoys, clusters, 0.1)
    assert chosen == script.held_out(decoys[::-1], clusters, 0.1)
    assert {target[0] for target in chosen} == {"a", "b"}
    assert len(chosen) == 4
    assert not chosen & {"a0", "b0"}
    assert len({clusters[target] for target in chosen if target[0] == "a"}) == 1
    folds = script.folds(decoys, clusters, 0.1, 5)
    assert folds[0] == chosen
    assert all(3 <= len(fold) <= 4 for fold in folds)
    assert len(set.union(*folds)) == sum(map(len, folds)), "none is in two of them"


@pytest.mark.project
def test_the_script_makes_a_model_of_the_demo_data_and_of_others(root: Path, tmp_path: Path) -> None:
    demo, own = demo_paths(), tmp_path / "own"
    shutil.copytree(demo.graphs / "1BD2_AB", own / "graphs" / "X1")
    shutil.copytree(demo.graphs / "7PBL_EF", own / "graphs" / "X2")
    known = labels_of(demo.train_labels)
    for target, name in (("1BD2_AB", "X1"), ("7PBL_EF", "X2")):
        rows = [f"{key.replace(target, name)},{known[key]},docking" for key in known if key.startswith(target)]
        (own / f"{name}.csv").write_text("\n".join(["MODEL,dockq,kind", *rows, ""]))
    command = [sys.executable, root / "scripts" / "train_starter.py", "--out", tmp_path / "made", "--seeds", "1", "2"]
    command += ["--graphs", own / "graphs", own / "X1.csv", own / "X2.csv", "--source", "Renamed, CC0 1.0"]
    command += ["--leave-out", "1BD2_AB", "--override", "trainer.num_epochs=1", "--override", "model.hidden_dim=4"]
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE * 4, env=environment)
    assert done.returncode == 0, done.stderr
    files = tmp_path / "made" / MODEL_FILES
    recipe = json.loads((files / RECIPE_ARTIFACT).read_text())
    demo_part, own_part = recipe["data"]["sources"]
    assert (own_part["name"], own_part["targets"], own_part["decoys"]) == ("own", ["X1", "X2"], {"docking": 88})
    assert "1BD2_AB" not in demo_part["targets"]
    assert len(demo_part["targets"]) == 13
    assert set(recipe["data"]["train_targets"]) == {*demo_part["targets"], "X1", "X2"}
    assert recipe["out_of_fold"]["targets"] == 4, "one of each source for each network"
    assert done.stdout.rstrip() == (files / CARD_ARTIFACT).read_text().rstrip()
    for words in ("Renamed, CC0 1.0.", "| demo hold-out |", "boosted trees", "--leave-out 1BD2_AB"):
        assert words in done.stdout, words
    assert str(tmp_path.parent) not in "".join(
        path.read_text() for path in files.iterdir() if path.suffix != ".safetensors"
    )
    loaded = load_model(str(tmp_path / "made"), None)
    assert len(loaded.scorer.networks) == 2
    assert loaded.scorer.schema.digest == load_model("starter", None).scorer.schema.digest
