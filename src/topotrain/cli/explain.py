"""Command that explains one score."""

from __future__ import annotations

import click

from topotrain.cli.options import TRACKING_URI, InputPath, model_option, option
from topotrain.cli.output import deliver, say
from topotrain.cli.startup import heavy_imports
from topotrain.cli.structures import CHAINS


@click.command()
@click.argument("source", type=InputPath(), metavar="STRUCTURE|GRAPH")
@model_option("Or a local folder; by default the champion of topoqa, else its candidate, else starter.")
@option("--out", type=click.Path(), metavar="CSV", help="The residues; by default printed.")
@option("--contacts", type=click.Path(), metavar="CSV", help="The contacts, too.")
@CHAINS
@click.option("--allow-unverified", is_flag=True, help="Check a graph without column names by width alone.")
@TRACKING_URI
def explain(
    source: str,
    model: str | None,
    out: str | None,
    contacts: str | None,
    chains: str | None,
    allow_unverified: bool,
    tracking_uri: str | None,
) -> None:
    """Say how much each interface residue of a complex, and each contact, adds to its score.

    \b
    topotrain explain model.pdb
    topotrain explain model.cif --model models:/topoqa/3 --out residues.csv --contacts contacts.csv
    topotrain explain graphs/1AY7/decoy_12.pt
    """
    with heavy_imports():
        from topotrain.fields import quality_name
        from topotrain.scoring.explain import contacts_csv, residues_csv
        from topotrain.scoring.explain import explain as explain_score

    found = explain_score(source, model, chains=chains, allow_unverified=allow_unverified, tracking_uri=tracking_uri)
    deliver(residues_csv(found), out)
    if contacts:
        deliver(contacts_csv(found), contacts)
    say(
        f"predicted {quality_name(found.quality)} {found.score:.4f}, and {found.reference:.4f} where every feature is "
        f"at its mean over the training graphs; the importances of {len(found.residues)} residues sum to "
        f"{found.total:+.4f}"
    )
