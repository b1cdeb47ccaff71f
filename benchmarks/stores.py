"""Stores for the benchmarks: a model out of one, and one of thousands of runs out of one of a single run."""

from __future__ import annotations

import shutil
import sqlite3
import uuid
from pathlib import Path

RUN_TABLES = ("runs", "params", "tags", "metrics", "latest_metrics")


def model_of(folder: Path) -> Path:
    """A model that a run left, as a local folder; they are beside its store."""
    return next(folder.rglob("MLmodel")).parent


def run_id_of(store: Path) -> str:
    """Any run of a store."""
    with sqlite3.connect(store) as database:
        return str(database.execute("SELECT run_uuid FROM runs ORDER BY start_time LIMIT 1").fetchone()[0])


def clone_runs(source: Path, target: Path, number: int) -> Path:
    """A store with so many copies of another's one run: parameters, tags, curves and inputs, under other names."""
    shutil.copyfile(source, target)
    with sqlite3.connect(target) as database:
        original = run_id_of(target)
        for place in range(1, number):
            run_id, name = uuid.uuid4().hex, f"copy_{place:05d}"
            for table in RUN_TABLES:
                changed = {"run_uuid": run_id}
                if table == "runs":
                    changed |= {"name": name}
                _copy(database, table, "run_uuid", original, changed)
            database.execute("UPDATE tags SET value = ? WHERE run_uuid = ? AND key = 'mlflow.runName'", (name, run_id))
            database.execute("UPDATE runs SET start_time = start_time + ? WHERE run_uuid = ?", (place, run_id))
            rows = database.execute("SELECT input_uuid FROM inputs WHERE destination_id = ?", (original,)).fetchall()
            for (row,) in rows:
                changed = {"input_uuid": uuid.uuid4().hex, "destination_id": run_id}
                _copy(database, "inputs", "input_uuid", row, changed)
    return target


def _copy(database: sqlite3.Connection, table: str, key: str, value: str, changed: dict[str, str]) -> None:
    """Copy the rows of a table where a column has a value, some columns changed."""
    columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
    wanted = ", ".join("?" if column in changed else f'"{column}"' for column in columns)
    given = [changed[column] for column in columns if column in changed]
    database.execute(f"INSERT INTO {table} SELECT {wanted} FROM {table} WHERE {key} = ?", (*given, value))
