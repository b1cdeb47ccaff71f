"""The part of the loss that is about the order of a target's decoys.

Source: the pairwise logistic loss of Burges et al., ICML 2005 (RankNet), within each target.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from topotrain.config import LossConfig


class RankTerm(nn.Module):
    """How wrongly the decoys of each target are ordered.

    Args:
        settings: weight, temperature and margin.
        y: (num_graphs,) true DockQ of every training graph.
        targets: of each.
    """

    y: Tensor
    target: Tensor

    def __init__(self, settings: LossConfig, y: Tensor, targets: Sequence[str]) -> None:
        super().__init__()
        self.settings = settings
        _, numbers = np.unique(np.array(targets, dtype=str), return_inverse=True)
        # They go to the device with the module, and are no part of its state.
        self.register_buffer("y", y, persistent=False)
        self.register_buffer("target", torch.from_numpy(numbers), persistent=False)

    def forward(self, logits: Tensor, index: Tensor) -> Tensor:
        """The weight times the mean of softplus(-temperature (z_i - z_j)) over pairs; 0 where there are none.

        A pair is two graphs of one target of which i is better than j by more than the margin.

        Args:
            logits: (num_graphs,) z of a whole batch.
            index: (num_graphs,) int64, positions of its graphs among the training graphs.
        """
        y, target = self.y[index], self.target[index]
        pairs = (target[:, None] == target) & (y[:, None] - y > self.settings.rank_margin)  # (num_graphs, num_graphs)
        ahead = (logits[:, None] - logits)[pairs]  # (num_pairs,)
        sum_: Tensor = functional.softplus(-self.settings.rank_temperature * ahead).sum()
        return self.settings.rank_weight * sum_ / max(1, len(ahead))
