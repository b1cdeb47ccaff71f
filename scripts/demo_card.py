"""The data card of the demo data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from demo_decoys import LEAST_EDGES, MAX_GAP, MIN_EDGES, MOST_EDGES, NATIVE, QUOTAS
from demo_geometry import CLASH, EDGE, HARD_CLASH
from demo_targets import SCALE, SOURCES
from scipy.spatial import cKDTree

from topotrain.data.demo import SPLITS
from topotrain.data.demo_codec import DemoGraph, DemoTarget
from topotrain.metrics.ranking import spearman

CLASSES = ("incorrect", "acceptable", "medium", "high")
BAR = 60  # decoys of the longest bar

TEXT = """# The demo data set

Decoys of {num_targets} real protein complexes as interface graphs, with their true DockQ. It comes with topotrain so
that training, scoring and every example run without a download. Written by `scripts/make_demo_data.py`, which makes it
again from public packages; nobody edits it by hand.

**It is not a benchmark.** Use it to learn the tool and to see that a change still learns.

## Files

| file | content |
|---|---|
| `graphs.safetensors.xz` | {num_graphs} graphs, labels, builder metadata; no pickle |
| `structures.safetensors.xz` | each target's atoms once, one rigid move of partner B per decoy |

`topotrain demo-graphs` and `topotrain demo-structures` write them as ordinary files.
Modules: {modules}.
Graphs are what `topotrain build-graphs` makes of the structures, rounded to keep them small: node columns in [-1, 1] to
0.00005, other node columns (topology, Angstrom) to 0.0005 of the value or of 1, whichever is more, C-alpha distances to
0.0001 Angstrom, counts and one-hot columns exactly. Nodes and edges are the same.

## Targets

| target | split | partners | chains in the file | residues | native contacts | source distribution, file |
|---|---|---|---|---|---|---|
{targets}

The first four characters are the PDB entry. Contacts: pairs of C-alphas of the two partners under 10 Angstrom.
Chains are renamed A and B, numbering is the authors'. Kept: standard amino acids with a whole backbone, heavy atoms,
first alternate location. Not kept: ligands, waters, nucleic acids, glycans, other chains. Coordinates are centred.

**Licence.** The coordinates are those of the Protein Data Bank, which is in the public domain (CC0 1.0). The packages
named are where the files were taken from; nothing else of theirs is here. Decoys, graphs and labels: as topotrain, MIT.

**Split by target.** No target is in two splits, nor is a PDB entry.
{identity}

## Decoys

| | train | val | holdout |
|---|---|---|---|
{counts}

DockQ of all decoys:

```
{histogram}
```

- **native-like**: turned by up to 3 degrees and shifted by up to 0.6 Angstrom. The native itself is not among the
  decoys, nor is anything nearer to it than DockQ {nearest}.
- **perturbed**: partner B turned and shifted about its native place; or turned by any angle about the interface's
  normal; or put anywhere on partner A in any orientation. The wrong poses with the most contacts are refined by small
  random moves to have still more. Of some thousands of poses those are taken that fill {num_quotas} ranges of quality.
- Both are slid along the interface's normal to where the partners touch, and two thirds are pulled apart again, by up
  to {gap} Angstrom: one rule whatever the quality. To keep the number of contacts from giving the answer away, poses of
  every range of quality are taken with contacts spread over one range of the target's own, as far as there are such
  poses: from {least:.0%} of the native's contacts to as many as its wrong poses reach, {low:.0%} to {high:.0%}.
- **docking**: {program}, a genetic algorithm with restraints, run twice per target on the parts of the partners near
  the restrained site: at native contacts and at a random place. Partner B starts in a random orientation. The searches
  are short; each pose is then brought to touch after small random moves. What docking did not give is made up for by
  perturbed poses.

Clashes, pairs of heavy atoms within {clash_radius:.0f} Angstrom: how many a pose may have is drawn from one
distribution whatever its quality, half to two and a half times as many as the native has (or 8, if it has fewer);
within {hard_radius} Angstrom at most one, at the place where a slide stops.
Names (`d01` ...) are in random order. Labels: DockQ v2, native against decoy, chains of identical sequence matched the
better way; CAPRI classes at 0.23, 0.49, 0.80.

## Limits

- Small, and rigid: both partners keep their bound shape, so interfaces fit better than in real docking. Perturbed poses
  are easier to tell than docked ones, and metrics measured here are higher than on real benchmarks.
- Good poses still have more contacts than wrong ones: Spearman's correlation of the number of edges with DockQ is
  {edges_rho:.2f} (mean over targets). Judge a model by what it adds to that; see `docs/demo_data.md`.
- Since contacts are evened out, a good pose is looser than a wrong one with as many contacts. Real decoys are not so,
  and a model may learn it.
- Missing loops, cofactors, nucleic acids and neighbouring chains are left as holes. Five entries are single-particle
  cryo-EM. Homodimers and obligate assemblies are over-represented.
- Few docked poses are near the native.
"""


def write_card(
    path: Path,
    targets: Sequence[DemoTarget],
    labels: Mapping[str, Sequence[Sequence[Any]]],
    graphs: Sequence[DemoGraph],
    docking_program: str,
    modules: Iterable[str],
    identity: str,
) -> None:
    """Write ``DATA_CARD.md``.

    Args:
        path: the file.
        targets: the complexes.
        labels: rows by split.
        graphs: the graphs.
        docking_program: ``name==version``.
        modules: ids of the feature modules.
        identity: a sentence on the likeness of sequences across splits.
    """
    rows = [row for split in labels.values() for row in split]
    text = TEXT.format(
        num_targets=len(targets),
        num_graphs=len(graphs),
        modules=", ".join(f"`{module}`" for module in modules),
        targets="\n".join(_target_row(target) for target in targets),
        identity=identity,
        counts="\n".join(_count_rows(labels)),
        histogram="\n".join(_histogram([float(row[1]) for row in rows])),
        num_quotas=len(QUOTAS),
        low=LEAST_EDGES,
        high=MOST_EDGES,
        least=MIN_EDGES,
        nearest=NATIVE,
        gap=MAX_GAP,
        program=docking_program,
        clash_radius=CLASH,
        hard_radius=HARD_CLASH,
        edges_rho=edges_correlation(rows, graphs),
    )
    path.write_text(text, encoding="utf-8")


def edges_correlation(rows: Sequence[Sequence[Any]], graphs: Sequence[DemoGraph]) -> float:
    """Spearman's correlation of the number of edges with DockQ, mean over targets."""
    edges = {graph.key: graph.edge_index.shape[1] for graph in graphs}
    by_target: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        by_target.setdefault(row[3], []).append((edges[row[0]], row[1]))
    values = [np.array(pairs, dtype=np.float64) for pairs in by_target.values()]
    return float(np.mean([spearman(pairs[:, 0], pairs[:, 1]) or 0.0 for pairs in values]))


def _target_row(target: DemoTarget) -> str:
    source = next(source for source in SOURCES if source.name == target.name)
    sizes = Counter(residue[0] for residue in target.residues)
    cells = [
        target.name,
        source.split,
        source.title,
        ", ".join(source.chains),
        f"{sizes['A']} + {sizes['B']}",
        str(_native_contacts(target)),
        f"{source.distribution}, `{source.member}`",
    ]
    return "| " + " | ".join(cells) + " |"


def _native_contacts(target: DemoTarget) -> int:
    alpha = np.array([atom.partition(" ")[0] == "CA" for atom in target.atoms])
    first = np.arange(len(alpha)) < target.num_first
    one, two = (cKDTree(target.coords[alpha & side] / SCALE) for side in (first, ~first))
    return int(one.count_neighbors(two, EDGE))


def _count_rows(labels: Mapping[str, Sequence[Sequence[Any]]]) -> list[str]:
    def row(name: str, numbers: Iterable[int]) -> str:
        return f"| {name} | " + " | ".join(str(number) for number in numbers) + " |"

    splits = [labels[split] for split in SPLITS]
    lines = [row("targets", (len({item[3] for item in split}) for split in splits)), row("decoys", map(len, splits))]
    for kind in ("native-like", "perturbed", "docking"):
        lines.append(row(kind, (sum(item[4] == kind for item in split) for split in splits)))
    for number, name in enumerate(CLASSES):
        lines.append(row(f"CAPRI {number}, {name}", (sum(item[2] == number for item in split) for split in splits)))
    return lines


def _histogram(values: Sequence[float]) -> list[str]:
    counts, edges = np.histogram(values, bins=np.linspace(0, 1, 11))
    most = max(counts)
    return [
        f"{lower:.1f}-{upper:.1f} {count:4d} {'#' * round(BAR * count / most)}"
        for lower, upper, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
