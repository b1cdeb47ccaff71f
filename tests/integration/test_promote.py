"""Promotion against a real registry: the alias moves if the gate holds, and the version says who, when, why."""

from __future__ import annotations

import contextlib
import getpass
import json
import re
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from kit.commands import exit_status
from kit.recorded import experiment_id, mlflow_client, point_mlflow_at
from topotrain.errors import TrackingError
from topotrain.fields import (
    EVAL_MSE,
    EVAL_RANKING_LOSS,
    EVAL_SPEARMAN,
    TAG_BEST_EPOCH,
    TAG_COMMAND,
    TAG_EVAL_DIGEST,
    TAG_EVAL_HIT_RATES,
    TAG_EVAL_TARGETS,
    TAG_PROMOTED_AT,
    TAG_PROMOTED_BY,
    TAG_PROMOTED_NUMBERS,
    TAG_PROMOTED_REASON,
    TAG_PROMOTED_REPLACED,
    TAG_ROLLED_BACK,
)
from topotrain.tracking.records import EvaluatedModel, Verdict
from topotrain.tracking.store import Store

NAME = "topoqa"


def register(client: MlflowClient, model_id: str, run_id: str, tags: dict[str, str]) -> str:
    """A version of ``NAME`` made from a logged model; its number."""
    with contextlib.suppress(MlflowException):  # there is one already
        client.create_registered_model(NAME)
    version = client.create_model_version(NAME, f"models:/{model_id}", run_id, tags, model_id=model_id)
    return str(version.version)


class Registry:
    """A store with versions made without training; each is its run's only one."""

    def __init__(self, uri: str) -> None:
        point_mlflow_at(uri)
        self.uri, self.client = uri, mlflow_client(uri)
        self.home = experiment_id(self.client, uri, "e")

    def add(self, loss: float | None = None, rank: float | None = None, digest: str = "A" * 36, **tags: str) -> str:
        """A version; with metrics, one that was evaluated."""
        run_id = self.client.create_run(self.home, tags={TAG_COMMAND: "run", TAG_BEST_EPOCH: "0"}).info.run_id
        model = self.client.create_logged_model(self.home, "m", source_run_id=run_id)
        self.client.log_batch(run_id, metrics=[Metric("val_loss", 0.07, 1, 0)])
        version = register(self.client, model.model_id, run_id, {"epoch": "0", "val_loss": "0.05", **tags})
        if loss is not None:
            self.evaluate(EvaluatedModel("", NAME, version, run_id, model.model_id), loss, rank, digest)
        return version

    def evaluate(self, subject: EvaluatedModel, loss: float, rank: float | None, digest: str = "A" * 36) -> None:
        metrics = {EVAL_MSE: 0.04, EVAL_RANKING_LOSS: loss, EVAL_SPEARMAN: rank}
        tags = {TAG_EVAL_DIGEST: digest, TAG_EVAL_TARGETS: "folder; label DockQ"}
        known = {name: value for name, value in metrics.items() if value is not None}
        Store.open(self.uri).verdicts.record(subject, Verdict(known, "data", digest, tags))

    def alias(self, alias: str, version: str | None = None) -> str | None:
        if version is not None:
            self.client.set_registered_model_alias(NAME, alias, version)
        found = self.client.get_registered_model(NAME).aliases.get(alias)
        return None if found is None else str(found)

    def tags(self, version: str) -> dict[str, str]:
        return dict(self.client.get_model_version(NAME, version).tags)


@pytest.fixture
def registry(store_uri: str) -> Registry:
    return Registry(store_uri)


@pytest.fixture
def promote(registry: Registry, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command; gives status, output and the last line of the other stream."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = exit_status("promote", *arguments, "--tracking-uri", registry.uri)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out, err.strip().splitlines()[-1] if err.strip() else ""

    return run


def test_evaluations_of_before_are_understood(registry, promote):
    """Metrics and gates by the names of earlier topotrain; hit rates, which are no metrics of their own any more."""
    one = registry.add()
    run_id = registry.client.get_model_version(NAME, one).run_id
    model_id = registry.client.get_model_version(NAME, one).source.removeprefix("models:/")
    data = {"model_id": model_id, "dataset_name": "d", "dataset_digest": "A" * 36}
    logged = {"mean_ranking_loss": 0.1, "mean_spearman": 0.5, "mse": 0.04, "hit_rate_top1_high": 0.25}
    for name, value in logged.items():
        registry.client.log_metric(run_id, f"eval_{name}", value, step=3, **data)
    for tag, text in ((TAG_EVAL_DIGEST, "A" * 36), (TAG_EVAL_TARGETS, "folder; label DockQ")):
        registry.client.set_model_version_tag(NAME, one, tag, text)
    gates = ("--gate", "eval_mse<=0.04", "--gate", "eval/hit_rate_top1_high>=0.25", "--gate", "eval_mean_spearman>0.4")
    assert promote("--version", one, *gates)[0] == 0
    two = registry.add(0.08, 0.5)
    status, out, err = promote("--version", two, "--gate", "eval/hit_rate_top1_high>=0.3")
    assert status == 3, "it was judged without hit rates"
    registry.client.set_model_version_tag(NAME, two, TAG_EVAL_HIT_RATES, '{"hit_rate_top1_high": 0.5}')
    assert promote("--version", two, "--gate", "eval_hit_rate_top1_high>=0.3")[0] == 0
    assert registry.alias("champion") == two
    known = Store.open(registry.uri).versions.get(NAME, one)
    subject = EvaluatedModel("", NAME, one, run_id, model_id)
    registry.evaluate(subject, 0.05, 0.6)
    points = registry.client.get_metric_history(run_id, EVAL_MSE)
    assert [point.step for point in points] == [4], "one more than the last evaluation, by whatever name"
    assert Store.open(registry.uri).versions.known_metrics(known)[EVAL_RANKING_LOSS] == 0.05


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": "x"}', "3"])
def test_hit_rates_that_somebody_changed_are_none(registry, text):
    one = registry.add(0.08, 0.5, **{TAG_EVAL_HIT_RATES: text})
    versions = Store.open(registry.uri).versions
    known = versions.known_metrics(versions.get(NAME, one))
    assert not [name for name in known if name.startswith("eval/hit") or name == "eval/a"]


def test_the_first_champion_then_a_better_one_then_back(registry, promote):
    one, two = registry.add(0.10, 0.5), registry.add(0.08, 0.5)
    registry.alias("candidate", one)
    status, out, err = promote()
    assert (status, err) == (0, "")
    assert "no champion" in out
    assert "was evaluated" in out
    assert registry.alias("champion") == one
    assert registry.tags(one)[TAG_PROMOTED_REPLACED] == "none"

    registry.alias("candidate", two)
    status, out, _ = promote("--dry-run")
    assert status == 0
    assert "dry run" in out
    assert registry.alias("champion") == one
    assert TAG_PROMOTED_BY not in registry.tags(two)

    status, out, _ = promote("--reason", "better on the hold-out")
    assert status == 0
    assert registry.alias("champion") == two
    tags = registry.tags(two)
    assert tags[TAG_PROMOTED_BY].startswith(f"{getpass.getuser()}@")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*\+00:00", tags[TAG_PROMOTED_AT])
    assert tags[TAG_PROMOTED_REASON] == "better on the hold-out"
    assert tags[TAG_PROMOTED_REPLACED] == one
    numbers = json.loads(tags[TAG_PROMOTED_NUMBERS])
    assert numbers[EVAL_RANKING_LOSS] == {"candidate": 0.08, "champion": 0.10}
    assert numbers[EVAL_SPEARMAN] == {"candidate": 0.5, "champion": 0.5}

    status, out, _ = promote()
    assert (status, "already" in out) == (0, True)

    status, out, _ = promote("--rollback", "--dry-run")
    assert (status, registry.alias("champion")) == (0, two)
    status, out, _ = promote("--rollback", "--reason", "fails on antibodies")
    assert (status, registry.alias("champion")) == (0, one)
    assert "fails on antibodies" in registry.tags(two)[TAG_ROLLED_BACK]
    status, out, err = promote("--rollback")
    assert status == 2
    assert "was the first champion" in err
    assert registry.alias("champion") == one


def test_a_worse_candidate_is_refused_with_the_failing_line(registry, promote):
    one, two = registry.add(0.10, 0.5), registry.add(0.12, 0.6)
    registry.alias("champion", one)  # by hand, as in the web page
    status, out, err = promote("--version", two)
    assert status == 3
    assert err == (
        "error: promotion refused: mean ranking loss not higher than the champion's: candidate 0.12, champion 0.1"
    )
    rows = {line.split("  ")[0]: line for line in out.splitlines()}
    assert rows["mean ranking loss not higher than the champion's"].endswith("FAILS")
    assert rows["mean Spearman not lower than the champion's"].endswith("holds")
    assert out.splitlines()[-1] == "refused; champion stays"
    assert registry.alias("champion") == one
    assert promote("--version", two, "--dry-run")[0] == 3

    status, out, err = promote("--version", two, "--force")
    assert status == 2
    assert "--reason" in err
    status, out, _ = promote("--version", two, "--force", "--reason", "Spearman matters more")
    assert status == 0
    assert "BY FORCE: Spearman matters more" in out
    assert "FAILS" in out
    assert registry.alias("champion") == two
    assert registry.tags(two)[TAG_PROMOTED_REASON] == "Spearman matters more"
    assert registry.tags(two)[TAG_PROMOTED_REPLACED] == one


def test_rollback_of_a_champion_promoted_by_hand(registry, promote):
    registry.alias("champion", registry.add(0.10, 0.5))
    status, out, err = promote("--rollback")
    assert (status, out) == (2, "")
    assert "nothing is recorded" in err


def test_a_champion_that_was_never_evaluated(registry, promote):
    """Promoted by hand: the refusal says how to judge both on the same data."""
    one, two = registry.add(), registry.add(0.1, 0.5)
    registry.alias("champion", one)
    status, _, err = promote("--version", two)
    assert status == 3
    assert "champion not evaluated" in err
    assert f"topotrain evaluate --model models:/{NAME}/{one}" in err


def test_a_candidate_that_was_not_evaluated(registry, promote):
    one = registry.add()
    status, out, err = promote("--version", one)
    assert status == 3
    assert f"topotrain evaluate --model models:/{NAME}/{one}" in err
    assert registry.alias("champion") is None


def test_other_data(registry, promote):
    one, two = registry.add(0.1, 0.5), registry.add(0.01, 0.9, digest="B" * 36)
    registry.alias("champion", one)
    status, out, err = promote("--version", two)
    assert status == 3
    assert "evaluated on the same data (digest): candidate BBBB" in err
    champion = registry.client.get_model_version(NAME, one)
    judged = EvaluatedModel("", NAME, one, champion.run_id, champion.source.removeprefix("models:/"))
    registry.evaluate(judged, 0.2, 0.4, digest="B" * 36)  # on the new data
    status, out, _ = promote("--version", two)
    assert status == 0, out
    assert registry.alias("champion") == two
    numbers = json.loads(registry.tags(two)[TAG_PROMOTED_NUMBERS])
    assert numbers[EVAL_RANKING_LOSS] == {"candidate": 0.01, "champion": 0.2}


def test_gates_on_any_metric(registry, promote):
    """The version's own val_loss (0.05) counts, not the run's last (0.07)."""
    one = registry.add(0.10, 0.5)
    assert promote("--version", one, "--gate", "val_loss<0.05")[0] == 3
    status, out, err = promote("--version", one, "--gate", "val_los<0.06")
    assert (status, out) == (2, "")
    assert all(name in err for name in ("'val_los'", "val_loss", EVAL_RANKING_LOSS))
    assert promote("--version", one, "--gate", "val_loss is low")[0] == 2
    assert promote("--version", one, "--gates", "'val_loss < 0.06' eval_mse<=0.04")[0] == 0
    assert registry.alias("champion") == one


def test_a_run_stands_for_its_best_version(registry, promote):
    registry.add(0.10, 0.5)
    two = registry.add(0.08, 0.5)
    run_id = registry.client.get_model_version(NAME, two).run_id
    assert promote("--run-id", run_id[:12], "--alias", "staging")[0] == 0
    assert registry.alias("staging") == two
    assert registry.alias("champion") is None
    empty = registry.client.create_run(registry.home, tags={TAG_COMMAND: "run"}).info.run_id
    status, _, err = promote("--run-id", empty)
    assert status == 2
    assert "registered no version" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "absent"], "'absent'"),
        (["--version", "99"], "version 99"),
        ([], "alias candidate"),
        (["--version", "1", "--run-id", "latest"], "one of them"),
        (["--rollback", "--version", "1"], "--rollback alone"),
        (["--rollback"], "alias champion"),
    ],
)
def test_what_cannot_be_promoted(registry, promote, arguments, words):
    registry.add(0.1, 0.5)
    status, out, err = promote(*arguments)
    assert (status, out) == (2, "")
    assert words in err


def test_an_alias_that_somebody_else_moved_meanwhile(registry):
    one, two, three = (registry.add(0.1, 0.5) for _ in range(3))
    registry.alias("champion", two)  # between decision and effect
    with pytest.raises(TrackingError, match=f"from version {one} to {two} meanwhile"):
        Store.open(registry.uri).versions.move_alias(NAME, "champion", three, expected=one, tags={"a": "b"})
    assert registry.alias("champion") == two
    assert "a" not in registry.tags(three)


def test_under_mlflow_run_the_table_is_kept_also_when_refused(registry, promote, monkeypatch):
    one = registry.add()
    adopted = registry.client.create_run(registry.home).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", adopted)
    status, out, _ = promote("--version", one, "--dry-run", "false", "--force", "false", "--reason", "")
    assert status == 3
    assert registry.client.get_run(adopted).data.tags[TAG_COMMAND] == "promote"
    assert Path(registry.client.download_artifacts(adopted, "promote.txt")).read_text() == out
