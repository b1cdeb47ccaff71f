"""``topotrain cache``: what is kept so that it need not be made again."""

from __future__ import annotations

from pathlib import Path

import click

from topotrain.cli.options import CACHE, option
from topotrain.cli.output import deliver, say


@click.group()
def cache() -> None:
    """List or clear what is kept so that it need not be made again.

    \b
    topotrain cache list
    topotrain cache clear --gone      packed graphs whose graph directory is there no more
    topotrain cache clear             everything
    """


@cache.command("list")
@option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@CACHE
def list_(form: str, cache: str | None) -> None:
    """Show packed graphs, graphs of batches and of score, and the demo data, the largest first.

    \b
    topotrain cache list
    topotrain cache list --format json
    """
    from topotrain.data.cache import list_cache
    from topotrain.text import aligned, as_json

    entries = list_cache(Path(cache) if cache else None)
    if form == "json":
        deliver(as_json([entry.to_dict() for entry in entries]))
        return
    rows = [
        [
            entry.path.name,
            entry.kind,
            "" if entry.num_graphs is None else str(entry.num_graphs),
            f"{entry.num_bytes / 1e6:.1f}",
            entry.changed,
            f"{entry.graphs} (gone)" if entry.gone else entry.graphs,
        ]
        for entry in entries
    ]
    lines = aligned([["name", "kind", "graphs", "MB", "written", "packed from"], *rows], left=2)
    deliver("".join(f"{line}\n" for line in lines))


@cache.command("clear")
@click.argument("names", nargs=-1)
@click.option("--gone", is_flag=True, help="Only packed graphs whose graph directory is there no more.")
@CACHE
def clear(names: tuple[str, ...], gone: bool, cache: str | None) -> None:
    """Remove what is kept; it is made again when it is needed.

    \b
    topotrain cache clear
    topotrain cache clear --gone
    topotrain cache clear packed-graphs-0123456789abcdef
    """
    from topotrain.data.cache import clear_cache

    removed, busy = clear_cache(names, only_gone=gone, cache=Path(cache) if cache else None)
    for entry in busy:
        say(f"{entry.path.name}: another process is writing it; it stays")
    say(f"removed {len(removed)} of the cache's folders, {sum(entry.num_bytes for entry in removed) / 1e6:.1f} MB")
