"""The house: its floors, and who imports what, read from the code. Held by tests, drawn by scripts/draw_house.py."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SRC = Path(__file__).resolve().parents[2] / "src"
PACKAGE = SRC / "topotrain"
FILES = sorted(PACKAGE.rglob("*.py"))

# From the top: a room may import from the floors below its own, and from none above or beside it.
# Typing imports count: what a file names it has to know.
FLOORS = {
    "the program": ("__main__",),
    "the command line": ("cli",),
    "many runs, verdicts, reports": ("batches", "evaluation", "reports"),
    "one run": ("training",),
    "using a model": ("scoring",),
    "structures to graphs; the network": ("features", "model"),
    "files to batches; the server": ("data", "tracking"),
    "what the columns are": ("schema",),
    "what a run is asked to do": ("config",),
    "numbers in, numbers out": ("metrics",),
    "small things that need others": (
        *(
            "cluster",
            "disk",
            "figures",
            "files",
            "invocation",
            "messages",
            "processes",
            "progress",
            "reading",
            "scratch",
            "signals",
            "text",
        ),
    ),
    "small things that need none": ("credentials", "errors", "fields", "limits", "version"),
}
FLOOR = {room: level for level, rooms in enumerate(reversed(FLOORS.values())) for room in rooms}
SMALL = {*FLOORS["small things that need others"], *FLOORS["small things that need none"]}


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
    """The file of one of our own modules."""
    place = PACKAGE.joinpath(*module.split(".")[1:])
    files = (place.with_suffix(".py"), place / "__init__.py") if place != PACKAGE else ()
    return next((file for file in files if file.is_file()), None)


def rooms_imported(path: Path) -> set[str]:
    """Rooms that a file imports from."""
    return {room_of(file) for file in files_imported(path)}


def names(path: Path) -> str:
    """``model/network.py``."""
    return path.relative_to(PACKAGE).as_posix()
