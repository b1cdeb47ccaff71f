"""The parts of the benchmark, each a list of rows: ours, the reference's, and how many times as fast ours is."""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from made_graphs import DEMO, LARGE, LARGE_WIDE, WIDE, Made, Shape, write_set
from measuring import Spread, forget_pages, ratios, seconds
from processes import OURS, THEIRS, Commands, Timeline
from steps import BATCH, FORMULA, measure_step, roofline
from stores import clone_runs, model_of, run_id_of

Row = dict[str, Any]
T = TypeVar("T")


@dataclass
class Bench:
    """What the parts share.

    Args:
        commands: of both sides.
        rounds: of every measurement.
        shape: of made graphs.
        graphs: how many; none for each part's own numbers.
        data: folder of real graphs (``graphs/``, ``train.csv``, ``val.csv``), if there is one.
        sidecar: whether made graphs have one.
        smoke: everything tiny, to see that it works.
    """

    commands: Commands
    rounds: int
    shape: Shape = DEMO
    graphs: Sequence[int] = ()
    data: Path | None = None
    sidecar: bool = True
    smoke: bool = False
    _trained: dict[Any, list[dict[str, tuple[Timeline, Path]]]] = field(default_factory=dict)

    def sizes(self, usual: Sequence[int]) -> list[int]:
        """How many graphs."""
        return [24] if self.smoke else list(self.graphs) or list(usual)

    def made(self, number: int, shape: Shape | None = None) -> Made:
        """So many graphs; those that are there from an earlier call are kept."""
        shape = shape or self.shape
        directed, bare = "-directed" * shape.directed, "" if self.sidecar else "-bare"
        name = f"{number}-{shape.nodes}-{shape.edges}-{shape.node_dim}-{shape.edge_dim}-{shape.spread}{directed}{bare}"
        made: list[Made] = []
        root = self.commands.workdir / "made" / name
        taken = seconds(lambda: made.append(write_set(root, shape, number, sidecar=self.sidecar)))
        print(f"{number} graphs of {shape}: made in {taken:.1f} s", file=sys.stderr, flush=True)
        return made[0]

    def real(self) -> Made | None:
        """The real graphs, or a line that there are none."""
        if self.data is None or not (self.data / "graphs").is_dir():
            print(f"no real graphs at {self.data}: skipped (--data)", file=sys.stderr, flush=True)
            return None
        return Made(self.data / "graphs", self.data / "train.csv", self.data / "val.csv")

    def trained(self, made: Made, epochs: int, limit: int | None = None) -> list[dict[str, tuple[Timeline, Path]]]:
        """Runs of both sides in turn, ours with nothing packed; made once for all parts that ask."""
        key = (made, epochs, limit)
        if key not in self._trained:
            self._trained[key] = []
            for number in range(self.rounds):
                sides = (OURS, THEIRS) if number % 2 == 0 else (THEIRS, OURS)
                self._trained[key].append(
                    {side: self.commands.train(side, made, epochs, limit=limit) for side in sides}
                )
        return self._trained[key]

    def each(self, actions: Mapping[str, Callable[[], T]]) -> dict[str, T]:
        """The results of some actions, one after another; where times do not matter, side by side."""
        with ThreadPoolExecutor(2 if self.smoke else 1) as pool:
            started = {name: pool.submit(action) for name, action in actions.items()}
            return {name: future.result() for name, future in started.items()}

    def epochs(self, usual: int) -> int:
        """How many."""
        return 2 if self.smoke else usual


def compared(part: str, what: str, unit: str, goal: str, pairs: Sequence[tuple[float, float]]) -> Row:
    """A row of ours and the reference's, measured side by side."""
    ours, theirs = zip(*pairs, strict=True)
    row = {"part": part, "what": what, "unit": unit, "ours": Spread.of(ours), "reference": Spread.of(theirs)}
    return {**row, "times as fast": ratios(theirs, ours), "goal": goal}


def alone(part: str, what: str, unit: str, goal: str, values: Sequence[float]) -> Row:
    """A row of ours alone."""
    return {"part": part, "what": what, "unit": unit, "ours": Spread.of(values), "goal": goal}


def step(bench: Bench) -> list[Row]:
    """One optimiser step."""
    shapes = [("3.2 x", LARGE), ("2.1 x", DEMO), ("2.7 x", LARGE_WIDE), ("", WIDE)]
    if bench.smoke:
        shapes = [("", bench.shape)]
    rows = []
    for goal, shape in shapes:
        shape = replace(shape, directed=bench.shape.directed)
        found = measure_step(shape, bench.commands.workdir / "steps", max(bench.rounds, 1 if bench.smoke else 15))
        row = {"part": "step", "what": f"{BATCH} x {shape}", "unit": "ms of processor", "ours": found["ours"]}
        rows.append({**row, "reference": found["reference"], "times as fast": found["ratio"], "goal": goal,
                     "losses and gradients differ by": found["losses and gradients differ by"]})  # fmt: skip
    return rows


def _sets(bench: Bench) -> list[tuple[str, Made, int, str]]:
    """Description, graphs, epochs and goal of an epoch."""
    found = []
    real = None if bench.smoke else bench.real()
    if real is not None:
        found.append(("real graphs", real, 10, "3 x"))
    for number in bench.sizes([14400]):
        found.append((f"{number:,} made graphs", bench.made(number), bench.epochs(3), "4 x"))
    return found


def epoch(bench: Bench) -> list[Row]:
    """A warm epoch."""
    rows = []
    for name, made, epochs, goal in _sets(bench):
        runs = bench.trained(made, epochs)
        pairs = [(run[OURS][0].warm_epoch, run[THEIRS][0].warm_epoch) for run in runs]
        rows.append(compared("epoch", f"warm epoch, {name}", "s", goal, pairs))
    return rows


def first_epoch(bench: Bench) -> list[Row]:
    """From the start of the process to the end of the first epoch."""
    rows = []
    for name, made, epochs, _ in _sets(bench):
        pairs = [(r[OURS][0].first_epoch, r[THEIRS][0].first_epoch) for r in bench.trained(made, epochs)]
        rows.append(compared("first-epoch", f"start to first epoch, nothing packed, {name}", "s", "1 x", pairs))
    return rows


def resident(bench: Bench) -> list[Row]:
    """Memory above that of a process that has imported what a run imports."""
    sets = [(number, bench.shape) for number in bench.sizes([20000, 100000])]
    if not bench.smoke and not bench.graphs:
        sets.append((14400, WIDE))
    imports = bench.each({side: partial(bench.commands.imports, side) for side in (OURS, THEIRS)})
    rows = []
    for number, shape in sets:
        made = bench.made(number, shape)
        runs = bench.trained(made, 2, limit=None if bench.smoke else 500)
        what = f"{number:,} graphs of {shape}"
        held: dict[str, Callable[[Timeline, str], float]] = {
            "most resident": lambda line, side: line.peak - imports[side]["peak"],
            "most anonymous": lambda line, side: line.peak_anonymous - imports[side]["anon"],
            "steady anonymous": lambda line, side: line.steady()[0] - imports[side]["anon"],
            "steady of files": lambda line, side: line.steady()[1] - imports[side]["file"],
            "most of other processes": lambda line, _: line.peak_of_children,
        }
        for name, of in held.items():
            ours, theirs = (Spread.of([of(run[side][0], side) for run in runs]) for side in (OURS, THEIRS))
            goal = "500 MB" if name == "most resident" else ""
            above = "" if name.endswith("processes") else " above the imports"
            row = {"part": "memory", "what": f"{name}{above}, {what}", "unit": "MB", "ours": ours}
            rows.append({**row, "reference": theirs, "goal": goal})
    return rows


def schema(bench: Bench) -> list[Row]:
    """The schema of a directory, first and again."""
    rows = []
    for number in bench.sizes([100000]):
        made, values = bench.made(number), []
        for _ in range(bench.rounds):
            folder = bench.commands.fresh("schema")
            ask = ("schema", str(made.graphs), "--json")
            values.append([bench.commands.topotrain(*ask, cache=folder / "cache").end])
            if not bench.smoke:
                values[-1].append(bench.commands.topotrain(*ask, cache=folder / "cache").end)
                # A run keeps more than a question does.
                bench.commands.train(OURS, made, 1, cache=folder / "cache", limit=1)
                values[-1].append(bench.commands.topotrain(*ask, cache=folder / "cache").end)
        when = ("with nothing kept", "again", "after a run")
        for name, column in zip(when, zip(*values, strict=True), strict=False):
            goal = "" if name == when[0] else "2 s"
            rows.append(alone("schema", f"schema of {number:,} graphs, {name}", "s", goal, column))
    return rows


def predict(bench: Bench) -> list[Row]:
    """Scoring a directory."""
    commands, few = bench.commands, bench.made(24)
    trained = bench.trained(few, 2)[0]
    model = model_of(trained[OURS][1])
    checkpoint = trained[THEIRS][1] / "checkpoints" / "last.ckpt"
    rows = []
    for number in bench.sizes([5000]):
        made = bench.made(number)
        times = ("start", "cold", "warm", "packed")
        taken: dict[str, dict[str, list[float]]] = {when: {OURS: [], THEIRS: []} for when in times}
        for _ in range(bench.rounds):
            folder = commands.fresh("predict")
            for when in ("warm",) if bench.smoke else taken:
                graphs = few.graphs if when == "start" else made.graphs
                if when == "packed":
                    commands.topotrain("schema", str(graphs), cache=folder / "cache")
                actions = {
                    OURS: partial(_score_ours, commands, model, graphs, folder, cold=when == "cold"),
                    THEIRS: partial(_score_theirs, commands, checkpoint, graphs, folder, cold=when == "cold"),
                }
                for side, line in bench.each(actions).items():
                    taken[when][side].append(line.end)
            _same_graphs(folder / f"{OURS}.csv", folder / f"{THEIRS}.csv", number)
        for when in ("warm",) if bench.smoke else times[1:]:
            pairs = list(zip(taken[when][OURS], taken[when][THEIRS], strict=True))
            rows.append(compared("predict", f"predict, {number:,} graphs, {when}, whole command", "s", "", pairs))
            if bench.smoke:
                continue
            starts = zip(taken["start"][OURS], taken["start"][THEIRS], strict=True)
            above = [(a - c, b - d) for (a, b), (c, d) in zip(pairs, starts, strict=True)]
            rows.append(compared("predict", f"predict, {number:,} graphs, {when}, above its start", "s", "4 x", above))
    return rows


def _score_ours(commands: Commands, model: Path, graphs: Path, folder: Path, *, cold: bool) -> Timeline:
    if cold:
        forget_pages(graphs)
    files = ("--model", str(model), "--graphs", str(graphs), "--out", str(folder / f"{OURS}.csv"))
    return commands.topotrain("predict", *files, cache=folder / "cache")


def _score_theirs(commands: Commands, checkpoint: Path, graphs: Path, folder: Path, *, cold: bool) -> Timeline:
    if cold:
        forget_pages(graphs)
    files = ("--checkpoint", str(checkpoint), "--graphs", str(graphs), "--out", str(folder / f"{THEIRS}.csv"))
    return commands.reference("score", *files)


def _same_graphs(ours: Path, theirs: Path, number: int) -> None:
    tables = []
    for path in (ours, theirs):
        with path.open(encoding="utf-8", newline="") as file:
            rows = [{name.lower(): value for name, value in row.items()} for row in csv.DictReader(file)]
        tables.append({row["model"]: float(row["pred_dockq"]) for row in rows})
    if tables[0].keys() != tables[1].keys() or len(tables[0]) != number:
        raise SystemExit(f"{ours} and {theirs} name other graphs: {len(tables[0])} and {len(tables[1])} of {number}")


def recording(bench: Bench) -> list[Row]:
    """What recording and checkpoints take of an epoch."""
    made, commands = bench.made(24) if bench.smoke else None, bench.commands
    shares: dict[str, list[float]] = {"recording": [], "checkpoints": []}
    for _ in range(bench.rounds):
        folder = commands.fresh("recording")
        chosen = made.overrides if made else []
        settings = [*chosen, f"trainer.num_epochs={bench.epochs(16)}"]
        code = f"import shares; shares.main({commands.store(folder)!r}, {settings!r})"
        output = commands.python(code).output
        for name, value in (line.split() for line in output.splitlines() if line.startswith(tuple(shares))):
            shares[name].append(float(value))
    goals = {"recording": "1 %", "checkpoints": "3 %"}
    return [alone("recording", f"{n} in an epoch on the demo data", "%", goals[n], v) for n, v in shares.items()]


def commands(bench: Bench) -> list[Row]:
    """Short commands, and what a short run does outside its epochs."""
    call, number = bench.commands, 20 if bench.smoke else 2000
    if bench.smoke:
        runs = [run[OURS] for run in bench.trained(bench.made(24), 2)]
    else:
        runs = [_demo_run(call) for _ in range(bench.rounds)]
    store = clone_runs(runs[0][1] / "mlflow.db", call.fresh("many") / "mlflow.db", number)
    where = ("--tracking-uri", f"sqlite:///{store}")
    actions: dict[str, Callable[[], Timeline]] = {
        "import": lambda: call.python("from mlflow import MlflowClient"),
        "--help": lambda: call.topotrain("--help"),
        "summarise": lambda: call.topotrain("summarise", "--run-id", run_id_of(store), *where),
        "leaderboard": lambda: call.topotrain("leaderboard", *where),
    }
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(bench.rounds):
        for name, line in bench.each(actions).items():
            taken[name].append(line.end)
    rows = [alone("commands", "topotrain --help", "s", "0.1 s", taken["--help"])]
    rows.append(alone("commands", "import of MLflow's client", "s", "", taken["import"]))
    for name in ("summarise", "leaderboard"):
        above = [one - other for one, other in zip(taken[name], taken["import"], strict=True)]
        rows.append(alone("commands", f"{name}, {number:,} runs, above that import", "s", "0.5 s", above))
    outside = [line.outside_epochs for line, _ in runs]
    rows.append(alone("commands", "short run outside its epochs", "s", "5 s", outside))
    rows.append(alone("commands", "of these, after the last epoch", "s", "", [line.closing for line, _ in runs]))
    return rows


def _demo_run(call: Commands) -> tuple[Timeline, Path]:
    folder = call.fresh("demo")
    settings = ("--tracking-uri", call.store(folder), "--override", "trainer.num_epochs=15")
    return call.topotrain("run", *settings, here=folder), folder


def per_graph(bench: Bench) -> list[Row]:
    """Time of a graph in a warm epoch, whatever the number of graphs."""
    rows, epochs = [], {1000: 10, 10000: 4, 100000: 2}
    for number in bench.sizes(list(epochs)):
        made = bench.made(number)
        lines = [bench.commands.train(OURS, made, bench.epochs(epochs.get(number, 3)))[0] for _ in range(bench.rounds)]
        ours = Spread.of([1e6 * one.warm_epoch / number for one in lines])
        rows.append({"part": "per-graph", "what": f"a graph of {number:,}", "unit": "µs", "ours": ours,
                     "goal": "within 10 %"})  # fmt: skip
    return rows


def roof(bench: Bench) -> list[Row]:
    """A step against what this processor does."""
    shapes = {"smoke": bench.shape} if bench.smoke else {"large": LARGE, "demo": DEMO, "wide": WIDE}
    speed, found = roofline(list(shapes.items()), bench.commands.workdir / "steps", 1 if bench.smoke else 15)
    rows = [
        {"part": "roofline", "what": name, "unit": name.split(",")[0], "ours": value} for name, value in speed.items()
    ]
    print(FORMULA, file=sys.stderr)
    for row in found:
        for name in ("GFLOP", "products, ms", "GB", "moving, ms", "step, ms", "times the roof", "GFLOP/s"):
            rows.append({"part": "roofline", "what": f"{name}, {row['batch']}", "unit": "", "ours": row[name]})
    return rows


PARTS: dict[str, Callable[[Bench], list[Row]]] = {
    "step": step,
    "epoch": epoch,
    "first-epoch": first_epoch,
    "memory": resident,
    "schema": schema,
    "predict": predict,
    "recording": recording,
    "commands": commands,
    "per-graph": per_graph,
    "roofline": roof,
}


def tidy(bench: Bench) -> None:
    """Remove what runs left; made graphs stay."""
    shutil.rmtree(bench.commands.workdir / "runs", ignore_errors=True)
