"""MLflow's own tools on topotrain's runs: searches, commands, and the web page that compares two feature sets."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException

import topotrain
from kit.browser import chromium, find_browser, wait_for
from kit.recorded import mlflow_client
from kit.waiting import PATIENCE
from topotrain.data.demo import demo_paths, write_demo_structures
from topotrain.features import build_graphs
from topotrain.tracking.address import page
from topotrain.training.resume import resume

BANDS, SCALES = "edge/legacy_band/v11", "edge/multi_scale/v24"
WIDTHS = {BANDS: "11", SCALES: "24"}
TARGETS, DECOYS = {"train": 2, "val": 1}, 4
PICTURES = {name: Path("docs", "images", f"{name}.png") for name in ("compare_runs", "run_page", "version_page")}


@dataclass(frozen=True)
class Study:
    """One folder of structures, built into graphs by one edge module after another."""

    root: Path

    def train(self, edge_module: str, uri: str, **options: Any) -> topotrain.TrainResult:
        """Build the graphs anew, in place, and train on them: nothing but the features differs between two runs."""
        shutil.rmtree(self.root / "graphs", ignore_errors=True)
        modules = {"edge_module": edge_module, "topology_module": "topology/none/v1"}  # persistence takes longest
        build_graphs(self.root / "structures", self.root / "graphs", **modules)
        return topotrain.fit(self.root / "recipe.yaml", tracking_uri=uri, **options)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A few decoys of the smallest demo complexes, as a user would bring them."""
    root = tmp_path_factory.mktemp("study")
    everything = root / "everything"
    write_demo_structures(everything)
    for split, labels in (("train", demo_paths().train_labels), ("val", demo_paths().val_labels)):
        lines = ["MODEL,dockq"]
        folders = sorted((everything / split).iterdir(), key=lambda folder: next(folder.glob("*.pdb")).stat().st_size)
        for folder in folders[: TARGETS[split]]:
            (root / "structures" / folder.name).mkdir(parents=True)
            mine = [row for row in _rows(labels) if row["MODEL"].startswith(f"{folder.name}/")]
            for row in sorted(mine, key=lambda row: float(row["dockq"]))[:: len(mine) // DECOYS][:DECOYS]:
                shutil.copy(everything / split / f"{row['MODEL']}.pdb", root / "structures" / folder.name)
                lines.append(f"{row['MODEL']},{row['dockq']}")
        (root / f"{split}.csv").write_text("\n".join(lines) + "\n")
    shutil.rmtree(everything)
    (root / "recipe.yaml").write_text(
        "paths: {graph: graphs, train_labels: train.csv, val_labels: val.csv}\n"
        "trainer: {num_epochs: 3}\ndataloader: {batch_size: 4}\n"
    )
    return Study(root)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@dataclass(frozen=True)
class Recorded:
    """A store that holds a run for each edge module, and one that goes on from the first."""

    uri: str
    runs: dict[str, str]  # name -> run id

    @property
    def client(self) -> Any:
        return mlflow_client(self.uri)

    @property
    def experiment_id(self) -> str:
        return str(self.client.get_experiment_by_name("dynamic_topoqa").experiment_id)


@pytest.fixture(scope="module")
def recorded(study: Study, _empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    root = tmp_path_factory.mktemp("recorded")
    shutil.copyfile(_empty_store, root / "mlflow.db")
    uri = f"sqlite:///{root / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            patch.delenv(name)
        patch.chdir(root)
        bands = study.train(BANDS, uri, run_name="bands")
        child = resume(bands.run_id, checkpoint="epoch_0000.ckpt", run_name="bands again", tracking_uri=uri)
        scales = study.train(SCALES, uri, run_name="scales")
    runs = {"bands": bands.run_id, "bands again": child.run_id, "scales": scales.run_id}
    assert len(set(runs.values())) == 3
    yield Recorded(uri, runs)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("params.`schema.edge.dim` = '11'", {"bands", "bands again"}),
        ('params."schema.edge.dim" = "24"', {"scales"}),
        ("params.`schema.edge.module` = 'edge/multi_scale/v24'", {"scales"}),
        ("params.`schema.edge.module` LIKE 'edge/legacy_band/%'", {"bands", "bands again"}),
        ("params.`schema.edge.dim` != '11' and metrics.best_val_loss < 1", {"scales"}),
        ("params.`schema.edge.dim` = '99'", set()),
        ("tags.`topotrain.command` = 'resume'", {"bands again"}),
        ("tags.`topotrain.command` = 'run' and attributes.status = 'FINISHED'", {"bands", "scales"}),
        ("params.`trainer.num_epochs` = '3' and params.`schema.node.dim` = '32'", {"bands", "bands again", "scales"}),
    ],
)
def test_search_runs(recorded: Recorded, query: str, expected: set[str]) -> None:
    mlflow.set_tracking_uri(recorded.uri)
    found = mlflow.search_runs(experiment_names=["dynamic_topoqa"], filter_string=query)
    assert set(found["tags.mlflow.runName"] if len(found) else []) == expected
    assert {recorded.runs[name] for name in expected} == set(found["run_id"] if len(found) else [])


@pytest.mark.parametrize("query", ["params.`schema.edge.dim` = 11", "params.`schema.edge.dim` > '9'"])
def test_parameters_are_texts_to_mlflow(recorded: Recorded, query: str) -> None:
    """What docs/mlflow.md warns of."""
    mlflow.set_tracking_uri(recorded.uri)
    with pytest.raises(MlflowException):
        mlflow.search_runs(experiment_names=["dynamic_topoqa"], filter_string=query)


def test_runs_have_the_same_keys_so_that_they_compare_side_by_side(recorded: Recorded) -> None:
    runs = [recorded.client.get_run(run_id) for run_id in recorded.runs.values()]
    assert len({frozenset(run.data.params) for run in runs}) == 1
    assert len({frozenset(run.data.metrics) for run in runs}) == 1
    names = [name for name in runs[0].data.params if name.startswith("schema.")]
    assert len(names) == 14
    mlflow.set_tracking_uri(recorded.uri)
    table = mlflow.search_runs(experiment_names=["dynamic_topoqa"]).set_index("run_id")
    assert len(table) == 3
    assert not table[[f"params.{name}" for name in runs[0].data.params]].isna().any(axis=None)
    assert not table[[f"metrics.{name}" for name in runs[0].data.metrics]].isna().any(axis=None)


def test_what_differs_between_two_feature_sets_is_their_schema(recorded: Recorded) -> None:
    bands, scales = (recorded.client.get_run(recorded.runs[name]).data.params for name in ("bands", "scales"))
    differing = {name for name in bands if bands[name] != scales[name]}
    assert {"schema.edge.dim", "schema.edge.module", "schema.digest"} <= differing
    assert {name for name in differing if not name.startswith("schema.")} == {"data.digest", "model.num_parameters"}


def test_a_run_that_goes_on_is_nested_below_the_first(recorded: Recorded) -> None:
    mlflow.set_tracking_uri(recorded.uri)
    query = f"tags.`mlflow.parentRunId` = '{recorded.runs['bands']}'"
    children = mlflow.search_runs(experiment_names=["dynamic_topoqa"], filter_string=query)
    assert list(children["run_id"]) == [recorded.runs["bands again"]]
    assert [run.info.run_id for run in mlflow.MlflowClient().search_runs([recorded.experiment_id], query)] == [
        recorded.runs["bands again"]
    ]
    assert "mlflow.parentRunId" not in recorded.client.get_run(recorded.runs["bands"]).data.tags


def shell(command: str, uri: str, folder: Path) -> str:
    """Run a line in a folder with nothing of ours in it but the tracking URI."""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


PAGE = Path(__file__).resolve().parents[2] / "docs" / "mlflow.md"


@pytest.mark.long
def test_the_page_on_mlflow_is_run_block_by_block(recorded: Recorded, tmp_path: Path) -> None:
    """Every block of docs/mlflow.md, in order, in one folder: a Python program, and a shell script."""
    blocks = re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert {kind for kind, _ in blocks} == {"python", "bash"}
    (tmp_path / "page.py").write_text("\n".join(text for kind, text in blocks if kind == "python"))
    told = shell(f"{shlex.quote(sys.executable)} page.py", recorded.uri, tmp_path)
    found, several, children = re.split(r"^(\d+)$", told, maxsplit=1, flags=re.MULTILINE)
    assert BANDS in found
    assert SCALES not in found
    assert several == "1"
    assert "bands again" in children

    script = "\n".join(text for kind, text in blocks if kind == "bash")
    assert "mlflow runs list" in script
    assert "mlflow artifacts download --run-id" in script
    told = shell(script, recorded.uri, tmp_path)
    rows = dict(re.findall(r"UTC  (.+?)  +([0-9a-f]{32})$", told, flags=re.MULTILINE))
    assert rows == recorded.runs
    schema = json.loads((tmp_path / "got" / "feature_metadata.json").read_text())
    assert (schema["edge_schema"]["module"], schema["edge_schema"]["dim"]) == (SCALES, int(WIDTHS[SCALES]))
    names = {path.name for path in (tmp_path / "got" / "checkpoints").iterdir()}
    assert {"last.ckpt", "kept.json"} < names
    assert (tmp_path / "got" / "checkpoints" / "last.ckpt").stat().st_size > 100_000


@pytest.fixture
def browser() -> tuple[str, str]:
    """Chromium and its driver; asked for before a server is started."""
    return find_browser()


def row_of(window: Any, name: str) -> list[str]:
    """The cells of one visible line of the comparison's tables."""
    for row in window.find_elements("css selector", "table.mlflow-compare-table tr"):
        cells = [cell.text for cell in row.find_elements("css selector", "th, td")]
        if cells and cells[0] == name and row.is_displayed():
            return cells[1:]
    return []


def shows(window: Any, *texts: str) -> None:
    """Wait until the page says all of this."""
    wait_for(window, lambda shown: all(text in shown.find_element("tag name", "body").text for text in texts))


@pytest.mark.server
@pytest.mark.browser
def test_the_web_page_compares_two_feature_sets(browser, server, study, tmp_path, root, pytestconfig):
    """Trained through a server, opened in a browser: both widths and modules stand side by side.

    The same window then opens the experiment, a run and a version: what they are and how they do is said in words.
    """
    write = pytestconfig.getoption("write_pictures")
    with chromium(*browser, tmp_path / "profile") as window:
        names = {BANDS: "bands", SCALES: "scales"}
        ids = [study.train(module, server, run_name=name).run_id for module, name in names.items()]
        experiment = mlflow_client(server).get_run(ids[0]).info.experiment_id
        chosen = {"runs": json.dumps(ids), "experiments": json.dumps([experiment])}
        query = urllib.parse.urlencode({**chosen, "workflowType": "machine_learning"})
        window.get(f"{server}/#/compare-runs?{query}")

        assert wait_for(window, lambda shown: row_of(shown, "schema.edge.dim")) == [WIDTHS[BANDS], WIDTHS[SCALES]]
        assert row_of(window, "schema.edge.module") == [BANDS, SCALES]
        assert row_of(window, "Run Name:") == ["bands", "scales"]
        assert row_of(window, "trainer.num_epochs") == ["3", "3"]
        differing = row_of(window, "schema.digest")
        assert differing[0] != differing[1]

        window.find_element("css selector", "button[aria-label='Parameters - Show diff only']").click()
        wait_for(window, lambda shown: not row_of(shown, "trainer.num_epochs"))
        assert row_of(window, "schema.edge.module") == [BANDS, SCALES]
        assert not row_of(window, "paths.graph"), "the folder is the same; its features are not"
        body = window.find_element("tag name", "body").text
        assert "schema.edge.dim" in body
        assert BANDS in body
        if write:
            fold_plots_away(window)
            take_picture(window, root / PICTURES["compare_runs"])

        window.get(f"{server}/{page(experiment)}")  # what topotrain ui names
        shows(window, "bands", "scales", "Run Name")
        assert "runs?" in window.current_url, "not the pages on language models"
        window.get(f"{server}/{page(experiment, ids[0])}")
        shows(window, "Best epoch:", "Show more")
        window.find_element("xpath", "//*[text()='Show more']").click()
        shows(window, "less each free baseline", "trees: ranking loss", "topotrain run --config again/config.yaml")
        if write:
            take_picture(window, root / PICTURES["run_page"])
        (best,) = (one for one in versions_of(server, ids[0]) if one.tags["rank"] == "1")
        window.get(f"{server}/#/models/topoqa/versions/{best.version}?workflowType=machine_learning")
        shows(window, "What it takes and gives", "What it was trained on", "training run bands")
        if write:
            take_picture(window, root / PICTURES["version_page"])


def versions_of(uri: str, run_id: str) -> list[Any]:
    return [*mlflow_client(uri).search_model_versions(f"run_id = '{run_id}'")]


def take_picture(window: Any, path: Path) -> None:
    """Of the window as it is, without MLflow's assistant."""
    for button in window.find_elements("css selector", "button[aria-label='Close']"):
        button.click()
    path.parent.mkdir(parents=True, exist_ok=True)
    assert window.save_screenshot(str(path))


def fold_plots_away(window: Any) -> None:
    """Of a comparison."""
    for button in window.find_elements("css selector", "button[aria-label='Close']"):
        button.click()
    window.find_element("xpath", "//*[@role='button'][contains(., 'Visualizations')]").click()
    plots = "//*[text()='Parallel Coordinates Plot']"
    wait_for(window, lambda shown: not shown.find_element("xpath", plots).is_displayed())
    window.execute_script("document.activeElement.blur(); document.querySelector('h2').scrollIntoView(false)")


@pytest.mark.parametrize("path", PICTURES.values(), ids=PICTURES)
def test_the_pictures_are_kept_and_shown(root: Path, path: Path) -> None:
    picture = (root / path).read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert 20_000 < len(picture) < 300_000
    assert f"]({path.relative_to('docs').as_posix()})" in PAGE.read_text()
