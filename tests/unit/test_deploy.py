"""What is shipped for clusters fits the program: options, exit statuses, syntax."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from topotrain.cli.training import run
from topotrain.errors import EXIT_AGAIN, EXIT_USER

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("slurm/*.sbatch")), ids=lambda path: path.name)
def test_slurm_scripts_ask_for_a_warning_and_requeue_at_its_exit_status(path):
    subprocess.run(["bash", "-n", str(path)], check=True)
    text = path.read_text()
    assert "#SBATCH --signal=USR1@120" in text
    assert f'"$status" -eq {EXIT_AGAIN}' in text


def test_the_kubernetes_job_is_a_run_that_goes_on():
    job = yaml.safe_load((DEPLOY / "kubernetes" / "job.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    command, *given = container["args"]
    options = {option for parameter in run.params for option in parameter.opts}
    assert command == run.name
    assert {one.partition("=")[0] for one in given} <= options
    assert "--continue" in given
    rules = {rule["action"]: rule["onExitCodes"] for rule in job["spec"]["podFailurePolicy"]["rules"][:2]}
    assert rules["FailJob"]["values"] == [EXIT_USER]
    assert EXIT_AGAIN in rules["Ignore"]["values"]


def test_ray_s_cluster_file_starts_both_kinds_of_machines():
    cluster = yaml.safe_load((DEPLOY / "ray" / "cluster.yaml").read_text())
    assert len(cluster["provider"]["worker_ips"]) == cluster["max_workers"]
    for kind in ("head", "worker"):
        assert any("ray start" in line for line in cluster[f"{kind}_start_ray_commands"])
