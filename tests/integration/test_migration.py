"""docs/migration.md: every old name is there, and every name that it sends people to exists."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest

from topotrain.cli import Commands, cli
from topotrain.config import legacy, load_config
from topotrain.errors import ConfigError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "migration.md"
TEXT = PAGE.read_text()
# What neither a run nor the program has by that name, and no test here can look up.
WORDS = {"latest", "last", "best", "second_best", "third_best"}
PREDICTIONS = "models:/topoqa@candidate"


def rows() -> list[tuple[str, str, str]]:
    """(old, now, what differs) of every table."""
    cells = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in TEXT.splitlines() if line[:1] == "|"
    ]
    assert all(len(row) == 3 for row in cells), [row for row in cells if len(row) != 3]
    return [(row[0], row[1], row[2]) for row in cells if row[0] not in ("old", "---")]


def spans(text: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


OLD = {span for old, _, _ in rows() for span in spans(old)}
NOW = [span for _, now, _ in rows() for span in spans(now)]
OLD_WORDS = {word for span in OLD for word in span.split()}


@pytest.mark.parametrize("name", [*legacy.FLAT_KEYS, *legacy.ALIASES, *legacy.UNUSED])
def test_every_old_configuration_key_is_mapped(name: str) -> None:
    assert name in OLD
    new = {**legacy.FLAT_KEYS, **legacy.ALIASES}.get(name)
    (row,) = (row for row in rows() if name in spans(row[0]))
    assert spans(row[1]) == ([new] if new else []), "the page says what the program does"
    if not new:
        assert "without effect" in row[2]


@pytest.mark.parametrize(
    "name",
    [
        *("model_train_topoqa_cpu.py", "./run_training.sh", "./run_all.sh", "train_cli", "monitor_best_model.py"),
        *("run", "batch", "resume", "summarise", "leaderboard"),
        *("--config", "--override", "--run-name", "--notes", "--trial-label", "--resume-from", "--fast-dev-run"),
        *("--limit-train-batches", "--limit-val-batches", "--manifest", "--run-id", "--checkpoint", "--run-dir"),
        *("--follow", "--interval", "--format", "--trial", "--log-lr", "--trainer-arg", "--output-root", "--limit"),
        *("run_metadata.json", "notes.txt", "feature_metadata.json", "dataset_coverage.json", "metrics.csv"),
        *("model_checkpoints/best.ckpt", "second_best.ckpt", "third_best.ckpt", "last.ckpt", "training.log"),
        *("config/config.yaml", "config/original_config.yaml", "mlruns/"),
    ],
)
def test_every_old_command_option_and_file_is_mapped(name: str) -> None:
    assert name in {word.strip("[]") for word in OLD_WORDS}


def options_of(command: str) -> set[str]:
    found = cli.get_command(click.Context(cli), command)
    assert found is not None, f"no command topotrain {command}"
    return {option for parameter in found.params for option in parameter.opts if option.startswith("--")}


def commands() -> list[str]:
    """Each ``topotrain COMMAND ...`` of the page."""
    return sorted({span for span in spans(TEXT) if span.startswith("topotrain ")})


@pytest.mark.parametrize("line", commands())
def test_every_command_and_option_exists(line: str) -> None:
    _, command, *rest = line.split()
    assert command in {*cli.commands, *Commands.aliases}
    assert {word for word in rest if word.startswith("--")} <= options_of(command)


@pytest.fixture
def everything(finished: Any, root: Path) -> set[str]:
    """Every name that a finished run, the configuration and the checkout have."""
    run, client = finished.run, finished.client
    found = {*run.data.params, *run.data.metrics, *run.data.tags, *load_config().config.flat()}
    found |= {f"{section}.{key}" for section, keys in (("edge_schema", ["dim"]),) for key in keys}
    folders = [""]
    while folders:
        for item in client.list_artifacts(run.info.run_id, folders.pop()):
            found.add(f"{item.path}/" if item.is_dir else item.path)
            folders += [item.path] if item.is_dir else []
    return found | {path.relative_to(root).as_posix() for path in (root / "scripts").iterdir()}


def test_everything_that_old_names_are_sent_to_exists(everything: set[str]) -> None:
    names = [span for span in NOW if not span.startswith("topotrain ")]
    assert len(names) > 50
    assert [name for name in names if name not in everything] == []


def test_other_names_of_the_page_exist_or_are_old(everything: set[str], root: Path, finished: Any) -> None:
    """In the third column and the text: a name, a command, something old, or a file of the checkout."""
    known = everything | OLD | OLD_WORDS | WORDS | set(NOW)
    told = [span for span in spans(re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)) if span not in known]
    left = [
        span
        for span in told
        if not span.startswith(("topotrain ", "mlflow ", "python ", "training_runs", "sqlite:", "MLFLOW_", "--"))
        and not (root / span).exists()
    ]
    described = {"training_run_", "training_parameters", "applied_overrides.yaml", "recent_metrics", "digest", "CKPT"}
    described |= {"resume_from: best-of(...)", "epoch_0110.ckpt", PREDICTIONS, "paths", "seed=777", "mlflow.tags"}
    described |= {"qtdaqa/new_dynamic_features/model_training", "mlflow.db", "best.ckpt", "mid_epoch.ckpt"}
    assert set(left) <= described, set(left) - described
    every_option = {option for command in cli.commands for option in options_of(command)}
    assert {span.split()[0] for span in told if span.startswith("--")} <= every_option
    assert finished.client.get_model_version_by_alias("topoqa", "candidate") is not None


def test_defaults_are_those_of_today() -> None:
    told = {spans(now)[0]: found[1] for _, now, other in rows() if (found := re.match(r"default (\S+),", other))}
    assert len(told) >= 6
    flat = load_config().config.flat()
    assert {name: flat[name] for name in told} == told


def test_the_name_that_meant_a_share_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("coverage: {minimum: 0.95}\n")
    with pytest.raises(ConfigError, match=r"coverage\.minimum.*coverage\.minimum_percent"):
        load_config(tmp_path / "old.yaml")


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT):
        assert (PAGE.parent / target).exists(), target


# What a line of the list of faults says, and the tests that would see that fault come back.
TESTS_OF_FAULTS = {
    "only the first graph of each batch": (
        "test_every_graph_of_a_batch_is_trained_on",
        "test_every_graph_of_a_batch_is_validated",
    ),
    "last, smaller batch": ("test_validation_figures_do_not_weight_small_batches_like_full_ones",),
    "of the epoch before": ("test_the_selection_metric_is_of_its_own_epoch",),
    "oldest of the three checkpoints": ("test_best_is_the_best_and_not_the_oldest_that_was_kept",),
    "learning rate and patience": ("test_resuming_takes_the_learning_rate_and_the_patience_that_are_configured",),
    "seed=777": ("test_the_seed_is_used_and_not_only_recorded",),
    "exit with 0": ("test_a_batch_with_a_failure_does_not_exit_0",),
    "mlflow.tags": ("test_tags_do_not_turn_tracking_off",),
    "feature_metadata.json": ("test_feature_metadata_is_there_before_the_first_step",),
}


def test_every_fault_has_its_test(root: Path) -> None:
    faults = re.findall(r"^- (.*)", TEXT.split("## Faults that are gone")[1], flags=re.MULTILINE)
    named = [[words for words in TESTS_OF_FAULTS if words in fault] for fault in faults]
    assert named == [[words] for words in TESTS_OF_FAULTS]
    text = (root / "tests" / "integration" / "test_old_faults.py").read_text()
    made = re.findall(r"^def (test_\w+)", text, flags=re.MULTILINE)
    assert sorted(made) == sorted(test for tests in TESTS_OF_FAULTS.values() for test in tests)


def test_metrics_csv_is_made_as_the_page_says(finished: Any, tmp_path: Path, quick_python: str) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    environment = {**os.environ, "MLFLOW_TRACKING_URI": finished.uri}
    done = subprocess.run([quick_python, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    header, *lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert {"epoch", "train_mse", "val_loss", "selection_metric"} <= set(header.split(","))
    assert [line.split(",")[0] for line in lines] == [str(epoch) for epoch in range(finished.result.epochs)]
