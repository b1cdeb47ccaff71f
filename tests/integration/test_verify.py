"""A version's files are those that were registered, or nothing is loaded from them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import topotrain
from kit.commands import exit_status
from kit.graphs import GraphSet, write_graph_set
from kit.recorded import mlflow_client, point_mlflow_at
from topotrain.errors import TrackingError
from topotrain.scoring.load import load_scorer
from topotrain.tracking.file_digests import MOST_LISTED, digest_tags, file_digests, total_digest
from topotrain.tracking.store import Store

URI = "models:/topoqa@candidate"


@dataclass(frozen=True)
class Registered:
    """A version on a store, and where its files lie."""

    uri: str
    graph_set: GraphSet
    run_id: str
    files: Path
    tags: dict[str, str]

    @property
    def client(self) -> Any:
        return mlflow_client(self.uri)

    @property
    def weights(self) -> Path:
        return self.files / "artifacts" / "weights.safetensors"


@pytest.fixture(scope="module")
def trained(_empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Registered:
    """One version; every test leaves it as it was."""
    root = tmp_path_factory.mktemp("verify")
    shutil.copyfile(_empty_store, root / "mlflow.db")
    write_graph_set(root / "set")
    uri, graph_set = f"sqlite:///{root / 'mlflow.db'}", GraphSet(root / "set")
    overrides = [*graph_set.overrides, "trainer.num_epochs=1"]
    run_id = topotrain.fit(overrides=overrides, tracking_uri=uri, progress=False).run_id
    client = mlflow_client(uri)
    (model,) = client.search_logged_models([client.get_run(run_id).info.experiment_id])
    files = Path(model.artifact_location.removeprefix("file://"))
    return Registered(uri, graph_set, run_id, files, dict(client.get_model_version("topoqa", "1").tags))


@pytest.fixture
def version(trained: Registered, tmp_path: Path) -> Iterator[Registered]:
    """The version, whose files and tags are put back afterwards."""
    shutil.copytree(trained.files, tmp_path / "kept")
    yield trained
    shutil.rmtree(trained.files)
    shutil.move(tmp_path / "kept", trained.files)
    for key, value in trained.tags.items():
        trained.client.set_model_version_tag("topoqa", "1", key, value)


def swap_weights(version: Registered) -> None:
    """Other numbers of the same names, shapes and size."""
    size = version.weights.stat().st_size
    from safetensors import safe_open

    with safe_open(str(version.weights), "pt") as file:
        said = file.metadata()
    save_file({name: value + 1 for name, value in load_file(version.weights).items()}, version.weights, said)
    assert version.weights.stat().st_size == size


def loader(version: Registered) -> Path:
    """The file that MLflow runs."""
    (found,) = version.files.glob("*.py")
    return found


def swap_loader(version: Registered) -> None:
    """Code that leaves a trace."""
    with loader(version).open("a") as file:
        file.write(f"\nopen({str(version.graph_set.root / 'ran')!r}, 'w').close()\n")


def add_module(version: Registered) -> None:
    (version.files / "code" / "numpy.py").write_text("raise SystemExit('mine')\n")


def remove_card(version: Registered) -> None:
    (version.files / "artifacts" / "README.md").unlink()


def all_at_once(version: Registered) -> None:
    for spoil in (swap_weights, add_module, remove_card):
        spoil(version)


CASES: dict[str, tuple[Callable[[Registered], None], str]] = {
    "weights": (swap_weights, "(changed: artifacts/weights.safetensors)"),
    "loader": (swap_loader, "(changed: served.py)"),
    "added": (add_module, "(added: code/numpy.py)"),
    "missing": (remove_card, "(missing: artifacts/README.md)"),
    "all": (
        all_at_once,
        "(changed: artifacts/weights.safetensors; missing: artifacts/README.md; added: code/numpy.py)",
    ),
}


def commands(version: Registered, out: Path) -> dict[str, list[str]]:
    """Every command that loads a version."""
    graphs = ["--graphs", str(version.graph_set.graphs)]
    labels = ["--labels", str(version.graph_set.val_labels)]
    return {
        "verify": ["verify", URI],
        "predict": ["predict", "--model", URI, *graphs, "--out", str(out)],
        "score": ["score", str(version.graph_set.graphs), "--model", URI, "--out", str(out)],
        "evaluate": ["evaluate", "--model", URI, *graphs, *labels],
        "a run's": ["evaluate", "--run-id", version.run_id, *graphs, *labels],
        "weights": ["run", "--resume-from", URI, *(w for one in version.graph_set.overrides for w in ("-o", one))],
    }


@pytest.mark.parametrize("name", CASES)
def test_other_files_are_refused_by_every_command(name: str, version: Registered, tmp_path: Path, capsys: Any) -> None:
    spoil, words = CASES[name]
    spoil(version)
    out = tmp_path / "out.csv"
    recorded = version.tags["topotrain.files_sha256"][:12]
    found = total_digest(file_digests(version.files))[:12]
    for command in commands(version, out).values():
        capsys.readouterr()
        assert exit_status(*command, "--tracking-uri", version.uri) == 2
        printed, said = capsys.readouterr()
        (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
        assert line == (
            f"error: models:/topoqa/1: its files are not those that were registered {words}; expected SHA-256 "
            f"{recorded}.., found {found}..; restore its files or take another version, and let nobody serve it; "
            "see docs/serving.md"
        )
        assert printed == ""
    assert not out.exists()
    assert not (version.graph_set.root / "ran").exists()


def test_the_same_files_are_said_to_be_the_same(version: Registered, capsys: Any) -> None:
    """By alias, number and id of the logged model."""
    model_id = version.files.parent.name
    digest = version.tags["topotrain.files_sha256"]
    for uri in (URI, "models:/topoqa/1", f"models:/{model_id}"):
        assert exit_status("verify", uri, "--tracking-uri", version.uri) == 0, capsys.readouterr().err
        (line,) = capsys.readouterr().out.splitlines()
        number = len([path for path in version.files.rglob("*") if path.is_file()])
        assert line == f"models:/topoqa/1: {number} files as they were registered, SHA-256 {digest}"
    assert topotrain.verify(URI, version.uri).digest == digest


def test_what_a_local_store_holds_once_mlflow_has_loaded_from_it(
    version: Registered, tmp_path: Path, capsys: Any
) -> None:
    """It loads in place and leaves a file of its own; Python leaves what it compiled, which would be run unseen."""
    import mlflow

    point_mlflow_at(version.uri)
    mlflow.pyfunc.load_model(URI)
    assert (version.files / "registered_model_meta").is_file()
    assert topotrain.verify(URI, version.uri).uri == "models:/topoqa/1"
    cache = version.files / "code" / "topotrain" / "__pycache__"
    cache.mkdir(exist_ok=True)
    (cache / "errors.cpython-311.pyc").write_bytes(b"anything")
    assert exit_status("verify", URI, "--tracking-uri", version.uri) == 2
    said = capsys.readouterr().err
    assert "(added: code/topotrain/__pycache__/errors.cpython-311.pyc)" in said
    assert "remove them" in said
    for name, command in commands(version, tmp_path / "out.csv").items():
        if name in ("predict", "evaluate"):
            assert exit_status(*command, "--tracking-uri", version.uri) == 0, "nothing of its code is run"
    add_module(version)
    assert exit_status("verify", URI, "--tracking-uri", version.uri) == 2
    assert "let nobody serve it" in capsys.readouterr().err


def test_mlflow_itself_runs_what_it_finds(version: Registered) -> None:
    """What docs/serving.md warns of, and why ``verify`` comes first."""
    import mlflow

    swap_loader(version)
    point_mlflow_at(version.uri)
    mlflow.pyfunc.load_model(URI)
    trace = version.graph_set.root / "ran"
    assert trace.is_file()
    trace.unlink()
    with pytest.raises(TrackingError, match="changed: served.py"):
        topotrain.verify(URI, version.uri)
    assert not trace.exists()


def test_a_version_without_a_digest_is_taken_with_a_word(version: Registered, tmp_path: Path, capsys: Any) -> None:
    """As versions of earlier topotrains are; and nobody can say that they are what they were."""
    version.client.delete_model_version_tag("topoqa", "1", "topotrain.files_sha256")
    assert exit_status("verify", URI, "--tracking-uri", version.uri) == 2
    assert "no digest of its files was recorded" in capsys.readouterr().err
    command = commands(version, tmp_path / "out.csv")["predict"]
    assert exit_status(*command, "--tracking-uri", version.uri) == 0
    assert capsys.readouterr().err.count("was registered without a digest of its files") == 1


def test_the_list_of_files_only_names_what_differs(version: Registered) -> None:
    """Without it, or with a wrong one, the digest decides all the same."""
    swap_weights(version)
    for listed in ("", "[]", "{", json.dumps({"a": 1})):
        version.client.set_model_version_tag("topoqa", "1", "topotrain.files", listed)
        with pytest.raises(TrackingError, match="not those that were registered"):
            topotrain.verify(URI, version.uri)
    files = {f"{number:0200d}": "0" * 64 for number in range(100)}
    assert set(digest_tags(files)) == {"topotrain.files_sha256"}
    assert len(version.tags["topotrain.files"]) < MOST_LISTED / 2


def test_a_folder_has_no_digest(version: Registered, tmp_path: Path, capsys: Any, caplog: Any) -> None:
    copy = shutil.copytree(version.files, tmp_path / "copy")
    load_scorer(str(copy), None)
    assert "digest" not in caplog.text
    assert exit_status("verify", copy) == 2
    assert "a folder, of which nothing was recorded" in capsys.readouterr().err


def test_the_alias_is_looked_up_once(version: Registered, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is loaded is what was checked, though the alias is moved in between."""
    from topotrain.tracking.versions import Versions

    asked = []
    download = Versions.download
    monkeypatch.setattr(
        Versions, "download", lambda self, uri, folder: (asked.append(uri), download(self, uri, folder))[1]
    )
    load_scorer(URI, Store.open(version.uri))
    assert asked == ["models:/topoqa/1"]
