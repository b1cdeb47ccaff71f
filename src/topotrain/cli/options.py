"""Options that commands share, and how the text of an option is read."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import click
from click.core import ParameterSource

from topotrain.cli import completion
from topotrain.errors import ConfigError
from topotrain.invocation import adopted_run

Command = TypeVar("Command", bound=Callable[..., Any])


class Option(click.Option):
    """An option of which an empty text means that it was left out: an entry point of MLproject passes every option.

    Args:
        names: as of any option.
        **settings: of any option; without a type it takes text in UTF-8.
    """

    def __init__(self, names: Sequence[str], **settings: Any) -> None:
        super().__init__(names, **settings)
        if self.type is click.STRING:
            self.type = Text()

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> tuple[Any, ParameterSource]:
        """The default in place of an empty text."""
        value, source = super().consume_value(ctx, opts)
        if value == "" and source is ParameterSource.COMMANDLINE:
            return super().consume_value(ctx, {})
        return value, source


class Flag(Option):
    """A flag that an entry point of MLproject can write out as true or false.

    Args:
        names: as of an option.
        **settings: of an option.
    """

    def __init__(self, names: list[str], **settings: Any) -> None:
        super().__init__(names, type=click.BOOL, is_flag=False, flag_value=True, default=False, metavar="", **settings)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """As of a flag, without a value."""
        record = super().get_help_record(ctx)
        return None if record is None else (record[0].rstrip(), record[1])


class Number(click.ParamType[int | float]):
    """A whole number of batches, or a fraction of them."""

    name = "N|FRACTION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | float:
        """``10`` stays whole; ``0.1`` is a tenth."""
        from topotrain.reading.numbers import number, whole

        found = whole(value) or number(value)
        if not ((isinstance(found, int) and found > 0) or 0.0 < found <= 1.0):
            self.fail(f"{value!r}; expected a whole number of batches or a fraction between 0 and 1", param, ctx)
        return found


class Whole(click.ParamType[int]):
    """A whole number in plain digits.

    Args:
        least: and no less.
        limit: of ``topotrain.limits``, by its name; by default what no counter exceeds.
        most: and no more, whatever the limit.
    """

    name = "INTEGER"

    def __init__(self, least: int, limit: str = "NUMBER", most: int | None = None) -> None:
        self.least, self.limit, self.most = least, limit, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """``7`` is 7; ``0_7``, ``7.0`` and what is over the limit are refused."""
        from topotrain import limits
        from topotrain.reading.numbers import whole

        found, limit = value if isinstance(value, int) else whole(value.strip()), getattr(limits, self.limit)
        if found is None or found < self.least or found > (self.most or found):
            most = f" and at most {self.most}" if self.most else ""
            self.fail(f"{value!r}; expected a whole number of at least {self.least}{most}", param, ctx)
        if found > limit.value:
            self.fail(f"{value!r}; expected at most {limit.value}; {limit.raise_it}", param, ctx)
        return found


class Seconds(click.ParamType[float]):
    """A time, longer than none."""

    name = "SECONDS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """``0.5`` is half a second."""
        from topotrain.limits import SECONDS
        from topotrain.reading.numbers import number

        found = value if isinstance(value, float) else number(value.strip())
        if not 0.0 < found <= SECONDS.value:
            self.fail(f"{value!r}; expected a number of seconds, more than 0 and at most {SECONDS.value}", param, ctx)
        return found


class Duration(click.ParamType[float]):
    """A time span with its units, or in seconds."""

    name = "TIME"
    UNITS: ClassVar[dict[str, int]] = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
    FORM = re.compile(r"(?=.)(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s?)?", re.ASCII)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """``1h30m`` is 5400.0."""
        if isinstance(value, float):
            return value
        found = self.FORM.fullmatch(value.strip().replace(" ", ""))
        parts = found.groups(default="0") if found else ()
        seconds = sum(int(part) * size for part, size in zip(parts, self.UNITS.values(), strict=False))
        if seconds <= 0:
            self.fail(f"{value!r}; expected a time such as 2h, 90m, 1h30m or 45s", param, ctx)
        return float(seconds)


class Text(click.ParamType[str]):
    """A name, an address or a remark: text in UTF-8."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """As given."""
        try:
            value.encode()
        except UnicodeEncodeError:
            self.fail("bytes that are no UTF-8; expected text", param, ctx)
        return str(value)


class Words(click.ParamType[list[str]]):
    """Several values in one text, split as a shell splits: an entry point of MLproject can't repeat an option.

    Args:
        expected: what each should be, for messages.
    """

    name = "TEXT"

    def __init__(self, expected: str) -> None:
        self.expected = expected

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """``"a=1 b='two words'"`` is two."""
        try:
            return shlex.split(value)
        except ValueError as error:
            name = param.name if param is not None else "text"
            raise ConfigError(f"{name} {value!r}: {error}", f"{self.expected}, quoted as for a shell") from None


class KeyValue(click.ParamType[tuple[str, str]]):
    """``kind.parameter=value``, as key and value."""

    name = "KIND.PARAM=V"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """``interface.cutoff=14`` is ``("interface.cutoff", "14")``."""
        key, separator, setting = value.partition("=")
        if not separator:
            raise ConfigError(
                f"setting {value!r} is malformed", "kind.parameter=value", "write e.g. interface.cutoff=14"
            )
        return key, setting


class InputPath(click.ParamType[str]):
    """A file or folder to read; ``demo`` and the like, which are none, are as they are.

    Args:
        *words: texts that are no path.
    """

    name = "PATH"

    def __init__(self, *words: str) -> None:
        self.words = words

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """As given. Under ``mlflow run`` a relative path that is not there gets a word on where it is looked for."""
        if adopted_run() and value not in self.words and not Path(value).is_absolute() and not Path(value).exists():
            name = "path" if param is None else param.name
            raise ConfigError(
                f"{name} {value!r} is not in the project folder {Path.cwd()}, where mlflow run works",
                "a path that is there",
                f'write an absolute path: -P {name}="$PWD/{value}"',
            )
        return str(value)


class LastPart(click.ParamType[str]):
    """The last part of a path."""

    name = "PATH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """``training_runs/latest/`` is ``latest``."""
        return Path(value).name


option = partial(click.option, cls=Option)
flag = partial(click.option, cls=Flag)

TRACKING_URI = option(
    "--tracking-uri", metavar="URI", help="Tracking store; by default mlflow.db in the current directory."
)
# For commands that need no store, so that every command takes the same option.
UNUSED_URI = option("--tracking-uri", metavar="URI", expose_value=False, hidden=True)
CACHE = option(
    "--cache",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Where packed graphs are kept; by default the user's cache directory.",
)
EXPERIMENT = option("--experiment", metavar="NAME", help="Look in this experiment only.")
PER_TARGET = flag("--per-target", help="Table and CSV: a row for each target (JSON has them).")
UNVERIFIED = flag("--allow-unverified", help="Graphs with unnamed columns: check their widths alone.")


TAKE_CANDIDATE = flag(
    "--take-candidate", help="Make its best version the candidate, whatever the present one was judged on."
)


def model_option(text: str, default: str | None = None) -> Callable[[Command], Command]:
    """``--model`` by its URI."""
    return option(
        "--model", default=default, show_default=True, metavar="URI", help=text, shell_complete=completion.models
    )


def graphs_option(text: str) -> Callable[[Command], Command]:
    """``--graphs``; by default those of the demo data set."""
    return option("--graphs", type=InputPath("demo"), default="demo", show_default=True, metavar="DIR", help=text)


def run_option(text: str, default: str | None = None) -> Callable[[Command], Command]:
    """``--run-id``, which is ``--run`` too."""
    return option(
        *("--run-id", "--run", "run_id"), metavar="RUN", default=default, help=text, shell_complete=completion.runs
    )


RUN = run_option("Id, prefix of one, name, or latest.")
RUN_OF_MODEL = run_option("Instead: a run's best version.")


def target_options(command: Command) -> Command:
    """``--target-level`` and ``--target-pattern``: where targets are written in paths."""
    level = option("--target-level", type=Whole(1), metavar="N", help="The target is the Nth folder.")
    pattern = option("--target-pattern", metavar="REGEX", help="Its one group is the target, in the path below DIR.")
    return level(pattern(command))


def form_option(*forms: str) -> Callable[[Command], Command]:
    """``--format``; the first is the default."""
    return option("--format", "form", default=forms[0], show_default=True, type=click.Choice(forms))


def jobs_option(text: str) -> Callable[[Command], Command]:
    """``--jobs``."""
    return option("--jobs", "-j", default=1, show_default=True, type=Whole(1, "WORKERS"), help=text)


def engine_options(command: Command) -> Command:
    """``--engine`` and ``--address``: where the processes run."""
    engine = option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="Processes of this machine, or of a Ray cluster's nodes.",
    )
    address = option(
        "--address", metavar="ADDRESS", help="HOST:PORT of the Ray cluster, or auto; by default one is started here."
    )
    return engine(address(command))


def _separated(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Overrides one by one; each text may hold several."""
    if not any(" " in text for text in values):
        return values
    from topotrain.config import separate

    return tuple(one for text in values for one in separate(text))


def override_options(text: str) -> Callable[[Command], Command]:
    """``--override``, which can be repeated, and ``--overrides``, which holds several; the command gets both."""

    def decorate(command: Command) -> Command:
        several = option("--overrides", type=Words("key=value pairs"), default="", hidden=True)
        each = option(
            *("--override", "-o", "override"),
            multiple=True,
            metavar="K=V",
            help=text,
            callback=_separated,
            shell_complete=completion.configuration_keys,
        )
        return each(several(command))

    return decorate
