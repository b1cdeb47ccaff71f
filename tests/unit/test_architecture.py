"""The rules of the house, read from the imports."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[2] / "src"
PACKAGE = SRC / "topotrain"
FILES = sorted(PACKAGE.rglob("*.py"))

# Floors of the house, the lowest first; a room may import from its own floor (without a circle) and from below.
FLOORS = (
    ("errors", "fields", "version", "credentials"),
    ("text", "files", "progress", "figures", "invocation"),
    ("config", "signals"),
    ("schema",),
    ("data", "tracking", "metrics"),
    ("features", "model"),
    ("scoring",),
    ("training",),
    ("batches", "evaluation", "reports"),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
WIDTHS = {11, 24, 55, 172, 1252, 2081}


def room_of(path: Path) -> str:
    """``model`` for model/network.py, ``cli`` for cli.py, ``__init__`` for the package itself."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, *, typing_too: bool) -> Iterator[str]:
    """Modules that a file imports anywhere, those inside functions included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[ast.AST] = set()
    if not typing_too:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                skipped |= {inner for statement in node.body for inner in ast.walk(statement)}
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported(path: Path, *, typing_too: bool = False) -> set[str]:
    parts = (name.split(".") for name in imports(path, typing_too=typing_too))
    return {part[1] for part in parts if part[0] == "topotrain" and len(part) > 1 and part[1] in FLOOR}


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
    above = {other for other in rooms_imported(path) if FLOOR[other] > FLOOR[room]}
    assert not above, f"{names(path)} imports from above: {above}"


def test_no_circles_between_rooms():
    graph: dict[str, set[str]] = defaultdict(set)
    for path in FILES:
        if room_of(path) != "__init__":
            graph[room_of(path)] |= rooms_imported(path) - {room_of(path)}
    done: set[str] = set()
    while ready := [room for room in graph if room not in done and graph[room] <= done | (set(FLOOR) - set(graph))]:
        done |= set(ready)
    assert done == set(graph), f"rooms that import each other: {set(graph) - done}"


@pytest.mark.parametrize("path", FILES, ids=names)
def test_who_may_import_what(path):
    room = room_of(path)
    used = {name.split(".")[0] for name in imports(path, typing_too=False)}
    for_types = {name.split(".")[0] for name in imports(path, typing_too=True)}
    if room != "tracking" and names(path) != "scoring/served.py":
        assert "mlflow" not in used
        assert "mlflow" not in for_types or room == "reports"
    if room != "cli":
        assert "click" not in for_types
    assert not {"argparse", "pickle", "optparse"} & for_types


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
