"""Which version is the candidate, and which is used where none is named."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

import topotrain
from kit.commands import exit_status
from kit.graphs import GraphSet, write_graph_set
from kit.recorded import mlflow_client
from topotrain.fields import TAG_RANKED_BY, TAG_VALIDATION_DIGEST
from topotrain.tracking import standing
from topotrain.tracking.records import VersionRecord
from topotrain.tracking.store import Store

SHORT = ("trainer.num_epochs=1", "checkpoints.keep=1")


def version(number: str, **tags: str) -> VersionRecord:
    return VersionRecord("topoqa", number, None, None, datetime.now(UTC), tags)


def judged(number: str, val_loss: str, data: str = "a" * 64, by: str = "val_loss", **more: str) -> VersionRecord:
    tags = {"val_loss": val_loss, TAG_RANKED_BY: by, TAG_VALIDATION_DIGEST: data}
    return version(number, **tags, **more)


SELECTION = "selection_metric (val_loss - 1 max(0, val_spearman_corr))"


@pytest.mark.parametrize(
    ("holder", "other", "said"),
    [
        (judged("1", "0.2"), judged("2", "0.1"), None),
        (judged("1", "0.1"), judged("2", "0.2"), "its val_loss is 0.1000, that of 2 0.2000"),
        (judged("1", "0.1"), judged("2", "0.1"), "its val_loss is 0.1000, that of 2 0.1000"),
        (judged("1", "0.1"), judged("2", "nan"), "that of 2 nan"),
        (judged("1", "0.2"), judged("2", "0.1", "b" * 64), "it was validated on aaaaaaaa, and 2 validated on bbbbbbbb"),
        (
            judged("1", "0.2"),
            judged("2", "0.1", by=SELECTION),
            f"it was ranked by val_loss, and 2 ranked by {SELECTION}",
        ),
        (version("1", val_loss="0.2"), judged("2", "0.1"), "it was ranked by what it does not say"),
        (version("1", val_loss="0.2"), version("2", val_loss="0.1"), "it was ranked by what it does not say"),
        (
            judged("1", "0.1", by=SELECTION, selection_metric="-0.5"),
            judged("2", "0.2", by=SELECTION, selection_metric="-0.6"),
            None,
        ),
    ],
)
def test_why_an_alias_stays(holder, other, said):
    reason = standing.why_it_stays("candidate", holder, other)
    if said is None:
        assert reason is None
    else:
        assert reason is not None
        assert reason.startswith("candidate of topoqa stays version 1")
        assert said in reason


@pytest.fixture(scope="module")
def graph_set(tmp_path_factory) -> GraphSet:
    root = tmp_path_factory.mktemp("graphs")
    write_graph_set(root)
    return GraphSet(root)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, _empty_store, graph_set):
    """A store with one run, which later runs have to beat."""
    folder = tmp_path_factory.mktemp("candidate")
    shutil.copyfile(_empty_store, folder / "mlflow.db")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        topotrain.fit(None, overrides=[*graph_set.overrides, "trainer.num_epochs=3"], tracking_uri=uri, progress=False)
    return uri


@pytest.fixture
def store(trained, tmp_path) -> Store:
    (tmp_path / "s").mkdir()
    shutil.copyfile(trained.removeprefix("sqlite:///"), tmp_path / "s" / "mlflow.db")
    return Store.open(f"sqlite:///{tmp_path / 's' / 'mlflow.db'}")


def run(store: Store, graph_set: GraphSet, *more: str, flags: tuple[str, ...] = ()) -> list[str]:
    """One more run; the numbers of its versions."""
    given = [part for one in (*graph_set.overrides, *SHORT, *more) for part in ("-o", one)]
    before = numbers(store)
    assert exit_status("run", *given, *flags, "--tracking-uri", store.uri) == 0
    return sorted(numbers(store) - before)


def numbers(store: Store) -> set[str]:
    return {str(one.version) for one in mlflow_client(store.uri).search_model_versions()}


def candidate(store: Store) -> str:
    found = store.versions.with_alias("topoqa", "candidate")
    assert found is not None
    return found.number


def test_a_worse_run_leaves_the_candidate_and_says_so(store, graph_set, capsys):
    before = candidate(store)
    (made,) = run(store, graph_set, "optimizer.learning_rate=1")  # all scores are 0 or 1
    assert candidate(store) == before
    assert f"candidate of topoqa stays version {before}: its val_loss is" in capsys.readouterr().err
    (taken,) = run(store, graph_set, "optimizer.learning_rate=1", flags=("--take-candidate",))
    assert candidate(store) == taken != made
    assert f"candidate of topoqa is version {taken}" in capsys.readouterr().err
    (better,) = run(store, graph_set, "optimizer.learning_rate=1e-9")
    assert candidate(store) == better


def test_other_validation_data_and_trials_leave_it(store, graph_set, tmp_path, capsys):
    before = candidate(store)
    rows = graph_set.val_labels.read_text().splitlines()
    (tmp_path / "val.csv").write_text("\n".join(rows[:-1]) + "\n")
    (made,) = run(store, graph_set, f"paths.val_labels={tmp_path / 'val.csv'}")
    said = capsys.readouterr().err
    assert candidate(store) == before
    assert f"stays version {before}: it was validated on" in said
    assert "--take-candidate takes it all the same" in said
    assert run(store, graph_set, flags=("--limit-train-batches", "1")) == []
    assert candidate(store) == before
    assert made != before


def test_without_a_name_the_champion_is_used_else_the_candidate(store, graph_set, tmp_path, capsys):
    def predicted() -> str:
        capsys.readouterr()
        out = str(tmp_path / "out.csv")
        where = ("--graphs", str(graph_set.graphs), "--tracking-uri", store.uri)
        assert exit_status("predict", *where, "--out", out) == 0
        return capsys.readouterr().err

    number = candidate(store)
    graphs = len(graph_set.train_labels.read_text().splitlines()) - 1
    said = predicted()
    assert f"topoqa version {number} (candidate): trained on {graphs} graphs of {graph_set.graphs.name}" in said
    assert "never judged on other complexes: topotrain evaluate does" in said
    other = min(numbers(store) - {number})
    mlflow_client(store.uri).set_registered_model_alias("topoqa", "champion", other)
    assert f"topoqa version {other} (champion): trained" in predicted()
    labels = ("--graphs", str(graph_set.graphs), "--labels", str(graph_set.val_labels))
    assert exit_status("evaluate", *labels, "--tracking-uri", store.uri) == 0
    assert f"topoqa version {other} (champion): trained" in capsys.readouterr().err
    assert "judged on " in predicted()


def test_with_neither_it_is_said_what_there_is(store, graph_set, capsys):
    """And the model that comes with topotrain is used, which these graphs do not fit."""
    mlflow_client(store.uri).delete_registered_model_alias("topoqa", "candidate")
    assert store.versions.default() is None
    where = ("--graphs", str(graph_set.graphs), "--tracking-uri", store.uri)
    assert exit_status("predict", *where, "--out", "out.csv") == 2
    told = capsys.readouterr().err
    assert "no version of topoqa is champion or candidate (registered models: topoqa): the starter model" in told
    assert "node dim" in told.splitlines()[-1]


def test_two_that_take_it_in_the_same_moment_are_compared(store, graph_set, monkeypatch, capsys):
    """MLflow looks for an alias and then inserts it; who comes second is refused."""
    first = candidate(store)
    mlflow_client(store.uri).delete_registered_model_alias("topoqa", "candidate")
    real, calls = MlflowClient.set_registered_model_alias, []

    def beaten(self: MlflowClient, name: str, alias: str, version: str) -> None:
        calls.append(version)
        real(self, name, alias, first if len(calls) == 1 else version)
        if len(calls) == 1:
            raise MlflowException("UNIQUE constraint failed: registered_model_aliases.alias")

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", beaten)
    (made,) = run(store, graph_set, "optimizer.learning_rate=1")
    assert (calls, candidate(store)) == ([made], first)
    said = capsys.readouterr().err
    assert f"candidate of topoqa stays version {first}" in said
    assert "trying again" not in said
