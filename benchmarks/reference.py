"""The yardstick: network, training and scoring as a good engineer would write them first, on PyG and Lightning.

python benchmarks/reference.py train --graphs DIR --train train.csv --val val.csv --out RUN --epochs 5
python benchmarks/reference.py score --checkpoint RUN/checkpoints/last.ckpt --graphs DIR --out scores.csv

The network is topotrain's, with the same defaults and the same names of weights: ``GATv2Conv`` layers, an edge update
by ``Linear(96, 32 H)`` whose heads are averaged afterwards, input scaling fitted over the training graphs. Graphs are
read by one ``torch.load`` each, the last 256 stay in memory, PyG's ``DataLoader`` makes batches, Lightning's
``Trainer`` trains with Adam and ``ReduceLROnPlateau``, the three best checkpoints and the last are kept, and
``MLFlowLogger`` records the curves. Nothing is slowed down: progress bars are off, and files are not checked.
It imports nothing of topotrain.
"""

from __future__ import annotations

import argparse
import csv
import functools
import sys
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.data import Batch, Data, Dataset
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GATv2Conv, global_mean_pool
from torch_geometric.utils import scatter

CACHED = 256  # graphs kept in memory
SCORED_AT_ONCE = 16  # faster here than 32 or 64, and as fast as 8
CONSTANT_BELOW = 1e-6


@dataclass(frozen=True)
class Settings:
    """Of network and training; topotrain's defaults."""

    node_dim: int
    edge_dim: int
    hidden: int = 32
    heads: int = 8
    layers: int = 2
    dropout: float = 0.25
    learning_rate: float = 0.0005
    weight_decay: float = 0.0003
    factor: float = 0.4
    patience: int = 12


class Scaling(nn.Module):
    """``(values - mean) / scale`` per column."""

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def fit(self, tensors: Iterable[Tensor]) -> None:
        """Mean and standard deviation over the rows of all of them, in one pass."""
        count, total, squares = 0, torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        for values in tensors:
            wide = values.double()
            count, total, squares = count + len(wide), total + wide.sum(0), squares + wide.square().sum(0)
        mean = total / max(count, 1)
        deviation = (squares / max(count, 1) - mean.square()).clamp(min=0).sqrt()
        constant = deviation < CONSTANT_BELOW * mean.abs().clamp(min=1.0)
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(constant, torch.ones_like(deviation), deviation))

    def forward(self, values: Tensor) -> Tensor:
        scaled: Tensor = (values - self.mean) / self.scale
        return scaled


class EdgeUpdate(nn.Module):
    """New edge features from both ends and the edge, a set for each head, averaged."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.hidden, self.heads = hidden, heads
        self.linear = nn.Linear(3 * hidden, heads * hidden)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        source, target = edge_index
        updated = self.linear(torch.cat([x[source], x[target], edge_attr], dim=-1))  # (num_edges, heads * hidden)
        mean: Tensor = updated.view(-1, self.heads, self.hidden).mean(dim=1)
        return mean


class Layer(nn.Module):
    """GATv2, the edge update on its new nodes, ELU on both."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        hidden = settings.hidden
        self.conv = GATv2Conv(
            *(hidden, hidden, settings.heads),
            concat=False,
            dropout=settings.dropout,
            edge_dim=hidden,
            add_self_loops=False,
        )
        self.edge_update = EdgeUpdate(hidden, settings.heads)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv(x, edge_index, edge_attr)
        edge_attr = self.edge_update(x, edge_index, edge_attr)
        return functional.elu(x), functional.elu(edge_attr)


class Network(nn.Module):
    """Scores a batch of interface graphs."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        hidden = settings.hidden
        self.node_scaling, self.edge_scaling = Scaling(settings.node_dim), Scaling(settings.edge_dim)
        self.node_embedding = nn.Linear(settings.node_dim, hidden)
        self.edge_encoder = nn.Sequential(
            nn.Linear(settings.edge_dim, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, hidden)
        )
        self.layers = nn.ModuleList(Layer(settings) for _ in range(settings.layers))
        self.edge_readout = nn.Linear(hidden, hidden // 2)
        self.head = nn.Sequential(
            *(nn.Linear(hidden + hidden // 2, 2 * hidden), nn.ReLU()),
            *(nn.Linear(2 * hidden, 2 * hidden), nn.ReLU()),
            *(nn.Linear(2 * hidden, 1), nn.Sigmoid()),
        )

    def forward(self, data: Batch) -> Tensor:
        x = self.node_embedding(self.node_scaling(data.x))
        edge_attr = self.edge_encoder(self.edge_scaling(data.edge_attr))
        for layer in self.layers:
            x, edge_attr = layer(x, data.edge_index, edge_attr)
        nodes = global_mean_pool(x, data.batch, data.num_graphs)
        edges = scatter(edge_attr, data.batch[data.edge_index[0]], dim_size=data.num_graphs, reduce="mean")
        scores: Tensor = self.head(torch.cat([nodes, self.edge_readout(edges)], dim=-1)).squeeze(-1)
        return scores


class GraphFiles(Dataset):  # type: ignore[misc]
    """Graphs of a directory, read when they are asked for.

    Args:
        root: the directory.
        names: of the graphs, without ``.pt``.
        dockq: of each, where it is known.
        cached: how many of the last ones stay in memory.
    """

    def __init__(
        self, root: Path, names: Sequence[str], dockq: Sequence[float] | None = None, cached: int = CACHED
    ) -> None:
        super().__init__()
        self.paths = [root / f"{name}.pt" for name in names]
        self.dockq = dockq
        self.get = functools.lru_cache(maxsize=cached)(self._read)

    @classmethod
    def of_labels(cls, root: Path, labels: Path) -> GraphFiles:
        """Those that a label file names."""
        with labels.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return cls(root, [row["MODEL"] for row in rows], [float(row["dockq"]) for row in rows])

    def len(self) -> int:
        return len(self.paths)

    def _read(self, place: int) -> Data:
        stored = torch.load(self.paths[place], weights_only=False)
        data = Data(x=stored.x, edge_index=stored.edge_index, edge_attr=stored.edge_attr)
        if self.dockq is not None:
            data.y = torch.tensor([self.dockq[place]])
        return data


class Scorer(pl.LightningModule):
    """Loss, optimiser, metrics."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.settings = Settings(**settings)
        self.network = Network(self.settings)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = self.network(batch)
        return scores

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = functional.mse_loss(self(batch), batch.y)
        self.log("train_mse", loss, on_step=False, on_epoch=True, batch_size=batch.num_graphs)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.seen.append((self(batch), batch.y))

    def on_validation_epoch_end(self) -> None:
        from scipy.stats import pearsonr, spearmanr

        predicted, true = (torch.cat(parts) for parts in zip(*self.seen, strict=True))
        self.seen.clear()
        self.log("val_loss", functional.mse_loss(predicted, true))
        if len(true) > 1:
            self.log("val_pearson_corr", float(pearsonr(predicted.numpy(), true.numpy()).statistic))
            self.log("val_spearman_corr", float(spearmanr(predicted.numpy(), true.numpy()).statistic))

    def configure_optimizers(self) -> Any:
        chosen = self.settings
        optimizer = torch.optim.Adam(self.parameters(), lr=chosen.learning_rate, weight_decay=chosen.weight_decay)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=chosen.factor, patience=chosen.patience
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}


class EpochLines(Callback):
    """A line for each epoch on standard error, when everything of it is done; as topotrain has them."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch:
            self._show(trainer, trainer.current_epoch - 1)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._show(trainer, (trainer.max_epochs or 1) - 1)

    def _show(self, trainer: pl.Trainer, epoch: int) -> None:
        shown = "  ".join(f"{name} {float(value):.4f}" for name, value in sorted(trainer.callback_metrics.items()))
        print(f"epoch {epoch}/{(trainer.max_epochs or 0) - 1}  {shown}", file=sys.stderr, flush=True)


def make_scorer(train: GraphFiles, seed: int = 222, **settings: Any) -> Scorer:
    """A new network, its scaling fitted."""
    pl.seed_everything(seed, verbose=False)
    first = train[0]
    chosen = Settings(node_dim=first.x.shape[1], edge_dim=first.edge_attr.shape[1], **settings)
    scorer = Scorer(asdict(chosen))
    scorer.network.node_scaling.fit(graph.x for graph in train)
    scorer.network.edge_scaling.fit(graph.edge_attr for graph in train)
    return scorer


def train(given: argparse.Namespace) -> None:
    """Fit and record."""
    from pytorch_lightning.loggers import MLFlowLogger

    files = [GraphFiles.of_labels(given.graphs, labels) for labels in (given.train, given.val)]
    loaders = [DataLoader(part, batch_size=given.batch_size, shuffle=part is files[0]) for part in files]
    scorer = make_scorer(files[0], given.seed)
    given.out.mkdir(parents=True, exist_ok=True)
    uri = given.tracking_uri or f"sqlite:///{given.out.absolute() / 'mlflow.db'}"
    logger = MLFlowLogger("reference", tracking_uri=uri, artifact_location=str(given.out.absolute() / "artifacts"))
    checkpoints = ModelCheckpoint(given.out / "checkpoints", monitor="val_loss", save_top_k=3, save_last=True)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=given.epochs,
        logger=logger,
        callbacks=[checkpoints, EarlyStopping("val_loss", patience=25), EpochLines()],
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_train_batches=given.limit_batches,
        limit_val_batches=given.limit_batches,
        default_root_dir=str(given.out),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        trainer.fit(scorer, *loaders)


def score_directory(scorer: Scorer, graphs: Path, out: Path) -> int:
    """A table of all graphs below a directory; says how many."""
    names = sorted(str(path.relative_to(graphs).with_suffix("")) for path in graphs.rglob("*.pt"))
    files = GraphFiles(graphs, names, cached=0)
    scorer.eval()
    scores: list[float] = []
    with torch.inference_mode():
        for batch in DataLoader(files, batch_size=SCORED_AT_ONCE):
            scores += scorer(batch).tolist()
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("MODEL", "pred_dockq"))
        writer.writerows((name, f"{score:.6f}") for name, score in zip(names, scores, strict=True))
    return len(scores)


def score(given: argparse.Namespace) -> None:
    """Score a directory."""
    scorer = Scorer.load_from_checkpoint(given.checkpoint, map_location="cpu", weights_only=False)
    started = time.perf_counter()
    number = score_directory(scorer, given.graphs, given.out)
    print(f"{number} graphs in {time.perf_counter() - started:.2f} s", file=sys.stderr)


def main() -> None:
    """Train or score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("train", help="train a network")
    one.set_defaults(do=train)
    for name in ("graphs", "train", "val", "out"):
        one.add_argument(f"--{name}", type=Path, required=True)
    one.add_argument("--epochs", type=int, default=100)
    one.add_argument("--batch-size", type=int, default=16)
    one.add_argument("--seed", type=int, default=222)
    one.add_argument("--limit-batches", type=int, default=None, help="of an epoch and of its validation")
    one.add_argument("--tracking-uri", default=None, help="by default mlflow.db in --out")
    two = commands.add_parser("score", help="score a directory")
    two.set_defaults(do=score)
    for name in ("checkpoint", "graphs", "out"):
        two.add_argument(f"--{name}", type=Path, required=True)
    for command in (one, two):
        command.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.do(given)


if __name__ == "__main__":
    main()
