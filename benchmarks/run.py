"""Large data, fast: topotrain and the reference side by side, in turn, with the spread of every ratio.

python benchmarks/run.py --json results.json                    # everything; hours, and 10 GB in --workdir
python benchmarks/run.py step roofline                          # some parts
python benchmarks/run.py epoch --graphs 14400 --nodes 40 --edges 128 --node-dim 172 --edge-dim 24 --workdir made
python benchmarks/run.py --smoke                                # each part on tiny graphs: that it works, not how fast

Parts: step, epoch, first-epoch, memory, schema, predict, recording, commands, per-graph, roofline. A row gives ours and
the reference's, and how many times as fast ours is: the median over the rounds of the ratio within a round (least to
most). One thread each, whole commands in processes of their own, apart from step and roofline. Real graphs (--data) are
a folder with graphs/, train.csv and val.csv; where there is none, that row is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))  # this checkout's package

import torch
from made_graphs import Shape, add_shape, shape_of
from measuring import Spread, machine, table, write_json
from parts import PARTS, Bench, Row, tidy
from processes import ROOT, Commands

TINY = Shape(nodes=8, edges=20, node_dim=6, edge_dim=5)
COLUMNS = ("what", "unit", "ours", "reference", "times as fast", "goal")


def check(rows: Sequence[Row]) -> None:
    """Every figure is a number, and those that are times and ratios are positive.

    Raises:
        SystemExit: one is not.
    """
    for row in rows:
        ratio = row.get("times as fast")
        if ratio is not None and not ratio.least > 0:
            raise SystemExit(f"{row['part']}, {row['what']}: a ratio of {ratio}")
        for side in ("ours", "reference"):
            value = row.get(side)
            if value is not None and not abs(value.median if isinstance(value, Spread) else value) < float("inf"):
                raise SystemExit(f"{row['part']}, {row['what']}: {side} is {value}")


@contextlib.contextmanager
def folder_of(workdir: Path | None) -> Iterator[Path]:
    """The one that was asked for, which stays, or a temporary one."""
    if workdir is not None:
        workdir.mkdir(parents=True, exist_ok=True)
        yield workdir.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="topotrain-benchmark-") as name:
        yield Path(name)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (all)")
    parser.add_argument("--rounds", type=int, default=3, help="of every measurement (%(default)s; 15 of a step)")
    parser.add_argument("--threads", type=int, default=1, help="of every process (%(default)s)")
    parser.add_argument(
        "--graphs", type=int, nargs="+", default=[], help="how many, in place of each part's own numbers"
    )
    add_shape(parser)
    parser.add_argument("--no-sidecar", action="store_true", help="made graphs have no graph_metadata.json")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "real_docking", metavar="DIR")
    parser.add_argument("--workdir", type=Path, default=None, help="made graphs stay here for the next call")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the numbers here too")
    parser.add_argument("--smoke", action="store_true", help="tiny graphs, one round: that everything works")
    given = parser.parse_args(arguments)
    unknown = [part for part in given.parts if part not in PARTS]
    if unknown:
        parser.error(f"no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    torch.set_num_threads(given.threads)
    content: dict[str, Any] = {"machine": machine(), "command": sys.argv[1:], "rows": []}
    with folder_of(given.workdir) as workdir:
        bench = Bench(
            Commands(workdir, given.threads),
            1 if given.smoke else given.rounds,
            TINY if given.smoke else shape_of(given),
            given.graphs,
            given.data.absolute(),
            not given.no_sidecar,
            given.smoke,
        )
        for part in given.parts or PARTS:
            started = time.perf_counter()
            rows = PARTS[part](bench)
            if given.smoke:
                check(rows)
            content["rows"] += rows
            shown = [{column: row.get(column, "") for column in COLUMNS} for row in rows]
            print(f"\n{part}: {time.perf_counter() - started:.0f} s\n\n{table(shown)}", flush=True)
            write_json(given.json, content)
        tidy(bench)


if __name__ == "__main__":
    main()
