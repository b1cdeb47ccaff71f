"""One optimiser step of both networks on the same batches and weights, in one process, in turn; and its roofline."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from made_graphs import Made, Shape, write_set
from measuring import Spread, ratios
from processes import OURS, PUBLISHED, THEIRS
from reference import GraphFiles, make_scorer
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.data import Batch

BATCH = 16
# Relative difference of losses and of gradients. One of some million hidden values that rounding puts on the other side
# of the leaky ReLU's kink is worth 1e-4 of a gradient; a wrong formula is worth all of it.
AGREE = 1e-3


@dataclass
class Pair:
    """Both sides on one set of graphs, with equal weights.

    Attributes:
        networks: of each side; their parameters have the same names.
        losses: of each side: the loss of its batch.
        optimizers: of each side.
        batches: fresh ones of each side, the same graphs in each.
    """

    networks: dict[str, nn.Module]
    losses: dict[str, Callable[[Any], Tensor]]
    optimizers: dict[str, torch.optim.Optimizer]
    batches: Callable[[], list[dict[str, Any]]]

    def step(self, side: str, batch: Any) -> None:
        """One step of the optimiser."""
        self.optimizers[side].zero_grad()
        self.losses[side](batch).backward()  # type: ignore[no-untyped-call]
        self.optimizers[side].step()


def make_pair(made: Made, cache: Path, dropout: float) -> Pair:
    """The networks as the two training loops have them."""
    from topotrain.config import load_config
    from topotrain.data.prepare import prepare_data
    from topotrain.model.lightning import ScoringModule
    from topotrain.model.network import TopoQANetwork
    from topotrain.training.network_shape import network_spec

    files = GraphFiles.of_labels(made.graphs, made.train_labels)
    theirs = make_scorer(files, dropout=dropout)
    settings = [*made.overrides, f"model.dropout={dropout}", f"paths.cache={cache}", f"dataloader.batch_size={BATCH}"]
    config = load_config(PUBLISHED, settings).config
    data = prepare_data(config)
    network = TopoQANetwork(network_spec(data.schema, config))
    network.load_state_dict(theirs.network.state_dict())
    module = ScoringModule(network, config, data.module.train, data.module.val)

    def batches() -> list[dict[str, Any]]:
        cut = list(data.module.train_dataloader())
        return [{OURS: one, THEIRS: Batch.from_data_list([files[i] for i in one.index.tolist()])} for one in cut]

    network.train()
    theirs.train()
    return Pair(
        {OURS: network, THEIRS: theirs.network},
        {
            OURS: lambda batch: module.training_step(batch, 0),
            THEIRS: lambda batch: functional.mse_loss(theirs(batch), batch.y),
        },
        {OURS: module.configure_optimizers()["optimizer"], THEIRS: theirs.configure_optimizers()["optimizer"]},
        batches,
    )


def check_equal(made: Made, cache: Path) -> float:
    """The largest difference of losses and gradients over some batches, relative to their size; dropout is off.

    Weights are made larger first: those of a new network give every graph nearly the same score.

    Raises:
        SystemExit: it is too large for two networks of one formula.
    """
    pair = make_pair(made, cache, dropout=0.0)
    with torch.no_grad():
        for network in pair.networks.values():
            for parameter in network.parameters():
                parameter.mul_(3.0)
    worst = 0.0
    for batch in pair.batches()[:3]:
        found = {}
        for side, network in pair.networks.items():
            network.zero_grad()
            loss = pair.losses[side](batch[side])
            loss.backward()  # type: ignore[no-untyped-call]
            gradients = [value.grad for _, value in sorted(network.named_parameters())]
            gradient = torch.cat([value.flatten() for value in gradients if value is not None])
            found[side] = (loss.detach(), gradient)
        for ours, theirs in zip(found[OURS], found[THEIRS], strict=True):
            worst = max(worst, float((ours - theirs).norm() / theirs.norm()))
    if not worst < AGREE:
        raise SystemExit(f"the two networks differ: losses or gradients by {worst:.2g} of their size")
    return worst


def measure_step(shape: Shape, workdir: Path, rounds: int, num_batches: int = 4) -> dict[str, Any]:
    """Processor milliseconds of a step of each side, and how many times as fast ours is.

    Sizes do not vary here. Processor time, since one thread does everything, and other processes then cost nothing.
    """
    even = replace(shape, spread=0.0)
    name = f"step-{even.nodes}-{even.edges}-{even.node_dim}-{even.edge_dim}{'-directed' * even.directed}"
    made = write_set(workdir / name, even, BATCH * num_batches * 10 // 9 + 8)
    difference = check_equal(made, workdir / f"{name}-cache")
    pair = make_pair(made, workdir / f"{name}-cache", dropout=0.25)
    taken: dict[str, list[float]] = {OURS: [], THEIRS: []}
    for number in range(rounds + 1):
        spent = dict.fromkeys(taken, 0.0)
        batches = [batch for batch in pair.batches() if batch[OURS].num_graphs == BATCH]
        for place, batch in enumerate(batches):
            for side in sorted(spent, reverse=bool(place % 2)):
                started = time.process_time()
                pair.step(side, batch[side])
                spent[side] += time.process_time() - started
        if number:  # the first round warms up
            for side, value in spent.items():
                taken[side].append(1e3 * value / len(batches))
    return {
        "ours": Spread.of(taken[OURS]),
        "reference": Spread.of(taken[THEIRS]),
        "ratio": ratios(taken[THEIRS], taken[OURS]),
        "losses and gradients differ by": difference,
    }


def gigaflop(nodes: int, edges: int, shape: Shape, hidden: int = 32, heads: int = 8, layers: int = 2) -> float:
    """Floating point operations of one step in 10^9, by the formula of ``FORMULA``; N nodes and E edges in a batch."""
    wide = heads * hidden
    first = nodes * shape.node_dim * hidden + edges * shape.edge_dim * hidden  # forward and dW: inputs need no gradient
    encoder = edges * hidden * hidden
    attention = nodes * hidden * 2 * wide + edges * hidden * wide
    update = nodes * 2 * hidden * hidden + edges * hidden * hidden
    edgewise = 2 * edges * wide  # scores and weighted sums
    return 2e-9 * (2 * first + 3 * (encoder + layers * (attention + update + edgewise)))


def gigabytes(nodes: int, edges: int, shape: Shape, hidden: int = 32, heads: int = 8, layers: int = 2) -> float:
    """Bytes that a step has to move in 10^9: inputs twice, what backward needs written once and read once."""
    wide = heads * hidden
    inputs = 2 * 4 * (nodes * shape.node_dim + edges * shape.edge_dim)
    kept = layers * (4 * (2 * edges * hidden + 2 * nodes * hidden + 2 * nodes * wide + 2 * edges * heads))
    signs = layers * 2 * edges * wide
    return 1e-9 * (inputs + 2 * (kept + signs))


FORMULA = """GFLOP of a step = 2e-9 (2 (N n h + E e h) + 3 (E h h + L (2 N h K + E h K + 2 N h h + E h h + 2 E K)))
with N nodes and E edges in the batch, n and e columns, h = 32, H = 8 heads, K = H h, L = 2 layers: each product once
forward and twice backward, the first two not towards the inputs, which need no gradient.
GB of a step >= 1e-9 (8 (N n + E e) + 2 L (4 (2 E h + 2 N h + 2 N K + 2 E H) + 2 E K)): inputs read twice; node and edge
features, projected nodes, attention and one sign (16 bits) for each of E K values written once and read once."""


def machine_speed() -> dict[str, float]:
    """What one thread of this processor does."""

    def gemm(rows: int, inner: int, columns: int) -> float:
        left, right, out = torch.randn(rows, inner), torch.randn(inner, columns), torch.empty(rows, columns)
        times = max(1, int(2e9 / (2 * rows * inner * columns)))

        def work() -> None:
            for _ in range(times):
                torch.mm(left, right, out=out)

        return 2e-9 * rows * inner * columns * times / quick(work)

    def quick(action: Callable[[], Any]) -> float:
        taken = []
        for _ in range(20):
            started = time.process_time()
            action()
            taken.append(time.process_time() - started)
        return sorted(taken)[len(taken) // 4]

    source, target = torch.ones(1 << 25), torch.empty(1 << 25)
    target.copy_(source)
    copied = 2 * 4e-9 * source.numel() / quick(lambda: target.copy_(source))
    return {
        "GFLOP/s, 1024 x 1024 by 1024 x 1024": gemm(1024, 1024, 1024),
        "GFLOP/s, 600 x 32 by 32 x 256": gemm(600, 32, 256),
        "GB/s, read and written": copied,
    }


def roofline(shapes: Sequence[tuple[str, Shape]], workdir: Path, rounds: int) -> tuple[dict[str, float], list[Any]]:
    """What this processor does, and for each shape how far a step of ours is from it."""
    speed = machine_speed()
    peak = max(value for name, value in speed.items() if name.startswith("GFLOP"))
    rows = []
    for name, shape in shapes:
        step = measure_step(shape, workdir, rounds)
        nodes, edges = BATCH * shape.nodes, BATCH * shape.edges
        work, moved = gigaflop(nodes, edges, shape), gigabytes(nodes, edges, shape)
        least = 1e3 * max(work / peak, moved / speed["GB/s, read and written"])
        rows.append(
            {
                "batch": f"16 x {shape}",
                "GFLOP": work,
                "products, ms": 1e3 * work / peak,
                "GB": moved,
                "moving, ms": 1e3 * moved / speed["GB/s, read and written"],
                "step, ms": step["ours"].median,
                "times the roof": step["ours"].median / least,
                "GFLOP/s": work / step["ours"].median * 1e3,
                "name": name,
            }
        )
    return speed, rows
