"""What ``topotrain evaluate`` says of the default configuration, trained on the demo data with several seeds.

Each seed is trained, registered and judged on the hold-out targets of the demo data, as a user would by the commands.
The table has a column for each seed and one for each free baseline; the last line is the mean of the seeds. Hold-out
targets are for a last look: no choice belongs on their metrics.

python benchmarks/evaluate_demo.py [--seeds 222 777 1337] [--override trainer.num_epochs=2] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import topotrain
from topotrain.evaluation.evaluate import MODEL, Evaluation, evaluate
from topotrain.evaluation.table import summary_table
from topotrain.progress import track

MEANS = ("mean_ranking_loss", "mean_spearman", "mean_pearson", "mse", "mae")


def train_and_judge(seed: int, overrides: list[str], uri: str) -> Evaluation:
    """Train with one seed and judge the best version on the hold-out targets."""
    result = topotrain.fit(
        None, overrides=[f"dataloader.seed={seed}", "mlflow.register=best", *overrides], tracking_uri=uri
    )
    return evaluate(run=result.run_id, tracking_uri=uri, progress=track)


def mean_of_seeds(documents: list[dict[str, Any]]) -> str:
    """One line: the mean over seeds of the main metrics, where every seed has them."""
    parts = []
    for name in MEANS:
        values = [document[name] for document in documents]
        defined = all(value is not None for value in values)
        parts.append(f"{name} {sum(values) / len(values):.4f}" if defined else f"{name} undefined")
    return f"mean of {len(documents)} seeds: {', '.join(parts)}"


def main() -> None:
    """Train, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[222, 777, 1337])
    parser.add_argument("--override", action="append", default=[], help="of the configuration")
    parser.add_argument("--tracking-uri", default=None, help="keep the runs here; by default they are thrown away")
    parser.add_argument("--json", type=Path, default=None, help="write the numbers here too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        uri = arguments.tracking_uri or f"sqlite:///{folder}/mlflow.db"
        judged = {f"seed {seed}": train_and_judge(seed, arguments.override, uri) for seed in arguments.seeds}
    models = {name: evaluation.reports[MODEL].to_dict() for name, evaluation in judged.items()}
    first = next(iter(judged.values()))
    free = {name: one.to_dict() for name, one in first.reports.items() if name != MODEL}
    print("\n".join(summary_table({**models, **free})))
    print(f"best raw feature: {first.data['raw_feature']}; data digest {first.data['digest']}")
    print(mean_of_seeds(list(models.values())))
    if arguments.json:
        arguments.json.write_text(json.dumps({**models, **free}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
