"""Time of one training step on the CPU and on a GPU, side by side; without a GPU, on the CPU alone.

python benchmarks/devices.py --batches 16 64 256 --nodes 100 --edges 700

In turns, in one process: every way takes a step, then the next, on the same batch, which lies on the device already.
Times are of the clock, until the device has ended; deterministic algorithms but for the way that is called free.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from made_graphs import Shape, make_graphs
from measuring import Spread
from torch.nn import functional
from torch_geometric.data import Data

from topotrain.config import TrainConfig
from topotrain.data.graph_file import Graph
from topotrain.data.packing import GraphBatch, PackedGraph, batch_of, pack
from topotrain.model.network import NetworkSpec, TopoQANetwork
from topotrain.training.hardware import fitting

WARM_UP = 3


@dataclass(frozen=True)
class Way:
    """How a step is made."""

    device: str = "cuda"
    mixed: bool = False
    deterministic: bool = True


WAYS = {
    "CPU": Way("cpu"),
    "GPU": Way(),
    "GPU, free": Way(deterministic=False),
    "GPU, bf16-mixed": Way(mixed=True),
}


def stepper(batch: GraphBatch, spec: NetworkSpec, way: Way) -> Callable[[], float]:
    """A function that makes a step and gives its milliseconds."""
    torch.manual_seed(0)
    network = TopoQANetwork(spec).to(way.device).train()
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    there = batch.to(way.device)
    inputs = (there.x, there.edge_index, there.edge_attr, there.batch, there.num_graphs)

    def step() -> float:
        torch.use_deterministic_algorithms(way.deterministic)
        started = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(way.device, dtype=torch.bfloat16, enabled=way.mixed):
            loss = functional.mse_loss(network(*inputs, layout=there.layout), there.y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if way.device != "cpu":
            torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - started)

    return step


def packed(graph: Data, key: str) -> PackedGraph:
    """A made graph as training has it."""
    return pack(Graph(key=key, x=graph.x, edge_index=graph.edge_index, edge_attr=graph.edge_attr, metadata={}))


def measure(shape: Shape, number: int, rounds: int) -> dict[str, Spread]:
    """Milliseconds of a step, way by way."""
    graphs, dockq = zip(*make_graphs(shape, number), strict=True)
    batch = batch_of(
        [packed(graph, str(place)) for place, graph in enumerate(graphs)],
        *(shape.edge_dim, torch.tensor(dockq), torch.arange(number)),
    )
    spec = NetworkSpec(node_dim=shape.node_dim, edge_dim=shape.edge_dim)
    possible = {name: way for name, way in WAYS.items() if way.device == "cpu" or torch.cuda.is_available()}
    steps = {name: stepper(batch, spec, way) for name, way in possible.items()}
    taken: dict[str, list[float]] = {name: [] for name in steps}
    with fitting(TrainConfig()):
        for place in range(WARM_UP + rounds):
            for name, step in steps.items():
                milliseconds = step()
                if place >= WARM_UP:
                    taken[name].append(milliseconds)
    return {name: Spread.of(values) for name, values in taken.items()}


def main() -> None:
    """Measure, and print a line for each size of a batch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--edges", type=int, default=700)
    parser.add_argument("--rounds", type=int, default=12)
    arguments = parser.parse_args()
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # as Lightning sets it, for deterministic products
    torch.set_num_threads(1)
    shape = Shape(nodes=arguments.nodes, edges=arguments.edges, spread=0.0)
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU'}")
    for number in arguments.batches:
        found = measure(shape, number, arguments.rounds)
        print(f"{number} x {shape}: " + "; ".join(f"{name} {spread} ms" for name, spread in found.items()))


if __name__ == "__main__":
    main()
