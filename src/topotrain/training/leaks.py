"""Validation targets that share a protein with the training targets, where sequences are known."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping

from topotrain.data.prepare import PreparedData
from topotrain.data.split import Split
from topotrain.features.sequences import longest, read_sequences
from topotrain.features.similarity import MIN_IDENTITY, find_links, num_cells
from topotrain.fields import SEQUENCES_NAME

MOST_CELLS = 500_000_000  # of alignment matrices, some 20 s of one core, once for the same sequences
SHOWN_TARGETS = 3
TRAIN, VAL = "train", "val"
SPLIT = "topotrain split cuts complexes so that none is"


def shared_proteins(data: PreparedData) -> list[str]:
    """What to say of validation targets with a chain like one of a training target's; nothing where all is well.

    A network has seen such a protein, so what it does on it says little of others. Sequences are those that
    ``build-graphs`` leaves beside graphs.

    Args:
        data: of a run.

    Raises:
        DataError: the file of sequences is malformed.
    """
    known = read_sequences(data.graph_dir)
    if not known:
        return []
    sides = {TRAIN: _by_target(data.train, known), VAL: _by_target(data.val, known)}
    unknown = sorted({name for side in sides.values() for name, chains in side.items() if not chains})
    chains = {f"{side} {name}": found for side, by_target in sides.items() for name, found in by_target.items()}
    val = [name for name in chains if name.startswith(VAL)]
    lines = []
    if unknown:
        lines.append(f"sequences of {len(unknown)} targets are not in {SEQUENCES_NAME}, such as {unknown[0]}")
    if num_cells(chains, val) > MOST_CELLS:
        return [*lines, f"training and validation targets are too many to be compared by sequence here; {SPLIT} alike"]
    key = hashlib.sha256(json.dumps({name: sorted(chains[name]) for name in sorted(chains)}).encode()).hexdigest()
    found: dict[str, list[str | float]] = data.train.store.remembered("alike", key, lambda: _alike(chains, val))
    both = set(sides[TRAIN]) & set(sides[VAL])  # said already
    alike = {name: how for name, how in found.items() if name not in both}
    if alike:
        shown = [f"{name} ({other}, {float(how):.0%})" for name, (other, how) in list(alike.items())[:SHOWN_TARGETS]]
        more = f" and {len(alike) - SHOWN_TARGETS} more" if len(alike) > SHOWN_TARGETS else ""
        lines.append(
            f"{len(alike)} of {len(sides[VAL])} validation targets share a protein with training (a leak, from "
            f"{MIN_IDENTITY:.0%} identity on): {', '.join(shown)}{more}; {SPLIT}"
        )
    return lines


def _by_target(split: Split, known: Mapping[str, Mapping[str, str]]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for sample in split.samples:
        found[sample.target].update(known.get(sample.key, {}).values())
    return {name: longest(sequences) for name, sequences in sorted(found.items())}


def _alike(chains: Mapping[str, frozenset[str]], val: Iterable[str]) -> dict[str, list[str | float]]:
    """Of each validation target that is like one of training: the one that it is most like, and how much."""
    best: dict[str, list[str | float]] = {}
    for link in find_links(chains, apart=frozenset(val)):
        train, name = (full.split(" ", 1)[1] for full in (link.first, link.second))  # "train" sorts before "val"
        if name not in best or link.likeness.identity > float(best[name][1]):
            best[name] = [train, link.likeness.identity]
    return best
