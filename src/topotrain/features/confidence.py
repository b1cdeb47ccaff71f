"""What a predicted structure says of itself: contacts between its partners, pLDDT of the interface, pDockQ.

Source: Bryant, Pozzati and Elofsson, Improved prediction of protein-protein interactions using AlphaFold2, Nature
Communications 13, 1265 (2022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np

from topotrain.features.geometry import BLOCK_ROWS
from topotrain.features.structure import FloatArray, IntArray, Structure, is_mmcif, unpacked

CONTACT_DISTANCE = 8.0  # Angstrom, C-beta to C-beta
TOP, MIDPOINT, STEEPNESS, BASE = 0.724, 152.611, 0.052, 0.018  # of the sigmoid: L, x0, k and b of the paper
LEAST_ATOMS = 4  # of residues that say whether all atoms of a residue have one value
LARGEST_PLDDT = 100.0


@dataclass(frozen=True)
class Confidence:
    """What stands beside a score.

    Attributes:
        contacts: pairs of residues of different partners with C-betas within 8 Angstrom.
        plddt: mean pLDDT of the residues in those pairs; None where B-factors are none, or there is no such pair.
        pdockq: the DockQ that contacts and pLDDT predict, 0 without contacts; None where B-factors are no pLDDT.
    """

    contacts: int
    plddt: float | None = None
    pdockq: float | None = None


def confidence(structure: Structure, content: bytes, model: int | None = None) -> Confidence:
    """Contacts of a structure and, where its B-factors are pLDDT, what they predict.

    Args:
        structure: the structure.
        content: the bytes of its file, still compressed where it is.
        model: which MODEL of it, from 0; None for the first.
    """
    pairs = contact_pairs(structure)
    plddt = residue_plddt(structure, content, model)
    if plddt is None:
        return Confidence(len(pairs))
    if not len(pairs):
        return Confidence(0, None, 0.0)
    mean = float(plddt[np.unique(pairs)].mean())
    return Confidence(len(pairs), mean, pdockq(mean, len(pairs)))


def pdockq(plddt: float, contacts: int) -> float:
    """The sigmoid of mean interface pLDDT times the logarithm (base 10) of the number of contacts, at least 1."""
    return TOP / (1 + math.exp(-STEEPNESS * (plddt * math.log10(contacts) - MIDPOINT))) + BASE


def contact_pairs(structure: Structure) -> IntArray:
    """(num_contacts, 2) residues of different partners with C-betas within 8 Angstrom; C-alpha where there is none."""
    beta, partners = structure.atom_positions("CB"), structure.partner_ids
    beta = np.where(np.isnan(beta), structure.ca, beta)
    found = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, len(beta), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        near = np.sqrt(((beta[block, None, :] - beta[None, start:, :]) ** 2).sum(axis=2)) <= CONTACT_DISTANCE
        first, second = np.nonzero(np.triu(near & (partners[block, None] != partners[None, start:]), k=1))
        found.append(np.stack([first + start, second + start], axis=1))
    return np.concatenate(found)


def residue_plddt(structure: Structure, content: bytes, model: int | None = None) -> FloatArray | None:
    """(num_residues,) pLDDT from B-factors; None where they are something else.

    They count as pLDDT where an mmCIF file says so (``_ma_qa_metric``), or where every residue has one value on all its
    atoms, between 0 and 100, and residues differ. A residue has the value of its C-beta, else of its C-alpha, else of
    its first atom.

    Args:
        structure: the structure, for the order of residues.
        content: the bytes of its file, still compressed where it is.
        model: which MODEL of it, from 0; None for the first.
    """
    path = Path(structure.path)
    text = unpacked(path, content)
    try:
        if is_mmcif(path, text):
            block = gemmi.cif.read_string(text).sole_block()
            read, said = gemmi.make_structure_from_block(block), _says_plddt(block)
        else:
            read, said = gemmi.read_pdb_string(text), False
        chosen = read[model or 0]
    except (RuntimeError, ValueError, IndexError):  # what reads structures is more lenient
        return None
    values: dict[str, float] = {}
    for chain in chosen:
        for residue in chain:
            factors = {atom.name: atom.b_iso for atom in residue if atom.element.name != "H"}
            if len(factors) >= LEAST_ATOMS and not said and len(set(factors.values())) > 1:
                return None
            first = next(iter(factors.values()), math.nan)
            values.setdefault(f"{chain.name}:{residue.seqid}", factors.get("CB", factors.get("CA", first)))
    found = np.array([values.get(one, math.nan) for one in structure.residue_ids])
    plausible = np.isfinite(found).all() and found.min() >= 0.0 and 1.0 < found.max() <= LARGEST_PLDDT
    return found if plausible and (said or np.ptp(found) > 0) else None


def _says_plddt(block: gemmi.cif.Block) -> bool:
    return any("plddt" in value.lower() for value in block.find_values("_ma_qa_metric.name")) or any(
        "plddt" in value.lower() for value in block.find_values("_ma_qa_metric.type")
    )
