"""The rules of the house, read from the imports."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[2] / "src"
PACKAGE = SRC / "topotrain"
FILES = sorted(PACKAGE.rglob("*.py"))

# The house, from the top: a room may import from the floors below its own, and from none above or beside it.
# Typing imports count: what a file names it has to know.
FLOORS = {
    "the program": ("__main__",),
    "click": ("cli",),
    "many runs, judged models, questions": ("batches", "evaluation", "reports"),
    "one run": ("training",),
    "using a model": ("scoring",),
    "structures to graphs; the network": ("features", "model"),
    "files to batches; the server": ("data", "tracking"),
    "what the columns are": ("schema",),
    "what a run is asked to do": ("config",),
    "numbers in, numbers out": ("metrics",),
    "small files that need others": ("invocation", "signals", "files", "progress", "figures", "text"),
    "small files that need none": ("errors", "fields", "version", "credentials"),
}
FLOOR = {room: level for level, rooms in enumerate(reversed(FLOORS.values())) for room in rooms}
SMALL = {*FLOORS["small files that need others"], *FLOORS["small files that need none"]}
WIDTHS = {11, 24, 55, 172, 1252, 2081}
MLFLOW_ROOM = "tracking"
SERVED_MODEL = "scoring/served.py"  # MLflow runs it


def room_of(path: Path) -> str:
    """``model`` for model/network.py, ``cli`` for cli.py, ``__init__`` for the package itself."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Modules that a file imports anywhere: at its top, inside functions, for types alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files_imported(path: Path) -> set[Path]:
    """Our own files that a file imports; of ``from topotrain.cli import models`` that is models alone."""
    named = {name for name in imports(path) if name.split(".")[0] == "topotrain"}
    found = {name: file for name in named if (file := file_of(name))}
    packages = {name.rpartition(".")[0] for name in found}
    return {file for name, file in found.items() if name not in packages}


def file_of(module: str) -> Path | None:
    place = PACKAGE.joinpath(*module.split(".")[1:])
    return next(
        (f for f in (place.with_suffix(".py"), place / "__init__.py") if f.is_file() and place != PACKAGE), None
    )


def rooms_imported(path: Path) -> set[str]:
    return {room_of(file) for file in files_imported(path)}


def names(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_there_is_something_to_read():
    assert len(FILES) > 20
    assert {room_of(path) for path in FILES} - {"__init__"} <= set(FLOOR), "a new room: say on which floor it is"
    assert "tracking" in rooms_imported(PACKAGE / "training" / "fit.py")


@pytest.mark.parametrize("path", FILES, ids=names)
def test_imports_run_downwards(path):
    room = room_of(path)
    if room == "__init__":
        return  # the front door opens rooms on first use; see test_the_front_door_is_lazy
    beside = {other for other in rooms_imported(path) - {room} if FLOOR[other] >= FLOOR[room]}
    assert not {other for other in beside if not {room, other} <= SMALL}, f"{names(path)} imports from above or beside"


def test_no_file_is_in_a_circle():
    graph = {path: files_imported(path) - {path} for path in FILES if room_of(path) != "__init__"}
    TopologicalSorter(graph).prepare()  # CycleError names the files


@pytest.mark.parametrize("path", FILES, ids=names)
def test_who_may_import_what(path):
    used = {name.split(".")[0] for name in imports(path)}
    if room_of(path) != "cli":
        assert "click" not in used
    assert not {"argparse", "pickle", "optparse"} & used


# How MLflow's own objects are used: run.info.run_id, run.data.tags, recorder.client.
MLFLOWS_OWN = re.compile(r"\.info\.|\.data\.(tags|params|metrics)\b|\._?client\b")
OTHER_ROOMS = [path for path in FILES if room_of(path) != MLFLOW_ROOM and names(path) != SERVED_MODEL]


@pytest.mark.parametrize("path", OTHER_ROOMS, ids=names)
def test_mlflow_stays_in_its_room(path):
    assert not [name for name in imports(path) if name.split(".")[0] == "mlflow"]
    used = [line for line in ast.unparse(ast.parse(path.read_text())).splitlines() if MLFLOWS_OWN.search(line)]
    assert not used, "ask the Store instead"


def test_mlflow_s_private_names_are_left_alone():
    for path in FILES:
        private = [name for name in imports(path) if name.startswith("mlflow") and re.search(r"\._(?!_)", name)]
        assert not private, f"{names(path)} imports {private}"


def test_the_front_door_is_lazy():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    at_once = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {node.module for node in at_once if isinstance(node, ast.ImportFrom)} <= {
        "__future__",
        "importlib",
        "typing",
        "topotrain.version",
    }
    assert not [node for node in at_once if isinstance(node, ast.Import)]


def test_the_front_door_opens():
    import topotrain

    commands = {"fit", "resume", "batch", "summarise", "monitor", "leaderboard", "evaluate", "promote", "predict"}
    assert commands < set(topotrain.__all__)
    for name in topotrain.__all__:
        assert getattr(topotrain, name)
    for name in commands:
        assert "tracking_uri" in inspect.signature(getattr(topotrain, name)).parameters, name
    with pytest.raises(AttributeError, match="nonsense"):
        _ = topotrain.nonsense


def test_cli_config_errors_reports_import_no_torch():
    rooms = {room: sorted((PACKAGE / room).glob("[!_]*.py")) for room in ("cli", "config", "reports")}
    assert all(len(paths) >= 4 for paths in rooms.values())
    names = ("", ".errors", ".invocation", ".signals", ".schema.feature_schema")
    modules = [f"topotrain{name}" for name in names]
    modules += [f"topotrain.{room}.{path.stem}" for room, paths in rooms.items() for path in paths]
    script = (
        f"import sys; sys.path.insert(0, {str(SRC)!r}); import importlib\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "    heavy = [m for m in ('torch', 'mlflow', 'pandas', 'scipy', 'matplotlib') if m in sys.modules]\n"
        "    assert not heavy, f'{name} imports {heavy}'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_command_line_starts_with_click_and_little_else():
    """The help is shown at once: what a command needs is imported inside it."""
    script = f"import sys; sys.path.insert(0, {str(SRC)!r}); import topotrain.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded = {name for name in done.stdout.split() if name.startswith("topotrain.") and ".cli" not in name}
    assert {name.split(".")[1] for name in loaded} <= {"credentials", "errors", "invocation", "signals", "version"}
    assert not {"numpy", "pydantic", "yaml", "rich", "platformdirs"} & set(done.stdout.split())


@pytest.mark.parametrize("path", FILES, ids=names)
def test_no_literal_widths(path):
    found = [
        f"line {node.lineno}: {node.value}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and type(node.value) is int and node.value in WIDTHS
    ]
    assert not found


@pytest.mark.parametrize("path", FILES, ids=names)
def test_nothing_is_loaded_by_unpickling(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if called == "torch.load":
            assert given.get("weights_only") == "True", f"line {node.lineno}"
        if called == "np.load":
            assert given.get("allow_pickle") == "False", f"line {node.lineno}"
        if called == "yaml.load":
            assert given.get("Loader") == "_UniqueKeyLoader", f"line {node.lineno}"


# Grown past the size at which to ask for a second job; shorten this list, do not add to it without a reason.
LONG_FILES = {}
LONG_FUNCTIONS: dict[str, str] = {}


@pytest.mark.parametrize("path", FILES, ids=names)
def test_files_and_functions_stay_short(path):
    text = path.read_text()
    if names(path) not in LONG_FILES:
        assert text.count("\n") <= 400
    long = {
        f"{names(path)}:{node.name}": node.end_lineno - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno + 1 > 60
    }
    assert not set(long) - set(LONG_FUNCTIONS), long
