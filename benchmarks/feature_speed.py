"""What building a graph costs on one core, everything included.

    python benchmarks/feature_speed.py FOLDER [--repeat N] [--edge-module ID]

Builds every structure of FOLDER into a temporary folder once (imports are reported apart), then N times
more, one structure at a time: reading, all four modules, writing, sidecar and summary. The least processor
time of each structure's N builds is its cost (others may use the machine); the mean over structures is
printed, with wall-clock time and stages of the same builds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

from topotrain.features import build_graphs  # noqa: E402  threads are set before libraries load
from topotrain.features.builder import find_structures  # noqa: E402


def calibrate() -> float:
    """Processor seconds of a fixed loop, now: a busy machine shows here as well."""
    started, total = time.process_time(), 0
    for number in range(3_000_000):
        total += number * number
    return time.process_time() - started


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--edge-module", default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        warm = build_graphs(arguments.folder, Path(folder, "warm"), edge_module=arguments.edge_module)
        first = time.perf_counter() - started
        from topotrain.data.graph_file import read_graph  # torch: its import belongs to no measurement

        graphs = [read_graph(Path(folder, "warm", f"{key}.pt")) for key in warm.built]
        best = []
        for path in find_structures(arguments.folder).values():
            runs = []
            for number in range(arguments.repeat):
                begin = time.perf_counter(), time.process_time()
                report = build_graphs(path, Path(folder, f"{path.stem}-{number}"), edge_module=arguments.edge_module)
                runs.append((time.process_time() - begin[1], time.perf_counter() - begin[0], report.stage_seconds))
            best.append(min(runs, key=lambda run: run[0]))
    count = len(graphs)
    result = {
        "structures": count,
        "nodes_mean": sum(len(graph.x) for graph in graphs) / count,
        "edges_mean": sum(len(graph.edge_attr) for graph in graphs) / count,
        "first_pass_with_imports_s": round(first, 3),
        "cpu_s_per_structure": round(sum(run[0] for run in best) / count, 4),
        "wall_s_per_structure": round(sum(run[1] for run in best) / count, 4),
        "cpu_s_each": [round(run[0], 3) for run in best],
        "stage_s_per_structure": {name: round(sum(run[2][name] for run in best) / count, 4) for name in best[0][2]},
        "calibration_loop_s": round(calibrate(), 3),
        "load_average": os.getloadavg(),
    }
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
