"""Options: what an entry point of MLproject writes out, flags, completion."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from topotrain.cli import cli
from topotrain.cli.options import Flag, Option

ENTRY_POINTS = yaml.safe_load((Path(__file__).resolve().parents[2] / "MLproject").read_text())["entry_points"]
COMMANDS = {name: cli.get_command(click.Context(cli), name) for name in cli.commands}
FLAGS = [(name, param) for name, command in COMMANDS.items() for param in command.params if isinstance(param, Flag)]


def read(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """The command of a line and the values it would get."""
    command = cli.get_command(click.Context(cli), arguments[0])
    assert command is not None
    context = command.make_context(arguments[0], arguments[1:])
    assert context.args == []
    return str(command.name), context.params


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_what_an_entry_point_leaves_out_is_as_if_it_were_not_written(name: str) -> None:
    """Its command with its defaults, then the same line without what is empty and without flags that are false."""
    entry = ENTRY_POINTS[name]
    defaults = {key: parameter["default"] for key, parameter in entry["parameters"].items()}
    quoted = {key: shlex.quote(value) for key, value in defaults.items()}
    _, _, line = entry["command"].format(**quoted).partition("-m topotrain ")
    command, params = read(shlex.split(line))
    kept: list[str] = []
    words = iter(shlex.split(line))
    for word in words:
        value = next(words) if word.startswith("--") else None
        kept += [word] if value is None else [word, value] if value not in ("", "false") else []
    assert len(kept) < len(shlex.split(line)) or name in ("score", "sync")
    assert read(kept) == (command, params)
    assert "" not in [value for key, value in params.items() if key != "reason"]


@pytest.mark.parametrize(("command", "flag"), FLAGS, ids=lambda part: getattr(part, "name", part))
def test_a_flag_takes_true_and_false_and_shows_neither(command: str, flag: Flag) -> None:
    option = flag.opts[0]
    required = [word for param in COMMANDS[command].params if param.required for word in (param.opts[0], "1")]
    assert flag.name is not None
    for given, value in (([], False), ([option], True), ([option, "true"], True), ([f"{option}=false"], False)):
        assert read([command, *required, *given])[1][flag.name] is value
    assert read([command, *required, option, ""])[1][flag.name] is False
    with pytest.raises(click.BadParameter, match="not a valid boolean"):
        read([command, *required, option, "maybe"])
    record = flag.get_help_record(click.Context(COMMANDS[command]))
    assert record is not None
    assert record[0].split(", ")[-1] == flag.opts[0]


def test_a_flag_never_takes_a_word_that_is_an_argument() -> None:
    """A flag that can be written out as true or false would: ``label --replace DECOYS``."""
    for name, command in COMMANDS.items():
        if any(isinstance(param, click.Argument) for param in command.params):
            assert not [param for param in command.params if isinstance(param, Flag)], name


def test_no_help_shows_a_boolean() -> None:
    assert len(FLAGS) > 10
    for command in COMMANDS.values():
        assert "BOOLEAN" not in command.get_help(click.Context(command))


def test_every_option_reads_an_empty_text_as_left_out() -> None:
    """All but those that are flags without a value."""
    for name, command in COMMANDS.items():
        for param in command.params:
            if isinstance(param, click.Option) and not param.is_flag:
                assert isinstance(param, Option), f"{name} {param.opts[0]}"


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("45s", 45), ("300", 300), ("1d 2h", 93600)]
)
def test_a_time_is_written_with_its_units(text: str, seconds: float) -> None:
    assert read(["tune", "--space", "s", "--trials", "1", "--timeout", text])[1]["timeout"] == seconds


@pytest.mark.parametrize("text", ["0", "0h", "h", "1.5h", "-1h", "30m1h", "soon", "1e3", "١h", "9999999h"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(click.BadParameter, match="2h, 90m, 1h30m or 45s"):
        read(["tune", "--space", "s", "--trials", "1", "--timeout", text])


def test_a_required_option_is_missing_if_it_is_empty() -> None:
    with pytest.raises(click.MissingParameter):
        read(["batch", "--manifest", ""])


def test_repeated_options_keep_an_empty_text() -> None:
    """It is refused as a malformed override, not dropped."""
    assert read(["run", "-o", "", "-o", "a=1"])[1]["override"] == ("", "a=1")


def test_batch_size_is_what_every_scoring_takes() -> None:
    from topotrain.scoring.scorer import SCORING_BATCH

    (option,) = (param for param in COMMANDS["predict"].params if param.name == "batch_size")
    assert isinstance(option, click.Option)
    assert f"by default {SCORING_BATCH};" in str(option.help)
    assert ENTRY_POINTS["predict"]["parameters"]["batch_size"]["default"] == ""
    page = Path(__file__).resolve().parents[2] / "docs" / "predict.md"
    assert f"`--batch-size` (graphs scored at a time, {SCORING_BATCH} by default" in page.read_text()


def complete(line: str, instruction: str = "bash_complete") -> list[str]:
    words = line.split(" ")
    variables = {"_TOPOTRAIN_COMPLETE": instruction, "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    command = [sys.executable, "-m", "topotrain"]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_the_shell_completes_commands_and_options() -> None:
    assert complete("topotrain lea") == ["plain,leaderboard"]
    assert complete("topotrain run --limit-") == ["plain,--limit-train-batches", "plain,--limit-val-batches"]
    assert complete("topotrain leaderboard --format ") == ["plain,table", "plain,json", "plain,csv"]


def test_the_help_says_how_completion_is_switched_on() -> None:
    (line,) = re.findall(r"_TOPOTRAIN_COMPLETE=(\w+) topotrain", str(cli.epilog))
    assert any("complete -o nosort -F _topotrain_completion topotrain" in text for text in complete("topotrain", line))


# What the shell offers


@pytest.fixture
def named(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store with two runs, a registered model with an alias; its URI is in the environment."""
    from kit.recorded import mlflow_client
    from kit.runs import HandMadeRun, epoch

    first = HandMadeRun(store_uri, "frost").epochs(epoch(0.2), epoch(0.1)).end()
    HandMadeRun(store_uri, "other").end()
    first.register([0, 1])
    mlflow_client(store_uri).set_registered_model_alias("topoqa", "candidate", "2")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)
    return first.run_id


def test_the_shell_completes_names_that_are_in_the_store(named: str) -> None:
    assert complete("topotrain resume --run-id fr") == ["plain,frost"]
    assert complete("topotrain summarise --run la") == ["plain,latest"]
    assert complete(f"topotrain monitor --run-id {named[:10]}") == [f"plain,{named}"]
    assert complete("topotrain describe models:/") == [
        *("plain,models:/topoqa@candidate", "plain,models:/topoqa/2", "plain,models:/topoqa/1")
    ]
    assert complete("topotrain verify models:/topoqa@") == ["plain,models:/topoqa@candidate"]
    assert complete("topotrain predict --model models:/topoqa/") == ["plain,models:/topoqa/2", "plain,models:/topoqa/1"]
    assert complete("topotrain promote --model t") == ["plain,topoqa"]
    assert complete("topotrain score models --model s") == ["plain,starter"]


def test_the_shell_completes_modules_and_keys() -> None:
    assert complete("topotrain build-graphs x --edge-module edge/m") == ["plain,edge/multi_scale/v24"]
    assert complete("topotrain run --override trainer.num_e") == ["plain,trainer.num_epochs="]


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:1", "localhost:5000", "odd://x", "sqlite:////no/such.db", "broken.db"]
)
def test_completion_never_fails(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.db").write_bytes(b"no database")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert not "".join(complete("topotrain resume --run-id fr"))
    assert not "".join(complete("topotrain describe models:/"))
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("summarise", "--run-id", "frist"), "did you mean 'frost'?"),
        (("resume", "--run-id", "lates"), "did you mean 'latest'?"),
        (("leaderboard", "--experiment", "by hnd"), "did you mean 'by hand'?"),
        (("describe", "models:/topoq@candidate"), "did you mean models:/topoqa@candidate?"),
        (("describe", "models:/topoqa@candidat"), "did you mean models:/topoqa@candidate?"),
        (("verify", "models:/topoqa@candidat"), "did you mean models:/topoqa@candidate?"),
        (("evaluate", "--model", "models:/topoqa@best"), "aliases of topoqa: candidate"),
        (("predict", "--model", "models:/topoqa/7", "--out", "x.csv"), "the newest version of topoqa is 2"),
        (("promote", "--model", "topaqo"), "did you mean models:/topoqa"),
        (("promote", "--model", "topoqa", "--version", "7"), "the newest version of topoqa is 2"),
    ],
)
def test_a_near_name_is_offered(named: str, arguments: tuple[str, ...], words: str, capsys: Any) -> None:
    from topotrain.cli import main

    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


# Several overrides in one text


@pytest.mark.parametrize(
    ("given", "read_as"),
    [
        (["a.b=1 c.d=2"], ("a.b=1", "c.d=2")),
        (["seed=1 mlflow.tags.note='two words' x=3"], ("seed=1", "mlflow.tags.note=two words", "x=3")),
        (["mlflow.tags.note='two words'"], ("mlflow.tags.note='two words'",)),
        (["mlflow.tags.note=two words"], ("mlflow.tags.note=two words",)),
        (["mlflow.tags.note=lr=3 or so=4"], ("mlflow.tags.note=lr=3 or so=4",)),
        (["mlflow.run_name=sweep a=3"], ("mlflow.run_name=sweep a=3",)),
        (["edge_schema.columns=[a, b]"], ("edge_schema.columns=[a, b]",)),
        (["edge_schema.module_params={a: 1, b: 2}"], ("edge_schema.module_params={a: 1, b: 2}",)),
        (["edge_schema.columns=['x=1', 'y=2']"], ("edge_schema.columns=['x=1', 'y=2']",)),
        (["paths.graph=/a b/c=d e"], ("paths.graph=/a b/c=d e",)),
        (["mlflow.tags.note='a=1 seed=2'"], ("mlflow.tags.note='a=1 seed=2'",)),
        (["trainer.num_epochs=2 more"], ("trainer.num_epochs=2 more",)),
        (["mlflow.tags.note=it's"], ("mlflow.tags.note=it's",)),
    ],
)
def test_several_overrides_in_one_text(given: list[str], read_as: tuple[str, ...]) -> None:
    options = [part for text in given for part in ("-o", text)]
    assert read(["run", *options])[1]["override"] == read_as
    assert read(["resume", *options])[1]["override"] == read_as


@pytest.mark.parametrize("text", ["mlflow.run_name=first trainer.num_epochs=5", "paths.graph=a paths.train_labels=b"])
def test_a_text_that_can_be_read_in_two_ways_is_refused(text: str) -> None:
    from topotrain.errors import ConfigError

    with pytest.raises(ConfigError, match=r"is 2 overrides or a text with spaces.*quote the text: .*='\.\.\.'"):
        read(["run", "-o", text])
    key, _, value = text.partition("=")
    assert read(["run", "-o", f"{key}='{value}'"])[1]["override"] == (f"{key}='{value}'",)


# Under ``mlflow run``

READ = [
    (["score", "af"], "structures", "af"),
    (["build-graphs", "af", "--out", "x"], "structures", "af"),
    (["predict", "--graphs", "g", "--out", "x.csv"], "graphs", "g"),
    (["evaluate", "--graphs", "g", "--labels", "demo"], "graphs", "g"),
    (["evaluate", "--labels", "l.csv"], "labels", "l.csv"),
    (["run", "--config", "c.yaml"], "config", "c.yaml"),
    (["batch", "--manifest", "m.yaml"], "manifest", "m.yaml"),
    (["tune", "--trials", "1", "--space", "s.yaml"], "space", "s.yaml"),
]


@pytest.mark.parametrize(("arguments", "name", "value"), READ)
def test_mlflow_run_says_where_it_looks_for_a_relative_path(
    arguments: list[str], name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from topotrain.errors import ConfigError

    read(arguments)  # without mlflow run, the command itself says that it is not there
    monkeypatch.setenv("MLFLOW_RUN_ID", "a" * 32)
    with pytest.raises(ConfigError) as error:
        read(arguments)
    assert f"{name} {value!r} is not in the project folder {tmp_path}, where mlflow run works" in str(error.value)
    assert f'write an absolute path: -P {name}="$PWD/{value}"' in str(error.value)
    assert name in ENTRY_POINTS[arguments[0] if arguments[0] != "run" else "main"]["parameters"]
    (tmp_path / value).mkdir()
    read(arguments)
