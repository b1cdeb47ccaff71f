"""The decoys of one demo complex: native-like, perturbed, docked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from demo_geometry import (
    EDGE,
    Partners,
    Pose,
    about,
    identity,
    random_direction,
    random_rotation,
    rotation_about,
    small_rotation,
)
from demo_targets import FloatArray

NUM_NATIVE_LIKE, NUM_DOCKED, MIN_DOCKED = 5, 6, 2
# (DockQ from, to, how many) of the perturbed decoys, by the estimate.
QUOTAS = (
    (0.0, 0.06, 4),
    (0.06, 0.14, 4),
    (0.14, 0.23, 4),
    (0.23, 0.36, 5),
    (0.36, 0.49, 5),
    (0.49, 0.64, 5),
    (0.64, 0.80, 5),
    (0.80, 0.98, 1),
)
INCORRECT, NATIVE_LIKE, NATIVE = 0.23, 0.80, 0.98  # DockQ: under, from, and what is too good to be kept
NUM_DECOYS = NUM_NATIVE_LIKE + NUM_DOCKED + sum(quota[2] for quota in QUOTAS)
NUM_LOCAL, NUM_SPUN, NUM_GLOBAL, NUM_TINY = 900, 500, 1600, 200
# Contacts of a chosen decoy over the native's; the same range at every quality, so that their number says little.
# It ends where wrong poses end: at the one of this rank by contacts, but within these limits.
MIN_EDGES, MIN_DOCKED_EDGES = 0.3, 0.2
LEAST_EDGES, MOST_EDGES, RICH_RANK = 0.6, 0.9, 3
NUM_RICH = 80  # wrong poses with the most contacts, which are refined to have more
MAX_GAP = 1.5  # Angstrom, pulled apart again from where the partners touch
MAX_ANGLE, MAX_SHIFT = 75.0, 14.0  # of local perturbations, degrees and Angstrom
MAX_TILT, MAX_SLIDE = 20.0, 8.0  # of poses turned about the interface's normal, degrees and Angstrom
NUM_REFINEMENTS = 16
DISTINCT = 2.0  # Angstrom between C-alphas of two docked poses


@dataclass(frozen=True, eq=False)
class Decoy:
    """One pose and how it came about: native-like, perturbed or docking."""

    pose: Pose
    kind: str


@dataclass(frozen=True, eq=False)
class _Proposal:
    pose: Pose
    dockq: float
    edges: float


def make_decoys(partners: Partners, docked: list[Pose], rng: np.random.Generator) -> list[Decoy]:
    """The decoys of a complex, in random order; the native itself is none of them.

    Raises:
        SystemExit: too few of a kind could be made.
    """
    found = _settle_docked(partners, docked, rng)[:NUM_DOCKED]
    proposals = [*_local(partners, rng), *_spun(partners, rng), *_global(partners, rng)]
    proposals += _rich(partners, proposals, rng)
    span = (MIN_EDGES, _most_edges(proposals))
    near = [proposal for proposal in _tiny(partners, rng) if NATIVE_LIKE <= proposal.dockq < NATIVE]
    chosen = [Decoy(pose, "native-like") for pose in _spread(near, NUM_NATIVE_LIKE, span)]
    chosen += [Decoy(pose, "docking") for pose in found]
    # What docking did not give is made up for by poses as far off.
    chosen += [Decoy(pose, "perturbed") for pose in _choose(proposals, NUM_DOCKED - len(found), span)]
    if len(chosen) < NUM_DECOYS or len(found) < MIN_DOCKED:
        raise SystemExit(f"error: {len(found)} docked, {len(near)} native-like, {len(chosen)} decoys in all")
    return [chosen[place] for place in rng.permutation(len(chosen))]


def _allowance(partners: Partners, rng: np.random.Generator) -> tuple[int, int]:
    """Clashes allowed, drawn from one distribution for all decoys of a complex: those of its native, about."""
    return round(rng.uniform(0.5, 2.5) * max(partners.native_clashes, 8)), int(rng.choice([0, 0, 0, 1]))


def _proposal(partners: Partners, pose: Pose | None) -> Iterator[_Proposal]:
    """The pose with its numbers, unless it has no interface to speak of."""
    if pose is not None:
        edges = partners.num_edges(pose) / partners.native_edges
        if edges >= MIN_EDGES:
            yield _Proposal(pose, partners.estimate(pose), edges)


def _settled(partners: Partners, pose: Pose, rng: np.random.Generator, reach: tuple[float, float]) -> Pose | None:
    """Brought to touch along the interface's normal, then pulled apart again a little; one rule for all poses."""
    clashes, hard = _allowance(partners, rng)
    normal = partners.normal(pose)
    settled = partners.settle(pose, normal, clashes, hard, reach)
    return settled.shifted(_gap(rng) * normal) if settled else None


def _gap(rng: np.random.Generator) -> float:
    return max(0.0, rng.uniform(-MAX_GAP / 2, MAX_GAP))


def _tiny(partners: Partners, rng: np.random.Generator) -> Iterator[_Proposal]:
    centre = partners.ligand_ca.mean(axis=0)
    for _ in range(NUM_TINY):
        rotation = small_rotation(rng, rng.uniform(0.2, 3.0))
        pose = about(rotation, centre, rng.uniform(0.1, 0.6) * random_direction(rng))
        yield from _proposal(partners, _settled(partners, pose, rng, (-0.5, 1.5)))


def _interface_centre(partners: Partners) -> FloatArray:
    distance, _ = partners.receptor_ca_tree.query(partners.ligand_ca)
    return np.asarray(partners.ligand_ca[distance < EDGE].mean(axis=0))


def _local(partners: Partners, rng: np.random.Generator) -> Iterator[_Proposal]:
    """Turned and shifted about the native place."""
    centre = _interface_centre(partners)
    for _ in range(NUM_LOCAL):
        amount = rng.uniform(0.02, 1.0) ** 1.5
        shares = rng.uniform(0.1, 1.0, size=2)
        rotation = small_rotation(rng, MAX_ANGLE * amount * shares[0])
        pose = about(rotation, centre, MAX_SHIFT * amount * shares[1] * random_direction(rng))
        yield from _proposal(partners, _settled(partners, pose, rng, (-5.0, 8.0)))


def _spun(partners: Partners, rng: np.random.Generator) -> Iterator[_Proposal]:
    """Turned about the interface's normal: the native's patches against each other, and wrong."""
    centre = _interface_centre(partners)
    normal = partners.normal(identity())
    for _ in range(NUM_SPUN):
        spin = rotation_about(normal, rng.uniform(25.0, 335.0))
        rotation = small_rotation(rng, rng.uniform(0.0, MAX_TILT)) @ spin
        pose = about(rotation, centre, rng.uniform(0.0, MAX_SLIDE) * random_direction(rng))
        yield from _proposal(partners, _settled(partners, pose, rng, (-5.0, 12.0)))


def _global(partners: Partners, rng: np.random.Generator) -> Iterator[_Proposal]:
    """Anywhere on the receptor in any orientation."""
    centre, home = partners.ligand_ca.mean(axis=0), partners.receptor_ca.mean(axis=0)
    radius = float(np.sqrt(((partners.receptor_ca - home) ** 2).sum(axis=1).mean()))
    for _ in range(NUM_GLOBAL):
        direction = random_direction(rng)
        aside = rng.uniform(0.0, 0.6) * radius * random_direction(rng)
        pose = about(random_rotation(rng), centre, home + aside - centre)
        pose = partners.approach(pose, direction, *_allowance(partners, rng))
        yield from _proposal(partners, pose.shifted(_gap(rng) * direction))


def _rich(partners: Partners, proposals: list[_Proposal], rng: np.random.Generator) -> Iterator[_Proposal]:
    """The wrong poses with the most contacts, each with more."""
    wrong = sorted((p for p in proposals if p.dockq < INCORRECT), key=lambda p: -p.edges)
    for proposal in wrong[:NUM_RICH]:
        yield from _proposal(partners, _refine(partners, proposal.pose, rng))


def _most_edges(proposals: list[_Proposal]) -> float:
    """Where the range of contacts ends: wrong poses should reach it."""
    wrong = sorted((p.edges for p in proposals if p.dockq < INCORRECT), reverse=True)
    return min(max(wrong[RICH_RANK] if len(wrong) > RICH_RANK else 0.0, LEAST_EDGES), MOST_EDGES)


def _choose(proposals: list[_Proposal], more_incorrect: int, span: tuple[float, float]) -> list[Pose]:
    """By quality as the quotas say, within each with contacts spread over the same range."""
    chosen: list[Pose] = []
    left = [proposal for proposal in proposals if proposal.dockq < NATIVE]
    for place, (lower, upper, quota) in enumerate(QUOTAS):
        number = quota + more_incorrect if place == 0 else quota
        chosen += _spread(left, number, span, (lower, upper))
    return chosen


def _spread(
    left: list[_Proposal], number: int, span: tuple[float, float], quality: tuple[float, float] = (0.0, 1.0)
) -> list[Pose]:
    """Proposals of a quality with contacts spread over a range, taken out of the list."""
    chosen = []
    for wanted in np.linspace(*span, number) if number > 1 else [np.mean(span)]:
        if not left:
            raise SystemExit("error: fewer proposals than decoys")
        # Where a range of quality is empty, the nearest quality there is.
        miss = [max(quality[0] - p.dockq, p.dockq - quality[1], 0.0) * 100 + abs(p.edges - wanted) for p in left]
        chosen.append(left.pop(int(np.argmin(miss))).pose)
    return chosen


def _settle_docked(partners: Partners, docked: list[Pose], rng: np.random.Generator) -> list[Pose]:
    """Distinct docked poses, refined; taken in turn from the search at the native site and the other."""
    half = len(docked) // 2
    taken: list[Pose] = []
    for pose in (pose for pair in zip(docked[:half], docked[half:], strict=True) for pose in pair):
        settled = _refine(partners, pose, rng)
        if partners.num_edges(settled) < MIN_DOCKED_EDGES * partners.native_edges:
            continue
        place = settled.apply(partners.ligand_ca)
        apart = [np.sqrt(((place - other.apply(partners.ligand_ca)) ** 2).sum(axis=1).mean()) for other in taken]
        if min(apart, default=np.inf) >= DISTINCT:
            taken.append(settled)
    return taken


def _refine(partners: Partners, pose: Pose, rng: np.random.Generator) -> Pose:
    """Brought to touch after small random moves; of these the one with the most contacts.

    A search as short as ours leaves gaps between the partners.
    """
    clashes, hard = _allowance(partners, rng)
    best, most = pose, -1
    for trial in range(NUM_REFINEMENTS):
        amount = 0.0 if trial == 0 else 1.0
        centre = pose.apply(partners.ligand_ca).mean(axis=0)
        move = about(small_rotation(rng, rng.uniform(0, 25.0) * amount), centre, 4.0 * amount * random_direction(rng))
        moved = Pose(move.rotation @ pose.rotation, move.rotation @ pose.shift + move.shift)
        touching = partners.approach(moved, partners.normal(moved), clashes, hard)
        edges = partners.num_edges(touching)
        if edges > most:
            best, most = touching, edges
    return best
