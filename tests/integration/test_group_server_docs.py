"""docs/server.md, run as it is written, on the server that ``make server`` starts."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from kit.recorded import mlflow_client
from kit.waiting import PATIENCE

pytestmark = pytest.mark.server
KINDS = "bash bash python python bash bash sql bash nginx bash bash bash".split()


@pytest.fixture
def page(root: Path, group_server_alone: Any) -> list[str]:
    """The blocks of the page, on this server's ports and folder."""
    text = (root / "docs" / "server.md").read_text()
    found = re.findall(r"```(\w+)\n(.*?)```", text, flags=re.DOTALL)
    assert [kind for kind, _ in found] == KINDS
    server = group_server_alone.server
    places = {"127.0.0.1:5000": f"127.0.0.1:{server.port}", "5433": str(server.database_port)}
    places |= {"$PWD/server-data": str(server.data), "server-data": str(server.data)}
    # At once: a port that was put in may itself hold the digits of another.
    written = re.compile("|".join(re.escape(place) for place in places))
    return [written.sub(lambda place: places[place.group()], block) for _, block in found]


@pytest.fixture
def shell(root: Path, group_server_alone: Any, quick_python: str, tmp_path: Path) -> Callable[..., str]:
    """A function that runs blocks in one shell, in an empty home; what it printed."""
    server = group_server_alone.server
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    folders = [str(Path(quick_python).parent), str(Path(sys.executable).parent), environment["PATH"]]
    environment |= {"PATH": os.pathsep.join(folders), "HOME": str(tmp_path), "PYTHONPATH": str(root / "src")}
    environment |= {"SERVER_DATA": str(server.data), "SERVER_PORT": str(server.port)}
    environment |= {"SERVER_DATABASE_PORT": str(server.database_port), "MLFLOW_DISABLE_TELEMETRY": "true"}

    def run(*blocks: str, folder: Path = tmp_path) -> str:
        script = "\n".join(["set -euo pipefail", *blocks])
        done = subprocess.run(
            ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


def test_the_page_is_true(page, shell, root, group_server_alone):
    make, as_admin, make_users, make_role, by_variables, by_file, sql, serve, _, backup, restore, upgrade = page
    # make as it is written, in this interpreter's environment, which is installed.
    made = f"make -o .venv/.installed BIN={shlex.quote(str(Path(sys.executable).parent))}"
    before = group_server_alone.script.mlflow_process(group_server_alone.server)
    assert f"running at {group_server_alone.address}" in shell(make.replace("make", made), folder=root)
    assert group_server_alone.script.mlflow_process(group_server_alone.server) == before

    both = f"python -c {shlex.quote(make_users + make_role)}"
    passwords = dict(line.split() for line in shell(as_admin, both).splitlines())
    assert set(passwords) == {"grace", "linus"}
    signed = [block.replace("the-password-that-was-printed", passwords["grace"]) for block in (by_variables, by_file)]
    assert len(shell(*signed).splitlines()) >= 2
    with pytest.MonkeyPatch.context() as patch:  # the role: what one makes, the other may change
        client = mlflow_client(group_server_alone.address)
        patch.setenv("MLFLOW_TRACKING_USERNAME", "grace")
        patch.setenv("MLFLOW_TRACKING_PASSWORD", passwords["grace"])
        experiment = client.create_experiment("shared by role")
        client.create_registered_model("shared by role")
        patch.setenv("MLFLOW_TRACKING_USERNAME", "linus")
        patch.setenv("MLFLOW_TRACKING_PASSWORD", passwords["linus"])
        run_id = client.create_run(experiment).info.run_id
        client.log_text(run_id, "kept", "note.txt")
        client.set_registered_model_tag("shared by role", "by", "linus")

        shell(backup, restore, upgrade_here(upgrade))
        assert client.get_run(run_id).info.experiment_id == experiment
        assert [item.path for item in client.list_artifacts(run_id)] == ["note.txt"]

    used = (root / "deploy" / "server" / "server.py").read_text()
    for statement in re.findall(r"CREATE ROLE \w+ LOGIN PASSWORD|CREATE DATABASE \w+ OWNER", sql):
        assert statement.replace("mlflow", "{ROLE}", 1).replace("DATABASE {ROLE}", "DATABASE {DATABASE}") in used
    command = shlex.split(serve[serve.index("mlflow server") :])
    assert set(option for option in command if option.startswith("--")) <= server_options()
    settings = re.findall(r"^export (\w+)=", serve, flags=re.M)
    assert set(settings) <= set(re.findall(r'"((?:MLFLOW|PG)\w+)"', used))


def upgrade_here(block: str) -> str:
    """The block with MLflow's program where an interpreter starts it that has everything imported."""
    return block.replace("mlflow db", 'python -c "import sys; from mlflow.cli import cli; cli(sys.argv[1:])" db')


def server_options() -> set[str]:
    from mlflow.cli import server

    return {name for option in server.params if isinstance(option, click.Option) for name in option.opts}


def test_what_the_page_says_of_hosts_and_tokens(group_server):
    def status(path: str, **headers: str) -> tuple[int, str]:
        try:
            asked = urllib.request.Request(f"{group_server.address}{path}", headers=headers)
            with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
                return answer.status, ""
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    experiment = "/api/2.0/mlflow/experiments/get?experiment_id=0"
    assert status(experiment, Authorization="Bearer some-token")[0] == 500
    code, said = status(experiment, Host="mlflow.example.org")
    assert (code, "Invalid Host header" in said) == (403, True)
