"""What statistics over many structures say of two amino acids in contact: more than a hundred complexes can teach.

Source: contact energies e_ij in units of RT, Miyazawa and Jernigan, J. Mol. Biol. 256, 623-644 (1996), Table 3
(AAindex MIYS960101).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from topotrain.model.scaling import InputScaling

POTENTIAL_COLUMNS = 3
RESIDUE_TYPES = 20
# Of the node columns of residue types; in the order of their one-letter codes: A C D E F G H I K L M N P Q R S T V W Y.
RESIDUE_NAMES = tuple(f"AA_{number}" for number in range(RESIDUE_TYPES))
CHARGES = {2: -1, 3: -1, 8: 1, 14: 1}  # D, E; K, R
ENERGIES = """
-2.72
-3.57 -5.44
-1.70 -2.41 -1.21
-1.51 -2.27 -1.02 -0.91
-4.81 -5.80 -3.48 -3.56 -7.26
-2.31 -3.16 -1.59 -1.22 -4.13 -2.24
-2.41 -3.60 -2.32 -2.15 -4.77 -2.15 -3.05
-4.58 -5.50 -3.17 -3.27 -6.84 -3.78 -4.14 -6.54
-1.31 -1.95 -1.68 -1.80 -3.36 -1.15 -1.35 -3.01 -0.12
-4.91 -5.83 -3.40 -3.59 -7.28 -4.16 -4.54 -7.04 -3.37 -7.37
-3.94 -4.99 -2.57 -2.89 -6.56 -3.39 -3.98 -6.02 -2.48 -6.41 -5.46
-1.84 -2.59 -1.68 -1.51 -3.75 -1.74 -2.08 -3.24 -1.21 -3.74 -2.95 -1.68
-2.03 -3.07 -1.33 -1.26 -4.25 -1.87 -2.25 -3.76 -0.97 -4.20 -3.45 -1.53 -1.75
-1.89 -2.85 -1.46 -1.42 -4.10 -1.66 -1.98 -3.67 -1.29 -4.04 -3.30 -1.71 -1.73 -1.54
-1.83 -2.57 -2.29 -2.27 -3.98 -1.72 -2.16 -3.63 -0.59 -4.03 -3.12 -1.64 -1.70 -1.80 -1.55
-2.01 -2.86 -1.63 -1.48 -4.02 -1.82 -2.11 -3.52 -1.05 -3.92 -3.03 -1.58 -1.57 -1.49 -1.62 -1.67
-2.32 -3.11 -1.80 -1.74 -4.28 -2.08 -2.42 -4.03 -1.31 -4.34 -3.51 -1.88 -1.90 -1.90 -1.90 -1.96 -2.12
-4.04 -4.96 -2.48 -2.67 -6.29 -3.38 -3.58 -6.05 -2.49 -6.48 -5.32 -2.83 -3.32 -3.07 -3.07 -3.05 -3.46 -5.52
-3.82 -4.95 -2.84 -2.99 -6.16 -3.42 -3.98 -5.78 -2.69 -6.14 -5.55 -3.07 -3.73 -3.11 -3.41 -2.99 -3.22 -5.18 -5.06
-3.36 -4.16 -2.76 -2.79 -5.66 -3.01 -3.52 -5.25 -2.60 -5.67 -4.91 -2.76 -3.19 -2.97 -3.16 -2.78 -3.01 -4.62 -4.66 -4.17
"""  # those with the types before and with itself, a line for each type


def residue_columns(names: Sequence[str] | None) -> int | None:
    """Place of the first of the twenty node columns that hold the residue type; ``None`` where they are not there.

    Args:
        names: of the node columns, as far as they have any.
    """
    if names is None or RESIDUE_NAMES[0] not in names:
        return None
    first = list(names).index(RESIDUE_NAMES[0])
    return first if tuple(names[first : first + RESIDUE_TYPES]) == RESIDUE_NAMES else None


class ContactPotential(nn.Module):
    """Three columns of each edge, from the residue types of its ends.

    Their contact energy; what of it neither end has on average; the product of their charges. A residue of no known
    type counts as nothing.

    Args:
        first: place of the residue types among the node columns.
        limit: of the scaled columns; ``None`` for none.
    """

    table: Tensor

    def __init__(self, first: int, limit: float | None = None) -> None:
        super().__init__()
        self.first = first
        self.register_buffer("table", _tables())  # (3, 20, 20)
        self.scaling = InputScaling(POTENTIAL_COLUMNS, limit)

    def raw(self, x: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """(num_edges, 3) not scaled; each edge's two directions have the same.

        Args:
            x: (num_nodes, node_dim) raw node features.
            source: (num_edges,) row of one end of each edge, or of each row of edge attributes.
            target: (num_edges,) of the other.
        """
        with torch.autocast(x.device.type, enabled=False):  # eight bits are too few for energies
            types = x[:, self.first : self.first + RESIDUE_TYPES].to(self.table.dtype)
            ends = torch.einsum("nt,ktu->nku", types, self.table)  # (num_nodes, 3, 20)
            return (ends.index_select(0, source) * types.index_select(0, target).unsqueeze(1)).sum(dim=2)

    def forward(self, x: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """The same, scaled."""
        scaled: Tensor = self.scaling(self.raw(x, source, target))
        return scaled


def _tables() -> Tensor:
    """(3, 20, 20) by the types of both ends."""
    energy = torch.zeros(RESIDUE_TYPES, RESIDUE_TYPES, dtype=torch.float64)
    for row, line in enumerate(ENERGIES.split("\n")[1:-1]):
        values = torch.tensor([float(value) for value in line.split()], dtype=torch.float64)
        energy[row, : row + 1] = energy[: row + 1, row] = values
    average = energy.mean(dim=0)
    between = energy - average[:, None] - average[None, :] + average.mean()
    charge = torch.zeros(RESIDUE_TYPES, dtype=torch.float64)
    charge[list(CHARGES)] = torch.tensor(list(CHARGES.values()), dtype=torch.float64)
    return torch.stack([energy, between, charge.outer(charge)]).to(torch.get_default_dtype())
