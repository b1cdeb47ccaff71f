"""How fast is what goes beyond one process, beside one process? The figures of docs/scale.md.

python benchmarks/scale.py ddp --graphs 2000 --rounds 3 --workdir made --json scale.json

Parts: ``build`` (structures to graphs) and ``score`` (graphs to scores) by one process, by several, and by several of
Ray; ``batch`` (what a run costs more as a batch's job); ``ddp`` (epochs of one process and of several that train
together); ``tune`` (what a tuning of the demo data brings on its hold-out targets, beside the default values).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import scale_ddp
import scale_engines
import scale_tune
from measuring import machine, table, write_json

PARTS = {
    "build": scale_engines.build,
    "score": scale_engines.score,
    "batch": scale_engines.batch,
    "ddp": scale_ddp.measure,
    "tune": scale_tune.measure,
}


def main() -> None:
    """Measure the parts asked for, and print a table of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="by default all")
    parser.add_argument("--graphs", type=int, default=2000, help="of a set (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--no-ray", action="store_true", help="leave Ray out of the parts build and score")
    parser.add_argument("--workdir", type=Path, default=None, help="keeps what was made; by default a temporary folder")
    parser.add_argument("--json", type=Path, default=None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workdir = (given.workdir or Path(folder)).absolute()
        workdir.mkdir(parents=True, exist_ok=True)
        results = {}
        for part in given.parts or PARTS:
            more = {"ray": not given.no_ray} if part in ("build", "score") else {}
            numbers = {"graphs": given.graphs, "rounds": given.rounds, "processes": given.processes}
            results[part] = PARTS[part](workdir, **numbers, **more)
            print(f"\n{part}:\n{table(results[part])}")
    write_json(given.json, {"machine": machine(), **results})


if __name__ == "__main__":
    main()
