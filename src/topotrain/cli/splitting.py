"""The command that cuts complexes into folds."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from topotrain.cli.options import UNUSED_URI, InputPath, Whole, jobs_option, option, target_options
from topotrain.cli.output import deliver, say, say_outcome


@click.command()
@click.argument("structures", type=InputPath())
@option(
    "--by",
    type=click.Choice(["sequence", "target"]),
    default="sequence",
    show_default=True,
    help="Complexes with chains alike stay together; or no more than the decoys of one target do.",
)
@option("--folds", "num_folds", type=Whole(2, "PARTS"), default=5, show_default=True, help="How many.")
@option(
    "--identity",
    type=Whole(1, most=100),
    metavar="PERCENT",
    default=40,
    show_default=True,
    help="Of the aligned residues, from which two chains are alike.",
)
@option("--labels", type=InputPath(), metavar="CSV", help="Labels of the decoys: each fold gets two label files.")
@option("--label-column", default="dockq", show_default=True, metavar="NAME", help="The quality in the labels.")
@option("--out", type=click.Path(), metavar="DIR", help="Where the files go; by default the targets are printed.")
@jobs_option("Processes that read and align.")
@target_options
@UNUSED_URI
def split(
    structures: str,
    by: Literal["sequence", "target"],
    num_folds: int,
    identity: int,
    labels: str | None,
    label_column: str,
    out: str | None,
    jobs: int,
    target_level: int | None,
    target_pattern: str | None,
) -> None:
    """Cut complexes into folds for training and judging, so that none in one fold is like one in another.

    STRUCTURES is a folder of decoys by target, or an archive of one. Chains are compared by their sequences, and
    complexes that are linked by chains alike go to one fold. With --by target, STRUCTURES may be a label file.

    \b
    topotrain split decoys/                                         # which complexes are alike
    topotrain split decoys/ --labels labels.csv --out folds --jobs 4
    topotrain split labels.csv --by target --folds 10 --out folds
    """
    from topotrain.data.targets import TargetRule
    from topotrain.features.split import split_structures
    from topotrain.progress import counter

    with counter("comparing") as progress:
        report = split_structures(
            Path(structures),
            labels=Path(labels) if labels else None,
            out=Path(out) if out else None,
            by=by,
            num_folds=num_folds,
            min_identity=identity / 100,
            targets=TargetRule(target_level, target_pattern),
            column=label_column,
            jobs=jobs,
            progress=progress,
        )
    if report.failures:
        say_outcome(report.failures, f"sequences read of {len(report.targets)} targets")
    for line in report.lines():
        say(line)
    if out is None:
        deliver(report.targets_csv)
    else:
        say(f"written to {out}")
