"""The file of a local tracking store: made once and whole, and known to SQLite as it grows."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from uuid import uuid4

import mlflow
from filelock import FileLock
from mlflow.tracking import MlflowClient

from topotrain.files import cache_dir, replacing

CREATION_SECONDS = 60  # to wait for another process that makes it; a folder of /proc takes no lock, ever
GROWTH = 10
STATISTICS_ROWS = 400  # of each index that are looked at
STATISTICS_SECONDS = 0.2  # to wait for whoever writes


def create_once(database: Path) -> None:
    """Create a local database under a lock: MLflow leaves it unusable when two processes do so at once."""
    if database.exists() and database.stat().st_size:
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock", timeout=CREATION_SECONDS):
        if database.exists() and database.stat().st_size:
            return
        # Made aside and renamed: whoever sees the database sees all of it, and a kill leaves none that is half made.
        aside = database.with_name(f".{database.name}.new")
        aside.unlink(missing_ok=True)
        with closing(_empty_tables()) as tables, closing(sqlite3.connect(aside)) as file:
            tables.backup(file)
        # MLflow adds its first experiment, whose artifacts are in a folder here.
        MlflowClient(tracking_uri=f"sqlite:///{aside}").search_experiments(max_results=1)
        with closing(sqlite3.connect(aside)) as file:  # readers and writers then do not wait for each other
            file.execute("PRAGMA journal_mode=WAL")
        os.replace(aside, database)


def keep_statistics(database: Path) -> None:
    """Let SQLite look at what a database holds, where that grew tenfold since, so that it finds good ways to answer.

    Without, it orders runs by a metric in a time that grows with the square of their number. It takes milliseconds,
    and is no more than a help: a database that is busy or can't be written is left as it is.
    """
    with suppress(sqlite3.Error), closing(sqlite3.connect(database, timeout=STATISTICS_SECONDS)) as connection:
        (runs,) = connection.execute("SELECT count(*) FROM runs").fetchone()
        kept = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_stat1'").fetchone()
        lines = connection.execute("SELECT stat FROM sqlite_stat1 WHERE tbl = 'runs'").fetchall() if kept else []
        known = max((int(line.split()[0]) for (line,) in lines), default=1)
        if runs >= GROWTH * known:
            connection.execute(f"PRAGMA analysis_limit={STATISTICS_ROWS}")
            connection.execute("ANALYZE")


def _empty_tables() -> sqlite3.Connection:
    """MLflow's tables, empty. Making them takes most of a second, so that they are kept with what can be made again."""
    kept = cache_dir() / f"mlflow-{mlflow.__version__}" / "tables.db"
    if kept.exists():
        with suppress(sqlite3.Error):
            connection = sqlite3.connect(kept)
            if connection.execute("PRAGMA quick_check").fetchone() == ("ok",) and _is_whole(connection):
                return connection
            connection.close()
    made = _made_by_mlflow()
    with suppress(OSError, sqlite3.Error), replacing(kept) as aside, closing(sqlite3.connect(aside)) as file:
        made.backup(file)
    return made


def _is_whole(connection: sqlite3.Connection) -> bool:
    """Whether MLflow has noted that it made all of its tables, and none of them says anything of a store."""
    versions = connection.execute("SELECT count(*) FROM alembic_version").fetchone()
    experiments = connection.execute("SELECT count(*) FROM experiments").fetchone()
    return bool(versions == (1,) and experiments == (0,))


def _made_by_mlflow() -> sqlite3.Connection:
    """Made in memory: on disk, each of its many hundred statements would wait for the disk."""
    name = f"file:topotrain-{uuid4().hex}?mode=memory&cache=shared"
    connection = sqlite3.connect(name, uri=True)  # the database is there as long as somebody is connected
    MlflowClient(tracking_uri=f"sqlite:///{name}&uri=true").search_experiments(max_results=1)
    connection.execute("DELETE FROM experiments")  # the first one, which is of this folder
    connection.commit()
    return connection
