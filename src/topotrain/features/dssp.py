"""Backbone angles, secondary structure and solvent accessibility, close to what mkdssp gives."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from topotrain.features.atom_table import MAX_PEPTIDE_BOND
from topotrain.features.geometry import dihedral_angles
from topotrain.features.structure import BACKBONE, FloatArray, IntArray, Structure

SS8_CODES = "HBEGITS-"
# DSSP's united-atom radii, Angstrom: backbone atoms by name, all others 1.8 (Kabsch and Sander 1983).
ATOM_RADII = {"N": 1.65, "CA": 1.87, "C": 1.76, "O": 1.40}
OTHER_RADIUS = 1.80
PROBE_RADIUS = 1.4
SPHERE_POINTS = 1000
# Greatest accessible surface, square Angstrom (Rost and Sander, Proteins 20:216, 1994).
MAX_ACCESSIBILITY = {
    "ALA": 106.0,
    "ARG": 248.0,
    "ASN": 157.0,
    "ASP": 163.0,
    "CYS": 135.0,
    "GLN": 198.0,
    "GLU": 194.0,
    "GLY": 84.0,
    "HIS": 184.0,
    "ILE": 169.0,
    "LEU": 164.0,
    "LYS": 205.0,
    "MET": 188.0,
    "PHE": 197.0,
    "PRO": 136.0,
    "SER": 130.0,
    "THR": 142.0,
    "TRP": 227.0,
    "TYR": 222.0,
    "VAL": 142.0,
}
# For residues that table does not know: its mean.
MAX_ACCESSIBILITY_UNKNOWN = sum(MAX_ACCESSIBILITY.values()) / len(MAX_ACCESSIBILITY)


def import_packages() -> None:
    """Import what the functions below import when first called."""
    import biotite.structure  # noqa: F401
    import mdtraj.geometry.dssp  # noqa: F401


def complete_backbone(structure: Structure) -> npt.NDArray[np.bool_]:
    """(num_residues,) whether N, CA, C and O are all there; DSSP leaves other residues out."""
    present = [np.isfinite(structure.atom_positions(name)[:, 0]) for name in BACKBONE]
    complete: npt.NDArray[np.bool_] = np.logical_and.reduce(present)
    return complete


def bonded_to_next(structure: Structure) -> npt.NDArray[np.bool_]:
    """(num_residues - 1,) whether a peptide bond joins residue i to residue i + 1."""
    gap = np.linalg.norm(structure.atom_positions("C")[:-1] - structure.atom_positions("N")[1:], axis=1)
    complete = complete_backbone(structure)
    same_chain = structure.chain_ids[:-1] == structure.chain_ids[1:]
    bonded: npt.NDArray[np.bool_] = same_chain & complete[:-1] & complete[1:] & (gap <= MAX_PEPTIDE_BOND)
    return bonded


def backbone_angles(structure: Structure) -> tuple[FloatArray, FloatArray]:
    """Phi and psi.

    Args:
        structure: the structure.

    Returns:
        Two (num_residues,) arrays in degrees, 0 where the angle is undefined (chain ends, breaks).
    """
    n, ca, c = (structure.atom_positions(name) for name in ("N", "CA", "C"))
    bonded = bonded_to_next(structure)
    phi, psi = np.zeros(structure.num_residues), np.zeros(structure.num_residues)
    phi[1:] = np.where(bonded, dihedral_angles(c[:-1], n[1:], ca[1:], c[1:]), 0.0)
    psi[:-1] = np.where(bonded, dihedral_angles(n[:-1], ca[:-1], c[:-1], n[1:]), 0.0)
    return phi, psi


def secondary_structure(structure: Structure) -> npt.NDArray[np.str_]:
    """Eight-state secondary structure by MDTraj's DSSP.

    Args:
        structure: the structure.

    Returns:
        (num_residues,) codes of ``SS8_CODES``; "-" for residues with an incomplete backbone.
    """
    import mdtraj

    codes = np.full(structure.num_residues, "-")
    complete = np.flatnonzero(complete_backbone(structure))
    if not len(complete):
        return codes
    bonded = bonded_to_next(structure)
    topology = mdtraj.Topology()
    atoms = {name: mdtraj.element.get_by_symbol(name[0]) for name in BACKBONE}
    chain = None
    for position, residue in enumerate(complete):
        # A chain break is a chain end to DSSP; to MDTraj only the chain index is.
        if position == 0 or complete[position - 1] != residue - 1 or not bonded[residue - 1]:
            chain = topology.add_chain()
        added = topology.add_residue(str(structure.residue_names[residue]), chain)
        for name, element in atoms.items():
            topology.add_atom(name, element, added)
    xyz = np.stack([structure.atom_positions(name)[complete] for name in BACKBONE], axis=1).reshape(1, -1, 3)
    # MDTraj counts in nanometres.
    found = mdtraj.compute_dssp(mdtraj.Trajectory(xyz / 10.0, topology), simplified=False)[0]
    codes[complete] = np.where(np.isin(found, list(SS8_CODES)), found, "-")
    return codes


def relative_accessibility(structure: Structure, residues: IntArray) -> FloatArray:
    """Solvent-accessible surface of residues in the whole complex, over the residue type's greatest.

    Shrake and Rupley with DSSP's radii (Biotite).

    Args:
        structure: the structure.
        residues: (n,) residue indices.

    Returns:
        (n,) in [0, 1]; 0 for residues with an incomplete backbone, which DSSP leaves out.
    """
    import biotite.structure

    # DSSP sees complete residues alone: neither nucleotides nor residues without a full backbone shield.
    seen = complete_backbone(structure)[structure.atom_residues]
    chosen = np.isin(structure.atom_residues, residues)[seen]
    areas = np.zeros(len(structure.coords))
    if chosen.any():
        coords, names = structure.coords[seen], structure.atom_names[seen]
        radii = np.full(len(coords), OTHER_RADIUS)
        for name, radius in ATOM_RADII.items():
            radii[names == name] = radius
        atoms = biotite.structure.AtomArray(len(coords))
        # Decoys may lie far from the origin, and Biotite computes in single precision.
        atoms.coord = (coords - coords.mean(axis=0)).astype(np.float32)
        areas[seen] = np.nan_to_num(
            biotite.structure.sasa(
                atoms,
                probe_radius=PROBE_RADIUS,
                atom_filter=chosen,
                ignore_ions=False,
                point_number=SPHERE_POINTS,
                vdw_radii=radii,
            )
        )
    totals = np.bincount(structure.atom_residues, weights=areas, minlength=structure.num_residues)
    return relative_to_maximum(totals[residues].astype(np.float64), structure.residue_names[residues])


def relative_to_maximum(areas: FloatArray, names: npt.NDArray[np.str_]) -> FloatArray:
    """Areas over the greatest of their residue type, at most 1.

    Args:
        areas: (n,) square Angstrom.
        names: (n,) three-letter residue names.

    Returns:
        (n,) in [0, 1].
    """
    greatest = np.array([MAX_ACCESSIBILITY.get(str(name), MAX_ACCESSIBILITY_UNKNOWN) for name in names])
    relative: FloatArray = np.minimum(areas / greatest, 1.0)
    return relative
