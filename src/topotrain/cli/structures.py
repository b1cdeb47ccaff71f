"""Commands on structures: graphs, labels and scores of them, the feature modules, the demo data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from topotrain.cli import completion
from topotrain.cli.options import (
    TRACKING_URI,
    UNUSED_URI,
    InputPath,
    KeyValue,
    Words,
    engine_options,
    jobs_option,
    model_option,
    option,
    target_options,
)
from topotrain.cli.output import deliver, say, say_outcome
from topotrain.cli.startup import heavy_imports
from topotrain.errors import DataError

if TYPE_CHECKING:
    from topotrain.cluster.workers import EngineName

Models = Literal["first", "all"]
MODELS = option(
    "--models",
    type=click.Choice(["first", "all"]),
    default="first",
    show_default=True,
    help="Of files with several MODELs of the same chains: the first, or each as a decoy NAME_1, NAME_2, ...",
)
CHAINS = option(
    "--chains",
    metavar="A,B:C",
    help="Partners: here A and B together, and C; other chains are left out. By default each chain is one.",
)
STRICT = click.option(
    "--strict", is_flag=True, help="A structure that fails, or is not read as it stands, is an error (exit 2)."
)


def say_changes(line: str) -> None:
    """What reading the structures left out or changed, if anything."""
    if line:
        say(f"read: {line}")


@click.command("build-graphs")
@click.argument("structures", type=InputPath())
@option(
    "--out",
    type=click.Path(),
    required=True,
    metavar="DIR",
    help="Graph directory; graphs that are there unchanged are kept.",
)
@option(
    "--edge-module", metavar="ID", help="Such as edge/legacy_band/v11 (the default).", shell_complete=completion.modules
)
@option(
    "--node-module",
    metavar="ID",
    help="Such as node/dssp_topo_merge/v1 (the default).",
    shell_complete=completion.modules,
)
@option("--topology-module", metavar="ID", help="Such as topology/none/v1.", shell_complete=completion.modules)
@option(
    "--interface-module",
    metavar="ID",
    help="Such as interface/polar_cutoff/v1 (the default).",
    shell_complete=completion.modules,
)
@option("--set", "settings", type=KeyValue(), multiple=True, help="A module's parameter; repeatable.")
@option("--sets", type=Words("kind.parameter=value pairs"), default="", hidden=True)
@jobs_option("Processes.")
@engine_options
@MODELS
@CHAINS
@STRICT
@click.option("--replace", is_flag=True, help="Graphs of other modules in the folder give way; else they are refused.")
@TRACKING_URI
def build_graphs(
    structures: str,
    out: str,
    edge_module: str | None,
    node_module: str | None,
    topology_module: str | None,
    interface_module: str | None,
    settings: Sequence[tuple[str, str]],
    sets: Sequence[str],
    jobs: int,
    engine: EngineName,
    address: str | None,
    models: Models,
    chains: str | None,
    strict: bool,
    replace: bool,
    tracking_uri: str | None,
) -> None:
    """Build interface graphs from PDB or mmCIF files (plain, compressed, or an archive of them), flat or by target.

    \b
    topotrain build-graphs structures/ --out graphs/ --jobs 4
    topotrain build-graphs structures/ --out graphs/ --edge-module edge/multi_scale/v24 --set interface.cutoff=14
    """
    from topotrain.features import build_graphs as build
    from topotrain.progress import counter
    from topotrain.tracking.report_run import keep_report

    with counter("building graphs") as progress:
        report = build(
            Path(structures),
            Path(out),
            edge_module=edge_module,
            node_module=node_module,
            topology_module=topology_module,
            interface_module=interface_module,
            settings=dict([*map(KeyValue(), sets), *settings]),
            jobs=jobs,
            engine=engine,
            address=address,
            strict=strict,
            models=models,
            chains=chains,
            replace_others=replace,
            progress=progress,
        )
    say_changes(report.changes_line)
    say(f"summary: {report.summary_path}")
    say_outcome(report.failures, f"{len(report.built)} graphs built, {len(report.kept)} kept")
    keep_report("build-graphs", report.summary_path.read_text(encoding="utf-8"), "build-graphs.json", tracking_uri)
    if not report.num_graphs:
        raise DataError(f"{structures}: no structure gave a graph", "at least one graph", f"see {report.summary_path}")


@click.command()
@click.argument("decoys", type=InputPath())
@option(
    *("--native", "--natives", "native"),
    type=InputPath(),
    required=True,
    metavar="FILE|DIR",
    help="The native of the decoys; or a folder with one for each folder of decoys, of the same name.",
)
@option(
    "--target",
    metavar="NAME",
    help="Rows are NAME/MODEL; by default so where the decoys' folder has the native's name.",
)
@option("--native-chains", metavar="A,B", help="The chains of the native that count; by default all.")
@option("--out", type=click.Path(), metavar="CSV", help="Labels file to add to; by default printed.")
@click.option("--replace", is_flag=True, help="Rows of the labels file may get other values.")
@jobs_option("Processes.")
@MODELS
@STRICT
@UNUSED_URI
def label(
    decoys: str,
    native: str,
    target: str | None,
    native_chains: str | None,
    out: str | None,
    replace: bool,
    jobs: int,
    models: Models,
    strict: bool,
) -> None:
    """Add DockQ and the CAPRI class of decoys to a labels file.

    Chains are matched by sequence, whatever their names. A row of the file is never changed without --replace.

    \b
    topotrain label decoys/1AY7 --native natives/1AY7.pdb --out labels.csv
    topotrain label decoys --natives natives --out labels.csv --jobs 4
    topotrain label models --native native.pdb --target 1AY7 --out labels.csv
    """
    from topotrain.features import label_decoys
    from topotrain.features.dockq import in_groups
    from topotrain.features.labels_file import merged_labels
    from topotrain.progress import counter

    existing = Path(out) if out else None
    merged_labels([], existing)  # a file that cannot be added to is named before the work
    chains = [name.strip() for name in (native_chains or "").split(",") if name.strip()]
    with counter("labelling") as progress:
        report = label_decoys(
            *(Path(decoys), Path(native), progress),
            target=target,
            native_chains=chains,
            jobs=jobs,
            models=models,
            strict=strict,
        )
    say_changes(report.changes_line)
    total = len(report.rows) + len(report.failures)
    for line in in_groups(((key, note) for key, notes in report.notes.items() for note in notes), total):
        say(f"note: {line}")
    for line in in_groups(report.failures.items(), total):
        say(f"failed: {line}")
    say(f"{len(report.rows)} decoys labelled, {len(report.failures)} failed")
    if not report.rows:
        raise DataError(f"{decoys}: no decoy could be labelled", "decoys of the native's complex", "see above for why")
    merged = merged_labels(report.rows, existing, replace)
    for line in merged.changed:
        say(f"changed: {line}")
    deliver(merged.text, out)


@click.command()
@option("--kind", type=click.Choice(["interface", "topology", "node", "edge"]))
@click.option("--json", "as_json", is_flag=True, help="Columns and parameters too.")
@UNUSED_URI
def features(kind: str | None, as_json: bool) -> None:
    """List the feature modules that are installed.

    \b
    topotrain features
    topotrain features --kind edge --json
    """
    from dataclasses import asdict

    from topotrain.features import list_modules
    from topotrain.features.listing import module_lines
    from topotrain.text import as_json as to_json

    modules = list_modules(kind)
    if as_json:
        deliver(to_json([asdict(module) for module in modules]))
    else:
        click.echo("\n".join(module_lines(modules)))


@click.command()
@click.argument("structures", nargs=-1, required=True, type=InputPath())
@model_option("Or a local folder; by default the champion of topoqa, else its candidate, else starter.")
@target_options
@option("--out", type=click.Path(), metavar="CSV", help="By default printed.")
@option("--report", type=click.Path(dir_okay=False), metavar="HTML", help="A page: the ranking, and the best in space.")
@option(
    "--annotate",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Structures with importances as B-factors; view.pml, view.cxc.",
)
@jobs_option("Processes.")
@engine_options
@MODELS
@CHAINS
@click.option("--no-cache", is_flag=True, help="Build every graph, and keep none for another call.")
@STRICT
@TRACKING_URI
def score(
    structures: Sequence[str],
    model: str | None,
    target_level: int | None,
    target_pattern: str | None,
    out: str | None,
    report: str | None,
    annotate: str | None,
    jobs: int,
    engine: EngineName,
    address: str | None,
    models: Models,
    chains: str | None,
    no_cache: bool,
    strict: bool,
    tracking_uri: str | None,
) -> None:
    """Score models of a complex: a folder, an archive, or files. The best comes first.

    All are ranked together; a folder with a folder for each complex is ranked complex by complex. Graphs are kept, so
    that a call that was interrupted, or the next one, goes on.

    \b
    topotrain score models/ --out scores.csv
    topotrain score model_1.pdb model_2.cif.gz --chains A,B:C
    topotrain score models/ --report report.html --annotate annotated/
    topotrain score models.zip --model models:/topoqa/3
    topotrain score models/ --model starter
    """
    with heavy_imports():
        from topotrain.data.targets import TargetRule
        from topotrain.progress import counter
        from topotrain.scoring.score_table import scores_csv
        from topotrain.scoring.structures import score_structures
        from topotrain.tracking.report_run import keep_report

    with counter("structures") as progress, _kept_for_the_next(not no_cache):
        done = score_structures(
            structures,
            model,
            targets=TargetRule(target_level, target_pattern),
            jobs=jobs,
            engine=engine,
            address=address,
            strict=strict,
            models=models,
            chains=chains,
            keep_graphs=not no_cache,
            report=report,
            annotate=annotate,
            progress=progress,
            tracking_uri=tracking_uri,
        )
    text = scores_csv(done.rows, done.quality)
    deliver(text, out)
    say_changes(done.changes_line)
    say_outcome(done.failures, f"{len(done.scored)} structures scored")
    for sentence in done.sentences:
        say(sentence)
    keep_report("score", text, "scores.csv", tracking_uri)


@contextmanager
def _kept_for_the_next(kept: bool) -> Iterator[None]:
    """Say after Ctrl-C that the work was not for nothing."""
    try:
        yield
    except KeyboardInterrupt:
        if kept:
            say("graphs that were built are kept: the same command goes on")
        raise


@click.command("demo-graphs")
@option("--out", type=click.Path(), required=True, metavar="DIR", help="A folder that does not exist yet.")
@UNUSED_URI
def demo_graphs(out: str) -> None:
    """Write the demo data set: graphs of real complexes' decoys, metadata, label files.

    \b
    topotrain demo-graphs --out demo
    """
    from topotrain.data.demo import write_demo

    write_demo(Path(out).absolute())
    say(f"wrote graphs/, train.csv, val.csv and holdout.csv below {out}")


@click.command("demo-structures")
@option("--out", type=click.Path(), required=True, metavar="DIR", help="A folder that does not exist yet.")
@UNUSED_URI
def demo_structures(out: str) -> None:
    """Write the structures of the demo data set as PDB files: decoys by split and target, and the natives.

    \b
    topotrain demo-structures --out complexes
    topotrain score complexes/holdout --out scores.csv
    topotrain label complexes/holdout/1BGS_AE --native complexes/natives/1BGS_AE.pdb
    """
    from topotrain.data.demo import write_demo_structures

    write_demo_structures(Path(out).absolute())
    say(f"wrote train/, val/, holdout/ and natives/ below {out}")
