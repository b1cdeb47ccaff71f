"""The card of the model that comes with topotrain."""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topotrain.fields import SCHEMA_ARTIFACT
from topotrain.schema.feature_schema import FeatureSchema
from topotrain.text import least_to_most

LINE = 110  # characters
HEADINGS = ("targets", "decoys", "Spearman", "ranking loss", "MSE")


@dataclass(frozen=True)
class Decoy:
    """One labelled graph: its key in the joint directory, its label, and where it is from."""

    key: str
    dockq: float
    target: str
    kind: str
    source: str


@dataclass(frozen=True)
class Source:
    """A graph directory.

    Attributes:
        name: of the data.
        graphs: the directory.
        labels: its label files.
        words: where the graphs are from, and their licence.
        version: of the demo data set.
    """

    name: str
    graphs: Path
    labels: tuple[Path, ...]
    words: str
    version: str = ""

    def to_dict(self, decoys: Iterable[Decoy]) -> dict[str, Any]:
        """What the recipe says of it.

        Args:
            decoys: of all sources, as far as they are used.
        """
        mine = [decoy for decoy in decoys if decoy.source == self.name]
        rows = sorted(f"{decoy.key}\0{decoy.dockq!r}\0{decoy.target}" for decoy in mine)
        kinds = sorted({decoy.kind for decoy in mine})
        return {
            "name": self.name,
            "source": self.words,
            "targets": sorted({decoy.target for decoy in mine}),
            "decoys": {kind: sum(decoy.kind == kind for decoy in mine) for kind in kinds},
            "label_digest": hashlib.sha256("\n".join(rows).encode()).hexdigest(),
            **({"version": self.version} if self.version else {}),
        }


def starter_card(recipe: Mapping[str, Any], schema: FeatureSchema) -> str:
    """The card as Markdown.

    Args:
        recipe: of the model.
        schema: what its networks take.
    """
    parts = (
        _heading(recipe),
        _takes(schema),
        _learned(recipe),
        _figures(recipe),
        _limits(recipe),
        _use(),
        _made(recipe),
    )
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _paragraph(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, LINE, subsequent_indent=indent)


def _heading(recipe: Mapping[str, Any]) -> Iterator[str]:
    yield "# The starter model"
    yield ""
    yield from _paragraph(
        f"Predicts DockQ of interface graphs: the mean of {len(recipe['members'])} networks, each of which learned "
        "from another nine tenths of the complexes, and how far they lie apart. It comes with topotrain, so that "
        "structures can be scored before anything was trained; a model of your own, once there is a champion or a "
        "candidate, takes its place. Written by `scripts/train_starter.py`; nobody edits it by hand."
    )


def _takes(schema: FeatureSchema) -> Iterator[str]:
    yield "## What it takes"
    yield ""
    yield from _paragraph(
        f"Graphs as `topotrain build-graphs` makes them by default: {schema.node_dim} node and {schema.edge_dim} edge "
        f"columns, all of them named in `{SCHEMA_ARTIFACT}`. Graphs with others are refused."
    )
    yield ""
    yield from (f"- {kind} module: `{module['id']}`" for kind, module in schema.feature_modules.items())
    yield f"- schema digest: `{schema.digest}`"


def _learned(recipe: Mapping[str, Any]) -> Iterator[str]:
    data = recipe["data"]
    yield "## What it learned from"
    yield ""
    yield "| data | targets | decoys | of which | digest of keys, labels and targets |"
    yield "|---|---|---|---|---|"
    for one in data["sources"]:
        kinds = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in one["decoys"].items())
        total = sum(one["decoys"].values())
        name = f"{one['name']} {one.get('version', '')}".strip()
        yield f"| {name} | {len(one['targets'])} | {total} | {kinds} | `{one['label_digest'][:16]}` |"
    yield ""
    for one in data["sources"]:
        yield from _paragraph(f"- **{one['name']}**: {one['source']}.", "  ")
    yield ""
    learned = [one["train_graphs"] for one in recipe["members"]]
    yield from _paragraph(
        f"Each network was trained on {least_to_most(learned)} of these graphs. A tenth of each source's "
        "targets, whole clusters where their clusters are known, were its validation data: another tenth for each, "
        "which the others learned from. The weights are here, none of the data but the demo data set, which topotrain "
        "brings."
    )
    if data["left_out"]:
        yield ""
        yield from _paragraph(
            f"Left out, since a chain of theirs is like one of the demo hold-out: {', '.join(data['left_out'])}."
        )


def _figures(recipe: Mapping[str, Any]) -> Iterator[str]:
    yield "## How it does"
    yield ""
    yield from _paragraph(
        "Means over targets; decoys of a kind are ranked among themselves. The first table is of single networks, each "
        "on its own validation data; the mean of all of them is a little better. The second is of the starter itself, "
        "beside boosted trees on pooled columns that learned from what its first network learned from."
    )
    for title, models in recipe["figures"].items():
        yield ""
        yield f"| {title} | | {' | '.join(HEADINGS)} |"
        yield "|---|---|" + "---|" * len(HEADINGS)
        for name, kinds in models.items():
            yield from (f"| {name} | {kind.replace('_', ' ')} | {_cells(row)} |" for kind, row in kinds.items())
    yield ""
    yield from _paragraph(
        "The demo hold-out is in none of the data above, and no choice was made on it. Validation data chose the "
        "epochs, so their figures are somewhat too good."
    )
    if recipe["cross_validated"]:
        yield ""
        yield "Cross-validated between clusters of complexes (`benchmarks/cross_validation.py`), the same recipe:"
        yield ""
        yield recipe["cross_validated"]


def _cells(row: Mapping[str, Any]) -> str:
    numbers = (row[name] for name in ("spearman", "ranking_loss", "mse"))
    shown: Sequence[str] = ["-" if value is None else f"{value:.3f}" for value in numbers]
    return " | ".join([str(row["targets"]), str(row["decoys"]), *shown])


def _limits(recipe: Mapping[str, Any]) -> Iterator[str]:
    kinds: dict[str, int] = {}
    for one in recipe["data"]["sources"]:
        for kind, count in one["decoys"].items():
            kinds[kind] = kinds.get(kind, 0) + count
    share = kinds.get("docking", 0) / sum(kinds.values())
    yield "## Limits"
    yield ""
    for line in (
        f"Most of its decoys were made by moving partners as rigid bodies; {share:.0%} are of docking programs, and "
        "none is predicted by a network such as AlphaFold. Score those with care, and measure it first "
        "(`topotrain evaluate`) where you have labels.",
        "Pairs of proteins alone: no nucleic acids, peptides, glycans or ligands, and next to no antibodies.",
        "A score ranks structures of one complex. It is no affinity, says nothing of whether two proteins bind, and "
        "scores of different complexes should not be compared.",
        "The members share their data, so that they agree on what all of them get wrong: their spread is smaller than "
        "the error.",
        "Not for any decision about a person's health.",
    ):
        yield from _paragraph(f"- {line}", "  ")


def _use() -> Iterator[str]:
    yield "## How to use it"
    yield ""
    yield "```bash"
    yield "topotrain score complexes/ --model starter    # or without --model, where no model of your own is there"
    yield "topotrain evaluate --model starter            # on the demo hold-out"
    yield "```"


def _made(recipe: Mapping[str, Any]) -> Iterator[str]:
    yield "## How it was made"
    yield ""
    yield f"topotrain {recipe['topotrain']}, {recipe['created']}; the configuration is the default but for overrides:"
    yield ""
    yield "```bash"
    yield recipe["command"]
    yield "```"
    yield ""
    yield "SHA-256 of the weights:"
    yield ""
    total = len(recipe["members"])
    yield from (
        f"- `member_{number}_of_{total}.safetensors`: `{one['weights_sha256']}`"
        for number, one in enumerate(recipe["members"], start=1)
    )
