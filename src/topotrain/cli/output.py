"""What commands write: the document asked for to standard output, everything else to standard error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from topotrain.credentials import mask_credentials

SUFFIX = {"table": "txt", "json": "json", "csv": "csv"}


def say(line: str) -> None:
    """One line to standard error, without credentials."""
    click.echo(mask_credentials(line), err=True)


def deliver(text: str, out: str | None = None) -> None:
    """A document to a file, whole or not at all; without one, to standard output."""
    if out:
        from topotrain.files import write_text

        write_text(text, Path(out))
    else:
        click.echo(text.encode("utf-8", "backslashreplace").decode(), nl=False)  # a file's name may be no UTF-8


def say_outcome(failures: Mapping[str, str], done: str) -> None:
    """What failed, a line each, and how much was done."""
    for line in failures.values():
        say(f"failed: {line}")
    say(f"{done}, {len(failures)} failed")


def artifact_name(command: str, form: str) -> str:
    """The file name under which what a command printed is kept."""
    return f"{command}.{SUFFIX[form]}"
