"""Time one training epoch with one thread and with several, in turns, in one run.

python benchmarks/threads.py --graphs DIR --train train.csv --val val.csv --threads 1 2
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from topotrain.config import load_config
from topotrain.data.prepare import prepare_data
from topotrain.model.network import TopoQANetwork
from topotrain.training.network_shape import network_spec


def epoch_seconds(network: TopoQANetwork, batches: list, optimizer: torch.optim.Optimizer) -> float:  # type: ignore[type-arg]
    """Forward, backward and step over all batches."""
    start = time.perf_counter()
    for batch in batches:
        optimizer.zero_grad()
        scores = network(batch.x, batch.edge_index, batch.edge_attr, batch.batch, batch.num_graphs)
        torch.nn.functional.mse_loss(scores, batch.y).backward()
        optimizer.step()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print medians and the ratio to one thread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("graphs", "train", "val"):
        parser.add_argument(f"--{name}", type=Path, default=None)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    overrides = []
    if arguments.graphs:
        overrides = [f"paths.graph={arguments.graphs}", f"paths.train_labels={arguments.train}"]
        overrides += [f"paths.val_labels={arguments.val}"]
    config = load_config(None, overrides).config
    data = prepare_data(config)
    network = TopoQANetwork(network_spec(data.schema, config)).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    batches = list(data.module.train_dataloader())
    seconds: dict[int, list[float]] = {threads: [] for threads in arguments.threads}
    for _ in range(arguments.rounds):
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            seconds[threads].append(epoch_seconds(network, batches, optimizer))
    base = statistics.median(seconds[arguments.threads[0]])
    for threads, values in seconds.items():
        median = statistics.median(values)
        print(f"{threads} threads: median {median:.3f} s an epoch of {len(batches)} batches, ratio {median / base:.2f}")


if __name__ == "__main__":
    main()
