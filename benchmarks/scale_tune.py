"""What tuning brings on the demo data: its winner against the default values, on hold-out targets.

A tuning looks at the training and validation targets alone. Then the winner and the defaults are each trained with
several seeds, as they would be without a tuning, and judged on the hold-out targets, which no choice was made on.

python benchmarks/scale_tune.py [--trials 20] [--processes 1] [--seeds 222 777 1337] [--override K=V] [--json FILE]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from measuring import table, write_json

import topotrain
from topotrain.evaluation.evaluate import MODEL, evaluate

SPACE = Path(__file__).resolve().parent.parent / "configs" / "spaces" / "default.yaml"
SHOWN = ("mean_ranking_loss", "mean_spearman", "mean_pearson", "mse")
Row = dict[str, Any]


def judged(name: str, config: Path | None, seeds: Sequence[int], overrides: Sequence[str], uri: str) -> list[Row]:
    """A row for each seed, and one for their mean: validation loss, and metrics of the hold-out targets."""
    rows: list[Row] = []
    for seed in seeds:
        given = [*overrides, f"dataloader.seed={seed}", "mlflow.register=best"]
        result = topotrain.fit(config, overrides=given, tracking_uri=uri, progress=False)
        report = evaluate(run=result.run_id, tracking_uri=uri).reports[MODEL].to_dict()
        metrics = {"val_loss": result.metrics["val_loss"], **{shown: report[shown] for shown in SHOWN}}
        rows.append({"settings": name, "seed": str(seed), **metrics})
    defined = [key for key in ("val_loss", *SHOWN) if None not in [row[key] for row in rows]]
    return [*rows, {"settings": name, "seed": "mean", **{key: mean(row[key] for row in rows) for key in defined}}]


def measure(
    workdir: Path,
    *,
    trials: int = 20,
    processes: int = 1,
    seeds: Sequence[int] = (222, 777, 1337),
    overrides: Sequence[str] = (),
    **_: Any,
) -> list[Row]:
    """Tune, train winner and defaults, judge both; one line says how the tuning went.

    Args:
        workdir: keeps the runs and the winning configuration.
        trials: of the tuning, default values first.
        processes: trials at once.
        seeds: of the trainings that are judged.
        overrides: of every recipe.
        **_: what other parts of scale.py measure with.
    """
    uri, out, started = f"sqlite:///{workdir / 'tune.db'}", workdir / "tuned.yaml", time.monotonic()
    options: dict[str, Any] = {"trials": trials, "jobs": processes, "overrides": overrides, "out": out}
    tuning = topotrain.tune(SPACE, **options, tracking_uri=uri)
    counts = ", ".join(f"{number} {status}" for status, number in Counter(one.status for one in tuning.trials).items())
    print(f"{(time.monotonic() - started) / 60:.1f} minutes; {counts}")
    print(f"trial {tuning.best} won: {tuning.winner.values if tuning.winner else None}")
    defaults = judged("default values", None, seeds, overrides, uri)
    return [*defaults, *judged("tuned", out, seeds, overrides, uri)]


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1, help="trials at once")
    parser.add_argument("--seeds", type=int, nargs="+", default=[222, 777, 1337])
    parser.add_argument("--override", action="append", default=[], help="of every recipe")
    parser.add_argument("--workdir", type=Path, default=None, help="keeps what was made; by default a temporary folder")
    parser.add_argument("--json", type=Path, default=None, help="write the numbers here too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workdir = (given.workdir or Path(folder)).absolute()
        workdir.mkdir(parents=True, exist_ok=True)
        options = {"trials": given.trials, "processes": given.processes, "seeds": given.seeds}
        rows = measure(workdir, **options, overrides=given.override)
    print(table(rows))
    write_json(given.json, rows)


if __name__ == "__main__":
    main()
