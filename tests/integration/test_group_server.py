"""Work on a group's server: MLflow on PostgreSQL, with users and proxied artifacts, as ``make server`` starts it."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from kit.commands import exit_status
from kit.graphs import GraphSet
from kit.group_server import GroupServer
from kit.recorded import artifact_names, mlflow_client
from kit.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.server


class Desk:
    """Where one user works: their commands, in this process, and what these said.

    Args:
        server: of the group.
        variables: that the user sets.
        monkeypatch: sets them.
        capsys: of the test.
    """

    def __init__(self, server: GroupServer, variables: dict[str, str], monkeypatch: Any, capsys: Any) -> None:
        self.variables = {"MLFLOW_TRACKING_URI": server.address, **variables}
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.sit_down()
        self.client = mlflow_client(server.address)

    def sit_down(self) -> None:
        """Be the user that calls are made as from now on."""
        for name, value in self.variables.items():
            self._monkeypatch.setenv(name, value)

    def does(self, *arguments: Any) -> str:
        """A command that works; its standard output."""
        status, out, err = self.tries(*arguments)
        assert status == 0, err
        return out

    def may_not(self, *arguments: Any) -> str:
        """A command that the server refuses, in one line; the line."""
        status, _, err = self.tries(*arguments)
        assert status == 2, err
        assert "Traceback" not in err
        (line,) = (line for line in err.splitlines() if line.startswith("error: "))
        assert err.endswith(f"{line}\n")
        return line

    def tries(self, *arguments: Any) -> tuple[int, str, str]:
        """A command; its exit status and what it said on both streams."""
        self.sit_down()
        self._capsys.readouterr()
        status = exit_status(*arguments)
        captured = self._capsys.readouterr()
        return status, captured.out, captured.err


def options(graph_set: GraphSet, name: str, *more: str) -> list[str]:
    """Of a run on a graph set, in an experiment and with a model of this name; one version, forty files, is enough."""
    own = (f"mlflow.experiment={name}", f"mlflow.model_name={name}", "checkpoints.keep=1")
    return [part for override in (*graph_set.overrides, *own, *more) for part in ("-o", override)]


def assert_whole(client: Any, run_id: str, model: str, epochs: int) -> None:
    """A run is finished, has every point once, its checkpoints, its versions and the alias, and nothing else."""
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    for name in ("train_mse", "val_loss", "val_spearman_corr", "selection_metric", "learning_rate", "epoch_seconds"):
        steps = [point.step for point in client.get_metric_history(run_id, name)]
        assert sorted(steps) == list(range(epochs)), name
    assert "trainer.num_epochs" in run.data.params
    kept = {name for name in artifact_names(client, run_id, "checkpoints") if name.startswith("epoch_")}
    assert {"last.ckpt", "kept.json"} <= artifact_names(client, run_id, "checkpoints")
    versions = [one for one in client.search_model_versions(f"name = '{model}'") if one.run_id == run_id]
    by_epoch = sorted(int(one.tags["epoch"]) for one in versions)
    assert by_epoch == sorted({int(name.removeprefix("epoch_").removesuffix(".ckpt")) for name in kept})
    candidate = client.get_model_version_by_alias(model, "candidate")
    assert candidate.run_id == run_id
    assert candidate.tags["rank"] == "1"


def test_users_train_judge_promote_and_keep_to_what_is_theirs(group_server, graph_set, monkeypatch, capsys, tmp_path):
    ada, bob = (Desk(group_server, group_server.user(name), monkeypatch, capsys) for name in ("ada", "bob"))
    ada.sit_down()
    run_id = ada.does("run", *options(graph_set, "adas")).strip()
    assert_whole(ada.client, run_id, "adas", epochs=2)
    data = ("--graphs", graph_set.graphs, "--labels", graph_set.val_labels)
    ada.does("evaluate", "--model", "models:/adas@candidate", *data)
    ada.does("promote", "--model", "adas", "--gate", "val_loss < 9")
    champion = ada.client.get_model_version_by_alias("adas", "champion")
    assert champion.version == ada.client.get_model_version_by_alias("adas", "candidate").version

    # Others may look at everything and use it ...
    assert run_id in bob.does("summarise", "--run-id", run_id)
    assert run_id[:8] in bob.does("leaderboard", "--experiment", "adas")
    bob.does("predict", "--model", "models:/adas@champion", "--graphs", graph_set.graphs, "--out", tmp_path / "out.csv")
    # ... and change nothing ...
    more = ("-o", "trainer.num_epochs=3")
    forbidden = [
        ("run", *options(graph_set, "adas")),
        ("resume", "--run-id", run_id, *more),
        ("evaluate", "--model", "models:/adas@candidate", *data),
        ("promote", "--model", "adas", "--alias", "bobs_choice"),
    ]
    for command in forbidden:
        assert "no permission" in bob.may_not(*command)
    assert ada.client.get_run(run_id).info.status == "FINISHED"
    assert set(ada.client.get_registered_model("adas").aliases) == {"candidate", "champion"}

    # ... nor add to it; a run of their own is then complete, but for the version that the server does not take.
    own = ("-o", "mlflow.experiment=bobs", "-o", "mlflow.flush_timeout=0")
    status, out, err = bob.tries("run", "--take-candidate", *options(graph_set, "adas"), *own)
    bobs = out.strip()
    assert status == 4, err
    assert "Traceback" not in err
    assert "no permission for model-versions/create" in err
    assert len(ada.client.get_metric_history(bobs, "val_loss")) == 2
    assert "last.ckpt" in artifact_names(ada.client, bobs, "checkpoints")
    assert {one.run_id for one in ada.client.search_model_versions("name = 'adas'")} == {run_id}

    # With the permission they may.
    experiment = ada.client.get_experiment_by_name("adas").experiment_id
    group_server.users().grant_user_permission("bob", "experiment", experiment, "EDIT")
    group_server.users().grant_user_permission("bob", "registered_model", "adas", "EDIT")
    assert bob.does("sync").split() == [bobs]
    assert_whole(bob.client, bobs, "adas", epochs=2)
    bob.does("resume", "--run-id", run_id, "--take-candidate", *more)
    assert_whole(bob.client, run_id, "adas", epochs=3)
    assert bob.does("sync") == "", "nothing is left"


def test_a_run_without_a_server_is_delivered_later(group_server, graph_set, monkeypatch, capsys):
    desk = Desk(group_server, group_server.user("offline"), monkeypatch, capsys)
    status, out, err = desk.tries("run", "--offline", *options(graph_set, "offline"))
    assert (status, err.count("topotrain sync")) == (4, 1), err
    run_id = desk.does("sync").strip()
    assert_whole(desk.client, run_id, "offline", epochs=2)
    assert desk.client.get_run(run_id).data.tags["topotrain.offline_id"] == out.strip()


def test_a_killed_run_is_resumed(group_server, graph_set, monkeypatch, capsys, quick_python, tmp_path):
    desk = Desk(group_server, group_server.user("killed"), monkeypatch, capsys)
    run, run_id = started(desk, graph_set, "killed", 20, quick_python, tmp_path)
    run.kill()
    run.wait(PATIENCE)
    assert desk.client.get_run(run_id).info.status == "RUNNING"
    desk.does("resume", "--run-id", run_id)
    assert_whole(desk.client, run_id, "killed", epochs=20)


@pytest.mark.parametrize("part", ["mlflow", "database"])
def test_an_outage_costs_nothing(part, group_server_alone, graph_set, monkeypatch, capsys, quick_python, tmp_path):
    """Of the server, which is killed, and of the database behind it, where the server answers by errors."""
    name = f"without_{part}"
    desk = Desk(group_server_alone, group_server_alone.user(name), monkeypatch, capsys)
    run, run_id = started(desk, graph_set, name, 30, quick_python, tmp_path)
    with getattr(group_server_alone, name)():
        time.sleep(2)
        assert run.poll() is None, (tmp_path / "said").read_text()
    assert run.wait(PATIENCE) == 0, (tmp_path / "said").read_text()
    assert_whole(desk.client, run_id, name, epochs=30)


def started(
    desk: Desk, graph_set: GraphSet, name: str, epochs: int, python: str, folder: Path
) -> tuple[subprocess.Popen[bytes], str]:
    """A run in a process of its own, of which the server has the first epochs; its run id."""
    command = [python, "-m", "topotrain", "run"]
    command += options(graph_set, name, f"trainer.num_epochs={epochs}", "early_stopping.patience=99")
    with (folder / "said").open("wb") as said:
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)

    def first_epochs() -> str | None:
        assert run.poll() is None, (folder / "said").read_text()
        experiment = desk.client.get_experiment_by_name(name)
        found = desk.client.search_runs([experiment.experiment_id]) if experiment else []
        ids = (one.info.run_id for one in found)
        return next((run_id for run_id in ids if len(desk.client.get_metric_history(run_id, "val_loss")) > 1), None)

    run_id = wait_for(first_epochs, (folder / "said").read_text)
    assert run_id is not None
    return run, run_id


def test_who_is_not_known_is_told_so_in_one_line(group_server, graph_set, monkeypatch, capsys):
    nobody = Desk(group_server, {}, monkeypatch, capsys)
    for command in (("run", *options(graph_set, "nobodys")), ("leaderboard",), ("resume",)):
        line = nobody.may_not(*command)
        assert "does not know this user" in line
        assert "MLFLOW_TRACKING_USERNAME" in line
    eve = {**group_server.user("eve"), "MLFLOW_TRACKING_PASSWORD": "0wrong-wrong"}
    wrong = Desk(group_server, eve, monkeypatch, capsys)
    assert "0wrong" not in wrong.may_not("run", *options(graph_set, "nobodys"))
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    at = group_server.address.replace("//", "//eve:0wrong-wrong@")
    assert "0wrong" not in nobody.may_not("leaderboard", "--tracking-uri", at)


def test_no_password_is_recorded_or_shown(group_server, graph_set, monkeypatch, capsys, tmp_path):
    """Given in the tracking URI and in a credentials file, and written by hand wherever words are recorded."""
    in_uri, in_file = (group_server.user(name) for name in ("url", "file"))
    name, secret = in_uri.values()
    secrets = [secret, in_file["MLFLOW_TRACKING_PASSWORD"]]
    at = group_server.address.replace("//", f"//{name}:{secret}@")
    (tmp_path / ".mlflow").mkdir()
    words = "".join(f"{key.lower()} = {value}\n" for key, value in in_file.items())
    (tmp_path / ".mlflow" / "credentials").write_text(f"[mlflow]\n{words}")
    monkeypatch.setenv("HOME", str(tmp_path))
    tags = {"origin": at, "note": f"log in as {name} / {secret}", "pgpass": f"localhost:*:*:file:{secrets[1]}"}
    config = tmp_path / "c.yaml"
    config.write_text(f"# {at}\n" + yaml.safe_dump({"mlflow": {"tracking_uri": at, "tags": tags}}))
    given = ("--run-name", f"at {at}", "--notes", f"see {at}", "--trial-label", f"-u {name}:{secret}")
    commands = [("run", "-c", config, *given, *options(graph_set, "secrets", "trainer.num_epochs=1"))]
    commands += [(command, "--tracking-uri", at) for command in ("summarise", "monitor", "leaderboard")]
    commands += [(*commands[0], "--offline")]
    capsys.readouterr()
    for command in commands:
        status, said = exit_status(*command), capsys.readouterr()
        assert status == (4 if "--offline" in command else 0), said.err
        assert not [one for one in secrets if one in said.out + said.err]
    dump, log = group_server.dump(), group_server.server.log.read_text()
    assert f"at http://***@{group_server.address.removeprefix('http://')}" in dump
    assert f"log in as {name} / ***" in dump
    assert "localhost:*:*:file:***" in dump
    files = [path for path in (group_server.data / "artifacts").rglob("*") if path.is_file()]
    assert len(files) > 20
    kept = [path for path in Path(os.environ["XDG_STATE_HOME"]).rglob("*") if path.is_file()]
    assert any(path.name == "records.log" for path in kept), "what --offline left"
    for one in secrets:
        assert one not in dump + log
        assert not [path for path in kept if one.encode() in path.read_bytes()]
        assert not [path for path in files if one.encode() in path.read_bytes()]


def test_only_who_may_reaches_it_and_starting_it_twice_changes_nothing(group_server):
    server, script = group_server.server, group_server.script
    before = script.mlflow_process(server)
    again = group_server.command("start")
    assert again.returncode == 0, again.stderr
    assert again.stdout == group_server.command("status").stdout
    assert f"running at {group_server.address}" in again.stdout
    assert script.mlflow_process(server) == before

    passwords = [group_server.admin["MLFLOW_TRACKING_PASSWORD"]]
    passwords.append((group_server.data / "pgpass").read_text().strip().rpartition(":")[2])
    assert all(len(one) > 20 for one in passwords)
    for path in ("admin.ini", "pgpass", "secret_key", "basic_auth.ini", "mlflow.pid"):
        assert (group_server.data / path).stat().st_mode & 0o777 == 0o600, path
    shown = " ".join(group_server.server.log.read_text().split()) + again.stdout
    database = psutil.Process(int((server.cluster / "postmaster.pid").read_text().split()[0]))
    for process in (before, *before.children(recursive=True), database, *database.children(recursive=True)):
        shown += " ".join(process.cmdline())
        listening = [one for one in process.net_connections() if one.status == psutil.CONN_LISTEN]
        assert {one.laddr.ip for one in listening} <= {"127.0.0.1"}
    assert not [one for one in passwords if one in shown]

    page = f"{group_server.address}/api/2.0/mlflow/experiments/get?experiment_id=0"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(page, timeout=PATIENCE)
    without = {**server.environment, "PGPASSFILE": str(group_server.data / "none")}
    for role in (script.ROLE, "postgres"):
        command = [str(script.programs() / "pg_dump"), "-w", "-h", script.HOST, "-p", str(server.database_port)]
        done = subprocess.run([*command, "-U", role, script.DATABASE], env=without, capture_output=True, text=True)
        assert done.returncode != 0, role
