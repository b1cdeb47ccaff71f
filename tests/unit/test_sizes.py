"""Numbers, hardware and sizes are checked before a run is made, in a batch before any job runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

import topotrain
from kit.commands import exit_status
from topotrain.batches.manifest import load_manifest
from topotrain.config import load_config
from topotrain.errors import ConfigError

TOO_MUCH = [
    ("trainer.devices=abc", "devices 'abc'"),
    ("trainer.devices='0,1'", "devices '0,1'"),
    ("trainer.devices=' '", "devices ' '"),
    ("trainer.accelerator=abacus", "accelerator 'abacus'"),
    ("trainer.accelerator=tpu", "accelerator 'tpu'"),
    ("trainer.precision=transformer-engine", "precision 'transformer-engine'"),
    ("trainer.devices=999", "999 processes; expected at most 256"),
    ("dataloader.num_workers=5000", "at most 256; TOPOTRAIN_MAX_WORKERS raises the limit"),
    ("model.num_layers=10000000", "at most 1000; TOPOTRAIN_MAX_LAYERS raises the limit"),
    ("model.hidden_dim=100000000", "GiB to train"),
    ("model.attention_head=10000000", "GiB to train"),
]
PLAIN = "a number in plain digits"
NO_NUMBER = [
    *[
        (f"trainer.num_epochs={text}", "a number in plain digits")
        for text in ("1_0", "'1_0'", "0x10", "010", "1:30", "'٣'")
    ],
    *[
        (f"optimizer.learning_rate={text}", "a number in plain digits")
        for text in ("0_0.7", "'0_0.7'", "0x1p3", "1e400")
    ],
    *[(f"optimizer.learning_rate={text}", "finite") for text in (".nan", ".inf", "1.0e+400", "nan")],
    *[
        (f"{key}={10**21}", "at most 4294967296")
        for key in ("trainer.num_epochs", "model.hidden_dim", "trainer.devices")
    ],
    (f"dataloader.batch_size={10**12}", "at most 4294967296; TOPOTRAIN_MAX_NUMBER raises the limit"),
    ("selection.spearman_min_delta=-1e300", "at most 1e+38"),
    ("edge_schema.bands=[.nan]", "finite numbers"),
    ("edge_schema.module_params={a: {b: .inf}}", "finite numbers"),
    ("trainer.num_epochs=" + "9" * 100_000, "more than 400 digits"),
    ("a." * 5000 + "b=1", "is malformed"),
    ("mlflow.run_name=\udcff", "no UTF-8"),
    ("mlflow.tags.\udcff=1", "no UTF-8"),
]


@pytest.mark.parametrize(("override", "words"), [*TOO_MUCH, *NO_NUMBER])
def test_what_can_not_be_makes_no_run(override: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        topotrain.fit(None, overrides=[override], tracking_uri=str(tmp_path / "store.db"))
    assert words in str(caught.value)
    assert len(str(caught.value)) < 2500
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("override", "words"), TOO_MUCH)
def test_and_no_job_of_a_batch(override: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.yaml"
    path.write_text(yaml.safe_dump({"jobs": [{"name": "first"}, {"name": "second", "overrides": [override]}]}))
    with pytest.raises(ConfigError, match="job 'second'") as caught:
        load_manifest(path)
    assert words in str(caught.value)


def test_a_limit_that_is_raised_lets_a_run_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPOTRAIN_MAX_NUMBER", str(10**12))
    config = load_config(None, [f"dataloader.batch_size={10**12}", "trainer.num_epochs='12'"]).config
    assert (config.dataloader.batch_size, config.trainer.num_epochs) == (10**12, 12)


def test_the_memory_that_counts_is_that_which_is_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Little:
        available = 10**5

    monkeypatch.setattr(psutil, "virtual_memory", Little)
    with pytest.raises(ConfigError, match="hidden_dim 32, num_layers 1, attention_head 8"):
        topotrain.fit(None, tracking_uri=str(tmp_path / "store.db"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("jobs: [{name: a, limit_train_batches: '0_0.5'}]", "a number in plain digits"),
        ("jobs: [{name: a, overrides: {trainer: 5, trainer.num_epochs: 1}}]", "as a value and as a section"),
        ("jobs: [{name: a, config: " + "x" * 5000 + "}]", "no such file"),
        ("jobs: [{name: a, resume_from: " + "x" * 5000 + "}]", "no such file"),
        ("jobs: [{name: a, build: {structures: " + "x" * 5000 + "}}]", "no such file"),
        ('jobs: [{name: "a\\0b"}]', "a null character"),
    ],
)
def test_a_manifest_of_odd_values(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_manifest(tmp_path / "m.yaml")
    assert words in str(caught.value)
    assert len(str(caught.value)) < 4000


NUMBERS = ("nan", "inf", "-1", "1e400", "abc", "0_5", "٣", "²", "0x10", "9" * 5000, str(10**21))


@pytest.mark.parametrize("text", NUMBERS)
@pytest.mark.parametrize(
    "arguments",
    [
        ("monitor", "--interval"),
        ("leaderboard", "--limit"),
        ("batch", "--manifest", "m.yaml", "--jobs"),
        ("build-graphs", ".", "--out", "graphs", "--jobs"),
        ("run", "--limit-train-batches"),
        ("predict", "--out", "x.csv", "--batch-size"),
        ("predict", "--out", "x.csv", "--target-level"),
        ("ui", "--port"),
    ],
    ids=lambda arguments: f"{arguments[0]} {arguments[-1]}",
)
def test_options_take_plain_numbers(arguments: tuple[str, ...], text: str, capsys: Any) -> None:
    assert exit_status(*arguments[:-1], f"{arguments[-1]}={text}") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: Invalid value for '--")
    assert len(said.splitlines()) == 1
    assert len(said) < 2500


def test_options_take_text_in_utf8(capsys: Any) -> None:
    assert exit_status("run", "--run-name", "\udcff") == 2
    assert "no UTF-8" in capsys.readouterr().err


def test_memory_that_runs_out_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for error in (
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
    ):

        def fail(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr("topotrain.data.stored_schema.inspect_directory", fail)
        assert exit_status("schema", ".") == 2
        assert capsys.readouterr().err.startswith("error: there is not enough memory")


def test_a_name_that_no_file_can_have_is_one_line(capsys: Any) -> None:
    assert exit_status("describe", "a" * 100_000) == 2
    said = capsys.readouterr().err
    assert "File name too long; expected a path that a file can have" in said
    assert len(said) < 2500
