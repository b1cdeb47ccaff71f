"""The program: its commands, their other names, and the exit statuses."""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
from collections.abc import Sequence
from typing import ClassVar

import click

from topotrain.cli import cache, explain, models, reports, splitting, structures, sync, training, tuning, versions
from topotrain.cli.output import say
from topotrain.cli.startup import end_quickly
from topotrain.errors import EXIT_FAULT, EXIT_USER, InterruptedRunError, TopotrainError, UndeliveredError, shortened
from topotrain.messages import log_to_stderr
from topotrain.signals import follow_parent
from topotrain.version import __version__

NO_MEMORY = re.compile(r"can't allocate memory|out of memory", re.IGNORECASE)  # as torch says it


class Commands(click.Group):
    """Lists commands in the order of work, and knows other names for some."""

    aliases: ClassVar[dict[str, str]] = {"train": "run", "summarize": "summarise"}

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Also by another name."""
        return super().get_command(ctx, self.aliases.get(cmd_name, cmd_name))

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order they are added."""
        return list(self.commands)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog='Completion: eval "$(_TOPOTRAIN_COMPLETE=bash_source topotrain)" (or zsh_source, fish_source).',
)
@click.version_option(__version__, prog_name="topotrain")
def cli() -> None:
    """Train graph networks that score models (decoys) of protein complexes.

    \b
    topotrain run                                  train on the demo data set
    topotrain run --config configs/default.yaml    train by a configuration
    topotrain summarise --run-id latest            what the run achieved, as JSON
    topotrain monitor --follow                     where the run stands, until it ends
    topotrain leaderboard                          runs side by side
    topotrain ui                                   curves, pictures, model versions
    """


# In the order of work, as the help lists them.
for command in (
    training.run,
    training.batch,
    tuning.tune,
    training.resume,
    reports.summarise,
    reports.monitor,
    reports.leaderboard,
    reports.schema,
    structures.build_graphs,
    structures.label,
    splitting.split,
    structures.features,
    structures.score,
    explain.explain,
    models.evaluate,
    models.compare,
    models.promote,
    models.metrics,
    models.predict,
    models.describe,
    models.verify,
    versions.ensemble,
    versions.import_checkpoint,
    structures.demo_graphs,
    structures.demo_structures,
    reports.ui,
    sync.sync,
    cache.cache,
):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with the status of docs/runs.md."""
    log_to_stderr()
    follow_parent()
    end_quickly()
    try:
        given = sys.argv[1:] if arguments is None else list(arguments)
        cli.main(args=given or ["--help"], prog_name="topotrain", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "topotrain"
        _fail(f"{shortened(error.format_message().rstrip('.'))}; see {command} --help", EXIT_USER)
    except UndeliveredError as error:
        say(str(error))
        sys.exit(error.exit_code)
    except TopotrainError as error:
        _fail(str(error), error.exit_code)
    except InterruptedRunError as stop:
        _fail(f"interrupted by signal {stop.signum}", stop.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            where = shortened(str(error.filename))
            _fail(f"{where}: {error.strerror}; expected a path that a file can have", EXIT_USER)
        if full := _full_place(error):
            _fail(full, EXIT_USER)
        if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
            _fail(
                "there is not enough memory; expected more of it free; take smaller batches or a smaller network",
                EXIT_USER,
            )
        logging.getLogger("topotrain").exception("a fault of topotrain; please report it with the lines below")
        sys.exit(EXIT_FAULT)


def _full_place(error: Exception) -> str:
    """What to say of a disk that takes nothing more: where, as far as the error or the disk tells; "" of others."""
    from topotrain.disk import EXPECTED, database_fault, disk_fault
    from topotrain.scratch import temporary_fault

    fault, name = disk_fault(error), getattr(error, "filename", None)
    if fault is None:
        return ""
    if name is None and (told := temporary_fault(error)):
        return str(told)
    place = "the tracking store" if database_fault(error) else shortened(str(name or "a file"))
    return f"{place} can't be written ({fault}); expected {EXPECTED}; make room there"


def _fail(message: str, status: int) -> None:
    say(f"error: {message}")
    sys.exit(status)
