"""Rigid-body moves, clearance and contacts of two partners."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from demo_targets import SCALE, Complex, FloatArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

CLASH, HARD_CLASH = 3.0, 2.3  # Angstrom between heavy atoms
EDGE = 10.0  # Angstrom between C-alphas, as the default interface module has it
CONTACT = 5.0  # Angstrom between heavy atoms, as in DockQ
STEP = 0.1  # Angstrom, of a slide


@dataclass(frozen=True)
class Pose:
    """A rigid move of partner B: ``rotation @ x + shift``, Angstrom."""

    rotation: FloatArray
    shift: FloatArray

    def apply(self, coords: FloatArray) -> FloatArray:
        """Moved coordinates."""
        return coords @ self.rotation.T + self.shift

    def shifted(self, by: FloatArray) -> Pose:
        """The same pose, shifted further."""
        return Pose(self.rotation, self.shift + by)


def about(rotation: FloatArray, centre: FloatArray, shift: FloatArray) -> Pose:
    """A rotation about a point, then a shift."""
    return Pose(rotation, centre - rotation @ centre + shift)


def random_rotation(rng: np.random.Generator) -> FloatArray:
    """A rotation, uniform over all."""
    quaternion = rng.normal(size=4)
    return np.asarray(Rotation.from_quat(quaternion / np.linalg.norm(quaternion)).as_matrix())


def small_rotation(rng: np.random.Generator, degrees: float) -> FloatArray:
    """A rotation by an angle about a random axis."""
    return rotation_about(rng.normal(size=3), degrees)


def rotation_about(axis: FloatArray, degrees: float) -> FloatArray:
    """A rotation by an angle about an axis of any length."""
    return np.asarray(Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)).as_matrix())


def random_direction(rng: np.random.Generator) -> FloatArray:
    """A unit vector, uniform over all."""
    vector = rng.normal(size=3)
    return np.asarray(vector / np.linalg.norm(vector))


def superpose(moving: FloatArray, fixed: FloatArray) -> Pose:
    """The move of least squares from one set of points to another."""
    centre, target = moving.mean(axis=0), fixed.mean(axis=0)
    rotation = np.asarray(Rotation.align_vectors(fixed - target, moving - centre)[0].as_matrix())
    return Pose(rotation, target - rotation @ centre)


def residue_positions(complex_: Complex) -> tuple[FloatArray, npt.NDArray[np.str_]]:
    """C-alphas in Angstrom, and the chain of each residue."""
    rows = [
        next(a for a in range(start, end) if complex_.atom_names[a] == "CA")
        for start, end in zip(complex_.residue_starts[:-1], complex_.residue_starts[1:], strict=True)
    ]
    return complex_.coords[rows] / SCALE, np.array([residue[0] for residue in complex_.residues])


class Partners:
    """Two partners for many cheap questions.

    Args:
        complex_: the native complex.
    """

    def __init__(self, complex_: Complex) -> None:
        coords = complex_.coords / SCALE
        self.receptor, self.ligand = coords[: complex_.num_first], coords[complex_.num_first :]
        carbons, chains = residue_positions(complex_)
        self.receptor_ca, self.ligand_ca = carbons[chains == "A"], carbons[chains == "B"]
        starts = complex_.residue_starts
        residue_of = np.repeat(np.arange(len(complex_.residues)), np.diff(starts))
        self.receptor_residue, self.ligand_residue = (
            residue_of[: complex_.num_first],
            residue_of[complex_.num_first :],
        )
        backbone = np.isin(complex_.atom_names, ("N", "CA", "C", "O"))
        self.receptor_backbone = np.flatnonzero(backbone[: complex_.num_first])
        self.ligand_backbone = np.flatnonzero(backbone[complex_.num_first :])
        self.receptor_tree = cKDTree(self.receptor)
        self.receptor_ca_tree = cKDTree(self.receptor_ca)
        self.native_contacts = self._residue_contacts(self.ligand, CONTACT)
        self.native_edges = self.num_edges(identity())
        self.native_clashes = self.count_within(identity(), CLASH)
        self._interface = self._interface_backbone()

    def num_edges(self, pose: Pose) -> int:
        """Pairs of C-alphas of the two partners within 10 Angstrom."""
        return int(self.receptor_ca_tree.count_neighbors(cKDTree(pose.apply(self.ligand_ca)), EDGE))

    def count_within(self, pose: Pose, radius: float) -> int:
        """Pairs of heavy atoms of the two partners within a distance."""
        return int(self.receptor_tree.count_neighbors(cKDTree(pose.apply(self.ligand)), radius))

    def normal(self, pose: Pose) -> FloatArray:
        """Unit vector from the receptor's to the ligand's side of the pose's interface."""
        ligand = pose.apply(self.ligand_ca)
        distance, nearest = self.receptor_ca_tree.query(ligand)
        rows = np.argsort(distance, kind="stable")[:20]
        across = ligand.mean(axis=0) - self.receptor_ca[nearest[rows]].mean(axis=0)
        return np.asarray(across / np.linalg.norm(across))

    def settle(
        self, pose: Pose, direction: FloatArray, clashes: int, hard: int, reach: tuple[float, float]
    ) -> Pose | None:
        """Slide along a direction to where the partners touch without many clashes.

        Args:
            pose: where it starts.
            direction: unit vector, away from the receptor.
            clashes: heavy-atom pairs allowed within 3 Angstrom.
            hard: of those, allowed within 2.3 Angstrom.
            reach: the slide's limits, Angstrom.

        Returns:
            The pose; None where every place has more clashes.
        """
        spans = self._clash_spans(pose.apply(self.ligand), direction)
        grid = np.arange(reach[1], reach[0] - STEP, -STEP)
        good = self._clashes_along(spans, CLASH, grid) <= clashes
        good &= self._clashes_along(spans, HARD_CLASH, grid) <= hard
        if not good.any():
            return None
        if good[0]:  # come in from outside, to where the partners touch
            inner = len(good) if good.all() else int(np.argmin(good))
            slide = float(grid[inner - 1])
        else:
            slide = float(grid[good][np.argmin(np.abs(grid[good]))])
        return pose.shifted(slide * direction)

    def approach(self, pose: Pose, direction: FloatArray, clashes: int, hard: int) -> Pose:
        """Come from far away along a direction, and stop at the last place before too many clashes."""
        apart, flat = self._clash_spans(pose.apply(self.ligand), direction)
        slides = []
        for radius, allowed in ((CLASH, clashes), (HARD_CLASH, hard)):
            close = flat < radius
            exits = apart[close] + np.sqrt(radius**2 - flat[close] ** 2)
            place = len(exits) - 1 - allowed  # of the exit at which so many clashes are left
            slides.append(np.partition(exits, place)[place] if place >= 0 else -np.inf)
        slide = max(slides)
        return pose.shifted(slide * direction) if np.isfinite(slide) else pose

    def _clash_spans(self, ligand: FloatArray, direction: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Pairs of atoms that can meet on the slide: the slide at which they pass, and how far from each other."""
        helper = np.eye(3)[np.argmin(np.abs(direction))]
        u = np.cross(direction, helper)
        u /= np.linalg.norm(u)
        plane = np.column_stack([u, np.cross(direction, u)])
        receptor = cKDTree(self.receptor @ plane)
        pairs = cKDTree(ligand @ plane).sparse_distance_matrix(receptor, CLASH, output_type="ndarray")
        return (self.receptor @ direction)[pairs["j"]] - (ligand @ direction)[pairs["i"]], pairs["v"]

    def _clashes_along(
        self, spans: tuple[FloatArray, FloatArray], radius: float, grid: FloatArray
    ) -> npt.NDArray[np.int64]:
        apart, flat = spans
        close = (flat < radius) & (np.abs(apart - (grid[0] + grid[-1]) / 2) < abs(grid[0] - grid[-1]) / 2 + radius)
        half = np.sqrt(radius**2 - flat[close] ** 2)
        entered = np.searchsorted(np.sort(apart[close] - half), grid, side="right")
        left = np.searchsorted(np.sort(apart[close] + half), grid, side="left")
        return np.asarray(entered - left, dtype=np.int64)

    def _residue_contacts(self, ligand: FloatArray, radius: float) -> set[tuple[int, int]]:
        pairs = self.receptor_tree.query_ball_point(ligand, radius)
        return {
            (int(self.receptor_residue[a]), int(self.ligand_residue[row]))
            for row, near in enumerate(pairs)
            for a in near
        }

    def _interface_backbone(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Backbone atoms of residues with an atom within 10 Angstrom of the other partner, of each partner."""
        near = self._residue_contacts(self.ligand, 10.0)
        first, second = ({pair[side] for pair in near} for side in (0, 1))
        return (
            self.receptor_backbone[np.isin(self.receptor_residue[self.receptor_backbone], list(first))],
            self.ligand_backbone[np.isin(self.ligand_residue[self.ligand_backbone], list(second))],
        )

    def estimate(self, pose: Pose) -> float:
        """DockQ by its formula, for choosing; labels come from DockQ itself."""
        ligand = pose.apply(self.ligand)
        fnat = len(self.native_contacts & self._residue_contacts(ligand, CONTACT)) / len(self.native_contacts)
        first, second = self._interface
        native = np.concatenate([self.receptor[first], self.ligand[second]])
        model = np.concatenate([self.receptor[first], ligand[second]])
        irms = _rms(superpose(model, native).apply(model) - native)
        moved = ligand[self.ligand_backbone] - self.ligand[self.ligand_backbone]
        if len(self.receptor_backbone) >= len(self.ligand_backbone):
            lrms = _rms(moved)
        else:  # the longer chain is superposed
            back = superpose(ligand[self.ligand_backbone], self.ligand[self.ligand_backbone])
            receptor = self.receptor[self.receptor_backbone]
            lrms = _rms(back.apply(receptor) - receptor)
        return (fnat + 1 / (1 + (irms / 1.5) ** 2) + 1 / (1 + (lrms / 8.5) ** 2)) / 3


def identity() -> Pose:
    """The native place."""
    return Pose(np.eye(3), np.zeros(3))


def _rms(moved: FloatArray) -> float:
    return float(np.sqrt((moved**2).sum(axis=1).mean()))
