"""The rules of the house, read from the imports."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest

from kit.house import FILES, FLOOR, PACKAGE, SMALL, SRC, files_imported, imports, names, room_of, rooms_imported

WIDTHS = {11, 24, 55, 172, 1252, 2081}
MLFLOW_ROOM = "tracking"
SERVED_MODEL = "scoring/served.py"  # MLflow runs it


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


# Beside invocation.py: what masks secrets, raises limits, sets variables for MLflow or for processes of its own,
# and MLflow's file.
ENVIRONMENT = {
    *("invocation.py", "credentials.py", "limits.py", "processes.py", SERVED_MODEL),
    "cluster/starting.py",
    *("tracking/new_versions.py", "tracking/store.py", "tracking/ui.py"),
}


@pytest.mark.parametrize("path", FILES, ids=names)
def test_the_environment_is_read_in_one_place(path):
    tree = ast.walk(ast.parse(path.read_text()))
    read = {node.attr for node in tree if isinstance(node, ast.Attribute)} & {"environ", "environb", "getenv"}
    assert not read or names(path) in ENVIRONMENT, "ask invocation.py"


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

    commands = {
        "fit",
        "resume",
        "batch",
        "tune",
        "summarise",
        "monitor",
        "leaderboard",
        "evaluate",
        "promote",
        "predict",
    }
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
    assert {name.split(".")[1] for name in loaded} <= {
        *("credentials", "errors", "invocation", "messages", "signals", "version")
    }
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


# Who reads with a library's own function: the readers, and what a file of ours wrote in this process or packed itself.
READS = {"yaml.load", "yaml.safe_load", "json.load", "json.loads", "csv.reader", "csv.DictReader"}
OWN_TEXTS = {
    *("schema/resolve.py", "features/graph.py", "data/store_index.py", "data/demo_codec.py"),
    *("batches/local_engine.py",),
}


@pytest.mark.parametrize("path", FILES, ids=names)
def test_texts_are_read_by_the_readers(path):
    if room_of(path) == "reading" or names(path) in OWN_TEXTS:
        return
    calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
    assert not calls & READS, "ask topotrain.reading"


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


def test_the_picture_of_the_house_is_that_of_the_code(root):
    spec = importlib.util.spec_from_file_location("draw_house", root / "scripts" / "draw_house.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PICTURE.read_text() == script.picture(), "run scripts/draw_house.py"


def test_the_plan_names_every_room_and_only_files_that_are_there(root):
    text = (root / "docs" / "architecture.md").read_text()
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert {name for name in re.findall(r"^\| `(\w+)/`", text, re.M)} == folders
    named = re.findall(r"`((?:\w+/)+\w+)(?:\.py)?`", text)
    assert len(named) > 20
    missing = [name for name in named if not (PACKAGE / f"{name}.py").is_file() and not list(root.glob(f"{name}*"))]
    assert not missing
