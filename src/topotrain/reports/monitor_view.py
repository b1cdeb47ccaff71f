"""Where a run stands, as text: a page, a line, or a display that is refreshed in place."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from topotrain.fields import LEARNING_RATE, TRAIN_MSE, VAL_LOSS, VAL_RANKING_LOSS, VAL_SPEARMAN
from topotrain.reports.text import number, short, status
from topotrain.text import duration

if TYPE_CHECKING:
    from rich.console import RenderableType

State = Mapping[str, Any]
LABEL_WIDTH = 12
BAR_WIDTH = 40


def rows(state: State) -> list[tuple[str, str]]:
    """What a page says of a run, by label."""
    best, checkpoint = state["best_metrics"] or {}, state["best_checkpoint"] or {}
    lines = [
        ("run", f"{state['run_name']} ({state['run_id']})"),
        ("status", status(state)),
        ("progress", _progress(state)),
    ]
    if state["best_epoch"] is not None:
        lines.append(("best epoch", f"{state['best_epoch']} by {state['selection_primary_metric']}: {_metrics(best)}"))
    if checkpoint:
        lines.append(("checkpoint", checkpoint["uri"]))
        if checkpoint["local_path"]:
            lines.append(("", checkpoint["local_path"]))
    lines.append(("learned by", learned_by(state["learning_parameters"])))
    if state["latest_metrics"]:
        lines.append(("latest", f"{_metrics(state['latest_metrics'])}, learning rate {_rate(state)}"))
    return lines + [("warning", warning) for warning in state["warnings"]]


def page(state: State) -> str:
    """A page of plain text."""
    return "".join(f"{label:<{LABEL_WIDTH}}{text}\n" for label, text in rows(state))


def line(state: State) -> str:
    """One line for one change."""
    best, checkpoint, latest = state["best_metrics"] or {}, state["best_checkpoint"], state["latest_metrics"]
    parts = [status(state), _progress(state)]
    if latest:
        parts.append(f"val_loss {number(latest.get(VAL_LOSS))} spearman {number(latest.get(VAL_SPEARMAN), 3)}")
        parts.append(f"lr {_rate(state)}")
    if checkpoint:
        parts.append(f"best val_loss {number(best.get(VAL_LOSS))} at epoch {state['best_epoch']}: {checkpoint['uri']}")
    return "  ".join([*parts, *(f"[{warning}]" for warning in state["warnings"])]) + "\n"


def json_line(state: State) -> str:
    """One JSON document on one line."""
    return json.dumps(state, ensure_ascii=False, allow_nan=False) + "\n"


def learned_by(parameters: Mapping[str, Any]) -> str:
    """The learning parameters on one line."""
    rate, then = parameters["learning_rate"], parameters["learning_rate_at_best_epoch"]
    lowered = f" ({short(then)} at the best epoch)" if then is not None and then != rate else ""
    steps = parameters["accumulate_grad_batches"]
    parts = [
        f"learning rate {short(rate)}{lowered}",
        f"batch size {short(parameters['batch_size'])}" + (f" x {steps}" if steps and steps > 1 else ""),
        f"weight decay {short(parameters['weight_decay'])}",
        f"dropout {short(parameters['dropout'])}",
        f"seed {short(parameters['seed'])}",
    ]
    for name in ("scheduler", "early_stopping"):
        settings = parameters[name] or {}
        if settings:
            parts.append(f"{name.replace('_', ' ')} " + " ".join(f"{key} {short(settings[key])}" for key in settings))
    return ", ".join(parts)


def show_changes(run: str, form: str, write: Callable[[str], None], **options: Any) -> str:
    """Show where a run stands at each change, until it ends.

    Args:
        run: id, unique prefix, name, or ``latest``.
        form: ``json`` for JSON lines; otherwise a page in place on a terminal, elsewhere a line for each change.
        write: takes what goes to standard output.
        options: of ``follow``.

    Returns:
        What was printed; of a page in place the last one.
    """
    from topotrain.reports.monitor import follow

    if form != "json" and sys.stdout.isatty():
        display = Display()
        return display.show(follow(run, outage=display.outage, **options))
    printed: list[str] = []
    for state in follow(run, **options):
        text = json_line(state) if form == "json" else line(state)
        if text not in printed[-1:]:  # a change that the line does not tell is none
            write(text)
            printed.append(text)
    return "".join(printed)


class Display:
    """A page on a terminal that is refreshed in place."""

    def __init__(self) -> None:
        self._state: State | None = None
        self._trouble: str | None = None
        self._refresh: Callable[[], None] = lambda: None

    def show(self, states: Iterable[State]) -> str:
        """Show each state in the place of the last one; the last one stays, and is returned as text."""
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(), auto_refresh=False, vertical_overflow="visible") as live:
            self._refresh = lambda: live.update(self._content(), refresh=True)
            for state in states:
                self._state = state
                self._refresh()
        return page(self._state) if self._state else ""

    def outage(self, what: str | None) -> None:
        """Say on the page that the server does not answer, until it does."""
        self._trouble = what
        self._refresh()

    def _content(self) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2, 0, 0))
        for label, text in rows(self._state) if self._state else []:
            style = "yellow" if label == "warning" else ""
            table.add_row(Text(label, style="bold"), Text(text, style=style, overflow="fold"))
            if label == "progress" and self._state and self._state["progress"]["percent"] is not None:
                percent = self._state["progress"]["percent"]
                table.add_row("", ProgressBar(total=100.0, completed=percent, width=BAR_WIDTH))
        if self._trouble:
            table.add_row(Text("server", style="bold"), Text(f"{self._trouble}; trying again", style="red"))
        return table


def _progress(state: State) -> str:
    """``12 of 200 epochs (6.0 %), 1.2 s each, 3 min 45 s left``."""
    progress = state["progress"]
    total, percent = progress["epochs_total"], progress["percent"]
    text = f"{progress['epochs_completed']} of {short(total)} epochs"
    if percent is not None:
        text += f" ({percent:.1f} %)"
    if progress["average_epoch_seconds"] is not None:
        text += f", {duration(progress['average_epoch_seconds'])} each"
    return text + (f", {duration(progress['eta_seconds'])} left" if progress["eta_seconds"] else "")


def _metrics(metrics: Mapping[str, float | None]) -> str:
    lines = [f"val_loss {number(metrics.get(VAL_LOSS))}", f"Spearman {number(metrics.get(VAL_SPEARMAN), 3)}"]
    lines.append(f"ranking loss {number(metrics.get(VAL_RANKING_LOSS), 3)}")
    return ", ".join([*lines, f"train_mse {number(metrics.get(TRAIN_MSE))}"])


def _rate(state: State) -> str:
    return short(state["latest_metrics"].get(LEARNING_RATE))
