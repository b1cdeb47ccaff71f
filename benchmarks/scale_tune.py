"""What tuning brings on the demo data: its winner against the default values, on hold-out targets.

A tuning looks at the training and validation targets alone. Then the winner and the defaults are each trained with
several seeds, as they would be without a tuning, and judged on the hold-out targets, which no choice was made on.

python benchmarks/scale_tune.py [--trials 20] [--jobs 1] [--seeds 222 777 1337] [--override K=V] [--json FILE]
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
DEFAULTS, WINNER = "default values", "tuned"


def judged(config: Path | None, seeds: Sequence[int], overrides: Sequence[str], uri: str) -> list[dict[str, Any]]:
    """A row for each seed: validation loss, and metrics of the hold-out targets."""
    rows = []
    for seed in seeds:
        given = [*overrides, f"dataloader.seed={seed}", "mlflow.register=best"]
        result = topotrain.fit(config, overrides=given, tracking_uri=uri, progress=False)
        report = evaluate(run=result.run_id, tracking_uri=uri).reports[MODEL].to_dict()
        rows.append({"seed": seed, "val_loss": result.metrics["val_loss"], **{name: report[name] for name in SHOWN}})
    return rows


def averaged(name: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean over seeds; a metric that is undefined with one of them is a gap."""
    defined = {key: [row[key] for row in rows] for key in ("val_loss", *SHOWN)}
    means = {key: mean(values) for key, values in defined.items() if None not in values}
    return {"settings": f"{name}, mean of {len(rows)} seeds", **means}


def measure(
    trials: int = 20, jobs: int = 1, seeds: Sequence[int] = (222, 777, 1337), overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Tune, train winner and defaults, judge both.

    Args:
        trials: of the tuning, default values first.
        jobs: runs at once.
        seeds: of the trainings that are judged.
        overrides: of every recipe.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        uri, out, started = f"sqlite:///{folder / 'mlflow.db'}", folder / "winner.yaml", time.monotonic()
        options: dict[str, Any] = {"trials": trials, "jobs": jobs, "overrides": overrides, "out": out}
        tuning = topotrain.tune(SPACE, **options, tracking_uri=uri)
        minutes = (time.monotonic() - started) / 60
        rows = {DEFAULTS: judged(None, seeds, overrides, uri), WINNER: judged(out, seeds, overrides, uri)}
    return {
        "minutes of tuning": minutes,
        "trials": dict(Counter(one.status for one in tuning.trials)),
        "winner": tuning.winner.values if tuning.winner else {},
        "best": tuning.best,
        "val_loss of the tuning": {
            DEFAULTS: tuning.trials[0].value,
            WINNER: tuning.winner.value if tuning.winner else None,
        },
        "rows": rows,
        "table": [averaged(one, found) for one, found in rows.items()],
    }


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[222, 777, 1337])
    parser.add_argument("--override", action="append", default=[], help="of every recipe")
    parser.add_argument("--json", type=Path, default=None, help="write the numbers here too")
    arguments = parser.parse_args()
    found = measure(arguments.trials, arguments.jobs, arguments.seeds, arguments.override)
    print(f"{found['minutes of tuning']:.1f} minutes; trials {found['trials']}")
    print(f"trial {found['best']} won: {found['winner']}")
    print(table(found["table"]))
    for name, rows in found["rows"].items():
        print(f"\n{name}\n{table(rows)}")
    write_json(arguments.json, found)


if __name__ == "__main__":
    main()
