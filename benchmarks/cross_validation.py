r"""How well does a recipe rank complexes that it has never seen? Cross-validation between clusters of alike complexes.

Clusters are dealt into folds; each fold's complexes are scored by networks, and by baselines, that learned from the
others. Of these about a tenth steers a network (scheduler, stopping, choice of the checkpoint); baselines learn from
all. Printed are means over complexes for each data set and kind of decoy, of each arm (a recipe) and of the baselines,
with the paired difference to the larger trees and its 95 % interval: bootstrap over clusters. Every score stays in
--out, so that a benchmark that was stopped goes on where it was, and tables and pictures can be made again: those of
every arm that --out holds, with or without --arm.

python benchmarks/cross_validation.py --out judged --data bm5 bm5/graphs bm5/train.csv bm5/val.csv \
    --data docking real/graphs real/labels.csv --clusters bm5/targets.csv \
    --arm defaults --arm two_layers model.num_layers=2 --arm finetune configs/finetune.yaml --learning-curve 10 20 40 80

Label files have MODEL and dockq, and may have target and kind. Files of clusters have the columns target and cluster,
as `topotrain split STRUCTURES --out DIR` writes them; what any of them puts together stays together.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cross_validation_data import DataSet, Decoys, Fold, join, make_folds, write_labels
from cross_validation_report import BEST, LARGER_TREES, LAST, Judged, write_report
from sklearn.ensemble import HistGradientBoostingRegressor

import topotrain
from topotrain.config import load_config
from topotrain.data.pooled_columns import COUNTS, POOLED, pooled_columns
from topotrain.data.prepare import PreparedData
from topotrain.data.raw_features import truth
from topotrain.data.split import Split
from topotrain.errors import InterruptedRunError, UserInputError
from topotrain.fields import CHECKPOINT_DIR, LAST_CHECKPOINT
from topotrain.files import write_whole
from topotrain.metrics.ranking import Values
from topotrain.model.checkpoint import load_network
from topotrain.reading.json_file import read_json
from topotrain.scoring.scorer import Scorer
from topotrain.tracking.artifacts import checkpoint_of_uri
from topotrain.tracking.store import Store
from topotrain.training.baselines import Baselines

SCORES = "scores"
BASELINES = "baselines"
NOT_RECIPE = ("paths.", "mlflow.", "logging.", "dataloader.seed")
MOST_EPOCHS = 4  # times those of the recipe, with few complexes to learn from


@dataclass(frozen=True)
class Arm:
    """A recipe.

    Attributes:
        name: of the arm.
        config: YAML file; ``None`` for the defaults.
        overrides: on top of it.
    """

    name: str
    config: str | None
    overrides: tuple[str, ...]

    @classmethod
    def of(cls, words: Sequence[str]) -> Arm:
        """``NAME [CONFIG] [KEY=VALUE ...]``."""
        name, *rest = words
        config = rest.pop(0) if rest and "=" not in rest[0] else None
        return cls(name, config, tuple(rest))

    def recipe(self) -> dict[str, str]:
        """What decides its results, apart from data and seed."""
        flat = load_config(self.config, self.overrides).config.flat()
        return {key: value for key, value in flat.items() if not key.startswith(NOT_RECIPE)}


@dataclass(frozen=True)
class Bench:
    """Where results are kept, and what they are of.

    Attributes:
        decoys: all of them.
        out: folder of the results.
        uri: of the tracking store of the runs, which are thrown away.
        folder: of that store.
    """

    decoys: Decoys
    out: Path
    uri: str
    folder: Path

    def path(self, arm: str, fold: Fold, seed: int | None = None) -> Path:
        """The file of one run's scores."""
        return self.out / SCORES / arm / f"{fold.name}{'' if seed is None else f'-s{seed}'}.json"

    def kept(self, path: Path, digest: str) -> bool:
        """Whether a result is there already.

        Raises:
            UserInputError: it is of another recipe, or other data.
        """
        if not path.exists():
            return False
        if read_json(path, "scores")["digest"] != digest:
            raise UserInputError(f"{path} is of another recipe or other data", "the same", "give another name or --out")
        return True

    def digest(self, recipe: Any, fold: Fold) -> str:
        """SHA-256 over what a result is made of."""
        data = [[(x.key, x.dockq) for x in self.decoys.of(names)] for names in (fold.train, fold.val, fold.held_out)]
        return hashlib.sha256(json.dumps([recipe, data], sort_keys=True).encode()).hexdigest()

    def run_baselines(self, fold: Fold) -> None:
        """Let them learn from all but the complexes that are held out, and keep what they say of these."""
        path, digest = self.path(BASELINES, fold), self.digest([BASELINES, LARGER_TREES], fold)
        if self.kept(path, digest):
            return
        data = self.decoys.parted(fold.learned, fold.held_out)
        keys = [sample.key for sample in data.val.samples]
        predicted = {LARGER_TREES: larger_trees(data), **Baselines(data).predicted}
        scores = {name: dict(zip(keys, values.tolist(), strict=True)) for name, values in predicted.items()}
        write_result(path, {"digest": digest, "scores": scores})

    def run_arm(self, arm: Arm, fold: Fold, seed: int) -> None:
        """Train, and keep what the best and the last epoch say of the complexes that are held out."""
        path, digest = self.path(arm.name, fold, seed), self.digest(arm.recipe(), fold)
        if self.kept(path, digest):
            return
        started = time.process_time()
        overrides = [*arm.overrides, *self._data_of(fold), f"dataloader.seed={seed}", "mlflow.register=none"]
        if fold.size:
            overrides += self._longer(arm, fold)
        result = topotrain.fit(arm.config, overrides=overrides, tracking_uri=self.uri, progress=False)
        seconds = time.process_time() - started
        best = self._scores(result.best_checkpoint, fold)
        last = best
        if result.best_epoch != result.epochs - 1:
            last = self._scores(f"runs:/{result.run_id}/{CHECKPOINT_DIR}/{LAST_CHECKPOINT}", fold)
        shutil.rmtree(self.folder / "mlartifacts")
        said = {"seconds": seconds, "epochs": result.epochs, "best_epoch": result.best_epoch}
        write_result(path, {"digest": digest, **said, "scores": {BEST: best, LAST: last}})
        print(
            f"{arm.name} {fold.name} seed {seed}: {seconds:.1f} s, {result.epochs} epochs, best {result.best_epoch}",
            file=sys.stderr,
            flush=True,
        )

    def _longer(self, arm: Arm, fold: Fold) -> Iterator[str]:
        """As many more epochs as there are fewer complexes, where the recipe gives a number of epochs."""
        epochs = load_config(arm.config, arm.overrides).config.trainer.num_epochs
        if epochs is not None:
            fewer = (len(self.decoys.clusters) - len(fold.held_out)) / len(fold.learned)
            yield f"trainer.num_epochs={round(epochs * min(MOST_EPOCHS, fewer))}"

    def _data_of(self, fold: Fold) -> Iterator[str]:
        yield f"paths.graph={self.decoys.all.graph_dir}"
        yield f"paths.cache={self.decoys.cache}"
        for split, names in (("train", fold.train), ("val", fold.val)):
            rows = ((sample.key, sample.dockq, sample.target) for sample in self.decoys.of(names))
            yield f"paths.{split}_labels={write_labels(rows, self.folder / f'{fold.name}-{split}.csv')}"

    def _scores(self, checkpoint: str, fold: Fold) -> dict[str, float]:
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            store = Store.open(self.uri)
            network, schema = load_network(store.artifacts.fetch(checkpoint_of_uri(checkpoint), Path(folder)))
        held_out = self.decoys.parted(fold.learned, fold.held_out).val
        scores = Scorer(network, schema).scores(held_out.known())
        return dict(zip((sample.key for sample in held_out.samples), scores, strict=True))


def larger_trees(data: PreparedData) -> Values:
    """What trees predict that learned for some ten times as long as those of a run, from sums of columns too.

    Returns:
        (num_graphs,) predictions for the graphs that are held out.
    """
    node_dim, edge_dim = data.schema.node_dim, data.schema.edge_dim

    def columns(split: Split) -> Values:
        table = pooled_columns(split.packed(data.schema), node_dim, edge_dim)
        counts, nodes, edges = np.split(table, [COUNTS, COUNTS + POOLED * node_dim], axis=1)
        return np.hstack([table, nodes[:, :node_dim] * counts[:, :1], edges[:, :edge_dim] * counts[:, 1:]])

    model = HistGradientBoostingRegressor(max_iter=300, learning_rate=0.05, max_features=0.3, random_state=0)
    predicted: Values = model.fit(columns(data.train), truth(data.train)[0]).predict(columns(data.val))
    return predicted


def write_result(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, (json.dumps(content) + "\n").encode())


def read_results(out: Path, *, last: bool) -> Iterator[Judged]:
    """Every result that a folder holds."""
    for path in sorted((out / SCORES).glob("*/*.json")):
        content, words = read_json(path, "scores"), dict((word[0], int(word[1:])) for word in path.stem.split("-"))
        where = words["r"], words["f"], words.get("n")
        if path.parent.name == BASELINES:
            for name, scores in content["scores"].items():
                yield Judged(name, *where, None, scores)
        else:
            scores = content["scores"][LAST if last else BEST]
            yield Judged(path.parent.name, *where, words["s"], scores, content["seconds"], content["epochs"])


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", action="append", required=True, metavar="NAME GRAPHS LABELS")
    parser.add_argument("--clusters", type=Path, action="append", default=[], metavar="CSV")
    parser.add_argument("--arm", nargs="+", action="append", default=[], metavar="NAME [CONFIG] [KEY=VALUE]")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=1, help="each with other folds (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[222, 777, 1337])
    parser.add_argument(
        "--turn", action="store_true", help="another tenth steers each seed: averaged, they are an ensemble of folds"
    )
    parser.add_argument("--against", default=LARGER_TREES, metavar="ARM", help="differences to it (%(default)s)")
    parser.add_argument("--learning-curve", type=int, nargs="+", default=[], metavar="COMPLEXES")
    parser.add_argument("--last", action="store_true", help="judge the last epoch in place of the best")
    parser.add_argument("--out", type=Path, required=True, help="where scores and pictures are kept")
    given = parser.parse_args()
    if any(len(words) < 3 for words in given.data):
        parser.error("--data takes a name, a directory of graphs and at least one label file")
    if any(words[0] == BASELINES for words in given.arm):
        parser.error(f"an arm can't be called {BASELINES}")
    return given


def main() -> None:
    """Train what is not there yet, then print a Markdown table and draw."""
    given = parsed()
    out = given.out.absolute()
    data = [DataSet(name, Path(graphs), [Path(path) for path in paths]) for name, graphs, *paths in given.data]
    arms = [Arm.of(words) for words in given.arm]
    decoys = join(data, given.clusters, out)
    folds = [fold for number in range(given.repetitions) for fold in make_folds(decoys, given.folds, number + 1)]
    most = round(float(np.mean([len(fold.learned) for fold in folds])))
    folds += [fold.limited(size) for size in given.learning_curve for fold in folds]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(decoys, out, f"sqlite:///{folder}/mlflow.db", Path(folder))
        for fold in folds:
            bench.run_baselines(fold)
        for number, seed in enumerate(given.seeds):
            for arm in arms:
                for fold in folds:
                    bench.run_arm(arm, fold.turned(number) if given.turn else fold, seed)
    print(write_report(decoys, list(read_results(out, last=given.last)), most, out, given.against))


if __name__ == "__main__":
    try:
        main()
    except InterruptedRunError:
        raise SystemExit("stopped; begun again, it goes on where it was") from None
    except UserInputError as error:
        raise SystemExit(f"error: {error}") from None
