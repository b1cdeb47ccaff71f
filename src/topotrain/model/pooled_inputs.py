"""The scaled columns themselves, pooled over each graph: what trees on a table of graphs see."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

from topotrain.model.scaling import InputScaling

REDUCED = 4  # mean, standard deviation, maximum, sum
LIMIT = 4.0  # standard deviations over the training graphs
LEAST_DEVIATION = 1e-3  # of scaled columns: less is rounding
LEAST_VARIANCE = 1e-12  # within a graph: where all rows are equal the root has no slope


class PooledInputs(nn.Module):
    """Some numbers of each graph from mean, standard deviation, maximum and sum of its columns.

    Args:
        width: of nodes and edges together.
        hidden_dim: numbers that come out.
    """

    def __init__(self, width: int, hidden_dim: int) -> None:
        super().__init__()
        self.scaling = InputScaling(REDUCED * width, limit=LIMIT)
        self.linear = nn.Linear(REDUCED * width, hidden_dim)


def pooled_columns(values: Tensor, graph: Tensor, num_graphs: int) -> Tensor:
    """(num_graphs, 4 * width) mean, population standard deviation, maximum and sum; zeros of a graph without rows.

    Args:
        values: (num_rows, width).
        graph: (num_rows,) of each row.
        num_graphs: of all.
    """
    count = torch.bincount(graph, minlength=num_graphs).clamp(min=1).unsqueeze(1)  # (num_graphs, 1)
    total, largest = (scatter(values, graph, dim=0, dim_size=num_graphs, reduce=how) for how in ("sum", "max"))
    mean = total / count
    apart = (values - mean.index_select(0, graph)).square()
    variance = scatter(apart, graph, dim=0, dim_size=num_graphs, reduce="sum") / count
    return torch.cat([mean, variance.clamp(min=LEAST_VARIANCE).sqrt(), largest, total], dim=1)
