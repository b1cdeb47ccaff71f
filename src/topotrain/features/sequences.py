"""Sequences of a structure's protein chains, and the file beside graphs that keeps them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from topotrain.errors import DataError
from topotrain.features.residue_names import AMINO_ACIDS
from topotrain.features.structure import Structure
from topotrain.fields import SEQUENCES_NAME
from topotrain.files import write_whole
from topotrain.reading.json_file import read_json

UNKNOWN_LETTER = "X"
_LETTERS = {name: letter for letter, name in AMINO_ACIDS.items()}
WRITTEN = "sequences as build-graphs writes them"


def protein_sequences(structure: Structure) -> dict[str, str]:
    """A letter for each residue that is there, by chain; of chains that are mostly amino acids."""
    chains: dict[str, list[str]] = defaultdict(list)
    for chain, name in zip(structure.chain_ids.tolist(), structure.residue_names.tolist(), strict=True):
        chains[chain].append(_LETTERS.get(name, UNKNOWN_LETTER))
    proteins = {name: letters for name, letters in chains.items() if letters.count(UNKNOWN_LETTER) * 2 < len(letters)}
    return {name: "".join(letters) for name, letters in proteins.items()}


def longest(sequences: Iterable[str]) -> frozenset[str]:
    """Those that are no part of another: decoys of a target may lack residues."""
    kept: list[str] = []
    for sequence in sorted(set(sequences), key=lambda text: (-len(text), text)):
        if not any(sequence in longer for longer in kept):
            kept.append(sequence)
    return frozenset(kept)


def write_sequences(out: Path, built: Mapping[str, Mapping[str, str]], there: Iterable[str]) -> None:
    """Put the chains of built graphs into the file of their folder, each sequence once.

    Args:
        out: the graph folder.
        built: sequences by chain, by graph.
        there: graphs that are there, of this build and of earlier ones.

    Raises:
        OSError: it can't be written.
    """
    try:
        known = read_sequences(out)
    except DataError:
        known = {}
    chains = {key: {**known, **built}[key] for key in sorted(there) if key in built or key in known}
    place: dict[str, int] = {}
    graphs = {
        key: {name: place.setdefault(sequence, len(place)) for name, sequence in sorted(of_graph.items())}
        for key, of_graph in chains.items()
    }
    text = json.dumps({"sequences": list(place), "graphs": graphs}, indent=1, ensure_ascii=False)
    write_whole(out / SEQUENCES_NAME, text.encode("utf-8", "backslashreplace"))


def read_sequences(folder: Path) -> dict[str, dict[str, str]]:
    """Sequences by chain, by graph; nothing where the folder has none.

    Raises:
        DataError: the file is malformed.
    """
    path = folder / SEQUENCES_NAME
    if not path.is_file():
        return {}
    content = read_json(path, WRITTEN)
    try:
        sequences = [str(one) for one in content["sequences"]]
        return {
            str(key): {str(name): sequences[int(place)] for name, place in chains.items()}
            for key, chains in content["graphs"].items()
        }
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise DataError(f"{path}: malformed", WRITTEN, "build the graphs again, or remove it") from None
