"""How far the builtin secondary structure and accessibility are from mkdssp, on a folder of real structures.

    python benchmarks/dssp_agreement.py FOLDER... [--limit N] [--json OUT]

Needs mkdssp on the PATH (Debian: apt-get install dssp). Structures that either side refuses are counted,
not hidden. Every unique structure counts once (by the residue names and the first coordinates), and only
residues mkdssp knows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from topotrain.errors import TopotrainError
from topotrain.features.dssp import (
    backbone_angles,
    complete_backbone,
    relative_accessibility,
    secondary_structure,
)
from topotrain.features.mkdssp import run_mkdssp
from topotrain.features.structure import Structure, is_structure_file, read_structure

MIN_RESIDUES = 20
ANGLE_NAMES = ("phi", "psi")


def compare(structure: Structure) -> dict[str, np.ndarray]:
    """Both sides of one structure, residues that mkdssp knows."""
    table = run_mkdssp(structure)
    everything = np.arange(structure.num_residues)
    started = time.process_time()
    codes, phi_psi = secondary_structure(structure), backbone_angles(structure)
    rasa = relative_accessibility(structure, everything)
    seconds = time.process_time() - started
    known = table.known
    rows = {
        "ours": codes[known],
        "mkdssp": table.codes[known],
        "rasa": rasa[known] - table.accessibility[known],
        "seconds": np.array([seconds]),
    }
    for name, ours, theirs in zip(ANGLE_NAMES, phi_psi, (table.phi, table.psi), strict=True):
        # mkdssp rounds angles to 0.1 degree; a difference of a whole turn is none.
        rows[name] = np.abs((ours[known] - theirs[known] + 180.0) % 360.0 - 180.0)
    return rows


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--limit", type=int, default=0, help="at most so many structures")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    arguments = parser.parse_args()
    files = sorted(path for folder in arguments.folders for path in folder.rglob("*") if is_structure_file(path))
    seen: set[tuple[object, ...]] = set()
    collected: dict[str, list[np.ndarray]] = {}
    refused: Counter[str] = Counter()
    per_structure = {}
    for path in files:
        try:
            structure = read_structure(path)
            if complete_backbone(structure).sum() < MIN_RESIDUES:
                refused["too few complete residues"] += 1
                continue
            key = (
                structure.num_residues,
                tuple(structure.residue_names[:50]),
                tuple(structure.coords[0].round(1)),
            )
            if key in seen:
                refused["seen already"] += 1
                continue
            seen.add(key)
            rows = compare(structure)
        except TopotrainError as error:
            refused["refused"] += 1
            print(f"refused: {str(error)[:200]}", file=sys.stderr)
            continue
        for name, values in rows.items():
            collected.setdefault(name, []).append(values)
        per_structure[str(path)] = float((rows["ours"] == rows["mkdssp"]).mean())
        if len(per_structure) == arguments.limit:
            break
    report = summarise(collected, per_structure, refused)
    text = json.dumps(report, indent=1)
    print(text)
    if arguments.json:
        arguments.json.write_text(text)
    return 0


def summarise(
    collected: dict[str, list[np.ndarray]], per_structure: dict[str, float], refused: Counter[str]
) -> dict[str, object]:
    """The numbers over all residues."""
    pooled = {name: np.concatenate(values) for name, values in collected.items()}
    ours, theirs = pooled["ours"], pooled["mkdssp"]
    confusions = Counter(f"{b}->{a}" for a, b in zip(ours, theirs, strict=True) if a != b)
    rasa = np.abs(pooled["rasa"])
    return {
        "structures": len(per_structure),
        "residues": len(ours),
        "skipped": dict(refused),
        "ss8_agreement": round(float((ours == theirs).mean()), 5),
        "ss8_confusions_mkdssp_to_ours": dict(confusions.most_common(12)),
        "rasa_mean_abs": round(float(rasa.mean()), 5),
        "rasa_99th": round(float(np.quantile(rasa, 0.99)), 5),
        "rasa_max_abs": round(float(rasa.max()), 5),
        "rasa_bias": round(float(pooled["rasa"].mean()), 5),
        "phi_psi_over_half_degree": {name: int((pooled[name] > 0.5).sum()) for name in ANGLE_NAMES},
        "seconds_per_structure": round(float(np.mean(pooled["seconds"])), 4),
        "worst_structures": dict(sorted(per_structure.items(), key=lambda item: item[1])[:8]),
    }


if __name__ == "__main__":
    sys.exit(main())
