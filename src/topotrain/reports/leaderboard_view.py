"""The leaderboard as text: CSV, plain columns, or a table on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from topotrain.fields import VAL_LOSS, VAL_RANKING_LOSS, VAL_SPEARMAN
from topotrain.reports.leaderboard import COLUMNS, MODULES, Row
from topotrain.reports.text import number, short, status
from topotrain.text import aligned, duration
from topotrain.text import as_csv as csv_text

if TYPE_CHECKING:
    from rich.console import Console

ID_CHARACTERS = 8
NUMBERS = {"rank", "value", "val_loss", "Spearman", "ranking loss", "epochs", "edge dim", "node dim"}


def as_csv(rows: Sequence[Row]) -> str:
    """Every column; a missing value is an empty cell, aliases are separated by spaces."""
    flat = ({**row, "aliases": " ".join(row["aliases"])} for row in rows)
    return csv_text([COLUMNS, *([row[name] for name in COLUMNS] for row in flat)])


def as_columns(rows: Sequence[Row]) -> str:
    """Plain text, one block for each primary metric."""
    blocks = []
    for title, cells in _groups(rows):
        blocks.append("\n".join([title, *aligned([list(cells[0]), *(list(cell.values()) for cell in cells)])]))
    return "\n\n".join(blocks) + "\n" if blocks else "no training run\n"


def show_tables(rows: Sequence[Row], console: Console | None = None) -> None:
    """Tables on a terminal, one for each primary metric; plain text where they do not fit.

    Args:
        rows: of the leaderboard.
        console: by default standard output's.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = console or Console()
    for title, cells in _groups(rows):
        text = aligned([list(cells[0]), *(list(cell.values()) for cell in cells)])
        if max(map(len, text)) > console.width:
            # A long line that the terminal breaks still shows everything; a table would cut it.
            console.print("\n".join([title, *text, ""]), markup=False, highlight=False)
            continue
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for name in cells[0]:
            table.add_column(name, justify="right" if name in NUMBERS else "left", no_wrap=True)
        for cell in cells:
            table.add_row(*map(Text, cell.values()))
        console.print(table)
    if not rows:
        console.print("no training run")


def _groups(rows: Sequence[Row]) -> list[tuple[str, list[dict[str, str]]]]:
    groups = []
    for (primary, digest), members in groupby(rows, key=lambda row: (row["primary_metric"], row["validation_digest"])):
        cells = list(members)
        title = "not ranked: ended before they were configured"
        if primary:
            title = f"ranked by {primary} (lower is better){_on(cells[0]) if digest else ''}"
        shown = [name for name in MODULES if name == "edge_module" or len({row[name] for row in cells}) > 1]
        groups.append((title, [_cells(row, shown) for row in cells]))
    return groups


def _on(row: Row) -> str:
    return f", validated on {row['validation_graphs']} graphs of {row['validation_data']} ({row['validation_digest']})"


def _cells(row: Row, modules: Sequence[str]) -> dict[str, str]:
    model = short(row["model_version"]).removeprefix("models:/")
    return {
        "rank": short(row["rank"]),
        "run": f"{row['run_name']} ({row['run_id'][:ID_CHARACTERS]}){', a trial' if row['trial'] else ''}",
        "status": status(row),
        "primary": short(row["primary_metric"]),
        "value": number(row["primary_value"]),
        "val_loss": number(row[VAL_LOSS]),
        "Spearman": number(row[VAL_SPEARMAN], 3),
        "ranking loss": number(row[VAL_RANKING_LOSS], 3),
        "epochs": str(row["epochs"]),
        **{name.replace("_", " "): short(row[name]) for name in modules},
        "edge dim": short(row["edge_dim"]),
        "node dim": short(row["node_dim"]),
        "schema": short(row["schema_digest"]),
        "model": " ".join([model, *(f"@{alias}" for alias in row["aliases"])]),
        "age": duration(row["age_seconds"]),
    }
