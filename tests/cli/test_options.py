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
    assert len(kept) < len(shlex.split(line)) or name == "score"
    assert read(kept) == (command, params)
    assert "" not in [value for key, value in params.items() if key != "reason"]


@pytest.mark.parametrize(("command", "flag"), FLAGS, ids=lambda part: getattr(part, "name", part))
def test_a_flag_takes_true_and_false_and_shows_neither(command: str, flag: Flag) -> None:
    option = flag.opts[0]
    required = [word for param in COMMANDS[command].params if param.required for word in (param.opts[0], "x")]
    assert flag.name is not None
    for given, value in (([], False), ([option], True), ([option, "true"], True), ([f"{option}=false"], False)):
        assert read([command, *required, *given])[1][flag.name] is value
    assert read([command, *required, option, ""])[1][flag.name] is False
    with pytest.raises(click.BadParameter, match="not a valid boolean"):
        read([command, *required, option, "maybe"])
    record = flag.get_help_record(click.Context(COMMANDS[command]))
    assert record is not None
    assert record[0].split(", ")[-1] == flag.opts[0]


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
